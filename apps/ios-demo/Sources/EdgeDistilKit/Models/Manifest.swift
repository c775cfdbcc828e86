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
