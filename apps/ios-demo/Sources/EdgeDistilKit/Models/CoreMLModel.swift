#if canImport(CoreML)
@preconcurrency import CoreML
import Foundation

/// A question answerer that Core ML runs: one package of an `Artifact`.
///
/// A package is compiled when it is first used on a device, which takes seconds, and kept so in the caches folder.
/// Windows are run one at a time, on a queue of its own, in the least of `lengths` that holds them; inputs and outputs
/// of each length are allocated once.
public actor CoreMLModel: QuestionAnsweringModel {
    /// The input lengths that are used, ascending: the fixed one, all of several, steps of a range.
    public nonisolated let lengths: [Int]?

    private nonisolated let queue = DispatchSerialQueue(label: "edge-distil.core-ml")
    private let model: MLModel
    private let package: URL
    private var buffers: [Int: Buffers] = [:]

    /// Core ML blocks the thread that it is called on, which is none of Swift's pool.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

    /// Loads the package of a precision, by default the best for a phone, and runs it once.
    ///
    /// Throws `KitError` where there is no such package, and where Core ML cannot compile, load or run it.
    public init(artifact: Artifact, precision: String? = nil, computeUnits: ComputeUnits = .all) async throws {
        let package = try artifact.packageURL(precision: precision)
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits.coreML
        let checksum = try artifact.packageChecksum(precision: precision)
        do {
            model = try await compiledModel(package, checksum: checksum, configuration: configuration)
        } catch {
            throw KitError.modelFailed(package, reason: error.localizedDescription)
        }
        guard let input = model.modelDescription.inputDescriptionsByName["input_ids"]?.multiArrayConstraint,
            let shape = InputShape(input)
        else { throw KitError.modelFailed(package, reason: "its input_ids have no shape of [1, length]") }
        self.package = package
        lengths = shape.lengths
        for length in shape.warmUp {
            _ = try run([Int32](repeating: 0, count: length))
        }
    }

    public func predict(_ window: Window) async throws -> SpanLogits {
        try run(window.ids)
    }

    /// Not `async`, so that it has the buffers for itself.
    private func run(_ ids: [Int32]) throws -> SpanLogits {
        let length = fittingLength(ids.count, of: lengths)
        guard ids.count <= length else { throw KitError.windowTooLong(tokens: ids.count, longest: length) }
        do {
            let buffers = try buffers[length] ?? Buffers(length: length)
            self.buffers[length] = buffers
            buffers.fill(ids)
            let outputs = try predict(buffers, length)
            guard let start = logits("start_logits", of: outputs, count: ids.count),
                let end = logits("end_logits", of: outputs, count: ids.count)
            else { throw KitError.modelFailed(package, reason: "it gives no start_logits and end_logits") }
            return SpanLogits(start: start, end: end)
        } catch let error as KitError {
            throw error
        } catch {
            throw KitError.modelFailed(package, reason: error.localizedDescription)
        }
    }

    private func predict(_ buffers: Buffers, _ length: Int) throws -> any MLFeatureProvider {
        do {
            return try model.prediction(from: buffers.inputs, options: buffers.options)
        } catch where !buffers.options.outputBackings.isEmpty {
            // Not every form of output can be written to memory of ours: Core ML's own will do then.
            buffers.options.outputBackings = [:]
            return try model.prediction(from: buffers.inputs, options: buffers.options)
        }
    }
}

extension QuestionAnswerer {
    /// Answers with a package of an artifact, its tokeniser and its decoding. See `CoreMLModel`.
    public init(
        artifact: Artifact,
        precision: String? = nil,
        computeUnits: ComputeUnits = .all,
        options: WindowOptions = WindowOptions(),
        maxPassageBytes: Int = defaultMaxPassageBytes
    ) async throws {
        self.init(
            model: try await CoreMLModel(artifact: artifact, precision: precision, computeUnits: computeUnits),
            tokenizer: try artifact.loadTokenizer(),
            options: options,
            decoding: artifact.decoding,
            maxPassageBytes: maxPassageBytes
        )
    }
}

