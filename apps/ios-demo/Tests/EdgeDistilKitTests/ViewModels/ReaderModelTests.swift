import Observation
import XCTest

@testable import EdgeDistilKit

@MainActor final class ReaderModelTests: XCTestCase {
    private let passage = Passage(
        title: "Bridge", text: "The bridge of\nConstantinople is long",
        questions: ["Which bridge is long?", "How long is it?", "Where is it?"])

    private func entry(
        _ name: String = "student", opened: Shared<Int> = Shared(0), model: ScriptedModel = .longestWord,
        decoding: Decoding = Decoding(), before: @escaping @Sendable () async throws -> Void = {}
    ) -> ModelEntry {
        ModelEntry(name: name, precision: "fp16", bytes: 1) { _ in
            opened.change { $0 += 1 }
            try await before()
            return OpenModel(model: model, tokenizer: BlankTokenizer(), decoding: decoding)
        }
    }

    // "of\nConstantinople" is one word to the tests' tokeniser.
    private let best = "of\nConstantinople"

    func testAnswerIsHighlightedInThePassageWithItsRunnersUp() async throws {
        let reader = ReaderModel(models: [entry()], passage: passage)
        XCTAssertFalse(reader.canAsk)
        reader.question = "  Which bridge is long? "
        XCTAssert(reader.canAsk)
        await reader.ask()?.value

        let reply = try XCTUnwrap(reader.reply)
        XCTAssertEqual(reader.state, .idle)
        XCTAssertEqual(reply.best.text, best)
        XCTAssertEqual(reply.question, "Which bridge is long?")
        XCTAssertEqual(reply.model, "student")
        XCTAssertEqual(reply.answered.answers.count, 5)
        XCTAssertEqual(reply.runnersUp.count, 4)
        XCTAssertEqual(reader.shown, reply.best)
        XCTAssertEqual(reader.paragraphs.map(\.highlight), ["of", "Constantinople"])
        XCTAssertEqual(reader.highlighted?.id, 0)
        XCTAssertEqual(reader.announcement?.hasPrefix("Answer: of\nConstantinople, probability "), true)
    }

    func testTappedRunnerUpIsHighlightedInstead() async throws {
        let reader = ReaderModel(models: [entry()], passage: passage)
        await reader.ask("How long is it?")?.value
        let second = try XCTUnwrap(reader.reply?.runnersUp.first)
        reader.show(second)
        XCTAssertEqual(reader.shown, second)
        XCTAssertEqual(
            reader.paragraphs.map(\.highlight).joined(separator: "\n"), String(passage.text[second.range]))
    }

    func testModelWithoutAnAnswerSaysSoAndHighlightsNothing() async throws {
        // [CLS] has the highest logits, and a threshold says that the model was tuned to unanswerable questions.
        let none = ScriptedModel { window in
            let logits = window.ids.indices.map { $0 == 0 ? Float(9) : 0 }
            return SpanLogits(start: logits, end: logits)
        }
        let tuned = ReaderModel(models: [entry(model: none, decoding: Decoding(nullThreshold: 0))], passage: passage)
        await tuned.ask("How long is it?")?.value
        XCTAssertEqual(tuned.reply?.best.isEmpty, true)
        XCTAssertNil(tuned.highlighted)
        XCTAssertEqual(tuned.announcement?.hasPrefix("The passage does not answer this question"), true)

        let untuned = ReaderModel(models: [entry(model: none)], passage: passage)
        await untuned.ask("How long is it?")?.value
        XCTAssertEqual(untuned.reply?.best.isEmpty, false)
    }

    func testSuggestionsAreThePassagesQuestionsThatHoldWhatIsTyped() async {
        let reader = ReaderModel(models: [entry()], passage: passage)
        XCTAssertEqual(reader.suggestions, passage.questions)
        reader.question = "LONG"
        XCTAssertEqual(reader.suggestions, ["Which bridge is long?", "How long is it?"])
        reader.question = "How long is it?"
        XCTAssertEqual(reader.suggestions, [])
    }

