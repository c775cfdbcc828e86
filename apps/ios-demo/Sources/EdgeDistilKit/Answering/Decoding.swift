import Foundation

/// How the logits of one model become answers: what its `decoding.json` says.
public struct Decoding: Codable, Sendable, Equatable {
    static let fileName = "decoding.json"

    /// Divides the logits before the soft-max; above 0.
    public var temperature: Double
    /// Where a question may have no answer, the empty one wins if its logit is above the best span's by more than this;
    /// nil stands for 0, and for a model that was not tuned to such questions.
    public var nullThreshold: Double?

    public init(temperature: Double = 1, nullThreshold: Double? = nil) {
        self.temperature = temperature
        self.nullThreshold = nullThreshold
    }

    /// What the `decoding.json` of a model folder says, the defaults where there is none.
    ///
    /// Throws `KitError` for a file with other fields, with what is no number, or a temperature of 0 or less.
    public init(folder: URL) throws {
        let url = folder.appendingPathComponent(Self.fileName)
        self = FileManager.default.fileExists(atPath: url.path) ? try readJSON(Self.self, from: url) : Self()
    }

    private enum CodingKeys: String, CodingKey {
        case temperature
        case nullThreshold = "null_threshold"
    }

    private struct AnyKey: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    public init(from decoder: any Decoder) throws {
        let keys = try decoder.container(keyedBy: AnyKey.self).allKeys
        for key in keys where CodingKeys(rawValue: key.stringValue) == nil {
            throw DecodingError.dataCorrupted(.init(codingPath: [key], debugDescription: "is not known"))
        }
        let values = try decoder.container(keyedBy: CodingKeys.self)
        // A null is no number, while a threshold of null is what a model without one has.
        temperature = values.contains(.temperature) ? try values.decode(Double.self, forKey: .temperature) : 1
        nullThreshold = try values.decodeIfPresent(Double.self, forKey: .nullThreshold)
        guard temperature > 0, temperature.isFinite else {
            throw DecodingError.dataCorrupted(
                .init(codingPath: [CodingKeys.temperature], debugDescription: "\(temperature) is not above 0"))
        }
    }

    public func encode(to encoder: any Encoder) throws {
        var values = encoder.container(keyedBy: CodingKeys.self)
        try values.encode(temperature, forKey: .temperature)
        try values.encode(nullThreshold, forKey: .nullThreshold)
    }

    /// The answers, best first, with the empty one among them where `unanswerable`.
    ///
    /// Scores are the soft-max over all, the empty answer's logit less `nullThreshold`.
    func rank(_ spans: BestSpans, unanswerable: Bool) -> [(place: Range<Int32>, score: Double)] {
        let best = spans.ranked[0].logit
        var found = spans.ranked.map { (place: $0.place, logit: $0.logit - best) }
        if unanswerable {
            let logit = spans.nullLogit - best - (nullThreshold ?? 0)
            // The empty answer wins no tie.
            let position = found.firstIndex { $0.logit < logit } ?? found.endIndex
            found.insert((place: 0..<0, logit: logit), at: position)
        }
        let first = found[0].logit
        let weights = found.map { exp(($0.logit - first) / temperature) }
        let total = weights.reduce(0, +)
        return zip(found, weights).map { ($0.place, $1 / total) }
    }
}
