import XCTest

@testable import EdgeDistilKit

/// Random strings: nothing crashes the tokeniser, and its offsets are always places in the text.
final class TokenizerFuzzTests: XCTestCase {
    func testHundredThousandRandomStrings() throws {
        let golden = try GoldenFile<TokenCase>("Tokens/hard.json")
        let never = """
            {"id": \(try golden.tokenizer(golden.tokenizers[0].file).vocabularySize), "content": "never found", \
            "special": false, "normalized": true, "lstrip": false, "rstrip": false, "single_word": false}, {"id": 0,
            """
        // Uncased, cased, and the two other ways of stripping and lowering. Each also with a token that is looked for
        // in normalised text, so that text is normalised first and split later: another way to the same tokens.
        let pairs = try golden.tokenizers.prefix(4).map { tokenizerCase in
            let other = tokenizerCase.file.replacingOccurrences(
                of: "\"added_tokens\": [{\"id\": 0,", with: "\"added_tokens\": [\(never)")
            XCTAssertNotEqual(other, tokenizerCase.file)
            return (try golden.tokenizer(tokenizerCase.file), try golden.tokenizer(other))
        }
        let pieces = Array((0..<Int32(pairs[0].0.vocabularySize)).compactMap(pairs[0].0.token)).map {
            $0.hasPrefix("##") ? String($0.dropFirst(2)) : $0
        }
        var random = SplitMix64(state: 42)
        var tokenCount = 0
        for number in 0..<100_000 {
            let text = Self.text(pieces, &random)
            let (tokenizer, inSteps) = pairs[number % pairs.count]
            let encoding = tokenizer.encode(text)
            tokenCount += encoding.count
            if let problem = Self.problem(encoding, text, tokenizer) {
                XCTFail("string \(number), \(text.unicodeScalars.map { String($0.value, radix: 16) }): \(problem)")
            }
            XCTAssertEqual(tokenizer.encode(text), encoding, "string \(number) has other tokens the second time")
            XCTAssertEqual(inSteps.encode(text), encoding, "string \(number) has other tokens when normalised first")
        }
        XCTAssertGreaterThan(tokenCount, 250_000)
    }

    /// What is wrong with an encoding, if anything.
    private static func problem(_ encoding: Encoding, _ text: String, _ tokenizer: WordPieceTokenizer) -> String? {
        if encoding.starts.count != encoding.count || encoding.ends.count != encoding.count { return "counts differ" }
        var boundaries: Set<Int32> = [0]
        var byte: Int32 = 0
        for scalar in text.unicodeScalars {
            byte += Int32(UTF8.width(scalar))
            boundaries.insert(byte)
        }
        var before: (start: Int32, end: Int32) = (0, 0)
        for index in 0..<encoding.count {
            let (start, end) = (encoding.starts[index], encoding.ends[index])
            if tokenizer.token(encoding.ids[index]) == nil { return "no token \(encoding.ids[index])" }
            if start < before.start || end < before.end { return "token \(index) goes back" }
            if start >= end { return "token \(index) is empty" }
            if !boundaries.contains(start) || !boundaries.contains(end) { return "token \(index) cuts a scalar" }
            before = (start, end)
        }
        return nil
    }

    /// A short string of one of several kinds, or of all.
    private static func text(_ pieces: [String], _ random: inout SplitMix64) -> String {
        var text = ""
        let onlyKind = Int.random(in: 0..<12, using: &random)
        for _ in 0..<Int.random(in: 0..<10, using: &random) {
            switch onlyKind < 6 ? onlyKind : Int.random(in: 0..<8, using: &random) {
            case 0: text.unicodeScalars.append(scalar(in: 0...0x10FFFF, &random))
            case 1:
                let bytes = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
                text += String(decoding: bytes, as: UTF8.self)
            case 2: text += pieces.randomElement(using: &random)!
            case 3: text.unicodeScalars.append(scalar(in: 0x1F000...0x1FAFF, &random))
            case 4: text.unicodeScalars.append(scalar(in: 0x590...0x8FF, &random))
            case 5:
                text += (["\u{301}", "\u{316}", "\u{302E}", "\u{1D165}", "\u{1D16D}", "\u{345}", "e"]).randomElement(
                    using: &random)!
            case 6:
                text += ([" ", "\t", "\u{3000}", "\u{200D}", "\u{FE0F}", "\0", "\u{FFFD}", "İ", "漢", "각", "≠"])
                    .randomElement(using: &random)!
            default: text += (["[SEP]", "[MASK]", "[CLS", "##", "a", "don't", "."]).randomElement(using: &random)!
            }
        }
        return text
    }

    private static func scalar(in range: ClosedRange<UInt32>, _ random: inout SplitMix64) -> UnicodeScalar {
        // Half of a surrogate pair is no scalar: another is drawn.
        while true {
            if let scalar = UnicodeScalar(UInt32.random(in: range, using: &random)) { return scalar }
        }
    }
}

/// A small generator with a seed (Steele, Lea and Flood, 2014): the same strings on every run and system.
struct SplitMix64: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
