import XCTest

@testable import EdgeDistilKit

/// What is read as a tokeniser, what is refused, and how that is said.
final class TokenizerLoadingTests: XCTestCase {
    private let tokens = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "caf", "##e", "##é", "Un",
    ]

    /// A tokenizer.json of a few tokens, after an edit of its text.
    private func json(_ edits: [(String, String)] = []) -> String {
        let vocabulary = tokens.enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
        var text = """
            {"added_tokens": [{"id": 3, "content": "[SEP]", "special": true, "normalized": false, "lstrip": false,
              "rstrip": false, "single_word": false}],
             "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
              "strip_accents": null, "lowercase": true},
             "pre_tokenizer": {"type": "BertPreTokenizer"},
             "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {\(vocabulary)}}}
            """
        for (old, new) in edits {
            precondition(text.contains(old), old)
            text = text.replacingOccurrences(of: old, with: new)
        }
        return text
    }

    private func load(_ edits: (String, String)...) throws -> WordPieceTokenizer {
        try TemporaryFolder().loading("tokenizer.json", json(edits))
    }

    private func error(_ body: @autoclosure () throws -> WordPieceTokenizer) -> TokenizerError? {
        do {
            _ = try body()
            return nil
        } catch {
            return error as? TokenizerError
        }
    }

    private func pieces(_ tokenizer: WordPieceTokenizer, _ text: String) -> [String] {
        tokenizer.encode(text).ids.map { tokenizer.token($0) ?? "" }
    }

    func testTokenizerJSON() throws {
        let tokenizer = try load()
        XCTAssertEqual(tokenizer.special, SpecialTokens(cls: 2, sep: 3, pad: 0, mask: 4, unk: 1))
        XCTAssertEqual(tokenizer.vocabularySize, 12)
        let encoding = tokenizer.encode(" Unaffable[SEP]café")
        XCTAssertEqual(encoding.ids, [5, 6, 7, 3, 8, 9])
        XCTAssertEqual(encoding.starts, [1, 3, 6, 10, 15, 18])
        XCTAssertEqual(encoding.ends, [3, 6, 10, 15, 18, 20])
        XCTAssertNil(tokenizer.token(12))
    }

    func testOlderTokenizerJSONWithoutATypeOfItsModel() throws {
        XCTAssertEqual(pieces(try load(("\"type\": \"WordPiece\", ", "")), "unable"), ["un", "##able"])
    }

    func testCanonicallyEquivalentTokensAreTwoTokens() throws {
        let tokenizer = try load(
            ("\"##able\"", "\"cafe\\u0301\""), ("\"##aff\"", "\"caf\\u00e9\""),
            ("\"lowercase\": true", "\"lowercase\": false"))
        XCTAssertEqual(tokenizer.encode("caf\u{E9} cafe\u{301}").ids, [6, 7])
    }

    func testVocabularyFileIsUncasedUnlessSaidOtherwise() throws {
        let folder = try TemporaryFolder()
        let text = tokens.joined(separator: "\n") + "\n"
        XCTAssertEqual(
            pieces(try folder.loading("vocab.txt", text), "Unaffable café [MASK]"),
            ["un", "##aff", "##able", "caf", "##e", "[MASK]"])
        let cased = try folder.loading("vocab.txt", text, lowercase: false)
        XCTAssertEqual(
            pieces(cased, "Unaffable café [mask]"), ["Un", "##aff", "##able", "caf", "##é", "[UNK]", "[UNK]", "[UNK]"])
        XCTAssertEqual(cased.vocabularySize, 12)
        let windows = try folder.loading("windows.txt", tokens.joined(separator: "\r\n"))
        XCTAssertEqual(pieces(windows, "unaffable"), ["un", "##aff", "##able"])
    }

    func testVocabularyFileGivesTheTokensOfTokenizerJSON() throws {
        let golden = try GoldenFile<TokenCase>("Tokens/starter.json")
        for (index, lowercase) in [true, false].enumerated() {
            let reference = try golden.tokenizer(golden.tokenizers[index].file)
            let lines = (0..<Int32(reference.vocabularySize)).map { reference.token($0)! }
            let tokenizer = try TemporaryFolder().loading(
                "vocab.txt", lines.joined(separator: "\n"), lowercase: lowercase)
            XCTAssertEqual(tokenizer.special, reference.special)
            for text in golden.texts!.prefix(100) + ["[SEP] Café 東京[MASK]."] {
                XCTAssertEqual(tokenizer.encode(text), reference.encode(text))
            }
        }
    }

    func testFolderWithEitherFilePrefersTokenizerJSON() throws {
        let folder = try TemporaryFolder()
        XCTAssertEqual(error(try WordPieceTokenizer(contentsOf: folder.url)), .missingFile(path: folder.url.path))
        _ = try folder.write("vocab.txt", tokens.joined(separator: "\n"))
        XCTAssertEqual(pieces(try WordPieceTokenizer(contentsOf: folder.url), "Un"), ["un"])
        _ = try folder.write("tokenizer.json", json([("\"lowercase\": true", "\"lowercase\": false")]))
        XCTAssertEqual(pieces(try WordPieceTokenizer(contentsOf: folder.url), "Un"), ["Un"])
    }

    func testFilesThatAreMissingOrNoText() throws {
        let folder = try TemporaryFolder()
        let absent = folder.url.appendingPathComponent("tokenizer.json")
        XCTAssertEqual(error(try WordPieceTokenizer(contentsOf: absent)), .missingFile(path: absent.path))
        try Data([0x7B, 0xFF, 0x7D]).write(to: absent)
        XCTAssertEqual(error(try WordPieceTokenizer(contentsOf: absent)), .notUTF8(path: absent.path))
    }

    func testWhatIsNoJSONIsRefusedWithItsLine() throws {
        guard case .notJSON(_, 6, let problem) = error(try load(("\"unk_token\":", "\"unk_token\""))) else {
            return XCTFail("not refused")
        }
        XCTAssertEqual(problem, "no colon behind \"unk_token\"")
        // Cut off anywhere, the file is refused, and nothing crashes.
        let folder = try TemporaryFolder()
        let text = json()
        for length in 0..<text.unicodeScalars.count {
            let start = String(text.unicodeScalars.prefix(length))
            guard case .notJSON = error(try folder.loading("tokenizer.json", start)) else {
                return XCTFail("the first \(length) scalars are not refused")
            }
        }
        guard
            case .notJSON(_, 1, _) = error(
                try folder.loading("tokenizer.json", String(repeating: "[", count: 100_000)))
        else { return XCTFail("not refused") }
    }

    func testOtherTokenisersAreRefusedByName() {
        func refused(_ edits: (String, String)) -> [String]? {
            guard case .unsupported(_, let field, let found, let expected) = error(try load(edits)) else { return nil }
            return [field, found, expected]
        }
        XCTAssertEqual(refused(("\"WordPiece\"", "\"BPE\"")), ["model.type", "BPE", "WordPiece"])
        XCTAssertEqual(refused(("\"BertNormalizer\"", "\"NFC\"")), ["normalizer.type", "NFC", "BertNormalizer"])
        XCTAssertEqual(
            refused(("\"BertPreTokenizer\"", "\"Whitespace\"")),
            ["pre_tokenizer.type", "Whitespace", "BertPreTokenizer"])
        XCTAssertEqual(refused(("{\"type\": \"BertPreTokenizer\"}", "null")), ["pre_tokenizer", "null", "BERT's"])
    }

    func testFieldsThatAreMissingOrWrongAreNamed() {
        func refused(_ edits: (String, String)) -> [String]? {
            guard case .invalidField(_, let field, let problem) = error(try load(edits)) else { return nil }
            return [field, problem]
        }
        XCTAssertEqual(refused(("\"clean_text\": true, ", "")), ["normalizer.clean_text", "is missing"])
        XCTAssertEqual(
            refused(("\"strip_accents\": null", "\"strip_accents\": 1")),
            ["normalizer.strip_accents", "is not true or false"])
        XCTAssertEqual(refused(("\"unk_token\": \"[UNK]\", ", "")), ["model.unk_token", "is missing"])
        XCTAssertEqual(refused(("\"vocab\"", "\"words\"")), ["model.vocab", "is missing or no object"])
        for id in ["-1", "0.5", "2147483648", "\"5\"", "null"] {
            XCTAssertEqual(
                refused(("\"un\": 5", "\"un\": \(id)")),
                ["model.vocab[\"un\"]", "is not a whole number from 0 to 2147483647"])
        }
        XCTAssertEqual(
            refused(("\"id\": 3", "\"id\": 4")),
            ["added_tokens[0].id", "is 4, where the vocabulary makes [SEP] number 3"])
        XCTAssertEqual(
            refused(("\"id\": 3, \"content\": \"[SEP]\"", "\"id\": 12")), ["added_tokens[0].content", "is missing"])
    }

    func testVocabulariesThatAreNoVocabulariesAreRefused() throws {
        func refused(_ edits: (String, String)) -> TokenizerError? { error(try load(edits)) }
        guard case .missingToken(_, "[CLS]") = refused(("\"[CLS]\"", "\"cls\"")) else { return XCTFail("[CLS]") }
        guard case .missingToken(_, "[unk]") = refused(("\"unk_token\": \"[UNK]\"", "\"unk_token\": \"[unk]\"")) else {
            return XCTFail("[unk]")
        }
        guard case .duplicateID(_, 5, ["un", "##aff"]) = refused(("\"##aff\": 6", "\"##aff\": 5")) else {
            return XCTFail("an id twice")
        }
        guard case .duplicateToken(_, "un") = refused(("\"##aff\"", "\"un\"")) else { return XCTFail("a token twice") }
        let text = (tokens + ["un"]).joined(separator: "\n")
        guard case .duplicateToken(_, "un") = error(try TemporaryFolder().loading("vocab.txt", text)) else {
            return XCTFail("a line twice")
        }
        guard case .missingToken(_, "[CLS]") = error(try TemporaryFolder().loading("vocab.txt", "")) else {
            return XCTFail("no lines")
        }
    }

    func testErrorsNameTheFileAndSayWhatToDo() {
        let errors: [TokenizerError] = [
            .missingFile(path: "p"), .unreadable(path: "p", reason: "r"), .notUTF8(path: "p"),
            .notJSON(path: "p", line: 3, problem: "x"), .invalidField(path: "p", field: "f", problem: "x"),
            .unsupported(path: "p", field: "f", found: "a", expected: "b"), .missingToken(path: "p", token: "[CLS]"),
            .duplicateID(path: "p", id: 1, tokens: ["a", "b"]), .duplicateToken(path: "p", token: "a"),
        ]
        for error in errors {
            XCTAssertTrue(error.description.hasPrefix("p: "), error.description)
            XCTAssertNotNil(
                error.description.range(of: #"\. (Copy|Use|Save) .*\.$"#, options: .regularExpression),
                error.description)
            XCTAssertEqual(error.localizedDescription, error.description)
        }
    }

    func testJSONValuesOfEveryKind() throws {
        let text = #" {"a": [1, -2.5e3, 0, true, false, null], "é\n\"\\\/\u00e9\ud83d\ude00": "", "b": {}, "b": [] } "#
        guard case .object(let members) = try JSONReader.read(text) else { return XCTFail("no object") }
        XCTAssertEqual(members.map(\.key), ["a", "é\n\"\\/é😀", "b", "b"])
        guard case .array(let elements) = members[0].value else { return XCTFail("no array") }
        XCTAssertEqual(
            "\(elements)", "\([JSONValue.number(1), .number(-2500), .number(0), .bool(true), .bool(false), .null])")
        let wrong = [
            "", "nul", "01", "1.", "1e", "-", "+1", ".5", "\"", "\"\\", "\"\\x\"", "\"\\ud800\"", "\"\\ud800\\u0041\"",
            "\"\\udc00\"", "\"\\u12\"", "\"\n\"", "[1,]", "[1 2]", "{1:2}", "{\"a\"}", "{\"a\":1,}", "1 1", "1e999",
            "[", "{",
        ]
        for text in wrong { XCTAssertThrowsError(try JSONReader.read(text), text) { XCTAssertTrue($0 is JSONFault) } }
    }
}
