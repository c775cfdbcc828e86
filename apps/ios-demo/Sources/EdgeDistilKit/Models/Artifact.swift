import Foundation

/// A Core ML export as `edge-distil export --format coreml` writes it: packages, tokeniser, and a manifest.
public struct Artifact: Sendable, Identifiable {
    /// The packages of an export by precision, best for a phone first.
    private static let packageNames: [(precision: String, name: String)] =
        [("fp16", "model.mlpackage")]
        + ["int8", "palette8", "palette6", "palette4", "int4", "w8a8", "fp32"].map { ($0, "model_\($0).mlpackage") }

    /// Tables of embeddings are often padded to a multiple of 8, 64 or 128 rows: so many rows may have no token.
    private static let maxPaddedRows = 128

    public let folder: URL
    public let manifest: Manifest
    /// Of its packages, best for a phone first; empty where its only package has a name of its own.
    public let precisions: [String]
    /// How its logits become answers: what its `decoding.json` says, if it has one.
    public let decoding: Decoding
    private let packages: [String]
    private let config: ModelConfig

    public var id: URL { folder }
    public var name: String { folder.lastPathComponent }
    public var tokenizerURL: URL { folder.appendingPathComponent("tokenizer.json") }

    /// Weights and biases of the model, nil where it is neither a BERT nor a DistilBERT.
    public var parameters: Int? { config.parameters }

    /// Input lengths of its packages, ascending, where the manifest says so.
    public var lengths: [Int]? {
        let text = manifest.config?.lengths ?? manifest.config?.maxLength.map(String.init)
        return text.flatMap(InputShape.init)?.lengths
    }

    /// Bytes of all files that the manifest lists.
    public var bytes: Int { manifest.files.values.reduce(0) { $0 + $1.bytes } }

    /// Opens a folder after its files were held against the manifest.
    ///
    /// Sizes and names are always checked; with `verify` every file's SHA-256 too, and that the tokeniser belongs to
    /// the model, which takes up to a second for a large one. Throws `KitError` for what does not fit: a missing,
    /// changed or unlisted file, a manifest that is no Core ML question answerer's, no package.
    public init(folder: URL, verify: Bool = true) throws {
        self.folder = folder
        manifest = try Manifest(folder: folder)
        try manifest.check(folder, checksums: verify)
        config = try readJSON(ModelConfig.self, from: folder.appendingPathComponent("config.json"))
        decoding = try Decoding(folder: folder)
        packages = Set(manifest.files.keys.compactMap { $0.split(separator: "/").first.map(String.init) })
            .filter { $0.hasSuffix(".mlpackage") }.sorted()
        let names = packages
        precisions = Self.packageNames.filter { names.contains($0.name) }.map(\.precision)
        _ = try packageName(nil)
        if verify { _ = try loadTokenizer() }
    }

    /// The package of a precision, or the first of `precisions`. Throws `KitError` where there is none.
    public func packageURL(precision: String? = nil) throws -> URL {
        folder.appendingPathComponent(try packageName(precision))
    }

    /// Bytes of the package that `packageURL` gives.
    public func packageBytes(precision: String? = nil) throws -> Int {
        try files(ofPackage: precision).reduce(0) { $0 + $1.file.bytes }
    }

    /// A checksum of what the package that `packageURL` gives consists of, in hexadecimal digits.
    public func packageChecksum(precision: String? = nil) throws -> String {
        sha256(of: try files(ofPackage: precision).map { "\($0.name) \($0.file.sha256)\n" }.joined())
    }

    /// The folder's tokeniser. Throws `KitError` where it is not BERT's, or does not belong to the model.
    public func loadTokenizer() throws -> any Tokenizer {
        let tokenizer: WordPieceTokenizer
        do {
            tokenizer = try WordPieceTokenizer(contentsOf: tokenizerURL)
        } catch let error as TokenizerError {
            throw KitError.tokenizer(error)
        }
        guard (0..<Self.maxPaddedRows).contains(config.vocabularySize - tokenizer.vocabularySize) else {
            throw KitError.vocabularyMismatch(
                folder, rows: config.vocabularySize, tokens: tokenizer.vocabularySize)
        }
        return tokenizer
    }

    private func packageName(_ precision: String?) throws -> String {
        if let asked = precision ?? precisions.first {
            if precisions.contains(asked) { return Self.packageNames.first { $0.precision == asked }!.name }
        } else if packages.count == 1 {
            return packages[0]
        }
        throw KitError.noPackage(folder, precision: precision, present: precisions.isEmpty ? packages : precisions)
    }

    private func files(ofPackage precision: String?) throws -> [(name: String, file: Manifest.File)] {
        let prefix = try packageName(precision) + "/"
        return manifest.files.filter { $0.key.hasPrefix(prefix) }.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }
}
