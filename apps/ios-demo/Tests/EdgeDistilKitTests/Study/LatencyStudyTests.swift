import XCTest

@testable import EdgeDistilKit

final class LatencyStudyTests: XCTestCase {
    private let machine = Machine(
        system: "iOS 17.5", architecture: "arm64", processor: "iPhone15,2", cores: 6, memoryBytes: 6_000_000_000)

    /// Time that passes only when told to.
    private let now = Shared(0.0)
    /// Names of the contenders in the order of their calls.
    private let calls = Shared([String]())

    private func study(
        runs: Int, warmup: Int = 0, maxLength: Int = 384,
        thermalState: @escaping @Sendable () -> ThermalState = { .nominal }
    ) -> LatencyStudy {
        let now = now
        return LatencyStudy(
            runs: runs, warmup: warmup, maxLength: maxLength, machine: machine, clock: { now.get() },
            thermalState: thermalState)
    }

    /// A contender whose calls take the given seconds, one after the other, then again; each text takes 1/1024 s.
    private func contender(
        _ name: String, _ seconds: [Double], lengths: [Int]? = nil, units: ComputeUnits = .all,
        tokenized: Double = 1.0 / 1024, before: @escaping @Sendable () async throws -> Void = {}
    ) -> Contender {
        let (now, calls, made) = (now, calls, Shared(0))
        let model = ScriptedModel(lengths: lengths) { window in
            try await before()
            calls.change { $0.append(name) }
            let call = made.change { made in
                defer { made += 1 }
                return made
            }
            now.change { $0 += seconds[call % seconds.count] }
            let zeros = [Float](repeating: 0, count: window.ids.count)
            return SpanLogits(start: zeros, end: zeros)
        }
        return Contender(
            name: name, precision: "fp16", computeUnits: units,
            tokenizer: BlankTokenizer { now.change { $0 += tokenized } }, model: model)
    }

    private let questions = [
        StudyQuestion(question: "who", passage: "Ada wrote it"),
        StudyQuestion(question: "who was it", passage: "It was Ada"),
    ]

    func testMedianPercentileAndRatioOfHandComputedTimes() async throws {
        let slow = contender("slow", [0.010, 0.020, 0.030, 0.040], tokenized: 0.001)
        let fast = contender("fast", [0.005], tokenized: 0.001)
        let result = try await study(runs: 2).run([slow, fast], on: questions)

        XCTAssertEqual(result.results.map(\.model), ["slow", "fast", "slow", "fast"])
        XCTAssertEqual(result.results.map(\.tokenization), [true, true, false, false])
        let expected: [(median: Double, p90: Double, ratio: Double)] = [
            // Question and passage, 1 ms each, are tokenised before every call.
            (27, 39, 1), (7, 7, 7 / 27.0),
            (25, 37, 1), (5, 5, 0.2),
        ]
        for (row, expected) in zip(result.results, expected) {
            XCTAssertEqual(row.medianMs, expected.median, accuracy: 1e-9)
            XCTAssertEqual(row.p90Ms, expected.p90, accuracy: 1e-9)
            XCTAssertEqual(row.ratio, expected.ratio, accuracy: 1e-9)
            XCTAssertEqual(row.calls, 4)
            XCTAssertEqual(row.timesMs.count, 4)
        }
        XCTAssertEqual(result.questions, 2)
    }

    func testFirstTurnMovesOnWithEveryQuestionAndRun() async throws {
        _ = try await study(runs: 2).run([contender("A", [1]), contender("B", [1]), contender("C", [1])], on: questions)
        XCTAssertEqual(calls.get().joined(), "ABC" + "BCA" + "BCA" + "CAB")
    }

    func testWarmUpCallsAreMadeFirstAndNotCounted() async throws {
        let result = try await study(runs: 1, warmup: 3).run(
            [contender("A", [9, 9, 9, 1, 1]), contender("B", [9, 9, 9, 1, 1])], on: questions)
        XCTAssertEqual(calls.get().joined(), "AAABBB" + "ABBA")
        XCTAssertEqual(result.results.map(\.calls), [2, 2, 2, 2])
        XCTAssertEqual(result.rows(tokenization: false).map(\.medianMs), [1000, 1000])
    }

    func testTokensAreThoseOfTheInputThatHoldsTheFirstWindow() async throws {
        // 1 + 1 + 1 + 3 + 1 and 1 + 3 + 1 + 3 + 1 tokens.
        let any = contender("any", [1]), fixed = contender("fixed", [1], lengths: [8, 16])
        let result = try await study(runs: 1).run([any, fixed], on: questions)
        XCTAssertEqual(result.rows(tokenization: false).map(\.tokens), [7, 8])
        XCTAssertNil(result.tokens)
        let one = try await study(runs: 1).run([contender("one", [1], lengths: [32])], on: questions)
        XCTAssertEqual(one.tokens, 32)
    }

