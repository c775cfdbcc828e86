import Foundation

/// Reading a text file of a user's own, whatever its encoding.
public enum TextFile {
    /// In bytes. Larger files are refused: 8 MB are more than a thousand pages.
    public static let largest = 8_000_000

    /// The text of a file: UTF-8, or UTF-16 by its byte order mark or its zeros, or Windows-1252.
    ///
    /// Throws `TextFileError`. On Apple's systems it asks for access to a file that the user picked outside the app.
    public static func read(_ url: URL, largest: Int = TextFile.largest) throws -> String {
        #if canImport(Darwin)
            let scoped = url.startAccessingSecurityScopedResource()
            defer { if scoped { url.stopAccessingSecurityScopedResource() } }
        #endif
        let name = url.lastPathComponent
        let bytes: Data
        do {
            let file = try FileHandle(forReadingFrom: url)
            defer { try? file.close() }
            // One byte more than is allowed says that it is too large without reading all of it.
            bytes = try file.read(upToCount: largest + 1) ?? Data()
        } catch {
            throw TextFileError.unreadable(name: name, reason: error.localizedDescription)
        }
        guard bytes.count <= largest else { throw TextFileError.tooLarge(name: name, largest: largest) }
        guard var text = decode(bytes) else { throw TextFileError.noText(name: name) }
        guard !text.allSatisfy(\.isWhitespace) else { throw TextFileError.empty(name: name) }
        // Here, and not on the main thread when a passage is made of it.
        text.makeContiguousUTF8()
        return text
    }

    static func decode(_ bytes: Data) -> String? {
        let marks: [([UInt8], String.Encoding)] = [
            ([0xEF, 0xBB, 0xBF], .utf8), ([0xFF, 0xFE], .utf16LittleEndian), ([0xFE, 0xFF], .utf16BigEndian),
        ]
        let text: String?
        if let (mark, encoding) = marks.first(where: { bytes.starts(with: $0.0) }) {
            let rest = Data(bytes.dropFirst(mark.count))
            // Half a unit at the end is a file cut short.
            text = encoding == .utf8 || rest.count.isMultiple(of: 2) ? String(data: rest, encoding: encoding) : nil
        } else if let encoding = unmarkedUTF16(bytes) {
            text = String(data: bytes, encoding: encoding)
        } else {
            text = String(data: bytes, encoding: .utf8) ?? windows1252(bytes)
        }
        // A picture or an archive decodes too, to what no text has.
        return text.flatMap { $0.unicodeScalars.contains(where: isBinary) ? nil : $0 }
    }

    /// Most Western text in UTF-16 has a zero in every other byte.
    private static func unmarkedUTF16(_ bytes: Data) -> String.Encoding? {
        guard bytes.count >= 2, bytes.count.isMultiple(of: 2) else { return nil }
        var zeros = [0, 0]
        for (index, byte) in bytes.prefix(4096).enumerated() where byte == 0 { zeros[index % 2] += 1 }
        let pairs = min(bytes.count, 4096) / 2
        if zeros[0] == 0, zeros[1] * 2 > pairs { return .utf16LittleEndian }
        if zeros[1] == 0, zeros[0] * 2 > pairs { return .utf16BigEndian }
        return nil
    }

    /// By a table, for Foundation decodes it on Apple's systems alone.
    private static func windows1252(_ bytes: Data) -> String? {
        // Of the bytes 0x80 to 0x9F, 0 for those that stand for nothing; all others are their own scalars.
        let special: [UInt32] = [
            0x20AC, 0, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
            0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017D, 0,
            0, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
            0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0, 0x017E, 0x0178,
        ]
        var text = String.UnicodeScalarView()
        for byte in bytes {
            let value = (0x80..<0xA0).contains(byte) ? special[Int(byte - 0x80)] : UInt32(byte)
            guard value != 0, let scalar = Unicode.Scalar(value) else { return nil }
            text.append(scalar)
        }
        return String(text)
    }

    private static func isBinary(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 && ![0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1B].contains(scalar.value)
    }
}

/// Why a file is not opened.
public enum TextFileError: LocalizedError, Equatable, Sendable {
    case unreadable(name: String, reason: String)
    case tooLarge(name: String, largest: Int)
    case noText(name: String)
    case empty(name: String)

    public var errorDescription: String? {
        switch self {
        case .unreadable(let name, let reason): "\(name) cannot be read: \(reason)".asSentence
        case .tooLarge(let name, let largest): "\(name) has more than \(largest / 1_000_000) MB."
        case .noText(let name): "\(name) is no text file."
        case .empty(let name): "\(name) has no text in it."
        }
    }

    public var recoverySuggestion: String? {
        switch self {
        case .unreadable: "Check that the file is still there and that this app may read it."
        case .tooLarge: "Open a part of it."
        case .noText, .empty: "Open a plain text file, best in UTF-8."
        }
    }
}
