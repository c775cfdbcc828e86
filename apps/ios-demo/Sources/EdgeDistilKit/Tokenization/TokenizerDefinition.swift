import Foundation

/// What a tokeniser is made of, as its file says.
struct TokenizerDefinition {
    /// The file, as errors name it.
    var path: String
    var vocabulary: [(token: String, id: Int32)]
    var unknownToken = "[UNK]"
    var continuingPrefix = "##"
    var maximumScalars = 100
    var normalizer: Normalizer
    var addedTokens: [AddedToken]
}

extension TokenizerDefinition {
    /// The names of BERT's special tokens. A model may call its unknown token otherwise.
    static let specialTokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    /// Reads `tokenizer.json`, `vocab.txt` (any file whose name does not end in .json), or a folder that holds one.
    init(contentsOf url: URL, lowercase: Bool) throws {
        var file = url
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else {
            throw TokenizerError.missingFile(path: url.path)
        }
        if isFolder.boolValue {
            let files = ["tokenizer.json", "vocab.txt"].map { url.appendingPathComponent($0) }
            guard let found = files.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
                throw TokenizerError.missingFile(path: url.path)
            }
            file = found
        }
        let data: Data
        do {
            data = try Data(contentsOf: file)
        } catch {
            throw TokenizerError.unreadable(path: file.path, reason: error.localizedDescription)
        }
        guard let text = String(data: data, encoding: .utf8) else { throw TokenizerError.notUTF8(path: file.path) }
        if file.pathExtension.lowercased() == "json" {
            try self.init(json: text, path: file.path)
        } else {
            self.init(vocabulary: text, path: file.path, lowercase: lowercase)
        }
    }

    /// One token a line, its id the number of the line, from 0. The last line may end in a line break.
    init(vocabulary text: String, path: String, lowercase: Bool) {
        var lines = text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        if lines.last?.isEmpty == true { lines.removeLast() }
        let tokens = lines.map { line in String(line.last == UInt8(ascii: "\r") ? line.dropLast() : line)! }
        let vocabulary = tokens.enumerated().map { (token: $1, id: Int32($0)) }
        self.init(
            path: path, vocabulary: vocabulary,
            normalizer: Normalizer(
                cleansText: true, spacesIdeographs: true, stripsAccents: lowercase, lowercases: lowercase),
            addedTokens: vocabulary.filter { Self.specialTokens.contains($0.token) }.map {
                AddedToken(content: $0.token, id: $0.id, isSpecial: true)
            })
    }

    /// The format of the `tokenizers` package.
    init(json text: String, path: String) throws {
        let root: JSONValue
        do {
            root = try JSONReader.read(text)
        } catch let fault as JSONFault {
            throw TokenizerError.notJSON(path: path, line: fault.line, problem: fault.problem)
        }
        let file = Fields(path: path, name: "", value: root)

        let model = try file.object("model")
        // Files of older versions have no type. The length of words is a field of WordPiece alone.
        if model.value["type"] != nil || model.value["max_input_chars_per_word"] == nil {
            try model.require("type", "WordPiece")
        }
        let unknown = try model.string("unk_token")
        let prefix = try model.string("continuing_subword_prefix")
        let maximum = try model.integer("max_input_chars_per_word")
        guard case .object(let entries)? = model.value["vocab"] else {
            throw TokenizerError.invalidField(path: path, field: "model.vocab", problem: "is missing or no object")
        }
        let vocabulary = try entries.map { entry in
            (token: entry.key, id: try Fields.id(entry.value, path: path, field: "model.vocab[\"\(entry.key)\"]"))
        }

        let normalizer = try file.object("normalizer")
        try normalizer.require("type", "BertNormalizer")
        let lowercases = try normalizer.bool("lowercase")
        try file.object("pre_tokenizer").require("type", "BertPreTokenizer")

        self.init(
            path: path, vocabulary: vocabulary, unknownToken: unknown, continuingPrefix: prefix,
            maximumScalars: Int(maximum),
            normalizer: Normalizer(
                cleansText: try normalizer.bool("clean_text"),
                spacesIdeographs: try normalizer.bool("handle_chinese_chars"),
                stripsAccents: try normalizer.optionalBool("strip_accents") ?? lowercases, lowercases: lowercases),
            addedTokens: try file.objects("added_tokens").map { token in
                AddedToken(
                    content: try token.string("content"), id: try token.integer("id"),
                    isSpecial: try token.bool("special"), isNormalized: try token.bool("normalized"),
                    stripsLeft: try token.bool("lstrip"), stripsRight: try token.bool("rstrip"),
                    isSingleWord: try token.bool("single_word"))
            })
    }
}

/// An object of a tokenizer.json, and where it stands, for errors.
private struct Fields {
    let path: String
    let name: String
    let value: JSONValue

    private func invalid(_ field: String, _ expected: String) -> TokenizerError {
        let problem = value[field] == nil ? "is missing" : "is not \(expected)"
        return .invalidField(path: path, field: full(field), problem: problem)
    }

    private func full(_ field: String) -> String { name.isEmpty ? field : "\(name).\(field)" }

    func object(_ field: String) throws -> Fields {
        switch value[field] {
        case .object?: return Fields(path: path, name: full(field), value: value[field]!)
        case .null?: throw TokenizerError.unsupported(path: path, field: field, found: "null", expected: "BERT's")
        default: throw invalid(field, "an object")
        }
    }

    /// The objects of an array; none where it is missing or null.
    func objects(_ field: String) throws -> [Fields] {
        switch value[field] {
        case nil, .null?: return []
        case .array(let elements)?:
            return try elements.enumerated().map { index, element in
                guard case .object = element else { throw invalid(field, "an array of objects") }
                return Fields(path: path, name: "\(full(field))[\(index)]", value: element)
            }
        default: throw invalid(field, "an array of objects")
        }
    }

    func string(_ field: String) throws -> String {
        guard case .string(let string)? = value[field] else { throw invalid(field, "a string") }
        return string
    }

    func bool(_ field: String) throws -> Bool {
        guard case .bool(let bool)? = value[field] else { throw invalid(field, "true or false") }
        return bool
    }

    func optionalBool(_ field: String) throws -> Bool? {
        switch value[field] {
        case nil, .null?: return nil
        default: return try bool(field)
        }
    }

    func integer(_ field: String) throws -> Int32 {
        guard let value = value[field] else { throw invalid(field, "a number") }
        return try Self.id(value, path: path, field: full(field))
    }

    /// A whole number from 0 that fits 32 bits.
    static func id(_ value: JSONValue, path: String, field: String) throws -> Int32 {
        guard case .number(let number) = value, let id = Int32(exactly: number), id >= 0 else {
            throw TokenizerError.invalidField(
                path: path, field: field, problem: "is not a whole number from 0 to \(Int32.max)")
        }
        return id
    }

    /// Refuses another kind of tokeniser by its name.
    func require(_ field: String, _ expected: String) throws {
        let found = try string(field)
        if found != expected {
            throw TokenizerError.unsupported(path: path, field: full(field), found: found, expected: expected)
        }
    }
}
