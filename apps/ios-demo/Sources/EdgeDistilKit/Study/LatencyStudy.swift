import Foundation

/// Wall times of single calls, contenders taking turns, with and without tokenisation: the study of `edge-distil bench`,
/// in its definitions, on the device.
///
/// A question is one call, on the first window of its passage. Every call is timed twice over: from text to logits, which
/// includes tokenising and making the window, and from token ids to logits, the model alone with the writing of its
/// inputs, which is what the paper compares on a phone (Sanh et al., 2019, "On device computation"). Choosing the
/// answer's span is in neither.
///
/// The contenders take turns on each question, and the first turn moves on with every question and every run: what else
/// the device does meanwhile, and how warm it gets, hits all of them alike.
public struct LatencyStudy: Sendable {
    /// How often each contender runs each question.
    public var runs: Int
    /// Calls of each contender before the first that counts.
    public var warmup: Int
    /// The longest input in tokens.
    public var maxLength: Int
    let machine: Machine
    let clock: @Sendable () -> Double
    let thermalState: @Sendable () -> ThermalState

    /// `clock` gives seconds. It, `machine` and `thermalState` are those of the device unless a test brings its own.
    public init(
        runs: Int = 5, warmup: Int = 3, maxLength: Int = 384, machine: Machine = .current,
        clock: @escaping @Sendable () -> Double = LatencyStudy.uptime,
        thermalState: @escaping @Sendable () -> ThermalState = { ThermalState.current }
    ) {
        self.runs = runs
        self.warmup = warmup
        self.maxLength = maxLength
        self.machine = machine
        self.clock = clock
        self.thermalState = thermalState
    }

    /// Seconds since some moment, which no change of the wall clock moves.
    public static let uptime: @Sendable () -> Double = {
        let began = ContinuousClock.now
        return { (ContinuousClock.now - began).seconds }
    }()

    /// How many calls `run` makes, those of the warm-up included.
    public func calls(contenders: Int, questions: Int) -> Int {
        contenders * (warmup + runs * questions)
    }

    /// Time every contender on every question.
    ///
    /// `progress` is told how many calls are done, between calls. A study that is cancelled keeps its whole runs, in which
    /// every contender met every question as often, and says so first among its warnings; with none it throws
    /// `CancellationError`. Throws `StudyError`, also where a model or a tokeniser fails.
    public func run(
        _ contenders: [Contender], on questions: [StudyQuestion],
        progress: @MainActor @Sendable (Int) -> Void = { _ in }
    ) async throws -> StudyResult {
        guard !contenders.isEmpty else { throw StudyError.noModel }
        guard !questions.isEmpty else { throw StudyError.noQuestion }
        guard runs >= 1 else { throw StudyError.noRun }
        var done = 0
        for contender in contenders {
            for index in 0..<warmup {
                try Task.checkCancellation()
                _ = try await call(contender, questions[index % questions.count])
                done += 1
                await progress(done)
            }
        }
        var measured = [[Call]](repeating: [], count: contenders.count)
        do {
            for (turn, question) in turns(contenders: contenders.count, questions: questions.count) {
                try Task.checkCancellation()
                measured[turn].append(try await call(contenders[turn], questions[question]))
                done += 1
                await progress(done)
            }
        } catch is CancellationError {
            let wholeRuns = measured.map(\.count).min()! / questions.count
            guard wholeRuns > 0 else { throw CancellationError() }
            return result(
                contenders, measured.map { Array($0.prefix(wholeRuns * questions.count)) }, questions: questions.count,
                warnings: ["stopped after \(wholeRuns) of \(runs) runs"])
        }
        return result(contenders, measured, questions: questions.count, warnings: [])
    }

    /// Who runs what, in order: the indices of a contender and a question.
    func turns(contenders: Int, questions: Int) -> [(contender: Int, question: Int)] {
        (0..<runs).flatMap { run in
            (0..<questions).flatMap { question in
                (0..<contenders).map { turn in ((turn + question + run) % contenders, question) }
            }
        }
    }

    /// One timed call: the input's length in tokens, and the seconds of each part.
    struct Call {
        let tokens: Int
        let textToLogits, idsToLogits: Double
        let thermalStates: [ThermalState]
    }

