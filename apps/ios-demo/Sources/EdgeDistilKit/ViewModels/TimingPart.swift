import Foundation

/// What one part of answering took, ready to be shown.
public struct TimingPart: Sendable, Equatable, Identifiable {
    public let name: String
    /// Milliseconds with one decimal, in the numbers of a language.
    public let milliseconds: String
    public var id: String { name }
}

extension Timings {
    /// The parts in their order, and their total.
    public func parts(locale: Locale = .current) -> [TimingPart] {
        let oneDigit = FloatingPointFormatStyle<Double>.number.precision(.fractionLength(1)).locale(locale)
        return [("Tokenise", tokenize), ("Predict", predict), ("Decode", decode), ("Total", total)].map { name, duration in
            TimingPart(name: name, milliseconds: (1000 * duration.seconds).formatted(oneDigit))
        }
    }
}
