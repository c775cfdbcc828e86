import Foundation

@testable import EdgeDistilKit

/// A folder as `edge-distil export --format coreml` writes it, of a few kilobytes: for tests to break.
struct ArtifactFolder {
    static let vocabularySize = 1371
    static let config = """
        {"model_type": "distilbert", "vocab_size": 1371, "dim": 4, "n_layers": 2, "hidden_dim": 8, \
        "max_position_embeddings": 16}
        """

    let url: URL

    /// Written below a folder, with a manifest of what is there.
    init(
        in parent: URL, name: String = "student", packages: [String] = ["model.mlpackage"], config: String = config
    ) throws {
        url = parent.appendingPathComponent(name)
        try url.write(config, to: "config.json")
        try url.write("# A card\n", to: "README.md")
        for package in packages {
            try url.write("{}", to: "\(package)/Manifest.json")
            try url.write("weights of \(package)", to: "\(package)/Data/com.apple.CoreML/weights/weight.bin")
        }
        let tokenizer = golden.appendingPathComponent("answers-tokenizer.json")
        try FileManager.default.copyItem(at: tokenizer, to: url.appendingPathComponent("tokenizer.json"))
        try writeManifest()
    }

    /// A manifest of the files as they are now; `edit` changes what it says.
    func writeManifest(_ edit: (inout [String: Any]) -> Void = { _ in }) throws {
        let manager = FileManager.default
        var files: [String: Any] = [:]
        for name in try manager.subpathsOfDirectory(atPath: url.path) where name != "edge_distil.json" {
            let file = url.appendingPathComponent(name)
            let attributes = try manager.attributesOfItem(atPath: file.path)
            guard attributes[.type] as? FileAttributeType == .typeRegular else { continue }
            files[name] = ["bytes": attributes[.size]!, "sha256": try sha256(of: file)]
        }
        var manifest: [String: Any] = [
            "format": 1, "kind": "coreml", "task": "question-answering", "created": "2026-11-21T04:51:26+00:00",
            "command": "edge-distil export", "config": ["lengths": "8..16", "max_length": 16, "precision": "all"],
            "inputs": ["model": ["path": "runs/qa", "sha256": "0"]], "versions": ["edge-distil": "0.1.0"],
            "measured": ["questions": 32], "files": files,
        ]
        edit(&manifest)
        try JSONSerialization.data(withJSONObject: manifest).write(to: url.appendingPathComponent("edge_distil.json"))
    }

    func append(_ text: String, to name: String) throws {
        let file = url.appendingPathComponent(name)
        try (try Data(contentsOf: file) + Data(text.utf8)).write(to: file)
    }

    func remove(_ name: String) throws {
        try FileManager.default.removeItem(at: url.appendingPathComponent(name))
    }
}
