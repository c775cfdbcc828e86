import XCTest

@testable import EdgeDistilKit

final class BestSpansTests: XCTestCase {
    func testASpanEndsNotBeforeItStartsAndHoldsAtMostThirtyTokens() throws {
        // Both alone would give 39 to 0; together the best are 10 + 0 for 0 to 29, and 0 + 9 for 10 to 39.
        var (start, end) = ([Float](repeating: 0, count: 43), [Float](repeating: 0, count: 43))
        (start[2], end[2 + 39], end[2 + 29]) = (10, 9, 1)
        let spans = try best([(window(tokens: 40), start, end)], of: String(repeating: "a ", count: 40))
        XCTAssertEqual(spans.ranked[0].place, 0..<59)
        XCTAssertEqual(spans.ranked[0].logit, 11)
        XCTAssertEqual(spans.ranked.count, 20)
        XCTAssertTrue(spans.ranked.allSatisfy { $0.place.count < 60 })
    }

    func testTiesGoToTheEarlierThenTheShorterSpan() throws {
        let zero = [Float](repeating: 0, count: 6)
        let spans = try best([(window(tokens: 3), zero, zero)], of: "a a a")
        XCTAssertEqual(spans.ranked.map(\.place), [0..<1, 0..<3, 0..<5, 2..<3, 2..<5, 4..<5])
    }

    func testOfManyEqualSpansOfOneWidthTheEarlierAreKept() throws {
        // A token more costs 1, so that those of one token are all the best, and 25 of them alike.
        let rising = (0..<28).map { Float($0) }
        let spans = try best([(window(tokens: 25), rising, rising.map { -$0 })], of: String(repeating: "a ", count: 25))
        XCTAssertEqual(spans.ranked.map(\.place), (0..<20).map { 2 * $0..<2 * $0 + 1 })
        XCTAssertEqual(spans.ranked.map(\.logit), [Double](repeating: 0, count: 20))
    }

    func testTheEmptyAnswersLogitIsTheLeastOverWindows() throws {
        let first: [Float] = [3, 0, 0, 0], second: [Float] = [1, 0, 0, 0]
        let spans = try best([(window(tokens: 1), first, first), (window(tokens: 1), second, second)], of: "a")
        XCTAssertEqual(spans.nullLogit, 2)
        XCTAssertEqual(spans.ranked.map(\.place), [0..<1])
    }

    func testLogitsThatAreNotOneForEachTokenAreRefused() {
        let error = KitError.invalidLogits(reason: "3 start and 4 end logits for 4 tokens")
        assertThrows(error) { try best([(window(tokens: 1), [0, 0, 0], [0, 0, 0, 0])], of: "a") }
    }

    func testWhatIsNoNumberIsNoCandidate() throws {
        let start: [Float] = [0, 0, .nan, 1, -.infinity, 0]
        let spans = try best([(window(tokens: 3), start, [0, 0, 0, 0, 0, 0])], of: "a a a")
        XCTAssertEqual(spans.ranked.map(\.place), [2..<3, 2..<5])
    }

    /// Against the plain reading of the definition: every span, sorted whole.
    func testRandomLogitsWithTiesAndOverlapsGiveTheSpansOfAFullSort() throws {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<200 {
            let count = Int.random(in: 1...90, using: &random)
            // Some tokens are parts of one character, as jamo of a syllable are.
            var places: [(Int32, Int32)] = []
            for _ in 0..<count {
                let last = places.last ?? (0, 0)
                places.append(Int.random(in: 0..<3, using: &random) == 0 && last.1 > 0 ? last : (last.1, last.1 + 1))
            }
            let passage = String(repeating: "x", count: count)
            let room = Int.random(in: 3...40, using: &random), stride = Int.random(in: 1...room, using: &random)
            let depth = Int.random(in: 1...50, using: &random)  // few values: many ties
            let inputs = try windows(
                question: Encoding(ids: [9], starts: [0], ends: [1]),
                passage: Encoding(
                    ids: (0..<Int32(count)).map { $0 }, starts: places.map(\.0), ends: places.map(\.1)),
                special: SpecialTokens(cls: 1, sep: 2, pad: 0, mask: 3, unk: 4),
                options: WindowOptions(maxLength: room + 4, docStride: stride)
            ).map { window in
                let logits = (0..<2).map { _ in
                    window.ids.map { _ in Float(Int.random(in: 0..<depth, using: &random)) / 4 }
                }
                return (window, logits[0], logits[1])
            }
            let spans = try best(inputs, of: passage)
            let expected = fullSort(inputs)
            XCTAssertEqual(spans.ranked.map(\.place), expected.map(\.place))
            XCTAssertEqual(spans.ranked.map(\.logit), expected.map(\.logit))
        }
    }

    private func fullSort(_ inputs: [(Window, [Float], [Float])]) -> [(place: Range<Int32>, logit: Double)] {
        var found: [Range<Int32>: Double] = [:]
        for (window, start, end) in inputs {
            let count = window.starts.count
            for width in 0..<min(30, count) {
                let logits = (0..<count - width).map { first in
                    Double(start[window.contextStart + first]) + Double(end[window.contextStart + first + width])
                }
                let kept = logits.indices.sorted { (-logits[$0], $0) < (-logits[$1], $1) }.prefix(20)
                for first in kept {
                    let place = window.starts[first]..<window.ends[first + width]
                    found[place] = max(found[place] ?? -.infinity, logits[first])
                }
            }
        }
        let ranked = found.sorted {
            (-$0.value, $0.key.lowerBound, $0.key.upperBound) < (-$1.value, $1.key.lowerBound, $1.key.upperBound)
        }
        return ranked.prefix(20).map { ($0.key, $0.value) }
    }

    /// A window of words of one letter with a blank after each, and no question.
    private func window(tokens: Int) -> Window {
        let starts = (0..<Int32(tokens)).map { 2 * $0 }
        return Window(
            ids: [Int32](repeating: 0, count: tokens + 3), contextStart: 2, starts: starts, ends: starts.map { $0 + 1 })
    }

    private func best(_ inputs: [(Window, [Float], [Float])], of passage: String) throws -> BestSpans {
        var spans = BestSpans(passage: passage)
        for (window, start, end) in inputs { try spans.add(window, SpanLogits(start: start, end: end)) }
        return spans
    }
}
