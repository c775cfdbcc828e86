/// What is read of a model's `config.json`, BERT's names or DistilBERT's.
struct ModelConfig: Decodable, Sendable {
    let modelType: String?
    /// Rows of the table of word embeddings.
    let vocabularySize: Int
    /// Weights and biases of a question answerer, nil for another encoder than BERT's and DistilBERT's.
    let parameters: Int?

    private enum CodingKeys: String, CodingKey {
        case model_type, vocab_size, max_position_embeddings, type_vocab_size
        case hidden_size, num_hidden_layers, intermediate_size
        case dim, n_layers, hidden_dim
    }

    init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        modelType = try values.decodeIfPresent(String.self, forKey: .model_type)
        vocabularySize = try values.decode(Int.self, forKey: .vocab_size)
        let isBERT = modelType == "bert"
        guard isBERT || modelType == "distilbert" else {
            parameters = nil
            return
        }
        let hidden = try values.decode(Int.self, forKey: isBERT ? .hidden_size : .dim)
        let layers = try values.decode(Int.self, forKey: isBERT ? .num_hidden_layers : .n_layers)
        let inner = try values.decode(Int.self, forKey: isBERT ? .intermediate_size : .hidden_dim)
        let positions = try values.decode(Int.self, forKey: .max_position_embeddings)
        let segments = isBERT ? try values.decodeIfPresent(Int.self, forKey: .type_vocab_size) ?? 2 : 0
        let norm = 2 * hidden
        let embeddings = (vocabularySize + positions + segments) * hidden + norm
        let attention = 4 * (hidden * hidden + hidden) + norm
        let feedForward = 2 * hidden * inner + inner + hidden + norm
        parameters = embeddings + layers * (attention + feedForward) + 2 * hidden + 2
    }
}
