import XCTest

@testable import EdgeDistilKit

@MainActor final class StudyModelTests: XCTestCase {
    private var folder: URL!
    private let passages = [
        Passage(title: "One", text: "Ada wrote it", questions: ["who", "what"]),
        Passage(title: "Two", text: "It was Ada", questions: ["who was it"]),
        Passage(title: "Three", text: "Nothing is asked"),
    ]

    override func setUp() async throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDown() async throws {
        try FileManager.default.removeItem(at: folder)
    }

    private func entry(
        _ name: String, opened: Shared<[String]> = Shared([]), before: @escaping @Sendable () async throws -> Void = {}
    ) -> ModelEntry {
        ModelEntry(name: name, precision: "fp16", bytes: 1) { units in
            opened.change { $0.append("\(name) \(units.rawValue)") }
            try await before()
            return OpenModel(model: ScriptedModel.longestWord, tokenizer: BlankTokenizer())
        }
    }

    private func model(_ entries: [ModelEntry], reader: ReaderModel? = nil) -> StudyModel {
        // Every look at the clock finds a second gone.
        StudyModel(models: entries, passages: passages, reader: reader, folder: folder) { runs in
            let seconds = Shared(0.0)
            return LatencyStudy(
                runs: runs, warmup: 1, clock: { seconds.change { $0 += 1; return $0 } }, thermalState: { .nominal })
        }
    }

    func testQuestionsAreTheFirstOfEveryPassageThenTheSecond() async {
        XCTAssertEqual(model([]).allQuestions.map(\.question), ["who", "who was it", "what"])
    }

    func testStudyOfTwoModelsOnTwoKindsOfUnits() async throws {
        let opened = Shared([String]())
        let study = model([entry("BERT", opened: opened), entry("student", opened: opened)])
        XCTAssertEqual(study.chosenModels, ["BERT/fp16", "student/fp16"])
        study.chosenUnits = [.cpuOnly, .all]
        study.runs = 2
        study.questionCount = 2
        XCTAssertEqual(study.contenderCount, 4)
        XCTAssertEqual(study.plannedCalls, 4 * (1 + 2 * 2))
        await study.start()?.value

        XCTAssertEqual(study.state, .idle)
        XCTAssertFalse(study.isBusy)
        XCTAssertEqual(opened.get(), ["BERT all", "BERT cpu_only", "student all", "student cpu_only"])
        let result = try XCTUnwrap(study.result)
        XCTAssertEqual(result.results.count, 8)
        XCTAssertEqual(result.rows(tokenization: true).map(\.medianMs), [2000, 2000, 2000, 2000])
        XCTAssertEqual(result.rows(tokenization: false).map(\.medianMs), [1000, 1000, 1000, 1000])
        XCTAssertEqual(result.rows(tokenization: false)[1].label, "BERT fp16\nCPU only")
        XCTAssertEqual(
            result.rows(tokenization: false)[1].spoken(locale: Locale(identifier: "en_US")),
            "BERT fp16, CPU only, from token ids: median 1,000.0 milliseconds, 90th percentile 1,000.0, "
                + "1.0 times the first")
        XCTAssertEqual(Set(result.results.map(\.id)).count, 8)
        XCTAssertEqual(
            result.rows(tokenization: true)[0].cells(locale: Locale(identifier: "de_DE")),
            ["7", "2.000,0", "2.000,0", "1,00", "nominal"])
        XCTAssertEqual(StudyRow.heads.count, 5)
    }

    func testFilesToShareHoldTheResult() async throws {
        let study = model([entry("BERT")])
        await study.start()?.value
        let files = try XCTUnwrap(study.files)
        XCTAssertEqual(files.json.lastPathComponent, "edge-distil-study.json")
        XCTAssertEqual(try JSONDecoder().decode(StudyResult.self, from: Data(contentsOf: files.json)), study.result)
        XCTAssertEqual(try Data(contentsOf: files.csv), study.result?.csv())
    }

