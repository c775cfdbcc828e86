import XCTest

@testable import EdgeDistilKit

final class PassagesTests: XCTestCase {
    private func read(_ text: String) throws -> (URL, () throws -> PassageLibrary) {
        let folder = try temporaryFolder()
        try folder.write(text, to: "passages.json")
        let url = folder.appendingPathComponent("passages.json")
        return (url, { try PassageLibrary(contentsOf: url) })
    }

    func testPassagesAreReadInTheirOrder() throws {
        let one = #"{"title": "B", "text": "Zürich 🏔️", "questions": ["Where?"]}"#
        let (_, library) = try read("[\(one), {\"title\": \"A\", \"text\": \"x\", \"questions\": []}]")
        XCTAssertEqual(
            try library().passages,
            [
                Passage(title: "B", text: "Zürich 🏔️", questions: ["Where?"]),
                Passage(title: "A", text: "x", questions: []),
            ])
    }

    func testFaultsAreNamedByPlace() throws {
        for (text, reason) in [
            (#"[{"title": "A", "questions": []}]"#, "field “[0].text” is missing"),
            (#"[{"title": "A", "text": "x", "questions": "Who?"}]"#, "field “[0].questions” is not a list"),
            (#"{"title": "A"}"#, "the whole file is not a list"),
            (#"[{"title": "A", "text": "\n ", "questions": []}]"#, "passage 1, “A”: its text is empty"),
            (
                #"[{"title": "A", "text": "x", "questions": []}, {"title": "A", "text": "y", "questions": []}]"#,
                "passage 2, “A”: an earlier passage has the same title"
            ),
            ("[", "it is not valid JSON"),
        ] {
            let (url, library) = try read(text)
            assertThrows(KitError.malformed(url, reason: reason), library)
        }
    }

    func testBytesThatAreNotUTF8AreRefused() throws {
        let url = try temporaryFolder().appendingPathComponent("passages.json")
        try Data(#"[{"title": "A", "text": ""#.utf8 + [0xff, 0xfe] + #"", "questions": []}]"#.utf8).write(to: url)
        assertThrows(KitError.malformed(url, reason: "it is not UTF-8 text")) { try PassageLibrary(contentsOf: url) }
    }

    func testAnExcerptIsTheBeginningOfTheText() {
        XCTAssertEqual(Passage(title: "A", text: "Short.").excerpt, "Short.")
        let long = Passage(title: "A", text: String(repeating: "👩‍👧 and ", count: 100_000))
        XCTAssertEqual(long.excerpt, String(repeating: "👩‍👧 and ", count: 50))
        XCTAssertEqual(Set([long, Passage(title: "A", text: "x"), long]).count, 2)
    }

    func testAFileThatIsNotThereIsMissing() throws {
        let url = try temporaryFolder().appendingPathComponent("passages.json")
        assertThrows(KitError.missing(url)) { try PassageLibrary(contentsOf: url) }
    }
}
