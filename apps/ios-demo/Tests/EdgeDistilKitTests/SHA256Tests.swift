import XCTest

@testable import EdgeDistilKit

final class SHA256Tests: XCTestCase {
    /// Examples of FIPS 180-4, as NIST publishes them.
    private let published = [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        (
            "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                + "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"
        ),
        (
            String(repeating: "a", count: 1_000_000),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        ),
    ]

    func testPublishedExamples() throws {
        let file = try temporaryFolder().appendingPathComponent("text")
        for (text, digest) in published {
            XCTAssertEqual(sha256(of: text), digest)
            try Data(text.utf8).write(to: file)
            XCTAssertEqual(try sha256(of: file), digest)
        }
    }

    func testPiecesOfAnyLengthGiveTheDigestOfTheWhole() {
        let text = published[3].0 + published[2].0 + published[3].0
        let bytes = Array(text.utf8)
        for length in 1...bytes.count {
            var hash = PortableSHA256()
            bytes.withUnsafeBytes { bytes in
                for start in stride(from: 0, to: bytes.count, by: length) {
                    let piece = bytes[start..<min(start + length, bytes.count)]
                    hash.update(bufferPointer: UnsafeRawBufferPointer(rebasing: piece))
                }
            }
            let digest = hash.finalize().map { String(format: "%02x", $0) }.joined()
            XCTAssertEqual(digest, sha256(of: text), "in pieces of \(length)")
        }
    }

    func testAFileThatIsNotThereIsMissing() throws {
        let file = try temporaryFolder().appendingPathComponent("none")
        assertThrows(KitError.missing(file)) { try sha256(of: file) }
    }
}
