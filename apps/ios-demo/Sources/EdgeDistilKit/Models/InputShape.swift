import Foundation

/// The lengths that a package takes, as its description says.
enum InputShape: Equatable {
    case fixed(Int)
    case enumerated([Int])
    case range(ClosedRange<Int>)

    /// The lengths that are used, ascending.
    ///
    /// Of a range its ends and the multiples of 32 between: each new length may cost Core ML a preparation of its own.
    var lengths: [Int] {
        switch self {
        case .fixed(let length): [length]
        case .enumerated(let lengths): Set(lengths).sorted()
        case .range(let range):
            Set([range.lowerBound, range.upperBound] + range.filter { $0 % 32 == 0 }).sorted()
        }
    }

    /// The lengths that are run once before the first question: all, of a range the longest.
    var warmUp: [Int] {
        if case .range(let range) = self { return [range.upperBound] }
        return lengths
    }

    /// From the `lengths` of an export: `"384"`, `"64,128,384"` or `"16..384"`. Nil for anything else.
    init?(_ text: String) {
        let ends = text.components(separatedBy: "..").map { Int($0) }
        if ends.count == 2, let first = ends[0], let last = ends[1], 0 < first, first < last {
            self = .range(first...last)
            return
        }
        let lengths = text.split(separator: ",", omittingEmptySubsequences: false).compactMap {
            Int($0.trimmingCharacters(in: .whitespaces))
        }
        guard lengths.count == text.split(separator: ",", omittingEmptySubsequences: false).count,
            lengths.allSatisfy({ $0 > 0 })
        else { return nil }
        self = lengths.count == 1 ? .fixed(lengths[0]) : .enumerated(lengths)
    }
}
