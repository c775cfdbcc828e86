import XCTest

@testable import EdgeDistilKit

final class ArtifactTests: XCTestCase {
    func testAnExportTellsWhatItIs() throws {
        let folder = try ArtifactFolder(in: temporaryFolder(), packages: ["model_fp32.mlpackage", "model.mlpackage"])
        try folder.url.write("notes of the Finder", to: "model.mlpackage/.DS_Store")
        try folder.url.write("attributes", to: "._config.json")
        try folder.url.write("attributes", to: "model.mlpackage/Data/._com.apple.CoreML")
        let artifact = try Artifact(folder: folder.url)
        XCTAssertEqual(artifact.name, "student")
        XCTAssertEqual(artifact.precisions, ["fp16", "fp32"])
        XCTAssertEqual(try artifact.packageURL().lastPathComponent, "model.mlpackage")
        XCTAssertEqual(try artifact.packageURL(precision: "fp32").lastPathComponent, "model_fp32.mlpackage")
        XCTAssertEqual(try artifact.packageBytes(), 2 + "weights of model.mlpackage".utf8.count)
        XCTAssertEqual(artifact.manifest.versions, ["edge-distil": "0.1.0"])
        XCTAssertEqual(artifact.lengths, [8, 16])
        XCTAssertEqual(try artifact.loadTokenizer().vocabularySize, ArtifactFolder.vocabularySize)
    }

    func testParametersAreThoseOfTheEncoderAndTheTwoLogits() throws {
        // (1371 words + 16 positions) × 4, a norm of 2 × 4; twice four 4 × 4 products with biases, 4 × 8 and back, and
        // two norms; 4 × 2 and 2 for the logits.
        let distilBERT = 1387 * 4 + 8 + 2 * (4 * 20 + 8 + 32 + 8 + 32 + 4 + 8) + 10
        let folder = try ArtifactFolder(in: temporaryFolder())
        XCTAssertEqual(try Artifact(folder: folder.url).parameters, distilBERT)
        let bert = """
            {"model_type": "bert", "vocab_size": 1371, "hidden_size": 4, "num_hidden_layers": 2, \
            "intermediate_size": 8, "max_position_embeddings": 16, "type_vocab_size": 2}
            """
        let other = try ArtifactFolder(in: temporaryFolder(), config: bert)
        XCTAssertEqual(try Artifact(folder: other.url).parameters, distilBERT + 2 * 4)
        let base = try JSONDecoder().decode(
            ModelConfig.self,
            from: Data(
                """
                {"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, \
                "intermediate_size": 3072, "max_position_embeddings": 512}
                """.utf8))
        XCTAssertEqual(base.parameters, 108_893_186)  // of transformers' BertForQuestionAnswering
    }

    func testAPackageOfAnotherNameIsTakenWhereItIsTheOnlyOne() throws {
        let folder = try ArtifactFolder(in: temporaryFolder(), packages: ["mine.mlpackage"])
        let artifact = try Artifact(folder: folder.url)
        XCTAssertEqual(artifact.precisions, [])
        XCTAssertEqual(try artifact.packageURL().lastPathComponent, "mine.mlpackage")
        assertThrows(KitError.noPackage(folder.url, precision: "int8", present: ["mine.mlpackage"])) {
            try artifact.packageURL(precision: "int8")
        }
    }

    func testTheChecksumOfAPackageChangesWithAnyOfItsFiles() throws {
        let folder = try ArtifactFolder(in: temporaryFolder(), packages: ["model.mlpackage", "model_int8.mlpackage"])
        let before = try Artifact(folder: folder.url)
        try folder.append("more", to: "model.mlpackage/Manifest.json")
        try folder.writeManifest()
        let after = try Artifact(folder: folder.url)
        XCTAssertNotEqual(try before.packageChecksum(), try after.packageChecksum())
        XCTAssertEqual(
            try before.packageChecksum(precision: "int8"), try after.packageChecksum(precision: "int8"))
        XCTAssertNotEqual(try before.packageChecksum(), try before.packageChecksum(precision: "int8"))
    }

