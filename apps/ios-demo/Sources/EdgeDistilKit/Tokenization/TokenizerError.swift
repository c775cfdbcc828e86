import Foundation

/// Why a tokeniser was not loaded. Each says what is wrong with which file, and what to do about it.
public enum TokenizerError: Error, Equatable, Sendable {
    /// There is no such file, or a folder holds neither `tokenizer.json` nor `vocab.txt`.
    case missingFile(path: String)
    /// The file is there and cannot be read.
    case unreadable(path: String, reason: String)
    /// The file is not UTF-8 text.
    case notUTF8(path: String)
    /// `tokenizer.json` is not JSON from this line on.
    case notJSON(path: String, line: Int, problem: String)
    /// A field of `tokenizer.json` is missing, or is not what the format has there.
    case invalidField(path: String, field: String, problem: String)
    /// A tokeniser of another kind than BERT's WordPiece.
    case unsupported(path: String, field: String, found: String, expected: String)
    /// The vocabulary lacks a special token.
    case missingToken(path: String, token: String)
    /// Two tokens have one id.
    case duplicateID(path: String, id: Int32, tokens: [String])
    /// One token stands twice in the vocabulary.
    case duplicateToken(path: String, token: String)
}

extension TokenizerError: LocalizedError, CustomStringConvertible {
    public var description: String {
        switch self {
        case .missingFile(let path):
            return "\(path): there is no tokeniser here. Copy the tokenizer.json or vocab.txt of the model there."
        case .unreadable(let path, let reason):
            return "\(path): cannot be read: \(reason). Copy the tokeniser of the model again."
        case .notUTF8(let path):
            return "\(path): is not UTF-8 text. Copy the tokeniser of the model again."
        case .notJSON(let path, let line, let problem):
            return "\(path): is not JSON, line \(line): \(problem). Copy the tokenizer.json of the model again."
        case .invalidField(let path, let field, let problem):
            return "\(path): \(field) \(problem). Save the tokeniser again with save_pretrained or Tokenizer.save."
        case .unsupported(let path, let field, let found, let expected):
            return "\(path): \(field) is \(found), not \(expected). Use the tokeniser of a BERT or DistilBERT model."
        case .missingToken(let path, let token):
            return "\(path): the vocabulary lacks \(token). Use the tokeniser of a BERT or DistilBERT model."
        case .duplicateID(let path, let id, let tokens):
            let names = tokens.joined(separator: " and ")
            return "\(path): \(names) both have the id \(id). Copy the tokeniser of the model again."
        case .duplicateToken(let path, let token):
            return "\(path): \(token) stands twice in the vocabulary. Copy the tokeniser of the model again."
        }
    }

    public var errorDescription: String? { description }
}
