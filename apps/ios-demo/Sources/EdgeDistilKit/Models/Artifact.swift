import Foundation

/// A Core ML export as `edge-distil export --format coreml` writes it: packages, tokeniser, and a manifest.
public struct Artifact: Sendable, Identifiable {
    public let folder: URL
    public let manifest: Manifest
    /// Of its packages, best for a phone first; empty where the only one has a name of its own.
    public let precisions: [String]
    /// Weights and biases of the model, where its `config.json` is that of a BERT or DistilBERT encoder.
    public let parameters: Int?
    /// Input lengths of its packages, ascending, where the manifest says so.
    public let lengths: [Int]?

    public var id: URL { folder }
    public var name: String { folder.lastPathComponent }
    public var tokenizerURL: URL { folder.appendingPathComponent("tokenizer.json") }

    /// Bytes of all files on disk.
    public var bytes: Int { fatalError() }

    /// Opens a folder.
    public init(folder: URL, verify: Bool = true) throws { fatalError() }

    /// The package of a precision, or the first of `precisions`. Throws `KitError` where there is none.
    public func packageURL(precision: String? = nil) throws -> URL { fatalError() }

    /// Bytes of one package on disk.
    public func packageBytes(precision: String? = nil) throws -> Int { fatalError() }

    /// The precision that `packageURL` gives the package of: the one asked for, or the first; nil where it has no name.
    public func precision(_ asked: String? = nil) throws -> String? { fatalError() }

    /// The folder's tokeniser. Throws where it does not belong to the model.
    public func loadTokenizer() throws -> any Tokenizer { fatalError() }
}
