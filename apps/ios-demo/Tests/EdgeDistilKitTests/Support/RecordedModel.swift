import Foundation

@testable import EdgeDistilKit

/// A model that says what another one said, by the ids of the window.
struct RecordedModel: QuestionAnsweringModel {
    struct UnknownWindow: Error, Equatable {
        let ids: [Int32]
    }

    var lengths: [Int]?
    let logits: [[Int32]: SpanLogits]

    func predict(_ window: Window) async throws -> SpanLogits {
        guard let logits = logits[window.ids] else { throw UnknownWindow(ids: window.ids) }
        return logits
    }
}

/// A model whose logits are worked out from the window by the test.
struct ComputedModel: QuestionAnsweringModel {
    var lengths: [Int]?
    let logits: @Sendable (Window) async throws -> SpanLogits

    func predict(_ window: Window) async throws -> SpanLogits {
        try await logits(window)
    }
}

/// A model that finds the words with these ids: 10 for the start of one and the end of the other, 0 for the rest.
func finder(of start: Int32, to end: Int32) -> ComputedModel {
    ComputedModel { window in
        func logits(_ id: Int32) -> [Float] {
            window.ids.enumerated().map { $0 >= window.contextStart && $1 == id ? 10 : 0 }
        }
        return SpanLogits(start: logits(start), end: logits(end))
    }
}

/// Each run of letters and digits is a token, as is every other visible scalar; marks, like blanks, are in none.
///
/// Counts how often it was asked.
final class WordTokenizer: Tokenizer, @unchecked Sendable {
    let special = SpecialTokens(cls: 1, sep: 2, pad: 0, mask: 3, unk: 4)
    let vocabularySize = 10_000
    private let lock = NSLock()
    private var asked: [String] = []

    var texts: [String] { lock.withLock { asked } }

    func encode(_ text: String) -> Encoding {
        lock.withLock { asked.append(text) }
        var encoding = Encoding()
        var word: (start: Int, scalars: String.UnicodeScalarView)?
        var offset = 0
        func end() {
            guard let (start, scalars) = word else { return }
            encoding.ids.append(id(String(scalars)))
            encoding.starts.append(Int32(start))
            encoding.ends.append(Int32(offset))
            word = nil
        }
        for scalar in text.unicodeScalars {
            switch scalar.properties.generalCategory {
            case .nonspacingMark, .spacingMark, .enclosingMark, .spaceSeparator, .control, .format: end()
            case _ where scalar.properties.isAlphabetic || scalar.properties.numericType != nil:
                word = (word?.start ?? offset, (word?.scalars ?? .init()) + [scalar])
            default:
                end()
                word = (offset, .init([scalar]))
            }
            offset += UTF8.width(scalar)
            if let current = word, current.scalars.count == 1, !scalar.properties.isAlphabetic { end() }
        }
        end()
        return encoding
    }

    func id(_ word: String) -> Int32 {
        let hash = word.unicodeScalars.reduce(UInt32(2_166_136_261)) { ($0 ^ $1.value) &* 16_777_619 }
        return 10 + Int32(hash % 9_990)
    }
}

/// Random numbers that are the same in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
