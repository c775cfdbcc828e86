import Foundation

/// What the `edge_distil.json` of a folder says: what it is, what it was made from, and the checksum of every file.
public struct Manifest: Decodable, Sendable, Equatable {
    public static let fileName = "edge_distil.json"
    static let supportedFormat = 1

    /// One file as it was written.
    public struct File: Decodable, Sendable, Equatable {
        public let bytes: Int
        /// SHA-256 in hexadecimal digits.
        public let sha256: String
    }

    /// What the export was asked for, where the manifest says so.
    public struct Settings: Decodable, Sendable, Equatable {
        /// `"384"`, `"64,128,384"` or `"16..384"`.
        public let lengths: String?
        public let maxLength: Int?

        private enum CodingKeys: String, CodingKey {
            case lengths
            case maxLength = "max_length"
        }
    }

    public let format: Int
    public let kind: String
    public let task: String
    /// When it was made, in ISO 8601.
    public let created: String?
    public let versions: [String: String]?
    public let config: Settings?
    /// By path relative to the folder.
    public let files: [String: File]
}

extension Manifest {
    private struct Head: Decodable {
        let format: Int
    }

    /// The manifest of a Core ML question answerer's folder. Throws `KitError` where it is none.
    init(folder: URL) throws {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder), isFolder.boolValue else {
            throw KitError.missing(folder)
        }
        let url = folder.appendingPathComponent(Self.fileName)
        // First of all, for another format may look like anything.
        let format = try readJSON(Head.self, from: url).format
        guard format == Self.supportedFormat else { throw KitError.unsupportedFormat(url, found: format) }
        self = try readJSON(Self.self, from: url)
        guard kind == "coreml" else { throw KitError.wrongKind(folder, found: kind) }
        guard task == "question-answering" else { throw KitError.wrongTask(folder, found: task) }
        for name in files.keys where !Self.isInside(name) {
            throw KitError.unsafePath(url, name: name)
        }
    }

    /// Whether a relative path stays below the folder that it is relative to.
    private static func isInside(_ name: String) -> Bool {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        return parts.allSatisfy { !["", ".", ".."].contains($0) } && !name.contains("\0")
    }

    /// Whether a file is the Finder's notes on a folder, or the attributes that copying to a foreign disk puts beside a
    /// file (AppleDouble).
    private static func isLeftBySystem(_ name: String) -> Bool {
        let last = (name as NSString).lastPathComponent
        return last == ".DS_Store" || last.hasPrefix("._")
    }

    /// Holds the files of a folder against the manifest. Throws `KitError` for the first that does not fit.
    func check(_ folder: URL, checksums: Bool) throws {
        let manager = FileManager.default
        func attributes(_ name: String) throws -> [FileAttributeKey: Any] {
            let url = folder.appendingPathComponent(name)
            do {
                return try manager.attributesOfItem(atPath: url.path)
            } catch {
                throw KitError.unreadable(url, reason: error.localizedDescription)
            }
        }
        let found: [String]
        do {
            found = try manager.subpathsOfDirectory(atPath: folder.path)
        } catch {
            throw KitError.unreadable(folder, reason: error.localizedDescription)
        }
        for name in found.sorted() where name != Self.fileName && !Self.isLeftBySystem(name) {
            let isFolder = try attributes(name)[.type] as? FileAttributeType == .typeDirectory
            if files[name] == nil, !isFolder { throw KitError.unlisted(folder.appendingPathComponent(name)) }
        }
        let listed = files.sorted { $0.key < $1.key }
        for (name, file) in listed {
            let url = folder.appendingPathComponent(name)
            guard manager.fileExists(atPath: url.path) else { throw KitError.missing(url) }
            let attributes = try attributes(name)
            // A link may lead anywhere.
            guard attributes[.type] as? FileAttributeType == .typeRegular else {
                throw KitError.unreadable(url, reason: "it is no plain file")
            }
            guard (attributes[.size] as? NSNumber)?.intValue == file.bytes else { throw KitError.changed(url) }
        }
        guard checksums else { return }
        for (name, file) in listed {
            let url = folder.appendingPathComponent(name)
            guard try sha256(of: url) == file.sha256 else { throw KitError.changed(url) }
        }
    }
}
