/// The best spans of a passage over all its windows, and the logit of the empty answer.
///
/// A span's logit is its start logit plus its end logit; it starts and ends on tokens of the passage, holds at most 30
/// of them, and counts once with its best logit where windows overlap. The empty answer's logit is that of [CLS], the
/// least over windows. Ties go to the earlier, then the shorter span.
struct BestSpans {
    struct Span {
        /// UTF-8 bytes of the passage.
        let place: Range<Int32>
        let logit: Double

        func isBetter(than other: Span) -> Bool {
            if logit != other.logit { return logit > other.logit }
            return (place.lowerBound, place.upperBound) < (other.place.lowerBound, other.place.upperBound)
        }
    }

    static let count = 20
    static let maxAnswerTokens = 30

    private let passage: String
    /// Best first, at most `count`.
    private(set) var ranked: [Span] = []
    private(set) var nullLogit = Double.infinity

    init(passage: String) {
        self.passage = passage
        ranked.reserveCapacity(Self.count + 1)
    }

    /// Take the logits of one window. Throws `KitError` where they are not one start and one end for each token.
    mutating func add(_ window: Window, _ logits: SpanLogits) throws {
        guard logits.start.count == window.ids.count, logits.end.count == window.ids.count else {
            throw KitError.invalidLogits(
                reason: "\(logits.start.count) start and \(logits.end.count) end logits for \(window.ids.count) tokens")
        }
        let context = window.contextStart..<window.contextStart + window.starts.count
        let starts = logits.start[context].map(Double.init)
        let ends = logits.end[context].map(Double.init)
        let wholeEnds = window.ends.map(endPastMarks)
        nullLogit = min(nullLogit, Double(logits.start[0]) + Double(logits.end[0]))
        // Of the spans of one width the best 20 alone are candidates, the earlier of equal ones, before spans of one
        // place, such as those of the parts of a character, are taken for one: so are the answers Python's.
        var best = BestOfWidth()
        for width in 0..<min(Self.maxAnswerTokens, starts.count) {
            best.removeAll()
            // What is below the last of a full list can neither enter it nor better one of its spans.
            let least = ranked.count == Self.count ? ranked[Self.count - 1].logit : -.infinity
            starts.withUnsafeBufferPointer { starts in
                ends.withUnsafeBufferPointer { ends in
                    for first in 0..<starts.count - width {
                        let logit = starts[first] + ends[first + width]
                        if logit >= least { best.add(logit, first) }
                    }
                }
            }
            for (logit, first) in best.kept where logit > -.infinity {
                add(Span(place: window.starts[first]..<wholeEnds[first + width], logit: logit))
            }
        }
    }

    private mutating func add(_ span: Span) {
        if let known = ranked.firstIndex(where: { $0.place == span.place }) {
            guard span.logit > ranked[known].logit else { return }
            ranked.remove(at: known)
        }
        let position = ranked.firstIndex { span.isBetter(than: $0) } ?? ranked.endIndex
        guard position < Self.count else { return }
        ranked.insert(span, at: position)
        if ranked.count > Self.count { ranked.removeLast() }
    }

    /// Where a cut at a byte of the passage ends: there, or past the combining marks that follow it.
    ///
    /// An uncased tokeniser drops accents, so a mark that is a scalar of its own belongs to no token.
    private func endPastMarks(_ end: Int32) -> Int32 {
        let utf8 = passage.utf8
        var index = utf8.index(utf8.startIndex, offsetBy: Int(end))
        var place = end
        // No mark is an ASCII character.
        while index < utf8.endIndex, utf8[index] >= 0x80 {
            let scalar = passage.unicodeScalars[index]
            guard scalar.isMark else { break }
            place += Int32(UTF8.width(scalar))
            passage.unicodeScalars.formIndex(after: &index)
        }
        return place
    }
}

/// The best 20 of many logits, the earlier of equal ones, best first.
private struct BestOfWidth {
    private(set) var kept: [(logit: Double, first: Int)] = []

    mutating func removeAll() {
        kept.removeAll(keepingCapacity: true)
    }

    /// Positions have to come in ascending order.
    mutating func add(_ logit: Double, _ first: Int) {
        if kept.count == BestSpans.count {
            guard logit > kept[kept.count - 1].logit else { return }
            kept.removeLast()
        }
        var position = kept.count
        while position > 0, kept[position - 1].logit < logit { position -= 1 }
        kept.insert((logit, first), at: position)
    }
}

extension Unicode.Scalar {
    fileprivate var isMark: Bool {
        switch properties.generalCategory {
        case .nonspacingMark, .spacingMark, .enclosingMark: true
        default: false
        }
    }
}
