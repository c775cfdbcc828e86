/// How a question and a passage that are too long for a model are cut into its inputs.
public struct WindowOptions: Sendable, Equatable {
    /// Tokens of an input at most, special tokens among them; 7 at least.
    public var maxLength: Int
    /// By how many tokens of the passage the next window starts after the last one; 1 at least.
    public var docStride: Int

    public init(maxLength: Int = 384, docStride: Int = 128) {
        self.maxLength = maxLength
        self.docStride = docStride
    }
}

/// The windows of one question and one passage, each made when it is asked for.
///
/// Questions are cut to 64 tokens, and to half a window. The stride is never more than a window holds, so that no token
/// is skipped.
public struct Windows: RandomAccessCollection, Sendable {
    static let maxQuestionTokens = 64

    private let passage: Encoding
    private let prefix: [Int32]
    private let separator: Int32
    private let room: Int
    private let stride: Int

    public let startIndex = 0
    public let endIndex: Int

    /// Throws `KitError` for a question or a passage without a token, and for options out of their range.
    public init(
        question: Encoding, passage: Encoding, special: SpecialTokens, options: WindowOptions = WindowOptions()
    ) throws {
        // Half of it is the question's at most; three special tokens and one of the passage have to fit as well.
        guard options.maxLength >= 7 else {
            throw KitError.invalidSetting(name: "maxLength", reason: "is \(options.maxLength), not 7 or more")
        }
        guard options.docStride >= 1 else {
            throw KitError.invalidSetting(name: "docStride", reason: "is \(options.docStride), not 1 or more")
        }
        guard passage.count > 0 else { throw KitError.emptyPassage }
        guard question.count > 0 else { throw KitError.emptyQuestion }
        self.passage = passage
        let asked = question.ids.prefix(Swift.min(Self.maxQuestionTokens, options.maxLength / 2))
        prefix = [special.cls] + asked + [special.sep]
        separator = special.sep
        room = options.maxLength - prefix.count - 1
        stride = Swift.min(options.docStride, room)
        endIndex = 1 + (Swift.max(passage.count - room, 0) + stride - 1) / stride
    }

    public subscript(position: Int) -> Window {
        let first = position * stride
        let part = first..<Swift.min(first + room, passage.count)
        return Window(
            ids: prefix + passage.ids[part] + [separator],
            contextStart: prefix.count,
            starts: Array(passage.starts[part]),
            ends: Array(passage.ends[part])
        )
    }
}

/// All windows of one question and one passage, in order. See `Windows`.
public func windows(
    question: Encoding, passage: Encoding, special: SpecialTokens, options: WindowOptions = WindowOptions()
) throws -> [Window] {
    Array(try Windows(question: question, passage: passage, special: special, options: options))
}