    func testLongPassageIsCutToItsFirstWindow() async throws {
        let long = StudyQuestion(question: "who", passage: Array(repeating: "word", count: 1000).joined(separator: " "))
        let result = try await study(runs: 1, maxLength: 64).run([contender("A", [1])], on: [long])
        XCTAssertEqual(result.results[0].tokens, 64)
        XCTAssertEqual(result.results[0].calls, 1)
    }

    func testHottestStateOfAContendersCallsIsNotedAndWarnedOf() async throws {
        // Before and after each of four calls: A, B, B, A.
        let states = Shared<[ThermalState]>([.nominal, .nominal, .nominal, .fair, .fair, .serious, .fair, .fair])
        let result = try await study(runs: 1, thermalState: { states.change { $0.removeFirst() } })
            .run([contender("A", [1]), contender("B", [1])], on: questions)
        XCTAssertEqual(result.rows(tokenization: true).map(\.thermalState), [.fair, .serious])
        XCTAssertEqual(
            result.warnings,
            [
                "the device was hot (serious) and slowed down: let it cool, measure again",
                "the device's thermal state moved between nominal and serious while measuring",
            ])
    }

    func testCoolDeviceIsNotWarnedOf() async throws {
        let result = try await study(runs: 1, thermalState: { .fair }).run([contender("A", [1])], on: questions)
        XCTAssertEqual(result.warnings, [])
    }

    func testSpreadOfInputsOfOneLengthIsWarnedOf() async throws {
        // Median 10, 90th percentile 17: of one length the device was busy, of two lengths nothing is known.
        let seconds = [0.010, 0.010, 0.010, 0.010, 0.010, 0.010, 0.010, 0.010, 0.080, 0.010]
        let busy = try await study(runs: 5).run([contender("A", seconds, lengths: [16])], on: questions)
        XCTAssertEqual(
            busy.warnings,
            ["A (coreml fp16, all): the 90th percentile is 1.70 times the median: the device was busy, measure again"])
        let lengths = try await study(runs: 5).run([contender("A", seconds)], on: questions)
        XCTAssertEqual(lengths.warnings, [])
    }

    func testSimulatorIsWarnedOf() async throws {
        var simulated = machine
        simulated.isSimulator = true
        let now = now
        let study = LatencyStudy(
            runs: 1, warmup: 0, machine: simulated, clock: { now.get() }, thermalState: { .nominal })
        let result = try await study.run([contender("A", [1])], on: questions)
        XCTAssertEqual(
            result.warnings, ["measured in a simulator: the times are those of the Mac that it runs on"])
    }

    @MainActor func testProgressCountsEveryCall() async throws {
        let study = study(runs: 2, warmup: 1)
        var told: [Int] = []
        _ = try await study.run([contender("A", [1]), contender("B", [1])], on: questions) { told.append($0) }
        XCTAssertEqual(told, Array(1...10))
        XCTAssertEqual(study.calls(contenders: 2, questions: 2), 10)
    }

