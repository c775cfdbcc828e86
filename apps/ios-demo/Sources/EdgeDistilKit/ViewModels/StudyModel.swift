import Foundation
import Observation

/// The study's screen: what to time, how far it is, what came out.
@MainActor @Observable public final class StudyModel {
    public enum State: Equatable, Sendable {
        case idle
        case loading(model: String)
        case running(done: Int, of: Int)
        case failed(Problem)
    }

    /// Files to share, in a temporary folder.
    public struct Files: Sendable, Equatable {
        public let json, csv: URL
    }

    public private(set) var state = State.idle
    public let models: [ModelEntry]
    public var chosenModels: Set<ModelEntry.ID>
    public var chosenUnits: Set<ComputeUnits> = [.all]
    /// How often each contender runs each question, within `runBounds`.
    public var runs = 5 {
        didSet { if !runBounds.contains(runs) { runs = runBounds.nearest(to: runs) } }
    }
    /// How many questions are asked, within `questionBounds`.
    public var questionCount: Int {
        didSet {
            if !questionBounds.contains(questionCount) { questionCount = questionBounds.nearest(to: questionCount) }
        }
    }
    /// The last study that measured something.
    public private(set) var result: StudyResult?
    public private(set) var files: Files?

    public static let maxRuns = 50
    public let allQuestions: [StudyQuestion]
    public var runBounds: ClosedRange<Int> { 1...Self.maxRuns }
    /// From one to all of the library's.
    public var questionBounds: ClosedRange<Int> { 1...max(1, allQuestions.count) }
    private let reader: ReaderModel?
    private let folder: URL
    private let makeStudy: @Sendable (_ runs: Int) -> LatencyStudy
    private var running: Task<Void, Never>?

    /// The study's questions are the library's: the first of every passage, then the second, and so on. `reader` is
    /// paused while a study runs, because its questions would skew the times. `folder` is where the files to share are
    /// written.
    public init(
        models: [ModelEntry], passages: [Passage], reader: ReaderModel? = nil,
        folder: URL = FileManager.default.temporaryDirectory,
        makeStudy: @escaping @Sendable (_ runs: Int) -> LatencyStudy = { LatencyStudy(runs: $0) }
    ) {
        self.models = models
        chosenModels = Set(models.map(\.id))
        let rounds = 0..<(passages.map(\.questions.count).max() ?? 0)
        allQuestions = rounds.flatMap { round in
            passages.filter { $0.questions.count > round }.map {
                StudyQuestion(question: $0.questions[round], passage: $0.text)
            }
        }
        questionCount = max(1, min(10, allQuestions.count))
        self.reader = reader
        self.folder = folder
        self.makeStudy = makeStudy
    }

    public var isBusy: Bool { running != nil }

    public func isChosen(_ model: ModelEntry) -> Bool { chosenModels.contains(model.id) }

    public func choose(_ model: ModelEntry, _ chosen: Bool) {
        if chosen { chosenModels.insert(model.id) } else { chosenModels.remove(model.id) }
    }

    public func isChosen(_ units: ComputeUnits) -> Bool { chosenUnits.contains(units) }

    public func choose(_ units: ComputeUnits, _ chosen: Bool) {
        if chosen { chosenUnits.insert(units) } else { chosenUnits.remove(units) }
    }

    /// Models by compute units: all are held in memory at once, for they take turns.
    public var contenderCount: Int { chosenModels.count * chosenUnits.count }

    /// Calls of the study as it is chosen now, those of the warm-up included.
    public var plannedCalls: Int {
        makeStudy(runs).calls(contenders: contenderCount, questions: min(questionCount, allQuestions.count))
    }

    public var canStart: Bool { !isBusy && contenderCount > 0 && !allQuestions.isEmpty }

