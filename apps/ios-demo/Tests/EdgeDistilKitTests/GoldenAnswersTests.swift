import XCTest

@testable import EdgeDistilKit

/// What Scripts/write_golden_answers.py recorded: the kit gives the Python path's windows and answers.
final class GoldenAnswersTests: XCTestCase {
    private struct Recorded: Decodable {
        struct Question: Decodable {
            let question: String
            let passage: Int
            let windows: [Window]
            let answers, answers_or_none: [Answer]
        }

        struct Window: Decodable {
            let ids: [Int32]
            let context_start: Int
            /// First and one-past-last code point of each token of the passage.
            let offsets: [Int]
            /// Little-endian float32, those of the start and those of the end.
            let logits: Data

            var spanLogits: SpanLogits {
                let values = (0..<logits.count / 4).map { position in
                    let bits = logits.withUnsafeBytes {
                        $0.loadUnaligned(fromByteOffset: 4 * position, as: UInt32.self)
                    }
                    return Float(bitPattern: UInt32(littleEndian: bits))
                }
                return SpanLogits(start: Array(values[..<ids.count]), end: Array(values[ids.count...]))
            }
        }

        struct Answer: Decodable {
            let text: String
            let start, end: Int
            let score: Double
        }

        let max_length, doc_stride: Int
        let decoding: Decoding
        let passages: [String]
        let questions: [Question]

        var options: WindowOptions { WindowOptions(maxLength: max_length, docStride: doc_stride) }
    }

    private func read(_ name: String) throws -> (Recorded, WordPieceTokenizer) {
        let url = golden.appendingPathComponent("\(name).json")
        guard FileManager.default.fileExists(atPath: url.path) else {
            throw XCTSkip("no \(url.path): write it with Scripts/write_golden_answers.py --squad FILE --model FOLDER")
        }
        return (
            try JSONDecoder().decode(Recorded.self, from: Data(contentsOf: url)),
            try WordPieceTokenizer(contentsOf: golden.appendingPathComponent("\(name)-tokenizer.json"))
        )
    }

    private func checkWindows(_ name: String) throws {
        let (recorded, tokenizer) = try read(name)
        var count = 0
        for asked in recorded.questions {
            let passage = recorded.passages[asked.passage]
            let cut = try windows(
                question: tokenizer.encode(asked.question), passage: tokenizer.encode(passage),
                special: tokenizer.special, options: recorded.options)
            XCTAssertEqual(cut.map(\.ids), asked.windows.map(\.ids), asked.question)
            XCTAssertEqual(cut.map(\.contextStart), asked.windows.map(\.context_start), asked.question)
            let scalars = codePoints(of: passage)
            let offsets = cut.map { window in
                zip(window.starts, window.ends).flatMap { [scalars[Int($0)], scalars[Int($1)]] }
            }
            XCTAssertEqual(offsets, asked.windows.map(\.offsets), asked.question)
            count += cut.count
        }
        print("\(name): \(recorded.questions.count) questions, \(count) windows equal")
    }

    /// By UTF-8 byte, how many code points stand before it.
    private func codePoints(of text: String) -> [Int] {
        text.unicodeScalars.enumerated().flatMap { [Int](repeating: $0, count: UTF8.width($1)) }
            + [text.unicodeScalars.count]
    }

    private func checkAnswers(_ name: String) async throws {
        let (recorded, tokenizer) = try read(name)
        let logits = recorded.questions.flatMap(\.windows).map { ($0.ids, $0.spanLogits) }
        let model = RecordedModel(logits: Dictionary(logits) { first, _ in first })
        let answerer = QuestionAnswerer(
            model: model, tokenizer: tokenizer, options: recorded.options, decoding: recorded.decoding)
        var worst = 0.0
        for asked in recorded.questions {
            let passage = recorded.passages[asked.passage]
            for (unanswerable, expected) in [(false, asked.answers), (true, asked.answers_or_none)] {
                let answered = try await answerer.answer(
                    asked.question, in: passage, nBest: 5, unanswerable: unanswerable)
                let found = answered.answers
                // Bytes, for strings are equal to Swift where they are written differently.
                XCTAssertEqual(found.map { Array($0.text.utf8) }, expected.map { Array($0.text.utf8) }, asked.question)
                XCTAssertEqual(found.map(\.start), expected.map(\.start), asked.question)
                XCTAssertEqual(found.map(\.end), expected.map(\.end), asked.question)
                for (answer, other) in zip(found, expected) {
                    XCTAssertEqual(answer.score, other.score, accuracy: 1e-12, asked.question)
                    XCTAssertEqual(Array(String(passage[answer.range]).utf8), Array(other.text.utf8), asked.question)
                    worst = max(worst, abs(answer.score - other.score))
                }
                XCTAssertEqual(answered.windows, asked.windows.count)
            }
        }
        print("\(name): answers equal, scores to \(worst)")
    }

    func testWindowsAreThoseOfPython() throws { try checkWindows("answers") }

    func testAnswersAreThoseOfPythonCharacterForCharacter() async throws { try await checkAnswers("answers") }

    func testTheGoldenFileAsksForWhatItIsThereFor() throws {
        let (recorded, _) = try read("answers")
        XCTAssertGreaterThanOrEqual(recorded.questions.count, 200)
        XCTAssertGreaterThan(recorded.questions.filter { $0.windows.count > 1 }.count, 150)
        XCTAssertNotEqual(recorded.decoding.temperature, 1)
        let first = recorded.questions.filter { $0.answers_or_none[0].text.isEmpty }.count
        XCTAssertTrue((50...150).contains(first), "no answer is the first of \(first)")
        XCTAssertTrue(recorded.questions.contains { $0.answers[0].text.utf8.contains { $0 >= 0x80 } })
    }

    func testWindowsOfASquadFile() throws { try checkWindows("Local/answers") }

    func testAnswersOfASquadFile() async throws { try await checkAnswers("Local/answers") }
}
