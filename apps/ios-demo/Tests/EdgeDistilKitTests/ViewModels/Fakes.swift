import Foundation

@testable import EdgeDistilKit

/// Words between blanks, each with an id of its length; `encode` tells what it costs.
struct BlankTokenizer: Tokenizer {
    let special = SpecialTokens(cls: 1, sep: 2, pad: 0, mask: 3, unk: 4)
    let vocabularySize = 1000
    var encoded: @Sendable () -> Void = {}

    func encode(_ text: String) -> Encoding {
        encoded()
        var encoding = Encoding()
        for word in text.split(separator: " ") {
            encoding.ids.append(10 + Int32(word.utf8.count))
            encoding.starts.append(Int32(text.utf8.distance(from: text.startIndex, to: word.startIndex)))
            encoding.ends.append(Int32(text.utf8.distance(from: text.startIndex, to: word.endIndex)))
        }
        return encoding
    }
}

/// A model whose logits a test makes up.
struct ScriptedModel: QuestionAnsweringModel {
    var lengths: [Int]?
    let logits: @Sendable (Window) async throws -> SpanLogits

    func predict(_ window: Window) async throws -> SpanLogits {
        try await logits(window)
    }

    /// Answers with the passage's longest word, and takes any other for less likely the shorter it is.
    static let longestWord = ScriptedModel { window in
        let logits = window.ids.enumerated().map { position, id in
            position < window.contextStart || id < 10 ? Float(-100) : Float(id)
        }
        return SpanLogits(start: logits, end: logits)
    }
}

/// A door that calls wait at until a test opens it.
actor Gate {
    private var isOpen = false
    private var waiting: [CheckedContinuation<Void, Never>] = []
    private(set) var arrivals = 0
    private var expecting: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []

    func pass() async {
        arrivals += 1
        for expected in expecting where expected.count <= arrivals { expected.continuation.resume() }
        expecting.removeAll { $0.count <= arrivals }
        if !isOpen { await withCheckedContinuation { waiting.append($0) } }
    }

    /// Returns when so many have come to the door.
    func arrived(_ count: Int) async {
        if arrivals < count { await withCheckedContinuation { expecting.append((count, $0)) } }
    }

    func open() {
        isOpen = true
        waiting.forEach { $0.resume() }
        waiting.removeAll()
    }
}

/// A value that a test and the calls that it watches share.
final class Shared<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    func get() -> Value { lock.withLock { value } }
    @discardableResult func change<Result>(_ body: (inout Value) -> Result) -> Result { lock.withLock { body(&value) } }
}