    /// Stops the reader, opens the chosen models and times them. The last result stays until this one is there.
    @discardableResult public func start() -> Task<Void, Never>? {
        guard canStart else { return nil }
        let entries = models.filter { chosenModels.contains($0.id) }
        let units = ComputeUnits.allCases.filter { chosenUnits.contains($0) }
        let questions = Array(allQuestions.prefix(questionCount))
        let study = makeStudy(runs)
        if let first = entries.first { state = .loading(model: first.name) }
        let task = Task {
            await reader?.pause()
            do {
                let contenders = try await open(entries, units)
                let calls = study.calls(contenders: contenders.count, questions: questions.count)
                state = .running(done: 0, of: calls)
                let result = try await study.run(contenders, on: questions) { done in
                    self.state = .running(done: done, of: calls)
                }
                files = try write(result)
                self.result = result
                state = .idle
            } catch is CancellationError {
                state = .idle
            } catch {
                state = .failed(Problem(error))
            }
            reader?.resume()
            running = nil
        }
        running = task
        return task
    }

    /// Ends the study after the call that runs. Whole runs that were measured are kept, and say so.
    public func stop() {
        running?.cancel()
    }

    private func open(_ entries: [ModelEntry], _ units: [ComputeUnits]) async throws -> [Contender] {
        var contenders: [Contender] = []
        for entry in entries {
            state = .loading(model: entry.name)
            for units in units {
                try Task.checkCancellation()
                let model: OpenModel
                do {
                    model = try await entry.open(units)
                } catch let error where !(error is CancellationError) {
                    let problem = Problem(error)
                    throw Problem(
                        description: "\(entry.name), \(units.title): \(problem.description)", suggestion: problem.suggestion)
                }
                contenders.append(
                    Contender(
                        name: entry.name, precision: entry.precision, computeUnits: units, tokenizer: model.tokenizer,
                        model: model.model))
            }
        }
        return contenders
    }

    private func write(_ result: StudyResult) throws -> Files {
        let files = Files(
            json: folder.appendingPathComponent("edge-distil-study.json"),
            csv: folder.appendingPathComponent("edge-distil-study.csv"))
        try result.json().write(to: files.json, options: .atomic)
        try result.csv().write(to: files.csv, options: .atomic)
        return files
    }
}

extension ClosedRange<Int> {
    fileprivate func nearest(to value: Int) -> Int { Swift.min(Swift.max(value, lowerBound), upperBound) }
}

extension StudyResult {
    /// The rows with tokenisation or those without, the first contender's first.
    public func rows(tokenization: Bool) -> [StudyRow] {
        results.filter { $0.tokenization == tokenization }
    }
}

extension StudyRow {
    /// Who it is, for a chart's axis and a table's first column.
    public var label: String {
        "\(model) \(precision)\n\(ComputeUnits(rawValue: computeUnits)?.title ?? computeUnits)"
    }

    /// A table's cells after the first: tokens, median and 90th percentile in ms, ratio, thermal state.
    public func cells(locale: Locale = .current) -> [String] {
        let digits = FloatingPointFormatStyle<Double>.number.locale(locale)
        return [
            tokens.formatted(.number.locale(locale)), medianMs.formatted(digits.precision(.fractionLength(1))),
            p90Ms.formatted(digits.precision(.fractionLength(1))), ratio.formatted(digits.precision(.fractionLength(2))),
            thermalState.rawValue,
        ]
    }

    /// The heads of `cells`.
    public static let heads = ["tokens", "median, ms", "p90, ms", "ratio", "thermal"]

    /// What VoiceOver says of it.
    public func spoken(locale: Locale = .current) -> String {
        let number = FloatingPointFormatStyle<Double>.number.precision(.fractionLength(1)).locale(locale)
        let contender = label.replacingOccurrences(of: "\n", with: ", ")
        let part = tokenization ? "from text" : "from token ids"
        return "\(contender), \(part): median \(medianMs.formatted(number)) milliseconds, "
            + "90th percentile \(p90Ms.formatted(number)), \(ratio.formatted(number)) times the first"
    }
}
