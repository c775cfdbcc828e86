import Foundation
import Observation

/// Asking about a passage: what is typed, what is answered, and what goes on meanwhile.
@MainActor @Observable public final class ReaderModel {
    public enum State: Equatable, Sendable {
        case idle
        /// A model is opened, which takes minutes the first time that Core ML compiles a large one.
        case loading(model: String)
        case answering
        case failed(Problem)
    }

    /// The answers to one question, with what they were given for.
    public struct Reply: Sendable, Equatable {
        public let question: String
        /// Name of the model that gave them.
        public let model: String
        public let answered: Answered

        /// The best answer.
        public var best: Answer { answered.answers[0] }
        public var runnersUp: ArraySlice<Answer> { answered.answers.dropFirst() }
    }

    /// How many answers are asked for: the best and its runners-up.
    public static let answers = 5

    public private(set) var state = State.idle
    /// Share of a long passage that is read, 0 to 1.
    public private(set) var progress = 0.0
    public let models: [ModelEntry]
    /// The chosen model. Choosing another keeps the answers on the screen, with the name of the one that gave them.
    public var modelID: ModelEntry.ID? {
        didSet { if modelID != oldValue { stop() } }
    }
    /// The passage that questions are about.
    public private(set) var passage: Passage
    /// Counts the passages that were opened: two of them may have one title.
    public private(set) var openings = 0
    /// The user's own text or file that was opened last.
    public private(set) var own: Passage?
    /// Why the last file was not opened; to be set to nil when that was read.
    public var fileProblem: Problem?
    public var question = ""
    public private(set) var reply: Reply?
    /// The answer that is highlighted in the passage.
    public private(set) var shown: Answer?
    /// Counts what was shown: who taps the answer that is shown already wants to see it again.
    public private(set) var shows = 0
    /// The passage, cut for display, with what is highlighted. Empty for the moment that the cutting takes.
    public private(set) var paragraphs: [Paragraph] = []
    /// Counts the questions that were answered or failed, for `announcement`.
    public private(set) var outcomes = 0
    /// Whether questions have to wait, because a study times the models.
    public private(set) var isPaused = false

    private let units: ComputeUnits
    private var opening: (id: ModelEntry.ID, task: Task<QuestionAnswerer, any Error>)?
    private var isOpen = false
    private var running: Task<Void, Never>?
    /// All questions that have not ended, by their turn: one that was stopped still ends its window.
    private var unfinished: [Int: Task<Void, Never>] = [:]
    private var cutting: Task<Void, Never>?
    /// Counts questions: what an older one brings home is no longer wanted.
    private var turn = 0

    public init(models: [ModelEntry], passage: Passage, units: ComputeUnits = .all) {
        self.models = models
        self.passage = passage
        self.units = units
        modelID = models.first?.id
        cutPassage()
    }

    // MARK: The passage

    /// Takes another passage, and drops the question and answers about the last one.
    public func open(_ passage: Passage) {
        guard passage != self.passage else { return }
        stop()
        self.passage = passage
        question = ""
        reply = nil
        shown = nil
        openings += 1
        cutPassage()
    }

    /// Cuts the passage for display, off the main thread.
    private func cutPassage() {
        paragraphs = []
        let (text, opening) = (passage.text, openings)
        cutting = Task {
            let cut = await Task.detached(priority: .userInitiated) { Paragraph.split(text) }.value
            if opening == openings { paragraphs = cut }
        }
    }

    /// Returns when the passage is there to be seen.
    func waitUntilCut() async {
        await cutting?.value
    }

    /// Takes a text of the user's own.
    public func open(text: String, title: String = "Your text") {
        let passage = Passage(title: title, text: text)
        own = passage
        open(passage)
    }

    /// Takes the text of a file that was picked, read off the main thread. Where that fails `fileProblem` says why, and
    /// the passage stays.
    @discardableResult public func open(_ picked: Result<URL, any Error>) async -> Bool {
        do {
            let file = try picked.get()
            let text = try await Task.detached(priority: .userInitiated) { try TextFile.read(file) }.value
            open(text: text, title: file.deletingPathExtension().lastPathComponent)
            return true
        } catch {
            fileProblem = Problem(error)
            return false
        }
    }

    /// The passage's questions that hold what is typed, all while nothing is.
    public var suggestions: [String] {
        let typed = trimmedQuestion
        guard !typed.isEmpty else { return passage.questions }
        return passage.questions.filter { $0 != typed && $0.range(of: typed, options: .caseInsensitive) != nil }
    }

