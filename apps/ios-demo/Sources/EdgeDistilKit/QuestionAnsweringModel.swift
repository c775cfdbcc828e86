/// One model input: `[CLS] question [SEP] part of the passage [SEP]`.
public struct Window: Sendable, Equatable {
    public let ids: [Int32]
    /// Position of the first token of the passage in `ids`.
    public let contextStart: Int
    /// UTF-8 byte offsets into the passage, of each of its tokens in this window.
    public let starts, ends: [Int32]

    public init(ids: [Int32], contextStart: Int, starts: [Int32], ends: [Int32]) {
        self.ids = ids
        self.contextStart = contextStart
        self.starts = starts
        self.ends = ends
    }
}

/// Logits of one window, as many as it has tokens: padding is cut off.
public struct SpanLogits: Sendable, Equatable {
    public let start, end: [Float]

    public init(start: [Float], end: [Float]) {
        self.start = start
        self.end = end
    }
}

/// A model that says where the answer starts and ends in a window.
public protocol QuestionAnsweringModel: Sendable {
    /// The input lengths that it takes, ascending; nil where any will do.
    var lengths: [Int]? { get }
    /// Run one window, which has no more tokens than the last of `lengths`.
    func predict(_ window: Window) async throws -> SpanLogits
}
