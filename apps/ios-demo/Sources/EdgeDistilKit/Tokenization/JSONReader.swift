/// A JSON value that keeps the members of an object as they stand: in order, and told apart byte by byte.
///
/// Foundation's readers put members into dictionaries of strings, where keys that are canonically equivalent, such as
/// é in one scalar and in two, are the same key. In a vocabulary they are two tokens.
enum JSONValue {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([(key: String, value: JSONValue)])

    /// The member of an object with this name, the last if there are several; nil where this is no object or lacks it.
    subscript(name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.last { $0.key == name }?.value
    }
}

/// Where a text stops being JSON.
struct JSONFault: Error, Equatable {
    let line: Int
    let problem: String
}

/// Reads JSON (RFC 8259) from UTF-8 bytes that are known to be valid UTF-8.
struct JSONReader {
    /// As deep as values may stand in each other, so that no file can exhaust the stack.
    static let maximumDepth = 128

    private let bytes: UnsafeBufferPointer<UInt8>
    private var position = 0
    private var depth = 0

    /// Throws `JSONFault`.
    static func read(_ text: String) throws -> JSONValue {
        var text = text
        return try text.withUTF8 { bytes in
            var reader = JSONReader(bytes: bytes)
            let value = try reader.value()
            reader.skipBlanks()
            if reader.position < bytes.count { throw reader.fault("more text behind the value") }
            return value
        }
    }

    private init(bytes: UnsafeBufferPointer<UInt8>) {
        self.bytes = bytes
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func fault(_ problem: String) -> JSONFault {
        JSONFault(
            line: 1 + bytes[..<min(position, bytes.count)].lazy.filter { $0 == UInt8(ascii: "\n") }.count,
            problem: problem)
    }

    private mutating func skipBlanks() {
        while let byte = next, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        skipBlanks()
        guard next == byte else { return false }
        position += 1
        return true
    }

    private mutating func value() throws -> JSONValue {
        skipBlanks()
        switch next {
        case UInt8(ascii: "{"): return try nested { .object(try $0.members()) }
        case UInt8(ascii: "["): return try nested { .array(try $0.elements()) }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case nil: throw fault("the text ends where a value is expected")
        default: return try number()
        }
    }

    private mutating func nested(_ read: (inout JSONReader) throws -> JSONValue) throws -> JSONValue {
        depth += 1
        if depth > Self.maximumDepth { throw fault("more than \(Self.maximumDepth) values in each other") }
        position += 1
        let value = try read(&self)
        depth -= 1
        return value
    }

    private mutating func members() throws -> [(key: String, value: JSONValue)] {
        var members: [(key: String, value: JSONValue)] = []
        if take(UInt8(ascii: "}")) { return members }
        repeat {
            skipBlanks()
            guard next == UInt8(ascii: "\"") else { throw fault("a member without a name in quotation marks") }
            let key = try string()
            guard take(UInt8(ascii: ":")) else { throw fault("no colon behind \"\(key)\"") }
            members.append((key, try value()))
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "}")) else { throw fault("neither , nor } behind a member") }
        return members
    }

    private mutating func elements() throws -> [JSONValue] {
        var elements: [JSONValue] = []
        if take(UInt8(ascii: "]")) { return elements }
        repeat { elements.append(try value()) } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")) else { throw fault("neither , nor ] behind an element") }
        return elements
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws -> JSONValue {
        guard bytes[position...].prefix(word.utf8CodeUnitCount).elementsEqual(word.withUTF8Buffer(Array.init)) else {
            throw fault("something that is no JSON value")
        }
        position += word.utf8CodeUnitCount
        return value
    }

    private mutating func number() throws -> JSONValue {
        let start = position
        if next == UInt8(ascii: "-") { position += 1 }
        let whole = position
        let integer = digits()
        // No leading zeros: 0 stands alone.
        guard integer == 1 || (integer > 1 && bytes[whole] != UInt8(ascii: "0")) else {
            throw fault("something that is no JSON value")
        }
        if next == UInt8(ascii: ".") {
            position += 1
            if digits() == 0 { throw fault("a number without digits behind its point") }
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            position += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { position += 1 }
            if digits() == 0 { throw fault("a number without digits in its exponent") }
        }
        // A vocabulary is 30,000 small numbers, which need no text in between.
        if position - start == integer, integer < 10 {
            return .number(Double(bytes[start..<position].reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }))
        }
        guard let value = Double(String(decoding: bytes[start..<position], as: UTF8.self)), value.isFinite else {
            throw fault("a number out of range")
        }
        return .number(value)
    }

    private mutating func digits() -> Int {
        let start = position
        while let byte = next, byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") { position += 1 }
        return position - start
    }

    private mutating func string() throws -> String {
        position += 1
        let start = position
        var escaped = false
        while let byte = next, byte != UInt8(ascii: "\"") {
            if byte < 0x20 { throw fault("a control character in a string") }
            if byte == UInt8(ascii: "\\") {
                escaped = true
                position += 1
            }
            position += 1
        }
        guard position < bytes.count else { throw fault("a string without an end") }
        let content = start..<position
        position += 1
        return escaped ? try unescaped(content) : String(decoding: bytes[content], as: UTF8.self)
    }

    private func unescaped(_ range: Range<Int>) throws -> String {
        var result = String.UnicodeScalarView()
        var rest = bytes[range]
        while let backslash = rest.firstIndex(of: UInt8(ascii: "\\")) {
            result.append(contentsOf: String(decoding: rest[..<backslash], as: UTF8.self).unicodeScalars)
            let letter = rest[backslash + 1]
            rest = rest[(backslash + 2)...]
            switch letter {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): result.append(Unicode.Scalar(letter))
            case UInt8(ascii: "b"): result.append("\u{8}")
            case UInt8(ascii: "f"): result.append("\u{C}")
            case UInt8(ascii: "n"): result.append("\n")
            case UInt8(ascii: "r"): result.append("\r")
            case UInt8(ascii: "t"): result.append("\t")
            case UInt8(ascii: "u"): result.append(try scalar(&rest))
            default: throw fault("a backslash that escapes nothing")
            }
        }
        result.append(contentsOf: String(decoding: rest, as: UTF8.self).unicodeScalars)
        return String(result)
    }

    /// The scalar of `\u` and four digits, or of a surrogate pair of two such.
    private func scalar(_ rest: inout Slice<UnsafeBufferPointer<UInt8>>) throws -> Unicode.Scalar {
        let high = try codeUnit(&rest)
        if let scalar = Unicode.Scalar(high) { return scalar }
        guard high < 0xDC00, rest.starts(with: [UInt8(ascii: "\\"), UInt8(ascii: "u")]) else {
            throw fault("half of a surrogate pair")
        }
        rest = rest.dropFirst(2)
        let low = try codeUnit(&rest)
        guard (0xDC00...0xDFFF).contains(low),
            let scalar = Unicode.Scalar(0x10000 + (UInt32(high) - 0xD800) << 10 + (UInt32(low) - 0xDC00))
        else { throw fault("half of a surrogate pair") }
        return scalar
    }

    private func codeUnit(_ rest: inout Slice<UnsafeBufferPointer<UInt8>>) throws -> UInt16 {
        let digits = rest.prefix(4)
        guard digits.count == 4, digits.allSatisfy({ UnicodeScalar($0).properties.isASCIIHexDigit }),
            let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw fault("\\u without four hexadecimal digits") }
        rest = rest.dropFirst(4)
        return unit
    }
}
