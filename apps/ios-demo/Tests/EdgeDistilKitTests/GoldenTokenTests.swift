import XCTest

@testable import EdgeDistilKit

/// Holds the tokeniser to what Hugging Face `tokenizers` made of the same texts: `Scripts/write_golden_tokens.py`.
final class GoldenTokenTests: XCTestCase {
    func testStarterQuestionsAndPassages() throws { try checkTokens("Tokens/starter.json") }

    func testHardTextsUnderEverySetting() throws { try checkTokens("Tokens/hard.json") }

    func testEveryScriptBlock() throws { try checkTokens("Tokens/blocks.json") }

    func testEveryScalarInsideAWordAndBetweenMarks() throws { try checkDigests("Tokens/scalars.json") }

    func testEveryScalarOfAllPlanes() throws { try checkDigests("Local/scalars.json") }

    func testSQuADDevelopmentSetInARealVocabulary() throws { try checkTokens("Local/dev-v1.1.json") }

    func testSQuADTrainingSetInARealVocabulary() throws { try checkTokens("Local/train-v1.1.json") }

    func testRandomTextsInARealVocabulary() throws { try checkTokens("Local/fuzz.json") }

    private func checkTokens(_ name: String, file: StaticString = #filePath, line: UInt = #line) throws {
        let golden = try GoldenFile<TokenCase>(name)
        XCTAssertGreaterThan(golden.texts?.count ?? 0, 0)
        for tokenizerCase in golden.tokenizers {
            let tokenizer = try golden.tokenizer(tokenizerCase.file)
            var wrong = 0
            XCTAssertEqual(tokenizerCase.expected.count, golden.texts?.count)
            for (text, numbers) in zip(golden.texts ?? [], tokenizerCase.expected) {
                let expected = Encoding(golden: numbers, of: text)
                let found = tokenizer.encode(text)
                if found == expected { continue }
                wrong += 1
                if wrong > 5 { continue }
                let place = zip(found.ids, expected.ids).enumerated().first { $1.0 != $1.1 }?.offset
                XCTFail(
                    """
                    \(tokenizerCase.name), \(text.unicodeScalars.prefix(80).map { String($0.value, radix: 16) }), \
                    token \(place.map(String.init) ?? "count or offsets"):
                    \(tokenizer.describe(found, from: place))
                    \(tokenizer.describe(expected, from: place))
                    """, file: file, line: line)
            }
            XCTAssertEqual(wrong, 0, "texts with other tokens: \(tokenizerCase.name)", file: file, line: line)
        }
    }

    private func checkDigests(_ name: String, file: StaticString = #filePath, line: UInt = #line) throws {
        let golden = try GoldenFile<DigestCase>(name)
        let firsts = try XCTUnwrap(golden.firsts)
        let factor: UInt64 = 0x100_0000_01B3
        let tokenizers = try golden.tokenizers.map { try golden.tokenizer($0.file) }
        for digestCase in golden.tokenizers { XCTAssertEqual(digestCase.digests.count, firsts.count) }
        for (place, first) in firsts.enumerated() {
            let texts = Self.scalarTexts(from: first)
            for (digestCase, tokenizer) in zip(golden.tokenizers, tokenizers) {
                var digest: UInt64 = 0
                for text in texts {
                    let encoding = tokenizer.encode(text)
                    for index in 0..<encoding.count {
                        digest = digest &* factor &+ UInt64(encoding.ids[index])
                        digest = digest &* factor &+ UInt64(encoding.starts[index])
                        digest = digest &* factor &+ UInt64(encoding.ends[index])
                    }
                }
                XCTAssertEqual(
                    digest, UInt64(digestCase.digests[place], radix: 16),
                    "\(digestCase.name), from U+\(String(first, radix: 16))", file: file, line: line)
            }
        }
    }

    /// What scalar_texts of the script makes of 4,096 scalars: each inside a word, and between two marks of another.
    private static func scalarTexts(from first: Int) -> [String] {
        stride(from: first, to: first + 4096, by: 256).compactMap { start in
            var text = String.UnicodeScalarView()
            for scalar in (start..<start + 256).compactMap(UnicodeScalar.init) {
                if !text.isEmpty { text.append(" ") }
                for part in ["a", scalar, "b", " ", "e", "\u{316}", scalar, "\u{301}", "z"] as [UnicodeScalar] {
                    text.append(part)
                }
            }
            return text.isEmpty ? nil : String(text)
        }
    }
}

struct TokenCase: Decodable {
    let name: String
    let file: String
    let expected: [[Int]]
}

struct DigestCase: Decodable {
    let name: String
    let file: String
    let digests: [String]
}

/// A file that `Scripts/write_golden_tokens.py` writes, which says what is in it.
struct GoldenFile<Case: Decodable>: Decodable {
    let vocabulary: String
    let texts: [String]?
    let firsts: [Int]?
    let tokenizers: [Case]

    /// Skips the test where a local file is absent.
    init(_ name: String) throws {
        let url = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Golden/\(name)")
        if name.hasPrefix("Local/"), !FileManager.default.fileExists(atPath: url.path) {
            throw XCTSkip(
                "no Golden/\(name): Scripts/write_golden_tokens.py writes it from data outside the repository")
        }
        self = try JSONDecoder().decode(Self.self, from: Data(contentsOf: url))
    }

    /// The tokeniser of a case, loaded from a tokenizer.json like any other.
    func tokenizer(_ file: String) throws -> WordPieceTokenizer {
        let empty = "\"vocab\": {}"
        precondition(file.contains(empty))
        return try TemporaryFolder().loading(
            "tokenizer.json", file.replacingOccurrences(of: empty, with: "\"vocab\": \(vocabulary)"))
    }
}

/// A folder that is gone when nothing refers to it any more.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func write(_ name: String, _ content: String) throws -> URL {
        let file = url.appendingPathComponent(name)
        try Data(content.utf8).write(to: file)
        return file
    }

    func loading(_ name: String, _ content: String, lowercase: Bool = true) throws -> WordPieceTokenizer {
        try WordPieceTokenizer(contentsOf: write(name, content), lowercase: lowercase)
    }
}

extension Encoding {
    /// From [id, gap, length, …] in scalars of `text`.
    init(golden numbers: [Int], of text: String) {
        self.init()
        var bytesBefore: [Int32] = [0]
        for scalar in text.unicodeScalars { bytesBefore.append(bytesBefore.last! + Int32(UTF8.width(scalar))) }
        var end = 0
        for index in stride(from: 0, to: numbers.count, by: 3) {
            let start = end + numbers[index + 1]
            end = start + numbers[index + 2]
            ids.append(Int32(numbers[index]))
            starts.append(bytesBefore[start])
            ends.append(bytesBefore[end])
        }
    }
}

extension WordPieceTokenizer {
    /// Some tokens, for messages.
    fileprivate func describe(_ encoding: Encoding, from place: Int?) -> String {
        let first = max(0, (place ?? 0) - 1)
        let shown = first..<min(encoding.count, first + (place == nil ? 60 : 4))
        return shown.map { "\(token(encoding.ids[$0]) ?? "?") \(encoding.starts[$0])..<\(encoding.ends[$0])" }
            .joined(separator: ", ")
    }
}
