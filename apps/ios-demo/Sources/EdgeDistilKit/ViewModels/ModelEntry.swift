import Foundation

/// A model that can be picked, and the way to open it.
public struct ModelEntry: Sendable, Identifiable {
    /// The artifact's name, the folder's.
    public let name: String
    public let precision: String
    /// How many weights it has; nil where the manifest does not say.
    public let parameters: Int?
    /// Its size on disk.
    public let bytes: Int
    let open: @Sendable (ComputeUnits) async throws -> OpenModel

    public var id: String { name }

    public init(
        name: String, precision: String, parameters: Int?, bytes: Int,
        open: @escaping @Sendable (ComputeUnits) async throws -> OpenModel
    ) {
        self.name = name
        self.precision = precision
        self.parameters = parameters
        self.bytes = bytes
        self.open = open
    }

    /// Such as "66 M parameters, fp16, 134 MB": what is known of it, numbers in the device's language.
    public var summary: String {
        let millions = parameters.map { "\((Double($0) / 1e6).formatted(.number.precision(.fractionLength(0...1)))) M parameters" }
        let size = "\((Double(bytes) / 1e6).formatted(.number.precision(.fractionLength(0...1)))) MB"
        return [millions, precision, size].compactMap { $0 }.joined(separator: ", ")
    }
}

/// A model ready to answer, with what belongs to it.
public struct OpenModel: Sendable {
    public let model: any QuestionAnsweringModel
    public let tokenizer: any Tokenizer
    public let decoding: Decoding

    public init(model: any QuestionAnsweringModel, tokenizer: any Tokenizer, decoding: Decoding) {
        self.model = model
        self.tokenizer = tokenizer
        self.decoding = decoding
    }
}
