import Foundation

/// What can go wrong between a folder of files and an answer. Each says what is wrong with what, and what to do.
public enum KitError: Error, Equatable, Sendable {
    /// A file or folder that has to be there is not.
    case missing(URL)
    /// A file that is there cannot be read.
    case unreadable(URL, reason: String)
    /// A file is not the JSON that it should be; `reason` names the field or the place.
    case malformed(URL, reason: String)
    /// A manifest of a format that this version does not read.
    case unsupportedFormat(URL, found: Int)
    /// A folder of another kind, such as an ONNX export.
    case wrongKind(URL, found: String)
    /// A model for another task than question answering.
    case wrongTask(URL, found: String)
    /// A manifest names a file outside of its folder.
    case unsafePath(URL, name: String)
    /// A file is not the one that the manifest was written for.
    case changed(URL)
    /// A file that the manifest does not list.
    case unlisted(URL)
    /// No Core ML package of this precision, or none at all where it is nil. `present` are the precisions there are.
    case noPackage(URL, precision: String?, present: [String])
    /// The tokeniser of a folder cannot be read, or is of another kind.
    case tokenizer(TokenizerError)
    /// The tokeniser of a folder has `tokens` tokens, its model `rows` embeddings.
    case vocabularyMismatch(URL, rows: Int, tokens: Int)
    /// A question without a single token.
    case emptyQuestion
    /// A passage without a single token.
    case emptyPassage
    /// A passage of more UTF-8 bytes than fit into memory with all that is worked out of it.
    case passageTooLong(bytes: Int, limit: Int)
    /// A setting out of its range.
    case invalidSetting(name: String, reason: String)
    /// A window has more tokens than the model takes.
    case windowTooLong(tokens: Int, longest: Int)
    /// A model gave something else than two finite logits for each token.
    case invalidLogits(reason: String)
    /// Core ML could not compile, load or run a model.
    case modelFailed(URL, reason: String)
}

extension KitError: LocalizedError {
    public var errorDescription: String? {
        switch self {
        case .missing(let url): "\(shown(url)) is missing."
        case .unreadable(let url, let reason): "\(shown(url)) cannot be read: \(reason)".asSentence
        case .malformed(let url, let reason): "\(shown(url)): \(reason)."
        case .unsupportedFormat(let url, let found):
            "\(shown(url)) has format \(found), this version reads \(Manifest.supportedFormat)."
        case .wrongKind(let url, let found): "\(shown(url)) holds a model of kind “\(found)”, not a Core ML export."
        case .wrongTask(let url, let found): "\(shown(url)) holds a model for “\(found)”, not for question answering."
        case .unsafePath(let url, let name): "\(shown(url)) names a file outside of its folder: “\(name)”."
        case .changed(let url): "\(shown(url)) does not match its checksum in \(Manifest.fileName)."
        case .unlisted(let url): "\(shown(url)) is not listed in \(Manifest.fileName)."
        case .noPackage(let url, let precision, let present):
            "\(shown(url)) holds no \(precision ?? "Core ML") package"
                + (present.isEmpty ? "." : " (it has: \(present.joined(separator: ", "))).")
        case .tokenizer(let error): error.localizedDescription
        case .vocabularyMismatch(let url, let rows, let tokens):
            "\(shown(url)): the model has \(rows) embeddings and its tokeniser \(tokens) tokens: "
                + "they do not belong together."
        case .emptyQuestion: "The question is empty."
        case .emptyPassage: "The passage is empty."
        case .passageTooLong(let bytes, let limit):
            "The passage has \(bytes) bytes, at most \(limit) are read at once."
        case .invalidSetting(let name, let reason): "\(name) \(reason)."
        case .windowTooLong(let tokens, let longest):
            "A window has \(tokens) tokens, the model takes at most \(longest)."
        case .invalidLogits(let reason): "The model's output is not usable: \(reason)."
        case .modelFailed(let url, let reason): "\(shown(url)) cannot be run: \(reason)".asSentence
        }
    }

    public var recoverySuggestion: String? {
        switch self {
        case .missing, .changed: "Copy the folder again, or make it anew with edge-distil."
        case .unreadable: "Check that the file is there, is complete, and may be read."
        case .malformed: "Correct the file, or make it anew."
        case .unsupportedFormat: "Update the app, or export the model with the edge-distil that belongs to it."
        case .wrongKind: "Export the checkpoint for it: edge-distil export MODEL --format coreml."
        case .wrongTask: "Give a model that was fine-tuned: edge-distil finetune --task squad."
        case .unsafePath: "Do not use this folder; make it anew with edge-distil."
        case .unlisted: "Remove the file, or make the folder anew with edge-distil."
        case .noPackage: "Export it: edge-distil export MODEL --format coreml."
        // It has said so.
        case .tokenizer: nil
        case .vocabularyMismatch: "Copy the tokenizer.json that the model was trained with into its folder."
        case .emptyQuestion: "Write a question with some text in it."
        case .emptyPassage: "Give a passage with some text in it."
        case .passageTooLong: "Split the passage, and ask each part."
        case .invalidSetting: "Give a value within its range."
        case .windowTooLong(_, let longest): "Set maxLength to \(longest) or less."
        case .invalidLogits: "Check the model: edge-distil verify ARTIFACT."
        case .modelFailed: "Export the model again, for the version of the system that this device has."
        }
    }
}

/// The last two parts of a path: the rest is the device's business.
private func shown(_ url: URL) -> String {
    url.pathComponents.suffix(2).joined(separator: "/")
}