    private func call(_ contender: Contender, _ question: StudyQuestion) async throws -> Call {
        let longest = contender.inputLength(maxLength)
        let before = thermalState()
        do {
            let began = clock()
            let window = try contender.firstWindow(of: question, maxLength: longest)
            let prepared = clock()
            _ = try await contender.model.predict(window)
            let ended = clock()
            return Call(
                tokens: contender.inputLength(window.ids.count), textToLogits: ended - began,
                idsToLogits: ended - prepared, thermalStates: [before, thermalState()])
        } catch let error where !(error is CancellationError) {
            throw StudyError.failed(model: contender.name, reason: Problem(error).description)
        }
    }

    private func result(
        _ contenders: [Contender], _ calls: [[Call]], questions: Int, warnings: [String]
    ) -> StudyResult {
        let rows = [true, false].flatMap { tokenization in
            let times = calls.map { $0.map { 1000 * (tokenization ? $0.textToLogits : $0.idsToLogits) } }
            return contenders.indices.map { index in
                StudyRow(
                    model: contenders[index].name, precision: contenders[index].precision,
                    computeUnits: contenders[index].computeUnits.rawValue,
                    tokens: Statistics.lowerMedian(calls[index].map(\.tokens)), tokenization: tokenization,
                    medianMs: Statistics.median(times[index]), p90Ms: Statistics.percentile(times[index], 90),
                    ratio: Statistics.median(times[index]) / Statistics.median(times[0]), calls: times[index].count,
                    randomWeights: contenders[index].randomWeights,
                    thermalState: calls[index].flatMap(\.thermalStates).max()!, timesMs: times[index])
            }
        }
        let lengths = calls.map { Set($0.map(\.tokens)) }
        let all = lengths.reduce(Set()) { $0.union($1) }
        return StudyResult(
            machine: machine, versions: ["edge-distil-kit": kitVersion], questions: questions,
            tokens: all.count == 1 ? all.first : nil, results: rows,
            warnings: warnings + simulatorWarnings() + thermalWarnings(calls)
                + busyWarnings(rows.suffix(contenders.count), lengths: lengths))
    }

    private func simulatorWarnings() -> [String] {
        machine.isSimulator ? ["measured in a simulator: the times are those of the Mac that it runs on"] : []
    }

    private func thermalWarnings(_ calls: [[Call]]) -> [String] {
        let states = calls.flatMap { $0.flatMap(\.thermalStates) }
        let hottest = states.max()!, coolest = states.min()!
        var warnings: [String] = []
        if hottest >= .serious {
            warnings.append("the device was hot (\(hottest)) and slowed down: let it cool, measure again")
        }
        if hottest != coolest {
            warnings.append("the device's thermal state moved between \(coolest) and \(hottest) while measuring")
        }
        return warnings
    }

    /// On an idle device the 90th percentile stays within a few percent of the median when all inputs are of one length.
    /// Of the model alone: tokenising takes longer for longer texts even then.
    private func busyWarnings(_ rows: ArraySlice<StudyRow>, lengths: [Set<Int>]) -> [String] {
        zip(rows, lengths).compactMap { row, lengths in
            guard lengths.count == 1, row.p90Ms >= 1.25 * row.medianMs else { return nil }
            let times = String(format: "%.2f", locale: Locale(identifier: "en_US_POSIX"), row.p90Ms / row.medianMs)
            return "\(row.model) (\(row.runtime) \(row.precision), \(row.computeUnits)): the 90th percentile is \(times) "
                + "times the median: the device was busy, measure again"
        }
    }
}

/// Why nothing was measured.
public enum StudyError: LocalizedError, Equatable, Sendable {
    case noModel, noQuestion, noRun
    case failed(model: String, reason: String)

    public var errorDescription: String? {
        switch self {
        case .noModel: "no model is chosen"
        case .noQuestion: "the chosen passage has no question to time"
        case .noRun: "no run leaves nothing to measure"
        case .failed(let model, let reason): "\(model): \(reason)"
        }
    }

    public var recoverySuggestion: String? {
        switch self {
        case .noModel: "Choose one model and one kind of compute units at least."
        case .noQuestion: "Give it questions in passages.json, or choose another."
        case .noRun: "Choose one run or more."
        case .failed: "Choose other compute units or leave this model out."
        }
    }
}

/// The kit's version, edge-distil's own: it stands in every result.
public let kitVersion = "0.1.0"

extension Duration {
    var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
