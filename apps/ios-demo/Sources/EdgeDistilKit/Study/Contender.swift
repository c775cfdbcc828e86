/// A question to time models on, and the passage that it is about.
public struct StudyQuestion: Sendable, Equatable {
    public let question, passage: String

    public init(question: String, passage: String) {
        self.question = question
        self.passage = passage
    }
}

/// An open model to time.
public struct Contender: Sendable {
    /// Its name in the results, such as "BERT-base".
    public let name: String
    public let precision: String
    public let computeUnits: ComputeUnits
    /// Says that the model was never trained: its times count, its answers do not.
    public let randomWeights: Bool
    let tokenizer: any Tokenizer
    let model: any QuestionAnsweringModel

    public init(
        name: String, precision: String, computeUnits: ComputeUnits, tokenizer: any Tokenizer,
        model: any QuestionAnsweringModel, randomWeights: Bool = false
    ) {
        self.name = name
        self.precision = precision
        self.computeUnits = computeUnits
        self.tokenizer = tokenizer
        self.model = model
        self.randomWeights = randomWeights
    }

    /// The least of the model's input lengths that holds so many tokens, the greatest where none does.
    func inputLength(_ tokens: Int) -> Int {
        guard let lengths = model.lengths, let longest = lengths.last else { return tokens }
        return lengths.first { $0 >= tokens } ?? longest
    }
}
