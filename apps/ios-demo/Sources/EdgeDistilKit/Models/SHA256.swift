import Foundation
#if canImport(CryptoKit)
import CryptoKit
#endif

/// The SHA-256 of a file's bytes, in hexadecimal digits. Throws `KitError` where it cannot be read.
func sha256(of url: URL) throws -> String {
    guard FileManager.default.fileExists(atPath: url.path), let stream = InputStream(url: url) else {
        throw KitError.missing(url)
    }
    stream.open()
    defer { stream.close() }
    #if canImport(CryptoKit)
    var hash = CryptoKit.SHA256()
    #else
    var hash = PortableSHA256()
    #endif
    var chunk = [UInt8](repeating: 0, count: 1 << 18)
    while true {
        let count = stream.read(&chunk, maxLength: chunk.count)
        guard count >= 0 else {
            throw KitError.unreadable(url, reason: stream.streamError?.localizedDescription ?? "reading failed")
        }
        if count == 0 { break }
        chunk.withUnsafeBytes { hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
    return hexadecimal(hash.finalize())
}

/// The SHA-256 of a text's UTF-8 bytes, in hexadecimal digits.
func sha256(of text: String) -> String {
    var hash = PortableSHA256()
    Array(text.utf8).withUnsafeBytes { hash.update(bufferPointer: $0) }
    return hexadecimal(hash.finalize())
}

private func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
}

/// SHA-256 after FIPS 180-4, for systems without CryptoKit. Its interface is that of CryptoKit's.
struct PortableSHA256 {
    private static let blockBytes = 64

    private var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    /// What is left of the bytes so far after the last whole block.
    private var rest: [UInt8] = []
    private var total: UInt64 = 0

    mutating func update(bufferPointer bytes: UnsafeRawBufferPointer) {
        total += UInt64(bytes.count)
        var remaining = bytes[...]
        if !rest.isEmpty {
            let missing = remaining.prefix(Self.blockBytes - rest.count)
            rest += missing
            remaining = remaining.dropFirst(missing.count)
            guard rest.count == Self.blockBytes else { return }
            rest.withUnsafeBytes { Self.compress($0, into: &state) }
            rest.removeAll(keepingCapacity: true)
        }
        let whole = remaining.count / Self.blockBytes * Self.blockBytes
        Self.compress(UnsafeRawBufferPointer(rebasing: remaining.prefix(whole)), into: &state)
        rest += remaining.dropFirst(whole)
    }

    /// The 32 bytes of the digest.
    func finalize() -> [UInt8] {
        var tail = rest + [0x80]
        while tail.count % Self.blockBytes != 56 { tail.append(0) }
        tail += withUnsafeBytes(of: (total * 8).bigEndian) { Array($0) }
        var state = state
        tail.withUnsafeBytes { Self.compress($0, into: &state) }
        return state.flatMap { word in withUnsafeBytes(of: word.bigEndian) { Array($0) } }
    }

    private static func compress(_ blocks: UnsafeRawBufferPointer, into state: inout [UInt32]) {
        state.withUnsafeMutableBufferPointer { state in
            roundConstants.withUnsafeBufferPointer { constants in
                withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 64) { schedule in
                    for block in Swift.stride(from: 0, to: blocks.count, by: blockBytes) {
                        compress(blocks, at: block, schedule, constants, state)
                    }
                }
            }
        }
    }

    private static func compress(
        _ blocks: UnsafeRawBufferPointer,
        at block: Int,
        _ schedule: UnsafeMutableBufferPointer<UInt32>,
        _ constants: UnsafeBufferPointer<UInt32>,
        _ state: UnsafeMutableBufferPointer<UInt32>
    ) {
        for word in 0..<16 {
            let bytes = blocks.loadUnaligned(fromByteOffset: block + 4 * word, as: UInt32.self)
            schedule[word] = UInt32(bigEndian: bytes)
        }
        for word in 16..<64 {
            let (early, late) = (schedule[word - 15], schedule[word - 2])
            let sigma0 = rotated(early, 7) ^ rotated(early, 18) ^ (early >> 3)
            let sigma1 = rotated(late, 17) ^ rotated(late, 19) ^ (late >> 10)
            schedule[word] = schedule[word - 16] &+ sigma0 &+ schedule[word - 7] &+ sigma1
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        for round in 0..<64 {
            let sum1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
            let chosen = (e & f) ^ (~e & g)
            let first = h &+ sum1 &+ chosen &+ constants[round] &+ schedule[round]
            let sum0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
            let majority = (a & b) ^ (a & c) ^ (b & c)
            (h, g, f, e) = (g, f, e, d &+ first)
            (d, c, b, a) = (c, b, a, first &+ sum0 &+ majority)
        }
        for (position, word) in [a, b, c, d].enumerated() { state[position] &+= word }
        for (position, word) in [e, f, g, h].enumerated() { state[position + 4] &+= word }
    }

    @inline(__always)
    private static func rotated(_ word: UInt32, _ bits: UInt32) -> UInt32 {
        word >> bits | word << (32 - bits)
    }

    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
    private static let roundConstants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]
}
