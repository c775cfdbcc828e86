import XCTest

@testable import EdgeDistilKit

final class DecodingTests: XCTestCase {
    /// Candidates at 1, 3, 5 …, each in a window of its own, so that no spans of several tokens are made.
    private func spans(_ logits: [Float], null: Float) throws -> BestSpans {
        var spans = BestSpans(passage: " a a a a")
        for (position, logit) in logits.enumerated() {
            let place = Int32(2 * position + 1)
            try spans.add(
                Window(ids: [0, 0, 0, 0], contextStart: 2, starts: [place], ends: [place + 1]),
                SpanLogits(start: [null, 0, logit, 0], end: [0, 0, 0, 0]))
        }
        return spans
    }

    func testScoresAreTheSoftMaxOverLogitsDividedByTheTemperature() throws {
        let ranked = Decoding(temperature: 2).rank(try spans([2, 4], null: 9), unanswerable: false)
        XCTAssertEqual(ranked.map(\.place), [3..<4, 1..<2])
        XCTAssertEqual(ranked[0].score, 1 / (1 + exp(-1)), accuracy: 1e-15)
        XCTAssertEqual(ranked[1].score, exp(-1) / (1 + exp(-1)), accuracy: 1e-15)
    }

    func testTheEmptyAnswerWinsWhereItsLogitIsAboveTheBestByMoreThanTheThreshold() throws {
        func places(_ null: Float, _ threshold: Double?) throws -> [Range<Int32>] {
            let ranked = Decoding(nullThreshold: threshold).rank(try spans([4, 2], null: null), unanswerable: true)
            XCTAssertEqual(ranked.map(\.score).reduce(0, +), 1, accuracy: 1e-12)
            return ranked.map(\.place)
        }
        XCTAssertEqual(try places(4.5, nil), [0..<0, 1..<2, 3..<4])
        XCTAssertEqual(try places(4, nil), [1..<2, 0..<0, 3..<4], "the empty answer wins no tie")
        XCTAssertEqual(try places(4.5, 0.5), [1..<2, 0..<0, 3..<4])
        XCTAssertEqual(try places(4.75, 0.5), [0..<0, 1..<2, 3..<4])
        XCTAssertEqual(try places(3.5, -1), [0..<0, 1..<2, 3..<4])
        XCTAssertEqual(try places(1, nil), [1..<2, 3..<4, 0..<0])
    }

    func testTheThresholdIsPartOfTheEmptyAnswersScore() throws {
        let ranked = Decoding(temperature: 2, nullThreshold: -1).rank(try spans([4], null: 6), unanswerable: true)
        XCTAssertEqual(ranked[0].score, 1 / (1 + exp(-1.5)), accuracy: 1e-15)
    }

    func testAFolderWithoutTheFileHasTheDefaults() throws {
        XCTAssertEqual(try Decoding(folder: temporaryFolder()), Decoding(temperature: 1, nullThreshold: nil))
    }

    func testWhatPythonWritesIsRead() throws {
        func read(_ text: String) throws -> Decoding {
            let folder = try temporaryFolder()
            try folder.write(text, to: "decoding.json")
            return try Decoding(folder: folder)
        }
        XCTAssertEqual(
            try read("{\n  \"temperature\": 1.25,\n  \"null_threshold\": -0.5\n}\n"),
            Decoding(temperature: 1.25, nullThreshold: -0.5))
        XCTAssertEqual(try read("{\"temperature\": 2, \"null_threshold\": null}"), Decoding(temperature: 2))
        XCTAssertEqual(try read("{}"), Decoding())
    }

    func testWhatIsNoDecodingIsRefusedByField() throws {
        for (text, reason) in [
            ("{\"temperature\": 0}", "field “temperature”: 0.0 is not above 0"),
            ("{\"temperature\": -1}", "field “temperature”: -1.0 is not above 0"),
            ("{\"temperature\": \"hot\"}", "field “temperature” is not a number"),
            ("{\"temperature\": true}", "field “temperature” is not a number"),
            ("{\"temperature\": null}", "field “temperature” is null, not a number"),
            ("{\"null_threshold\": []}", "field “null_threshold” is not a number"),
            ("{\"threshold\": 1}", "field “threshold”: is not known"),
            ("[1]", "the whole file is not an object"),
            ("{", "it is not valid JSON"),
        ] {
            let folder = try temporaryFolder()
            try folder.write(text, to: "decoding.json")
            let error = KitError.malformed(folder.appendingPathComponent("decoding.json"), reason: reason)
            assertThrows(error) { try Decoding(folder: folder) }
        }
    }

    func testADecodingIsReadBackAsItWasWritten() throws {
        let decoding = Decoding(temperature: 0.1, nullThreshold: nil)
        XCTAssertEqual(try JSONDecoder().decode(Decoding.self, from: JSONEncoder().encode(decoding)), decoding)
    }
}
