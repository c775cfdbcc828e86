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
}
