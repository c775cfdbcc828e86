import XCTest

@testable import EdgeDistilKit

final class QuestionAnswererTests: XCTestCase {
    private let tokenizer = WordTokenizer()

    /// The answer of a model that finds what is from one word to another.
    private func ask(_ passage: String, from first: String, to last: String) async throws -> Answer {
        let answerer = QuestionAnswerer(
            model: finder(of: tokenizer.id(first), to: tokenizer.id(last)), tokenizer: tokenizer)
        return try await answerer.answer("Which?", in: passage).answers[0]
    }

    /// Bytes, for two strings are equal to Swift where they are written differently.
    private func assertSame(_ one: String, _ other: String, line: UInt = #line) {
        XCTAssertEqual(Array(one.utf8), Array(other.utf8), "\(one), \(other)", line: line)
    }

    func testAnAnswerIsWhereItStandsInThePassageAsGiven() async throws {
        let passage = "Ana 👩‍👩‍👧 lives\r\nin Zürich now."
        let answer = try await ask(passage, from: "lives", to: "Zürich")
        assertSame(answer.text, "lives\r\nin Zürich")
        assertSame(String(passage[answer.range]), "lives\r\nin Zürich")
        XCTAssertEqual([answer.start, answer.end], [10, 26])  // the family is five scalars, the line's end two
        XCTAssertEqual(answer.range.lowerBound, passage.firstIndex(of: "l"))
    }

    func testCombiningMarksAfterTheEndBelongToTheAnswer() async throws {
        let passage = "un cafe\u{301}\u{323}, s'il"
        let answer = try await ask(passage, from: "cafe", to: "cafe")
        assertSame(answer.text, "cafe\u{301}\u{323}")
        XCTAssertEqual([answer.start, answer.end], [3, 9])
        XCTAssertEqual(passage[answer.range].count, 4)
    }

    func testAnAnswerMayEndWithinACharacter() async throws {
        // A zero-width joiner is no combining mark, so the tokens around it are two answers.
        let passage = "x 👨\u{200d}b y"
        let answer = try await ask(passage, from: "x", to: "👨")
        assertSame(answer.text, "x 👨")
        assertSame(String(passage[answer.range]), "x 👨")
        XCTAssertEqual([answer.start, answer.end], [0, 3])
    }

    func testRightToLeftTextWithVowelSigns() async throws {
        let passage = "עיר שלום\u{5b8}\u{5bc}, كتب\u{64e}"
        let answer = try await ask(passage, from: "שלום", to: "كتب")
        assertSame(answer.text, "שלום\u{5b8}\u{5bc}, كتب\u{64e}")
        XCTAssertEqual([answer.start, answer.end], [4, 16])
        XCTAssertEqual(answer.range.upperBound, passage.endIndex)
    }

    func testTheSecondOfTwoEqualPassagesIsReadAnew() async throws {
        // Equal as Swift strings are, and yet of other places.
        let (one, other) = ("\u{e9}\u{e9} Rome", "e\u{301}e\u{301} Rome")
        XCTAssertEqual(one, other)
        let answerer = QuestionAnswerer(
            model: finder(of: tokenizer.id("Rome"), to: tokenizer.id("Rome")), tokenizer: tokenizer)
        for (passage, start) in [(one, 3), (other, 5), (one, 3)] {
            let answer = try await answerer.answer("Where?", in: passage).answers[0]
            assertSame(String(passage[answer.range]), "Rome")
            XCTAssertEqual(answer.start, start)
        }
    }

    func testAPassageIsTokenisedOnceForQuestionsThatFollowEachOther() async throws {
        let answerer = QuestionAnswerer(model: finder(of: 0, to: 0), tokenizer: tokenizer)
        for question in ["Who?", "Where?"] { _ = try await answerer.answer(question, in: "Ana in Rome.") }
        _ = try await answerer.answer("Who?", in: "Bea.")
        XCTAssertEqual(tokenizer.texts, ["Ana in Rome.", "Who?", "Where?", "Bea.", "Who?"])
    }

    func testTheEmptyAnswerHasNoText() async throws {
        let model = ComputedModel { window in
            let none = [5] + [Float](repeating: 0, count: window.ids.count - 1)
            return SpanLogits(start: none, end: none)
        }
        let answerer = QuestionAnswerer(model: model, tokenizer: tokenizer)
        let passage = "Ana in Rome."
        let with = try await answerer.answer("Who?", in: passage, nBest: 3, unanswerable: true).answers
        XCTAssertEqual(with[0].text, "")
        XCTAssertTrue(with[0].isEmpty)
        XCTAssertEqual(with[0].range, passage.startIndex..<passage.startIndex)
        XCTAssertEqual(with.map(\.isEmpty), [true, false, false])
        let without = try await answerer.answer("Who?", in: passage, nBest: 3).answers
        XCTAssertEqual(without.map(\.text), ["Ana", "Ana in", "Ana in Rome"])
    }

