import Foundation

/// A passage of the library, with questions to start from.
public struct Passage: Codable, Sendable, Equatable, Hashable, Identifiable {
    public var title: String
    public var text: String
    public var questions: [String]

    public init(title: String, text: String, questions: [String] = []) {
        self.title = title
        self.text = text
        self.questions = questions
    }

    public var id: String { title }
}

/// The passages of a `passages.json`: a list of objects with `title`, `text` and `questions`, in UTF-8.
public struct PassageLibrary: Sendable, Equatable {
    public let passages: [Passage]

    public init(passages: [Passage]) {
        self.passages = passages
    }

    /// Throws `KitError` for a missing or malformed file, two passages of one title, and a passage without a text.
    public init(contentsOf url: URL) throws {
        passages = try readJSON([Passage].self, from: url)
        var titles = Set<String>()
        for (number, passage) in passages.enumerated() {
            let place = "passage \(number + 1), “\(passage.title)”"
            guard titles.insert(passage.title).inserted else {
                throw KitError.malformed(url, reason: "\(place): an earlier passage has the same title")
            }
            guard passage.text.contains(where: { !$0.isWhitespace }) else {
                throw KitError.malformed(url, reason: "\(place): its text is empty")
            }
        }
    }
}
