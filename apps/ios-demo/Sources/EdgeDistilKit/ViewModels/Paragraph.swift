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
    /// text view lays out all that it holds at once.
    public static func split(
        _ text: String, highlight: Range<String.Index>? = nil, longest: Int = 2000
    ) -> [Paragraph] {
        pieces(of: text, longest: longest).enumerated().map { id, piece in
            let marked = highlight.flatMap { wholeCharacters($0.clamped(to: piece), in: text[piece]) }
            let start = marked?.lowerBound ?? piece.lowerBound
            let end = marked?.upperBound ?? piece.lowerBound
            return Paragraph(
                id: id, range: piece, before: String(text[piece.lowerBound..<start]),
                highlight: String(text[start..<end]), after: String(text[end..<piece.upperBound]))
        }
    }

    private static func pieces(of text: String, longest: Int) -> [Range<String.Index>] {
        var pieces: [Range<String.Index>] = []
        for line in text.split(whereSeparator: \.isNewline) {
            var rest = line
            while rest.utf8.count > longest {
                let end = cut(rest, longest: longest)
                pieces.append(rest.startIndex..<end)
                rest = rest[end...]
            }
            if !rest.isEmpty { pieces.append(rest.startIndex..<rest.endIndex) }
        }
        return pieces
    }

    /// Where the first piece of a long line ends: after its start, whatever is in it.
    private static func cut(_ line: Substring, longest: Int) -> String.Index {
        var sentence: String.Index?
        var blank: String.Index?
        var previous: Character = " "
        var index = line.startIndex
        var bytes = 0
        while index < line.endIndex {
            let character = line[index]
            bytes += character.utf8.count
            if bytes > longest && index > line.startIndex { break }
            index = line.index(after: index)
            if character.isWhitespace {
                blank = index
                if ".!?".contains(previous) { sentence = index }
            }
            previous = character
        }
        return sentence ?? blank ?? index
    }

    /// The range with the characters that it cuts through: half of an emoji cannot be shown.
    private static func wholeCharacters(
        _ range: Range<String.Index>, in piece: Substring
    ) -> Range<String.Index>? {
        guard !range.isEmpty, let start = piece.indices.last(where: { $0 <= range.lowerBound }) else { return nil }
        return start..<(piece.indices.first { $0 >= range.upperBound } ?? piece.endIndex)
    }
}