    func testStatesOfLoadingAndAnsweringAreShown() async {
        let (loading, answering) = (Gate(), Gate())
        let slow = ScriptedModel { window in
            await answering.pass()
            return try await ScriptedModel.longestWord.predict(window)
        }
        let reader = ReaderModel(models: [entry(model: slow, before: { await loading.pass() })], passage: passage)
        let task = reader.ask("How long is it?")
        await loading.arrived(1)
        XCTAssertEqual(reader.state, .loading(model: "student"))
        XCTAssert(reader.isBusy)
        await loading.open()
        await answering.arrived(1)
        XCTAssertEqual(reader.state, .answering)
        await answering.open()
        await task?.value
        XCTAssertEqual(reader.state, .idle)
        XCTAssertFalse(reader.isBusy)
        XCTAssertNotNil(reader.reply)
    }

    func testNewQuestionStopsTheOneThatRuns() async {
        let gate = Gate()
        let calls = Shared(0)
        let model = ScriptedModel { window in
            // The first call hangs until the second question is answered.
            if calls.change({ $0 += 1; return $0 }) == 1 { await gate.pass() }
            return try await ScriptedModel.longestWord.predict(window)
        }
        let reader = ReaderModel(models: [entry(model: model)], passage: passage)
        let first = reader.ask("How long is it?")
        await gate.arrived(1)
        await reader.ask("Where is it?")?.value
        XCTAssertEqual(reader.reply?.question, "Where is it?")
        await gate.open()
        await first?.value
        XCTAssertEqual(reader.reply?.question, "Where is it?")
        XCTAssertEqual(reader.state, .idle)
    }

    func testStoppedQuestionLeavesTheLastAnswer() async {
        let gate = Gate()
        let calls = Shared(0)
        let model = ScriptedModel { window in
            if calls.change({ $0 += 1; return $0 }) == 2 { await gate.pass() }
            return try await ScriptedModel.longestWord.predict(window)
        }
        let reader = ReaderModel(models: [entry(model: model)], passage: passage)
        await reader.ask("How long is it?")?.value
        let second = reader.ask("Where is it?")
        await gate.arrived(1)
        reader.stop()
        XCTAssertEqual(reader.state, .idle)
        await gate.open()
        await second?.value
        XCTAssertEqual(reader.outcomes, 1, "nothing is said of a question that was stopped")
        XCTAssertEqual(reader.reply?.question, "How long is it?")
    }

    func testModelIsOpenedOnceAndAgainAfterItsMemoryWasGivenBack() async {
        let opened = Shared(0)
        let reader = ReaderModel(models: [entry(opened: opened)], passage: passage)
        await reader.ask("How long is it?")?.value
        await reader.ask("Where is it?")?.value
        XCTAssertEqual(opened.get(), 1)
        reader.releaseModel()
        await reader.ask("How long is it?")?.value
        XCTAssertEqual(opened.get(), 2)
        XCTAssertEqual(reader.reply?.question, "How long is it?")
    }

    func testQuestionAskedWhileItsModelIsOpenedWaitsForTheSameOpening() async {
        let (gate, opened) = (Gate(), Shared(0))
        let reader = ReaderModel(models: [entry(opened: opened, before: { await gate.pass() })], passage: passage)
        let first = reader.ask("How long is it?")
        await gate.arrived(1)
        let second = reader.ask("Where is it?")
        await gate.open()
        await first?.value
        await second?.value
        XCTAssertEqual(opened.get(), 1)
        XCTAssertEqual(reader.reply?.question, "Where is it?")
    }

