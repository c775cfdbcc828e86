import Foundation

/// A model that can be picked, and the way to open it.
public struct ModelEntry: Sendable, Identifiable {
    /// The artifact's name, its folder's.
    public let name: String
    public let precision: String
    /// How many weights it has; nil where that is not known.
    public let parameters: Int?
    /// Its size on disk.
    public let bytes: Int
    let open: @Sendable (ComputeUnits) async throws -> OpenModel

    public var id: String { "\(name)/\(precision)" }

    public init(
        name: String, precision: String, parameters: Int? = nil, bytes: Int,
        open: @escaping @Sendable (ComputeUnits) async throws -> OpenModel
    ) {
        self.name = name
        self.precision = precision
        self.parameters = parameters
        self.bytes = bytes
        self.open = open
    }

    /// Such as "66.4M parameters, fp16, 132.8 MB", with the numbers of a language.
    public func summary(locale: Locale = .current) -> String {
        let oneDigit = FloatingPointFormatStyle<Double>.number.precision(.fractionLength(1)).locale(locale)
        return [
            parameters.map { "\((Double($0) / 1e6).formatted(oneDigit))M parameters" }, precision,
            "\((Double(bytes) / 1e6).formatted(oneDigit)) MB",
        ].compactMap { $0 }.joined(separator: ", ")
    }
}

/// A model ready to answer, with what belongs to it.
public struct OpenModel: Sendable {
    public let model: any QuestionAnsweringModel
    public let tokenizer: any Tokenizer
    public let decoding: Decoding

    public init(model: any QuestionAnsweringModel, tokenizer: any Tokenizer, decoding: Decoding = Decoding()) {
        self.model = model
        self.tokenizer = tokenizer
        self.decoding = decoding
    }
}

extension ModelEntry {
    /// An entry for each precision of an artifact. Opening throws off Apple's systems, for want of Core ML.
    public static func entries(of artifact: Artifact) throws -> [ModelEntry] {
        let precisions: [String?] = artifact.precisions.isEmpty ? [nil] : artifact.precisions
        return try precisions.map { precision in
            ModelEntry(
                name: artifact.name, precision: precision ?? "unnamed", parameters: artifact.parameters,
                bytes: try artifact.packageBytes(precision: precision)
            ) { units in
                #if canImport(CoreML)
                    OpenModel(
                        model: try await CoreMLModel(artifact: artifact, precision: precision, computeUnits: units),
                        tokenizer: try artifact.loadTokenizer(), decoding: artifact.decoding)
                #else
                    throw Problem(
                        description: "\(artifact.name) needs Core ML.", suggestion: "Run it on an Apple device or a Mac.")
                #endif
            }
        }
    }
}

extension ComputeUnits {
    /// As people read it.
    public var title: String {
        switch self {
        case .all: "All units"
        case .cpuOnly: "CPU only"
        case .cpuAndGPU: "CPU and GPU"
        case .cpuAndNeuralEngine: "CPU and Neural Engine"
        }
    }
}