    func testALongPassageIsReadToItsEnd() async throws {
        let passage = String(repeating: "word ", count: 5000) + "needle"
        let answerer = QuestionAnswerer(
            model: finder(of: tokenizer.id("needle"), to: tokenizer.id("needle")), tokenizer: tokenizer)
        let answered = try await answerer.answer("Which?", in: passage)
        XCTAssertEqual(answered.answers[0].start, 25_000)
        // [CLS] Which ? [SEP] … [SEP] leave 379 of 384 tokens to the passage; 5001 - 379 = 4622 follow by 128.
        XCTAssertEqual(answered.windows, 38)
        XCTAssertEqual(answered.tokens.prefix(37), [Int](repeating: 384, count: 37)[...])
        XCTAssertEqual(answered.tokens[37], 5 + 5001 - 37 * 128)
        XCTAssertGreaterThan(answered.timings.predict, .zero)
        XCTAssertEqual(
            answered.timings.total, answered.timings.tokenize + answered.timings.predict + answered.timings.decode)
    }

    func testProgressGoesUpToAll() async throws {
        final class Told: @unchecked Sendable { var shares: [Double] = [] }
        let told = Told()
        let answerer = QuestionAnswerer(
            model: finder(of: 0, to: 0), tokenizer: tokenizer, options: WindowOptions(maxLength: 9, docStride: 2))
        _ = try await answerer.answer("Who?", in: "a b c d e f g h") { told.shares.append($0) }
        XCTAssertEqual(told.shares, [1.0 / 3, 2.0 / 3, 1])
    }

    func testACancelledQuestionEndsBetweenTwoWindows() async throws {
        actor Count {
            var value = 0
            func add() -> Int { value += 1; return value }
        }
        let count = Count()
        let model = ComputedModel { window in
            if await count.add() == 2 { withUnsafeCurrentTask { $0?.cancel() } }
            let none = [Float](repeating: 0, count: window.ids.count)
            return SpanLogits(start: none, end: none)
        }
        let answerer = QuestionAnswerer(model: model, tokenizer: tokenizer)
        let passage = String(repeating: "word ", count: 5000)
        let asked = Task { try await answerer.answer("Which?", in: passage) }
        do {
            _ = try await asked.value
            XCTFail("nothing was thrown")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
        let run = await count.value
        XCTAssertEqual(run, 2)
    }

    func testWindowsFillTheLengthThatTheyWouldBePaddedTo() {
        func used(_ asked: Int, of lengths: [Int]?) -> Int {
            let model = ComputedModel(lengths: lengths) { _ in SpanLogits(start: [], end: []) }
            let options = WindowOptions(maxLength: asked)
            return QuestionAnswerer(model: model, tokenizer: tokenizer, options: options).options.maxLength
        }
        XCTAssertEqual(used(100, of: [64, 128, 384]), 128)
        XCTAssertEqual(used(384, of: [64, 128]), 128)
        XCTAssertEqual(used(20, of: nil), 20)
    }

    func testWhatCannotBeAnsweredIsRefusedBeforeAnyWork() async {
        let model = ComputedModel { _ in fatalError("no window is to be run") }
        let answerer = QuestionAnswerer(model: model, tokenizer: tokenizer, maxPassageBytes: 10)
        await assertThrows(KitError.passageTooLong(bytes: 11, limit: 10)) {
            try await answerer.answer("?", in: "ééééé.")
        }
        XCTAssertEqual(tokenizer.texts, [])
        await assertThrows(KitError.emptyQuestion) { try await answerer.answer(" \u{301}\n", in: "text") }
        await assertThrows(KitError.emptyPassage) { try await answerer.answer("Who?", in: "") }
        await assertThrows(KitError.emptyPassage) { try await answerer.answer("Who?", in: "\u{200b} \t") }
        await assertThrows(KitError.invalidSetting(name: "nBest", reason: "is 0, not 1 or more")) {
            try await answerer.answer("Who?", in: "text", nBest: 0)
        }
    }

    func testLogitsThatAreNoNumbersAreRefused() async {
        let model = ComputedModel { window in
            let nan = [Float](repeating: .nan, count: window.ids.count)
            return SpanLogits(start: nan, end: nan)
        }
        let answerer = QuestionAnswerer(model: model, tokenizer: tokenizer)
        await assertThrows(KitError.invalidLogits(reason: "no logit is a finite number")) {
            try await answerer.answer("Who?", in: "text")
        }
    }

    func testAModelsOwnErrorIsPassedOn() async {
        let answerer = QuestionAnswerer(model: RecordedModel(logits: [:]), tokenizer: tokenizer)
        let ids = [1, tokenizer.id("Who"), 2, tokenizer.id("text"), 2]
        await assertThrows(RecordedModel.UnknownWindow(ids: ids)) { try await answerer.answer("Who", in: "text") }
    }
}
