import Foundation

/// What a study measured, in the shape of `edge-distil bench --json`: `edge-distil bench --import` reads its JSON.
public struct StudyResult: Codable, Sendable, Equatable {
    public var machine: Machine
    public var versions: [String: String]
    /// Always nil: Core ML chooses its threads.
    public var threads: Int?
    /// How many questions were asked.
    public var questions: Int
    /// The length of all inputs in tokens; nil where they differ.
    public var tokens: Int?
    /// Every contender from text, then every contender from token ids.
    public var results: [StudyRow]
    public var warnings: [String]

    public init(
        machine: Machine, versions: [String: String], questions: Int, tokens: Int?, results: [StudyRow],
        warnings: [String]
    ) {
        self.machine = machine
        self.versions = versions
        self.questions = questions
        self.tokens = tokens
        self.results = results
        self.warnings = warnings
    }

    /// The file that is shared: UTF-8, fields in alphabetical order.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self) + Data("\n".utf8)
    }

    private enum CodingKeys: String, CodingKey {
        case machine, versions, threads, questions, tokens, results, warnings
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(machine, forKey: .machine)
        try container.encode(versions, forKey: .versions)
        // Nulls stand in the file: its reader expects every field.
        try container.encode(threads, forKey: .threads)
        try container.encode(questions, forKey: .questions)
        try container.encode(tokens, forKey: .tokens)
        try container.encode(results, forKey: .results)
        try container.encode(warnings, forKey: .warnings)
    }
}

/// One contender's times, from text or from token ids.
public struct StudyRow: Codable, Sendable, Equatable {
    public var model: String
    public var runtime = "coreml"
    public var precision: String
    /// As coremltools names them: "all", "cpu_only", "cpu_and_gpu", "cpu_and_ne".
    public var computeUnits: String
    /// The length of an input in tokens, the lower median where they differ.
    public var tokens: Int
    /// From text to logits; otherwise from token ids to logits.
    public var tokenization: Bool
    public var medianMs: Double
    /// The 90th percentile, linearly interpolated.
    public var p90Ms: Double
    /// Its median over the first contender's with the same `tokenization`.
    public var ratio: Double
    public var calls: Int
    public var randomWeights = false
    /// The hottest that the device was before or after one of its calls.
    public var thermalState: ThermalState
    /// Each call, in the order in which they were made.
    public var timesMs: [Double]

    private enum CodingKeys: String, CodingKey {
        case model, runtime, precision, tokens, tokenization, ratio, calls
        case computeUnits = "compute_units"
        case medianMs = "median_ms"
        case p90Ms = "p90_ms"
        case randomWeights = "random_weights"
        case thermalState = "thermal_state"
        case timesMs = "times_ms"
    }
}

extension StudyRow: Identifiable {
    public var id: String { "\(model) \(precision) \(computeUnits) \(tokenization)" }
}
