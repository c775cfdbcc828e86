import XCTest

@testable import EdgeDistilKit

@MainActor final class CatalogModelTests: XCTestCase {
    func testContentsAreReadOnce() async {
        let reads = Shared(0)
        let catalog = CatalogModel {
            reads.change { $0 += 1 }
            return .init(passages: [Passage(title: "A", text: "b")])
        }
        XCTAssertNil(catalog.contents)
        await catalog.load()
        await catalog.load()
        XCTAssertEqual(catalog.contents?.passages.map(\.title), ["A"])
        XCTAssertEqual(reads.get(), 1)
    }

    func testFolderWithoutModelsHasPassagesAndOneWithoutPassagesAProblem() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }

        let empty = CatalogModel.Contents(folder: folder)
        XCTAssert(empty.models.isEmpty)
        XCTAssertEqual(empty.problems.map(\.description), [
            "\(folder.lastPathComponent)/passages.json is missing."
        ])
        try Data(#"[{"title": "A", "text": "b", "questions": ["c?"]}]"#.utf8)
            .write(to: folder.appendingPathComponent("passages.json"))
        let contents = CatalogModel.Contents(folder: folder)
        XCTAssertEqual(contents.passages, [Passage(title: "A", text: "b", questions: ["c?"])])
        XCTAssert(contents.problems.isEmpty)
    }

    func testFolderThatIsNoArtifactIsAProblem() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        let model = folder.appendingPathComponent("Models/broken")
        try FileManager.default.createDirectory(at: model, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let problems = CatalogModel.Contents(folder: folder).problems.map(\.description)
        XCTAssertEqual(problems.count, 2)
        XCTAssert(problems.contains { $0.contains("edge_distil.json") || $0.contains("broken") }, "\(problems)")
    }

    func testEveryPrecisionOfABundledModelIsAnEntryTheLargestModelFirst() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: folder) }
        let models = folder.appendingPathComponent("Models")
        let larger = ArtifactFolder.config.replacingOccurrences(of: "\"n_layers\": 2", with: "\"n_layers\": 4")
        _ = try ArtifactFolder(in: models, name: "a", packages: ["model.mlpackage", "model_int8.mlpackage"])
        _ = try ArtifactFolder(in: models, name: "b", config: larger)
        _ = try ArtifactFolder(in: models, name: "c", packages: ["mine.mlpackage"])
        try Data("[]".utf8).write(to: folder.appendingPathComponent("passages.json"))

        let contents = CatalogModel.Contents(folder: folder)
        XCTAssertEqual(contents.problems, [])
        XCTAssertEqual(contents.models.map(\.id), ["b/fp16", "a/fp16", "a/int8", "c/unnamed"])
        XCTAssertEqual(contents.models[2].bytes, 2 + "weights of model_int8.mlpackage".utf8.count)
        #if !canImport(CoreML)
            do {
                _ = try await contents.models[0].open(.all)
                XCTFail("opened without Core ML")
            } catch { XCTAssertEqual(Problem(error).description, "b needs Core ML.") }
        #endif
    }

    func testSummaryTellsWhatIsKnown() async {
        let locale = Locale(identifier: "en_US")
        func entry(_ parameters: Int?) -> ModelEntry {
            ModelEntry(name: "student", precision: "int8", parameters: parameters, bytes: 67_400_000) { _ in
                throw CancellationError()
            }
        }
        XCTAssertEqual(entry(66_400_000).summary(locale: locale), "66.4M parameters, int8, 67.4 MB")
        XCTAssertEqual(entry(nil).summary(locale: locale), "int8, 67.4 MB")
    }

    func testUnitsHaveTitlesOfTheirOwn() async {
        XCTAssertEqual(Set(ComputeUnits.allCases.map(\.title)).count, ComputeUnits.allCases.count)
    }
}
