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

    /// The length that so many tokens are padded to.
    func inputLength(_ tokens: Int) -> Int {
        fittingLength(tokens, of: model.lengths)
    }

    /// Its input for one question: of a passage that takes several windows the first one.
    func firstWindow(of question: StudyQuestion, maxLength: Int) throws -> Window {
        try Windows(
            question: tokenizer.encode(question.question), passage: tokenizer.encode(question.passage),
            special: tokenizer.special, options: WindowOptions(maxLength: maxLength))[0]
    }
}
