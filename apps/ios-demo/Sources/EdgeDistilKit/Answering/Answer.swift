/// A span of a passage, or the empty answer, with its probability among the best of all windows.
public struct Answer: Sendable, Equatable, Identifiable {
    /// As it stands in the passage. Empty: the passage has no answer.
    public let text: String
    /// Where it stands in the passage as given. Boundaries are those of Unicode scalars, maybe within a `Character`.
    public let range: Range<String.Index>
    /// The same place in Unicode code points, as Python counts.
    public let start, end: Int
    /// Probability, 0 to 1, among the candidates that were ranked.
    public let score: Double

    public init(text: String, range: Range<String.Index>, start: Int, end: Int, score: Double) {
        self.text = text
        self.range = range
        self.start = start
        self.end = end
        self.score = score
    }

    /// The place: no two answers to one question have the same.
    public var id: Range<Int> { start..<end }
    /// Whether it says that the passage has no answer.
    public var isEmpty: Bool { start == end }
}

/// What each part of answering one question took.
public struct Timings: Sendable, Equatable {
    /// Text to tokens and windows; the passage's tokens cost nothing where the last question had the same passage.
    public let tokenize: Duration
    /// Windows to logits, over all windows.
    public let predict: Duration
    /// Logits to ranked answers, over all windows.
    public let decode: Duration

    public init(tokenize: Duration, predict: Duration, decode: Duration) {
        self.tokenize = tokenize
        self.predict = predict
        self.decode = decode
    }

    public var total: Duration { tokenize + predict + decode }
}

/// The answers to one question, best first, and what they cost.
public struct Answered: Sendable, Equatable {
    public let answers: [Answer]
    public let timings: Timings
    /// Tokens of each window, without padding.
    public let tokens: [Int]

    public init(answers: [Answer], timings: Timings, tokens: [Int]) {
        self.answers = answers
        self.timings = timings
        self.tokens = tokens
    }

    /// How many windows were run.
    public var windows: Int { tokens.count }
}
