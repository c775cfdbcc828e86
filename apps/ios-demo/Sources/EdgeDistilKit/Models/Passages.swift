import Foundation

/// A passage of the library, with questions to start from.
public struct Passage: Codable, Sendable, Equatable, Hashable, Identifiable {
    public var title: String
    public var text: String
    public var questions: [String]

    public init(title: String, text: String, questions: [String] = []) {
        self.title = title
        self.text = text
        // A text of Apple's text views is in UTF-16, where each step of an index is slow.
        self.text.makeContiguousUTF8()
        self.questions = questions
    }

    public var id: String { title }

    /// By the title alone: a list of passages asks for it often, and a text may have megabytes.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(title)
    }

    /// The first characters of the text, for a list: whatever is laid out there is laid out on the main thread.
    public var excerpt: String { String(text.prefix(300)) }
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
