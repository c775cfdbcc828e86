/// Answers questions about passages of any length, with places in the passage as given.
///
/// Texts are tokenised and models run off the caller's actor. The tokens of the last passage are kept, so that the next
/// question about it costs less.
public actor QuestionAnswerer {
    /// 4 MiB, a long novel. Its tokens take 12 bytes each; windows are made and dropped one at a time.
    public static let defaultMaxPassageBytes = 4 << 20

    public nonisolated let model: any QuestionAnsweringModel
    public nonisolated let tokenizer: any Tokenizer
    /// As they are used: windows fill the length that they would be padded to anyway.
    public nonisolated let options: WindowOptions
    public nonisolated let decoding: Decoding
    public nonisolated let maxPassageBytes: Int

    private var last: (passage: String, encoding: Encoding)?

    public init(
        model: any QuestionAnsweringModel,
        tokenizer: any Tokenizer,
        options: WindowOptions = WindowOptions(),
        decoding: Decoding = Decoding(),
        maxPassageBytes: Int = defaultMaxPassageBytes
    ) {
        self.model = model
        self.tokenizer = tokenizer
        var fitting = options
        fitting.maxLength = fittingLength(options.maxLength, of: model.lengths)
        self.options = fitting
        self.decoding = decoding
        self.maxPassageBytes = maxPassageBytes
    }

    /// The `nBest` answers to one question, best first; 20 at most, and with `unanswerable` the empty one among them.
    ///
    /// Cancelling the task ends it between two windows with a `CancellationError`; `progress` is told the share of
    /// windows that were run. Throws `KitError` for an empty question or passage, a passage that is too long, and a
    /// model whose logits are not usable, and whatever the model throws.
    public func answer(
        _ question: String,
        in passage: String,
        nBest: Int = 1,
        unanswerable: Bool = false,
        progress: @Sendable (Double) -> Void = { _ in }
    ) async throws -> Answered {
        guard nBest >= 1 else { throw KitError.invalidSetting(name: "nBest", reason: "is \(nBest), not 1 or more") }
        let clock = ContinuousClock()
        var (tokenize, predict, decode) = (Duration.zero, Duration.zero, Duration.zero)

        let begun = clock.now
        let encoded = try encode(passage)
        let windows = try Windows(
            question: tokenizer.encode(question), passage: encoded.encoding, special: tokenizer.special,
            options: options)
        tokenize = clock.now - begun

        var spans = BestSpans(passage: encoded.passage)
        var tokens: [Int] = []
        for position in windows.indices {
            try Task.checkCancellation()
            let cutting = clock.now
            let window = windows[position]
            let asked = clock.now
            let logits = try await model.predict(window)
            let told = clock.now
            try spans.add(window, logits)
            decode += clock.now - told
            predict += told - asked
            tokenize += asked - cutting
            tokens.append(window.ids.count)
            progress(Double(tokens.count) / Double(windows.count))
        }
        let ranking = clock.now
        guard !spans.ranked.isEmpty else { throw KitError.invalidLogits(reason: "no logit is a finite number") }
        let ranked = decoding.rank(spans, unanswerable: unanswerable).prefix(nBest)
        let answers = locate(ranked, in: passage)
        decode += clock.now - ranking
        return Answered(
            answers: answers, timings: Timings(tokenize: tokenize, predict: predict, decode: decode), tokens: tokens)
    }

    /// The passage in contiguous UTF-8, and its tokens.
    private func encode(_ passage: String) throws -> (passage: String, encoding: Encoding) {
        // Equal strings may have other bytes: an accent of its own, or as part of a letter.
        if let last, last.passage.utf8.elementsEqual(passage.utf8) { return last }
        let bytes = passage.utf8.count
        guard bytes <= maxPassageBytes else { throw KitError.passageTooLong(bytes: bytes, limit: maxPassageBytes) }
        var contiguous = passage
        contiguous.makeContiguousUTF8()
        let encoded = (passage: contiguous, encoding: tokenizer.encode(contiguous))
        last = encoded
        return encoded
    }
}

/// The least of the ascending `lengths` that holds so many tokens, the greatest where none does; any, where nil.
func fittingLength(_ tokens: Int, of lengths: [Int]?) -> Int {
    guard let lengths, let longest = lengths.last else { return tokens }
    return lengths.first { $0 >= tokens } ?? longest
}

/// Answers of places in UTF-8 bytes of a passage.
private func locate(
    _ ranked: some Collection<(place: Range<Int32>, score: Double)>, in passage: String
) -> [Answer] {
    let utf8 = passage.utf8
    // One walk over the passage counts the scalars up to every place.
    let places = Set(ranked.flatMap { [$0.place.lowerBound, $0.place.upperBound] }).sorted()
    var scalars: [Int32: Int] = [:]
    var indices: [Int32: String.Index] = [:]
    var (index, bytes, count) = (passage.startIndex, 0, 0)
    for place in places {
        let next = utf8.index(index, offsetBy: Int(place) - bytes)
        count += passage.unicodeScalars[index..<next].count
        (index, bytes) = (next, Int(place))
        scalars[place] = count
        indices[place] = index
    }
    return ranked.map { place, score in
        let range = indices[place.lowerBound]!..<indices[place.upperBound]!
        return Answer(
            text: String(passage.unicodeScalars[range]),
            range: range,
            start: scalars[place.lowerBound]!,
            end: scalars[place.upperBound]!,
            score: score
        )
    }
}
