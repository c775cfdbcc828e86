import XCTest

@testable import EdgeDistilKit

final class ParagraphTests: XCTestCase {
    private func range(of part: String, in text: String) -> Range<String.Index> {
        text.range(of: part)!
    }

    func testLinesBecomeParagraphsWithoutTheirEnds() {
        let paragraphs = Paragraph.split("One.\n\nTwo.\r\nThree.\n")
        XCTAssertEqual(paragraphs.map(\.before), ["One.", "Two.", "Three."].map { _ in "" })
        XCTAssertEqual(paragraphs.map(\.after), ["One.", "Two.", "Three."])
        XCTAssertEqual(paragraphs.map(\.id), [0, 1, 2])
        XCTAssertEqual(Paragraph.split(""), [])
    }

    func testHighlightIsSetApartInItsParagraphAlone() {
        let text = "First.\nThe tower was built in 1889 by many."
        let paragraphs = Paragraph.split(text, highlight: range(of: "1889", in: text))
        XCTAssertFalse(paragraphs[0].isHighlighted)
        XCTAssertEqual(
            [paragraphs[1].before, paragraphs[1].highlight, paragraphs[1].after],
            ["The tower was built in ", "1889", " by many."])
        XCTAssertEqual(paragraphs[1].highlightPosition, 23.0 / 36, accuracy: 1e-12)
    }

    func testHighlightOverALineEndIsInBothParagraphs() {
        let text = "ends here\nand goes on"
        let paragraphs = Paragraph.split(text, highlight: range(of: "here\nand", in: text))
        XCTAssertEqual(paragraphs.map(\.highlight), ["here", "and"])
    }

    func testHighlightTakesWholeCharacters() {
        // A family of three scalars joined, and an e with an accent of its own: the range cuts both.
        let text = "a 👩‍👧 b cafe\u{301} d"
        let scalars = text.unicodeScalars
        let family = scalars.firstIndex(of: "👧")!
        let e = scalars.firstIndex(of: "e")!
        let paragraphs = Paragraph.split(text, highlight: family..<scalars.index(after: e))
        XCTAssertEqual(paragraphs[0].highlight, "👩‍👧 b cafe\u{301}")
        XCTAssertEqual(paragraphs[0].before + paragraphs[0].highlight + paragraphs[0].after, text)
    }

    func testLongLineIsCutAfterASentenceElseAtABlankElseBetweenCharacters() {
        func cut(_ text: String) -> [String] { Paragraph.split(text, longest: 12).map(\.after) }
        XCTAssertEqual(cut("One. Two. Three four"), ["One. Two. ", "Three four"])
        XCTAssertEqual(cut("one two three four"), ["one two ", "three four"])
        XCTAssertEqual(cut("abcdefghijklmnopq"), ["abcdefghijkl", "mnopq"])
        // A flag has 8 bytes: one fits, and one is never cut in two.
        XCTAssertEqual(cut("🇫🇷🇩🇪🇮🇹"), ["🇫🇷", "🇩🇪", "🇮🇹"])
        // A single character that is longer than a piece ends the search all the same.
        XCTAssertEqual(cut("👨‍👩‍👧‍👦👨‍👩‍👧‍👦"), ["👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦"])
    }

    func testPiecesOfALongLineAddUpToIt() {
        let text = (1...2000).map { "Sentence \($0) says é and 日本." }.joined(separator: " ")
        let paragraphs = Paragraph.split(text, highlight: range(of: "Sentence 1500 says", in: text))
        XCTAssertEqual(paragraphs.map { $0.before + $0.highlight + $0.after }.joined(), text)
        XCTAssertEqual(paragraphs.map(\.highlight).joined(), "Sentence 1500 says")
        XCTAssert(paragraphs.allSatisfy { ($0.before + $0.highlight + $0.after).utf8.count <= 2000 })
        XCTAssertEqual(paragraphs.map { text[$0.range] }.joined(), text)
    }

    func testAnotherMarkTakesTheLastOneAwayAndLeavesAllElseAsItIs() {
        let text = "First here.\nSecond there.\nThird."
        let plain = Paragraph.split(text)
        var paragraphs = plain
        for part in ["here.\nSecond", "there.\nThird", "Third", "\n", "First"] {
            paragraphs.mark(range(of: part, in: text), in: text)
            XCTAssertEqual(paragraphs, Paragraph.split(text, highlight: range(of: part, in: text)), part)
        }
        XCTAssertEqual(paragraphs.map(\.highlight), ["First", "", ""])
        paragraphs.mark(text.startIndex..<text.startIndex, in: text)
        XCTAssertEqual(paragraphs, plain)
        paragraphs.mark(range(of: "Second", in: text), in: text)
        paragraphs.mark(nil, in: text)
        XCTAssertEqual(paragraphs, plain)
    }

    /// The rule read off character by character: the longest run of whole characters that fits, or one character; of it
    /// as much as ends with a blank after a full stop, else with a blank. With a mark on it a blank is none.
    private func pieces(_ text: String, longest: Int) -> [String] {
        text.split(whereSeparator: \.isNewline).flatMap { line in
            var (rest, pieces) = (Array(line), [String]())
            while !rest.isEmpty {
                var count = 0
                var bytes = 0
                while count < rest.count, bytes + rest[count].utf8.count <= longest {
                    bytes += rest[count].utf8.count
                    count += 1
                }
                if count < rest.count {
                    let ends = (0..<count).filter { rest[$0].isWhitespace && rest[$0].unicodeScalars.count == 1 }
                    let sentence = ends.last { $0 > 0 && [".", "!", "?"].contains(rest[$0 - 1]) }
                    count = (sentence ?? ends.last).map { $0 + 1 } ?? max(count, 1)
                }
                pieces.append(String(rest.prefix(count)))
                rest.removeFirst(count)
            }
            return pieces
        }
    }

    func testRandomTextsAreCutAsTheRuleSays() {
        let parts = [
            "a", "be", ".", "!", "?", " ", " ", "\u{301}", "\u{3000}", "\u{A0}", "é", "日本", "👩‍👧", "\u{200D}", "🇫🇷", "🇩",
            "\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}", "\u{B}", "\u{C}", "\t",
        ]
        var random = SystemRandomNumberGenerator()
        for _ in 0..<3000 {
            let count = Int.random(in: 0...60, using: &random)
            let text = (0..<count).map { _ in parts.randomElement(using: &random)! }.joined()
            let longest = Int.random(in: 1...30, using: &random)
            XCTAssertEqual(
                Paragraph.split(text, longest: longest).map(\.after), pieces(text, longest: longest),
                "\(text.unicodeScalars.map(\.value)), \(longest)")
        }
    }
}