    func testFailureToOpenIsToldAndTriedAgainNextTime() async {
        let attempts = Shared(0)
        let missing = KitError.missing(URL(fileURLWithPath: "/Models/student"))
        let reader = ReaderModel(
            models: [entry(before: { if attempts.change({ $0 += 1; return $0 }) == 1 { throw missing } })],
            passage: passage)
        await reader.ask("How long is it?")?.value
        XCTAssertEqual(reader.state, .failed(Problem(missing)))
        XCTAssertNil(reader.reply)
        XCTAssertEqual(reader.outcomes, 1)
        XCTAssertEqual(
            reader.announcement, "Models/student is missing. Copy the folder again, or make it anew with edge-distil.")
        await reader.ask("How long is it?")?.value
        XCTAssertEqual(reader.outcomes, 2)
        XCTAssertEqual(reader.announcement?.hasPrefix("Answer: "), true)
        XCTAssertEqual(reader.state, .idle)
        XCTAssertNotNil(reader.reply)
    }

    func testErrorsAreShownInTheirOwnWords() async {
        let reader = ReaderModel(models: [entry()], passage: Passage(title: "Blank", text: "   "))
        await reader.ask("How long is it?")?.value
        XCTAssertEqual(
            reader.state,
            .failed(Problem(description: "The passage is empty.", suggestion: "Give a passage with some text in it.")))
    }

    func testAnotherModelAnswersTheNextQuestion() async {
        let other = ScriptedModel { window in
            let logits = window.ids.indices.map { $0 == window.contextStart ? Float(5) : 0 }
            return SpanLogits(start: logits, end: logits)
        }
        let reader = ReaderModel(models: [entry("a"), entry("b", model: other)], passage: passage)
        await reader.ask("How long is it?")?.value
        XCTAssertEqual(reader.reply?.model, "a")
        reader.modelID = "b/fp16"
        XCTAssertEqual(reader.reply?.model, "a")
        await reader.ask()?.value
        XCTAssertEqual(reader.reply?.model, "b")
        XCTAssertEqual(reader.reply?.best.text, "The")
    }

    func testWithoutAModelNothingCanBeAsked() async {
        let reader = ReaderModel(models: [], passage: passage)
        reader.question = "How long is it?"
        XCTAssertFalse(reader.canAsk)
        XCTAssertNil(reader.ask())
        XCTAssertEqual(reader.state, .idle)
    }

    func testAnotherPassageDropsWhatWasAskedAboutTheLast() async {
        let reader = ReaderModel(models: [entry()], passage: passage)
        await reader.ask("How long is it?")?.value
        reader.open(text: "My own words")
        XCTAssertEqual(reader.passage.title, "Your text")
        XCTAssertEqual(reader.own, reader.passage)
        XCTAssertEqual(reader.question, "")
        XCTAssertNil(reader.reply)
        XCTAssertNil(reader.shown)
        await reader.waitUntilCut()
        XCTAssertEqual(reader.paragraphs.map(\.after), ["My own words"])
        XCTAssertEqual(reader.suggestions, [])
    }

    func testPassageIsCutAfterItWasOpenedAndAnOlderOneIsNotShown() async {
        let reader = ReaderModel(models: [entry()], passage: passage)
        XCTAssertEqual(reader.paragraphs, [])
        await reader.waitUntilCut()
        XCTAssertEqual(reader.paragraphs, Paragraph.split(passage.text))
        reader.open(text: String(repeating: "A long text of one's own.\n", count: 20_000))
        XCTAssertEqual(reader.paragraphs, [])
        reader.open(text: "Another")
        XCTAssertEqual(reader.openings, 2)
        await reader.waitUntilCut()
        XCTAssertEqual(reader.paragraphs.map(\.after), ["Another"])
        // The long one comes home meanwhile.
        for _ in 0..<200 {
            try? await Task.sleep(for: .milliseconds(1))
            XCTAssertEqual(reader.paragraphs.count, 1)
        }
        reader.open(reader.passage)
        XCTAssertEqual(reader.openings, 2, "it is open already")
    }

    func testShowingTheShownAnswerAgainIsToldToTheView() async throws {
        let reader = ReaderModel(models: [entry()], passage: passage)
        await reader.ask("How long is it?")?.value
        XCTAssertEqual(reader.shows, 1)
        let (shown, paragraphs) = (try XCTUnwrap(reader.shown), reader.paragraphs)
        let told = Shared(false)
        withObservationTracking { _ = reader.shows } onChange: { told.change { $0 = true } }
        reader.show(shown)
        XCTAssert(told.get())
        XCTAssertEqual(reader.shows, 2)
        XCTAssertEqual(reader.paragraphs, paragraphs)
    }

