import Foundation

/// The artifacts in the folders of one folder, by name, and those that cannot be used with the reason.
public struct ModelLibrary: Sendable {
    /// A folder that is no usable artifact.
    public struct Fault: Sendable, Equatable, Identifiable {
        public let name: String
        public let error: KitError
        public var id: String { name }

        public init(name: String, error: KitError) {
            self.name = name
            self.error = error
        }
    }

    public let artifacts: [Artifact]
    public let faults: [Fault]

    public init(artifacts: [Artifact] = [], faults: [Fault] = []) {
        self.artifacts = artifacts
        self.faults = faults
    }

    /// Reads `folder/NAME/` for every NAME, hidden ones aside. A folder that is not there holds nothing.
    ///
    /// With `verify` every file is read and held against its checksum: do it off the main thread.
    public init(folder: URL, verify: Bool = true) { fatalError() }
}