    /// Breaks a folder, and says what opening it is to say.
    private func assertRefused(
        line: UInt = #line, packages: [String] = ["model.mlpackage"], verify: Bool = true,
        _ breaking: (ArtifactFolder) throws -> KitError
    ) throws {
        let folder = try ArtifactFolder(in: temporaryFolder(), packages: packages)
        let error = try breaking(folder)
        assertThrows(error, line: line) { try Artifact(folder: folder.url, verify: verify) }
    }

    func testAFileThatIsNotWhatTheManifestSaysIsRefused() throws {
        let weights = "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
        try assertRefused { folder in
            try folder.url.write("Weights of model.mlpackage", to: weights)
            return .changed(folder.url.appendingPathComponent(weights))
        }
        for verify in [true, false] {
            try assertRefused(verify: verify) { folder in
                try folder.append("x", to: weights)
                return .changed(folder.url.appendingPathComponent(weights))
            }
            try assertRefused(verify: verify) { folder in
                try folder.remove("tokenizer.json")
                return .missing(folder.url.appendingPathComponent("tokenizer.json"))
            }
            try assertRefused(verify: verify) { folder in
                try folder.url.write("", to: "model.mlpackage/Data/extra")
                return .unlisted(folder.url.appendingPathComponent("model.mlpackage/Data/extra"))
            }
            try assertRefused(verify: verify) { folder in
                try folder.url.write("", to: ".extra")
                return .unlisted(folder.url.appendingPathComponent(".extra"))
            }
        }
    }

    func testWithoutVerifyingChecksumsAreNotRead() throws {
        let folder = try ArtifactFolder(in: temporaryFolder())
        try folder.url.write("# a CARD\n", to: "README.md")
        XCTAssertNoThrow(try Artifact(folder: folder.url, verify: false))
    }

    func testALinkIsNoFile() throws {
        try assertRefused { folder in
            let elsewhere = try temporaryFolder()
            try elsewhere.write("# A card\n", to: "README.md")
            let card = folder.url.appendingPathComponent("README.md")
            try folder.remove("README.md")
            try FileManager.default.createSymbolicLink(
                at: card, withDestinationURL: elsewhere.appendingPathComponent("README.md"))
            return .unreadable(card, reason: "it is no plain file")
        }
    }

    func testPathsThatLeadOutOfTheFolderAreRefused() throws {
        for name in ["../config.json", "/etc/hostname", "a/../../b", "a//b", "", ".", "a/."] {
            try assertRefused { folder in
                try folder.writeManifest { manifest in
                    var files = manifest["files"] as! [String: Any]
                    files[name] = ["bytes": 0, "sha256": ""]
                    manifest["files"] = files
                }
                return .unsafePath(folder.url.appendingPathComponent("edge_distil.json"), name: name)
            }
        }
    }

    func testAManifestOfSomethingElseIsRefused() throws {
        try assertRefused { folder in
            try folder.writeManifest { $0["format"] = 2; $0["files"] = nil }
            return .unsupportedFormat(folder.url.appendingPathComponent("edge_distil.json"), found: 2)
        }
        try assertRefused { folder in
            try folder.writeManifest { $0["kind"] = "onnx" }
            return .wrongKind(folder.url, found: "onnx")
        }
        try assertRefused { folder in
            try folder.writeManifest { $0["task"] = "masked-lm" }
            return .wrongTask(folder.url, found: "masked-lm")
        }
        try assertRefused { folder in
            try folder.writeManifest { $0["files"] = nil }
            return .malformed(folder.url.appendingPathComponent("edge_distil.json"), reason: "field “files” is missing")
        }
        try assertRefused { folder in
            try folder.url.write("{\"format\": 1", to: "edge_distil.json")
            return .malformed(folder.url.appendingPathComponent("edge_distil.json"), reason: "it is not valid JSON")
        }
        try assertRefused { folder in
            try folder.remove("edge_distil.json")
            return .missing(folder.url.appendingPathComponent("edge_distil.json"))
        }
        try assertRefused { folder in
            try FileManager.default.removeItem(at: folder.url)
            return .missing(folder.url)
        }
    }

    func testAFolderWithoutAPackageIsRefused() throws {
        try assertRefused(packages: []) { .noPackage($0.url, precision: nil, present: []) }
        try assertRefused(packages: ["a.mlpackage", "b.mlpackage"]) {
            .noPackage($0.url, precision: nil, present: ["a.mlpackage", "b.mlpackage"])
        }
    }

