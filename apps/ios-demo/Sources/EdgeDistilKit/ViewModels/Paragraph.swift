/// A piece of a passage that is laid out, and scrolled to, by itself.
public struct Paragraph: Sendable, Equatable, Identifiable {
    /// Its place among the paragraphs, from 0.
    public let id: Int
    /// Where it stands in the passage.
    public let range: Range<String.Index>
    /// The text before the highlight, the highlight, and what follows: empty highlight where there is none.
    public let before, highlight, after: String

    public var isHighlighted: Bool { !highlight.isEmpty }
    /// How far down the highlight starts, from 0 to 1: where to scroll to in a paragraph taller than the screen.
    public var highlightPosition: Double {
        let length = before.utf8.count + highlight.utf8.count + after.utf8.count
        return length == 0 ? 0 : Double(before.utf8.count) / Double(length)
    }
}

extension Paragraph {
    /// A text's paragraphs, without their line ends and the empty ones, with the characters that `highlight` touches
    /// set apart.
    ///
    /// One of more than `longest` UTF-8 bytes is cut after a sentence, else at a blank, else between characters, because a
    /// text view lays out all that it holds at once. Megabytes take longer than a frame: do it off the main thread, and
    /// `mark` the paragraphs afterwards.
    public static func split(
        _ text: String, highlight: Range<String.Index>? = nil, longest: Int = 2000
    ) -> [Paragraph] {
        var paragraphs = pieces(of: text, longest: longest).enumerated().map { id, piece in
            Paragraph(id: id, range: piece, before: "", highlight: "", after: String(text[piece]))
        }
        if highlight != nil { paragraphs.mark(highlight, in: text) }
        return paragraphs
    }

    /// The same paragraph of `text` with the characters that `highlight` touches set apart.
    fileprivate func marked(_ highlight: Range<String.Index>?, in text: String) -> Paragraph {
        let marked = highlight.flatMap { Self.wholeCharacters($0.clamped(to: range), in: text[range]) }
        let start = marked?.lowerBound ?? range.lowerBound
        let end = marked?.upperBound ?? range.lowerBound
        return Paragraph(
            id: id, range: range, before: String(text[range.lowerBound..<start]),
            highlight: String(text[start..<end]), after: String(text[end..<range.upperBound]))
    }

    // By scalars: to put each together with its neighbours to a character, and to look at that, costs five times as much.

    private static func pieces(of text: String, longest: Int) -> [Range<String.Index>] {
        var pieces: [Range<String.Index>] = []
        for line in text.unicodeScalars.split(whereSeparator: isLineEnd) {
            var rest = text[line.startIndex..<line.endIndex]
            while let limit = rest.utf8.index(rest.startIndex, offsetBy: longest, limitedBy: rest.endIndex),
                limit < rest.endIndex
            {
                let end = cut(rest, limit: limit)
                pieces.append(rest.startIndex..<end)
                rest = rest[end...]
            }
            if !rest.isEmpty { pieces.append(rest.startIndex..<rest.endIndex) }
        }
        return pieces
    }

    /// Those of `Character.isNewline`. No character has one of them and anything else in it.
    private static func isLineEnd(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x0A...0x0D, 0x85, 0x2028, 0x2029: true
        default: false
        }
    }

    /// A blank within a line. Most scalars need no look into Unicode's tables.
    private static func isBlank(_ scalar: Unicode.Scalar) -> Bool {
        scalar.isASCII ? scalar == " " || scalar == "\t" : scalar.properties.isWhitespace
    }

    /// Where the first piece of a long line ends: at `limit` or before it, but after the first character.
    private static func cut(_ line: Substring, limit: String.Index) -> String.Index {
        let next = line.index(after: limit)
        let end = line.index(before: next)
        guard end > line.startIndex else { return next }
        let scalars = line.unicodeScalars
        var blank: String.Index?
        var index = end
        // From the end, where the last sentence is near.
        while index > line.startIndex {
            let previous = scalars.index(before: index)
            if isBlank(scalars[previous]) {
                let endsSentence =
                    previous > line.startIndex
                    && ".!?".unicodeScalars.contains(scalars[scalars.index(before: previous)])
                // A blank with a mark on it is not one to cut at.
                if blank == nil || endsSentence, String.Index(index, within: line) != nil {
                    if endsSentence { return index }
                    blank = index
                }
            }
            index = previous
        }
        return blank ?? end
    }

    /// The range with the characters that it cuts through: half of an emoji cannot be shown.
    private static func wholeCharacters(
        _ range: Range<String.Index>, in piece: Substring
    ) -> Range<String.Index>? {
        guard !range.isEmpty, let start = piece.indices.last(where: { $0 <= range.lowerBound }) else { return nil }
        return start..<(piece.indices.first { $0 >= range.upperBound } ?? piece.endIndex)
    }
}

extension [Paragraph] {
    /// Sets the characters of `text` that `highlight` touches apart, and nothing else. Paragraphs without the old and
    /// the new highlight stay as they are.
    public mutating func mark(_ highlight: Range<String.Index>?, in text: String) {
        for index in indices {
            let touched = highlight?.overlaps(self[index].range) ?? false
            if touched || self[index].isHighlighted { self[index] = self[index].marked(highlight, in: text) }
        }
    }
}
