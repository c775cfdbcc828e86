import Foundation
import Observation

/// The bundled models and passages, read off the main thread: checking a large model's files takes seconds.
@MainActor @Observable public final class CatalogModel {
    /// What was found, and what could not be used.
    public struct Contents: Sendable {
        public var models: [ModelEntry]
        public var passages: [Passage]
        public var problems: [Problem]

        public init(models: [ModelEntry] = [], passages: [Passage] = [], problems: [Problem] = []) {
            self.models = models
            self.passages = passages
            self.problems = problems
        }
    }

    /// What puts a model into the demo app.
    public static let bundleCommand = "edge-distil bundle ARTIFACT --app apps/ios-demo"

    /// Nil until they are read.
    public private(set) var contents: Contents?
    private let read: @Sendable () async -> Contents

    /// `folder` holds `passages.json` and `Models/NAME/`, as `edge-distil bundle` leaves it.
    public convenience init(folder: URL) {
        self.init { Contents(folder: folder) }
    }

    public init(read: @escaping @Sendable () async -> Contents) {
        self.read = read
    }

    /// Reads them, once.
    public func load() async {
        guard contents == nil else { return }
        let read = read
        let found = await Task.detached(priority: .userInitiated) { await read() }.value
        if contents == nil { contents = found }
    }
}

extension CatalogModel.Contents {
    /// Reads a folder and checks all files in it. What cannot be used is among `problems`. The largest model comes first:
    /// it is the one that others are compared with.
    public init(folder: URL) {
        self.init()
        do {
            passages = try PassageLibrary(contentsOf: folder.appendingPathComponent("passages.json")).passages
        } catch {
            problems.append(Problem(error))
        }
        let library = ModelLibrary(folder: folder.appendingPathComponent("Models"))
        problems += library.faults.map { Problem($0.error) }
        for artifact in library.artifacts {
            do {
                models += try ModelEntry.entries(of: artifact)
            } catch {
                problems.append(Problem(error))
            }
        }
        models.sort { ($0.parameters ?? 0, $1.id) > ($1.parameters ?? 0, $0.id) }
    }
}