    func testAVocabularyOfAnotherModelIsRefused() throws {
        // Up to 127 rows more than tokens are padding.
        for (rows, fits) in [(1370, false), (1371, true), (1498, true), (1499, false)] {
            let config = ArtifactFolder.config.replacingOccurrences(of: "1371", with: "\(rows)")
            let folder = try ArtifactFolder(in: temporaryFolder(), config: config)
            if fits {
                XCTAssertNoThrow(try Artifact(folder: folder.url))
            } else {
                assertThrows(KitError.vocabularyMismatch(folder.url, rows: rows, tokens: 1371)) {
                    try Artifact(folder: folder.url)
                }
            }
        }
    }

    func testAConfigurationWithoutItsFieldsIsRefused() throws {
        let folder = try ArtifactFolder(in: temporaryFolder(), config: "{\"vocab_size\": \"many\"}")
        let url = folder.url.appendingPathComponent("config.json")
        assertThrows(KitError.malformed(url, reason: "field “vocab_size” is not a number")) {
            try Artifact(folder: folder.url)
        }
    }

    func testATokeniserThatIsNoneOfBertsIsRefused() throws {
        let folder = try ArtifactFolder(in: temporaryFolder())
        try folder.url.write("{}", to: "tokenizer.json")
        try folder.writeManifest()
        XCTAssertThrowsError(try Artifact(folder: folder.url)) { error in
            guard case .tokenizer = error as? KitError else { return XCTFail("\(error)") }
            XCTAssertTrue(error.localizedDescription.contains("tokenizer.json"), error.localizedDescription)
        }
    }

    func testTheFoldersDecodingIsRead() throws {
        let folder = try ArtifactFolder(in: temporaryFolder())
        XCTAssertEqual(try Artifact(folder: folder.url).decoding, Decoding())
        try folder.url.write("{\"temperature\": 1.5}", to: "decoding.json")
        try folder.writeManifest()
        XCTAssertEqual(try Artifact(folder: folder.url).decoding, Decoding(temperature: 1.5))
        try folder.url.write("{\"temperature\": -1}", to: "decoding.json")
        try folder.writeManifest()
        let url = folder.url.appendingPathComponent("decoding.json")
        assertThrows(KitError.malformed(url, reason: "field “temperature”: -1.0 is not above 0")) {
            try Artifact(folder: folder.url)
        }
    }

    func testALibraryHoldsWhatIsUsableAndTheFaultsOfTheRest() throws {
        let parent = try temporaryFolder()
        _ = try ArtifactFolder(in: parent, name: "student")
        _ = try ArtifactFolder(in: parent, name: "base")
        _ = try ArtifactFolder(in: parent, name: ".base.partial-17")
        try ArtifactFolder(in: parent, name: "cut").remove("config.json")
        try parent.write("put models here", to: "README.md")
        let library = ModelLibrary(folder: parent)
        XCTAssertEqual(library.artifacts.map(\.name), ["base", "student"])
        XCTAssertEqual(library.faults.map(\.name), ["cut"])
        guard case .missing(let url)? = library.faults.first?.error else { return XCTFail("\(library.faults)") }
        XCTAssertEqual(url.lastPathComponent, "config.json")
        let none = ModelLibrary(folder: parent.appendingPathComponent("none"))
        XCTAssertTrue(none.artifacts.isEmpty && none.faults.isEmpty)
    }

    /// For exports that are not in the repository: a folder of them, relative to apps/ios-demo, in EDGE_DISTIL_MODELS.
    func testModelsOfAGivenFolderAreUsable() throws {
        guard let path = ProcessInfo.processInfo.environment["EDGE_DISTIL_MODELS"] else {
            throw XCTSkip("EDGE_DISTIL_MODELS names no folder of models")
        }
        let library = ModelLibrary(folder: URL(fileURLWithPath: path))
        XCTAssertEqual(library.faults, [])
        XCTAssertFalse(library.artifacts.isEmpty, "no models in \(path)")
        for artifact in library.artifacts {
            let (parameters, bytes) = (artifact.parameters ?? 0, artifact.bytes)
            print("\(artifact.name): \(artifact.precisions), \(parameters) parameters, \(bytes) bytes")
        }
    }
}