    // MARK: Asking

    private var trimmedQuestion: String { question.trimmingCharacters(in: .whitespacesAndNewlines) }

    private var chosen: ModelEntry? { models.first { $0.id == modelID } }

    public var canAsk: Bool { chosen != nil && !trimmedQuestion.isEmpty && !isPaused }

    public var isBusy: Bool { running != nil }

    /// Asks a question of the passage's own.
    @discardableResult public func ask(_ suggestion: String) -> Task<Void, Never>? {
        question = suggestion
        return ask()
    }

    /// Asks what is typed. A question that is still running is stopped; its answers are not shown.
    @discardableResult public func ask() -> Task<Void, Never>? {
        stop()
        guard canAsk, let entry = chosen else { return nil }
        let question = trimmedQuestion
        let turn = turn
        progress = 0
        state = .answering
        let task = Task {
            await answer(question, with: entry, turn: turn)
            unfinished[turn] = nil
        }
        running = task
        unfinished[turn] = task
        return task
    }

    private func answer(_ question: String, with entry: ModelEntry, turn: Int) async {
        let passage = passage.text
        do {
            let answerer = try await answerer(for: entry)
            guard turn == self.turn else { return }
            state = .answering
            let answered = try await answerer.answer(
                question, in: passage, nBest: Self.answers, unanswerable: answerer.decoding.nullThreshold != nil
            ) { share in
                Task { @MainActor in self.advance(to: share, turn: turn) }
            }
            // There is nothing to highlight it in before.
            await waitUntilCut()
            guard turn == self.turn else { return }
            finish(Reply(question: question, model: entry.name, answered: answered))
        } catch {
            guard turn == self.turn else { return }
            running = nil
            if error is CancellationError {
                state = .idle
            } else {
                state = .failed(Problem(error))
                outcomes += 1
            }
        }
    }

    /// Stops what runs. What is shown stays.
    public func stop() {
        running?.cancel()
        running = nil
        turn += 1
        state = .idle
    }

    /// Gives the open model's memory back; the next question opens it again. A running question keeps it to its end.
    public func releaseModel() {
        opening = nil
        isOpen = false
    }

    /// Stops what runs, gives the open model's memory back, and takes no question until `resume()`: a study is about to
    /// time the models. Returns when nothing of a question runs any more.
    public func pause() async {
        isPaused = true
        stop()
        releaseModel()
        for question in unfinished.values { await question.value }
    }

    /// Takes questions again.
    public func resume() {
        isPaused = false
    }

    /// Opens a model, once: another question about it waits for the same opening.
    private func answerer(for entry: ModelEntry) async throws -> QuestionAnswerer {
        if opening?.id != entry.id {
            // Two large models may not fit in memory: the last one goes before the next one comes.
            opening?.task.cancel()
            isOpen = false
            let units = units
            opening = (
                entry.id,
                Task {
                    let model = try await entry.open(units)
                    return QuestionAnswerer(model: model.model, tokenizer: model.tokenizer, decoding: model.decoding)
                }
            )
        }
        let task = opening!.task
        if !isOpen { state = .loading(model: entry.name) }
        do {
            let answerer = try await task.value
            if opening?.task == task { isOpen = true }
            return answerer
        } catch {
            if opening?.task == task { opening = nil }
            throw error
        }
    }

    private func advance(to share: Double, turn: Int) {
        // Reports may come in another order than they were sent in.
        if turn == self.turn, share > progress { progress = share }
    }

    private func finish(_ reply: Reply) {
        running = nil
        state = .idle
        self.reply = reply
        outcomes += 1
        show(reply.best)
    }

    // MARK: Showing

    /// Highlights an answer in the passage; the empty one highlights nothing.
    public func show(_ answer: Answer) {
        shown = answer
        shows += 1
        paragraphs.mark(answer.isEmpty ? nil : answer.range, in: passage.text)
    }

    /// The first paragraph with a highlight, to scroll to.
    public var highlighted: Paragraph? { paragraphs.first(where: \.isHighlighted) }

    /// What VoiceOver says when a question came to an end: the answer, or why there is none.
    public var announcement: String? {
        if case .failed(let problem) = state { return problem.sentences }
        guard let reply else { return nil }
        let percent = reply.best.score.formatted(.percent.precision(.fractionLength(0)))
        return reply.best.isEmpty
            ? "The passage does not answer this question, probability \(percent)"
            : "Answer: \(reply.best.text), probability \(percent)"
    }
}
