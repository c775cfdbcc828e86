import Foundation

/// An error as it is shown: what is wrong, and what to do about it where the error says so.
public struct Problem: Error, Equatable, Sendable {
    public let description: String
    public let suggestion: String?

    public init(description: String, suggestion: String? = nil) {
        self.description = description
        self.suggestion = suggestion
    }

    /// Both as sentences one after the other, for an alert or VoiceOver.
    public var sentences: String {
        [description, suggestion].compactMap { $0?.asSentence }.joined(separator: " ")
    }

    public init(_ error: any Error) {
        if let problem = error as? Problem {
            self = problem
        } else {
            let localized = error as? any LocalizedError
            self.init(
                description: localized?.errorDescription ?? error.localizedDescription,
                suggestion: localized?.recoverySuggestion)
        }
    }
}

extension String {
    /// With a full stop at its end. What the system says of an error has one on most systems, and none on some.
    var asSentence: String {
        guard let last, !".!?…".contains(last) else { return self }
        return self + "."
    }
}