    func testCancelledStudyKeepsItsWholeRuns() async throws {
        let study = study(runs: 5)
        let (a, b) = (contender("A", [0.001, 0.002, 0.003, 0.004, 0.100]), contender("B", [0.001]))
        let questions = questions
        // Four calls make a run: the eleventh is in the third.
        let task = Task {
            try await study.run([a, b], on: questions) { done in
                if done == 10 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        let result = try await task.value
        XCTAssertEqual(result.results.map(\.calls), [4, 4, 4, 4])
        XCTAssertEqual(result.rows(tokenization: false)[0].medianMs, 2.5, accuracy: 1e-9)
        XCTAssertEqual(result.warnings.first, "stopped after 2 of 5 runs")
    }

    func testStudyThatIsCancelledInItsFirstRunHasNoResult() async throws {
        let study = study(runs: 5)
        let (a, questions) = (contender("A", [1]), questions)
        let task = Task {
            try await study.run([a], on: questions) { done in
                if done == 1 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        do {
            _ = try await task.value
            XCTFail("a result of half a run")
        } catch { XCTAssert(error is CancellationError) }
    }

    func testFailureNamesTheModel() async throws {
        let broken = contender("B", [1], before: { throw KitError.invalidLogits(reason: "they are not numbers") })
        do {
            _ = try await study(runs: 1).run([contender("A", [1]), broken], on: questions)
            XCTFail("a broken model was measured")
        } catch let error as StudyError {
            XCTAssertEqual(
                error, .failed(model: "B", reason: "The model's output is not usable: they are not numbers."))
        }
    }

    func testNothingToMeasureIsRefused() async throws {
        let a = contender("A", [1])
        for (contenders, asked, runs, expected) in [
            ([], questions, 1, StudyError.noModel), ([a], [], 1, .noQuestion), ([a], questions, 0, .noRun),
        ] {
            do {
                _ = try await study(runs: runs).run(contenders, on: asked)
                XCTFail("measured nothing")
            } catch let error as StudyError { XCTAssertEqual(error, expected) }
        }
    }

    // MARK: Files

    /// A study of two models on two kinds of units, in times that binary fractions hold exactly.
    private func sample() async throws -> StudyResult {
        func times(_ values: Double...) -> [Double] { values.map { $0 / 1024 } }
        let turn = Shared(0)
        let study = study(
            runs: 3, warmup: 1,
            thermalState: { turn.change { turn in
                turn += 1
                return turn > 30 ? .fair : .nominal
            } })
        return try await study.run(
            [
                contender("BERT-base", times(96, 100, 104, 98, 102, 100), lengths: [384]),
                contender("BERT-base", times(384, 388, 390, 386, 388), lengths: [384], units: .cpuOnly),
                contender("DistilBERT, \"student\"", times(48, 50, 51, 49, 52), lengths: [384]),
                contender("DistilBERT, \"student\"", times(192, 196, 194), lengths: [384], units: .cpuOnly),
            ], on: questions)
    }

    private var golden: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Golden/study.json")
    }

    /// `EDGE_DISTIL_WRITE_GOLDEN=1` writes the file anew; `tests/test_bench.py` reads it with `bench --import`.
    func testJSONIsThatOfTheGoldenFile() async throws {
        let json = try await sample().json()
        if ProcessInfo.processInfo.environment["EDGE_DISTIL_WRITE_GOLDEN"] != nil { try json.write(to: golden) }
        XCTAssertEqual(String(decoding: json, as: UTF8.self), try String(contentsOf: golden, encoding: .utf8))
    }

    func testJSONHasEveryFieldOfBenchAndReadsBack() async throws {
        let result = try await sample()
        let json = try result.json()
        XCTAssertEqual(try JSONDecoder().decode(StudyResult.self, from: json), result)
        let fields = try XCTUnwrap(try JSONSerialization.jsonObject(with: json) as? [String: Any])
        XCTAssertEqual(
            fields.keys.sorted(),
            ["machine", "questions", "results", "threads", "tokens", "versions", "warnings"])
        XCTAssert(fields["threads"] is NSNull)
        let machine = try XCTUnwrap(fields["machine"] as? [String: Any])
        XCTAssertEqual(
            machine.keys.sorted(),
            ["architecture", "cores", "gpu", "instruction_sets", "memory_bytes", "processor", "system"])
        let row = try XCTUnwrap((fields["results"] as? [[String: Any]])?.first)
        XCTAssertEqual(
            row.keys.sorted(),
            [
                "calls", "compute_units", "median_ms", "model", "p90_ms", "precision", "random_weights", "ratio",
                "runtime", "thermal_state", "times_ms", "tokenization", "tokens",
            ])
    }

    func testCSVQuotesAndHasOneLineForEachResult() async throws {
        let lines = String(decoding: try await sample().csv(), as: UTF8.self).components(separatedBy: "\r\n")
        XCTAssertEqual(lines.count, 1 + 8 + 1)
        XCTAssertEqual(
            lines[0],
            "model,runtime,precision,compute_units,tokens,tokenization,median_ms,p90_ms,ratio,calls,random_weights,"
                + "thermal_state,processor,system")
        // Calls of 100 to 104 / 1024 s after the warm-up, and 2 / 1024 s for two texts.
        XCTAssertEqual(
            lines[1], "BERT-base,coreml,fp16,all,384,true,99.609375,102.5390625,1.0,6,false,fair,\"iPhone15,2\",iOS 17.5")
        XCTAssert(lines[3].hasPrefix("\"DistilBERT, \"\"student\"\"\",coreml,fp16,all,"))
        XCTAssertEqual(lines.last, "")
    }

    func testThisMachineIsDescribed() {
        let machine = Machine.current
        XCTAssertGreaterThan(machine.cores, 0)
        XCTAssertGreaterThan(machine.memoryBytes, 1_000_000)
        XCTAssert(machine.system.contains { $0.isNumber })
        #if os(Linux)
            XCTAssertEqual(ThermalState.current, .unknown)
        #endif
    }

    func testUptimeAdvances() {
        let before = LatencyStudy.uptime()
        XCTAssertGreaterThanOrEqual(LatencyStudy.uptime(), before)
        XCTAssertEqual(Duration.milliseconds(1500).seconds, 1.5)
    }
}