    func testPausedReaderTakesNoQuestionUntilItGoesOn() async {
        let (gate, opened) = (Gate(), Shared(0))
        let slow = ScriptedModel { window in
            await gate.pass()
            return try await ScriptedModel.longestWord.predict(window)
        }
        let reader = ReaderModel(models: [entry(opened: opened, model: slow)], passage: passage)
        reader.ask("How long is it?")
        await gate.arrived(1)
        reader.stop()
        // Stopped as it is, it still has its window to end, and the pause waits for that.
        let ended = Shared(false)
        let pause = Task {
            await reader.pause()
            ended.change { $0 = true }
        }
        while !reader.isPaused { await Task.yield() }
        for _ in 0..<100 { await Task.yield() }
        XCTAssertFalse(ended.get())
        XCTAssertFalse(reader.canAsk)
        XCTAssertNil(reader.ask("Where is it?"))
        await gate.open()
        await pause.value
        XCTAssertEqual(reader.state, .idle)
        XCTAssertNil(reader.reply)
        reader.resume()
        await reader.ask("Where is it?")?.value
        XCTAssertEqual(reader.reply?.question, "Where is it?")
        XCTAssertEqual(opened.get(), 2, "its memory was given back")
    }

    func testFileIsOpenedAndABadOneLeavesThePassage() async throws {
        let reader = ReaderModel(models: [entry()], passage: passage)
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).txt")
        let missing = await reader.open(.success(url))
        XCTAssertFalse(missing)
        XCTAssertEqual(reader.fileProblem?.description.hasPrefix("\(url.lastPathComponent) cannot be read"), true)
        XCTAssertEqual(reader.passage, passage)
        XCTAssertNil(reader.own)

        try Data("From a file".utf8).write(to: url)
        defer { try? FileManager.default.removeItem(at: url) }
        let read = await reader.open(.success(url))
        XCTAssert(read)
        XCTAssertEqual(reader.passage.text, "From a file")
        XCTAssertEqual(reader.passage.title, url.deletingPathExtension().lastPathComponent)
        XCTAssertEqual(reader.state, .idle)
    }

    func testOwnTextIsKeptWhileALibraryPassageIsRead() async {
        let reader = ReaderModel(models: [entry()], passage: passage)
        XCTAssertNil(reader.own)
        reader.open(text: "My own words")
        reader.open(passage)
        XCTAssertEqual(reader.passage, passage)
        XCTAssertEqual(reader.own?.text, "My own words")
    }

    func testTimingsAreInMillisecondsOfTheLanguage() async {
        let timings = Timings(tokenize: .microseconds(1250), predict: .milliseconds(1234), decode: .zero)
        XCTAssertEqual(
            timings.parts(locale: Locale(identifier: "en_US")).map { "\($0.name) \($0.milliseconds)" },
            ["Tokenise 1.2", "Predict 1,234.0", "Decode 0.0", "Total 1,235.2"])
    }

    func testViewsAreToldOfChanges() async {
        let reader = ReaderModel(models: [entry()], passage: passage)
        let changed = Shared(false)
        withObservationTracking { _ = reader.reply } onChange: { changed.change { $0 = true } }
        await reader.ask("How long is it?")?.value
        XCTAssert(changed.get())
    }

    func testProgressOfALongPassageReachesItsEnd() async {
        let long = Passage(title: "Long", text: Array(repeating: "word", count: 2000).joined(separator: " "))
        let reader = ReaderModel(models: [entry()], passage: long)
        await reader.ask("How long is it?")?.value
        for _ in 0..<100 where reader.progress < 1 { await Task.yield() }
        XCTAssertEqual(reader.progress, 1)
        XCTAssertGreaterThan(reader.reply?.answered.windows ?? 0, 10)
    }
}