/// Inputs of one length and the memory that outputs are written to, each int32 or float32 [1, length].
private struct Buffers {
    let ids, mask: MLMultiArray
    let inputs: MLDictionaryFeatureProvider
    let options = MLPredictionOptions()

    init(length: Int) throws {
        let shape = [1, NSNumber(value: length)]
        ids = try MLMultiArray(shape: shape, dataType: .int32)
        mask = try MLMultiArray(shape: shape, dataType: .int32)
        inputs = try MLDictionaryFeatureProvider(dictionary: [
            "input_ids": MLFeatureValue(multiArray: ids), "attention_mask": MLFeatureValue(multiArray: mask),
        ])
        options.outputBackings = [
            "start_logits": try MLMultiArray(shape: shape, dataType: .float32),
            "end_logits": try MLMultiArray(shape: shape, dataType: .float32),
        ]
    }

    /// Any id will do for padding, since the mask leaves it out.
    func fill(_ tokens: [Int32]) {
        ids.withUnsafeMutableBufferPointer(ofType: Int32.self) { ids, _ in
            for position in ids.indices { ids[position] = position < tokens.count ? tokens[position] : 0 }
        }
        mask.withUnsafeMutableBufferPointer(ofType: Int32.self) { mask, _ in
            for position in mask.indices { mask[position] = position < tokens.count ? 1 : 0 }
        }
    }
}

/// The first logits of an output [1, length], or nil where it has not so many.
private func logits(_ name: String, of outputs: any MLFeatureProvider, count: Int) -> [Float]? {
    guard let array = outputs.featureValue(for: name)?.multiArrayValue, array.count >= count else { return nil }
    if array.dataType == .float32, array.strides.last == 1 {
        return array.withUnsafeBufferPointer(ofType: Float.self) { Array($0.prefix(count)) }
    }
    return (0..<count).map { array[$0].floatValue }
}

/// A package, compiled at its first use. Throws Core ML's own errors.
private func compiledModel(
    _ package: URL, checksum: String, configuration: MLModelConfiguration
) async throws -> MLModel {
    let manager = FileManager.default
    let caches = try manager.url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        .appendingPathComponent("EdgeDistilKit")
    try manager.createDirectory(at: caches, withIntermediateDirectories: true)
    let kept = caches.appendingPathComponent("\(checksum).mlmodelc")
    if manager.fileExists(atPath: kept.path) {
        if let model = try? await MLModel.load(contentsOf: kept, configuration: configuration) { return model }
        // Compiled by another version of the system, or cut short.
        try? manager.removeItem(at: kept)
    }
    let compiled = try await MLModel.compileModel(at: package)
    // Where it cannot be kept it is used from where it is.
    let place = (try? manager.moveItem(at: compiled, to: kept)) == nil ? compiled : kept
    return try await MLModel.load(contentsOf: place, configuration: configuration)
}

extension ComputeUnits {
    var coreML: MLComputeUnits {
        switch self {
        case .all: .all
        case .cpuOnly: .cpuOnly
        case .cpuAndGPU: .cpuAndGPU
        case .cpuAndNeuralEngine: .cpuAndNeuralEngine
        }
    }
}

extension InputShape {
    /// Of an input [1, length]; nil for another number of dimensions.
    init?(_ constraint: MLMultiArrayConstraint) {
        let flexibility = constraint.shapeConstraint
        switch flexibility.type {
        case .enumerated:
            let lengths = flexibility.enumeratedShapes.compactMap { $0.count == 2 ? $0[1].intValue : nil }
            guard lengths.count == flexibility.enumeratedShapes.count, let first = lengths.first else { return nil }
            self = lengths.count == 1 ? .fixed(first) : .enumerated(lengths)
        case .range:
            guard flexibility.sizeRangeForDimension.count == 2 else { return nil }
            // Its length counts sizes: a range of one size is a fixed one.
            let sizes = flexibility.sizeRangeForDimension[1].rangeValue
            guard sizes.length > 0 else { return nil }
            self = sizes.length == 1
                ? .fixed(sizes.location) : .range(sizes.location...sizes.location + sizes.length - 1)
        default:
            guard constraint.shape.count == 2 else { return nil }
            self = .fixed(constraint.shape[1].intValue)
        }
    }
}
#endif
