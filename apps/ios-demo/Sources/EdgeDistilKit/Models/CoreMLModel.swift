#if canImport(CoreML)
import CoreML
import Foundation

public actor CoreMLModel: QuestionAnsweringModel {
    public nonisolated let lengths: [Int]?

    /// Compiles where needed, loads, and warms up.
    public init(artifact: Artifact, precision: String? = nil, computeUnits: ComputeUnits = .all) async throws { fatalError() }
    public func predict(_ window: Window) async throws -> SpanLogits { fatalError() }
}

extension QuestionAnswerer {
    /// Answers with the package of an artifact, its tokeniser and its `decoding.json`.
    public init(artifact: Artifact, precision: String? = nil, computeUnits: ComputeUnits = .all) async throws { fatalError() }
}
#endif
