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
    /// The user's own text or file that was opened last.
    public private(set) var own: Passage?
    /// Why the last file was not opened; to be set to nil when that was read.
    public var fileProblem: Problem?
    public var question = ""
    public private(set) var reply: Reply?
    /// The answer that is highlighted in the passage.
    public private(set) var shown: Answer?
    /// The passage, cut for display, with what is highlighted.
    public private(set) var paragraphs: [Paragraph]

    private let units: ComputeUnits
    private var opening: (id: ModelEntry.ID, task: Task<QuestionAnswerer, any Error>)?
    private var isOpen = false
    private var running: Task<Void, Never>?
    /// Counts questions: what an older one brings home is no longer wanted.
    private var turn = 0

    public init(models: [ModelEntry], passage: Passage, units: ComputeUnits = .all) {
        self.models = models
        self.passage = passage
        self.units = units
        modelID = models.first?.id
        paragraphs = Paragraph.split(passage.text)
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
        paragraphs = Paragraph.split(passage.text)
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

    public var canAsk: Bool { chosen != nil && !trimmedQuestion.isEmpty }

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
        let passage = passage.text
        let turn = turn
        progress = 0
        state = .answering
        let task = Task {
            do {
                let answerer = try await self.answerer(for: entry)
                guard turn == self.turn else { return }
                state = .answering
                let answered = try await answerer.answer(
                    question, in: passage, nBest: Self.answers, unanswerable: answerer.decoding.nullThreshold != nil
                ) { share in
                    Task { @MainActor in self.advance(to: share, turn: turn) }
                }
                guard turn == self.turn else { return }
                finish(Reply(question: question, model: entry.name, answered: answered))
            } catch {
                guard turn == self.turn else { return }
                running = nil
                state = error is CancellationError ? .idle : .failed(Problem(error))
            }
        }
        running = task
        return task
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
        show(reply.best)
    }

    // MARK: Showing

    /// Highlights an answer in the passage; the empty one highlights nothing.
    public func show(_ answer: Answer) {
        shown = answer
        paragraphs = Paragraph.split(passage.text, highlight: answer.isEmpty ? nil : answer.range)
    }

    /// The first paragraph with a highlight, to scroll to.
    public var highlighted: Paragraph? { paragraphs.first(where: \.isHighlighted) }

    /// What VoiceOver says when an answer has come.
    public var announcement: String? {
        guard let reply else { return nil }
        let percent = reply.best.score.formatted(.percent.precision(.fractionLength(0)))
        return reply.best.isEmpty
            ? "The passage does not answer this question, probability \(percent)"
            : "Answer: \(reply.best.text), probability \(percent)"
    }
}
