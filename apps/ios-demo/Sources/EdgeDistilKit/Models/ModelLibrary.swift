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
    public init(folder: URL, verify: Bool = true) {
        let found = try? FileManager.default.contentsOfDirectory(
            at: folder, includingPropertiesForKeys: [.isDirectoryKey], options: .skipsHiddenFiles)
        var artifacts: [Artifact] = []
        var faults: [Fault] = []
        for url in (found ?? []).sorted(by: { $0.lastPathComponent < $1.lastPathComponent }) {
            guard (try? url.resourceValues(forKeys: [.isDirectoryKey]))?.isDirectory == true else { continue }
            do {
                artifacts.append(try Artifact(folder: url, verify: verify))
            } catch let error as KitError {
                faults.append(Fault(name: url.lastPathComponent, error: error))
            } catch {
                let error = KitError.unreadable(url, reason: error.localizedDescription)
                faults.append(Fault(name: url.lastPathComponent, error: error))
            }
        }
        self.artifacts = artifacts
        self.faults = faults
    }
}