    func testChoicesStayWithinTheirBounds() async {
        let study = model([entry("BERT")])
        XCTAssertEqual(study.questionCount, 3)
        study.questionCount = 9
        XCTAssertEqual(study.questionCount, 3)
        study.questionCount = 0
        XCTAssertEqual(study.questionCount, 1)
        study.runs = 0
        XCTAssertEqual(study.runs, 1)
        study.runs = 1000
        XCTAssertEqual(study.runs, StudyModel.maxRuns)
    }

    func testBoundsAreThoseOfTheChoices() async {
        XCTAssertEqual(model([]).questionBounds, 1...3)
        XCTAssertEqual(StudyModel(models: [], passages: []).questionBounds, 1...1)
        XCTAssertEqual(model([]).runBounds, 1...StudyModel.maxRuns)
    }

    func testReaderHasEndedItsQuestionBeforeTheStudyOpensAModelAndWaitsUntilItIsOver() async throws {
        let (question, study) = (Gate(), Gate())
        let events = Shared([String]())
        let slow = ScriptedModel { window in
            await question.pass()
            events.change { $0.append("the question's window ends") }
            return try await ScriptedModel.longestWord.predict(window)
        }
        let asked = ModelEntry(name: "BERT", precision: "fp16", bytes: 1) { _ in
            OpenModel(model: slow, tokenizer: BlankTokenizer())
        }
        let timed = entry("BERT", before: {
            events.change { $0.append("the study's model is opened") }
            await study.pass()
        })
        let reader = ReaderModel(models: [asked], passage: passages[0])
        let model = model([timed], reader: reader)
        reader.ask("who")
        await question.arrived(1)
        let task = model.start()
        XCTAssertEqual(model.state, .loading(model: "BERT"))
        while !reader.isPaused { await Task.yield() }
        for _ in 0..<100 { await Task.yield() }
        XCTAssertEqual(events.get(), [])
        await question.open()
        await study.arrived(1)
        XCTAssertEqual(events.get(), ["the question's window ends", "the study's model is opened"])
        XCTAssertFalse(reader.canAsk)
        await study.open()
        await task?.value
        XCTAssertNotNil(model.result)
        XCTAssertFalse(reader.isPaused)

        // It goes on after a study that failed or was stopped, too.
        let failing = self.model([entry("BERT", before: { throw CancellationError() })], reader: reader)
        await failing.start()?.value
        XCTAssertEqual(failing.state, .idle)
        XCTAssert(reader.canAsk)
    }

    func testNothingChosenCannotBeStarted() async {
        let study = model([entry("BERT")])
        XCTAssert(study.canStart)
        study.choose(study.models[0], false)
        XCTAssertFalse(study.isChosen(study.models[0]))
        XCTAssertFalse(study.canStart)
        XCTAssertNil(study.start())
        study.choose(study.models[0], true)
        XCTAssert(study.canStart)
        study.choose(.all, false)
        XCTAssertFalse(study.isChosen(.all))
        XCTAssertFalse(study.canStart)
    }

    func testModelThatCannotBeOpenedIsNamedWithItsUnits() async {
        let missing = KitError.missing(URL(fileURLWithPath: "/Models/BERT"))
        let study = model([entry("BERT", before: { throw missing })])
        await study.start()?.value
        XCTAssertEqual(
            study.state,
            .failed(
                Problem(
                    description: "BERT, All units: Models/BERT is missing.",
                    suggestion: missing.recoverySuggestion)))
        XCTAssertNil(study.result)
        XCTAssert(study.canStart)
    }

    func testStudyThatIsStoppedWhileModelsAreOpenedLeavesTheLastResult() async throws {
        let gate = Gate()
        let opened = Shared(0)
        let study = model([entry("BERT", before: { if opened.change({ $0 += 1; return $0 }) == 2 { await gate.pass() } })])
        await study.start()?.value
        let first = try XCTUnwrap(study.result)
        study.runs = 7
        let task = study.start()
        await gate.arrived(1)
        XCTAssertEqual(study.state, .loading(model: "BERT"))
        XCTAssertNil(study.start(), "one study at a time")
        study.stop()
        await gate.open()
        await task?.value
        XCTAssertEqual(study.state, .idle)
        XCTAssertEqual(study.result, first)
    }
}
