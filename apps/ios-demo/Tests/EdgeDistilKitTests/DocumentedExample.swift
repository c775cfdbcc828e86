import EdgeDistilKit
import Foundation
import XCTest

/// The example of docs/ios.md, which a test holds to be these very lines.
func printAnswers(to question: String, about passage: String, artifact folder: URL) async throws {
    let artifact = try Artifact(folder: folder)
    let answerer = try await QuestionAnswerer(artifact: artifact, computeUnits: .cpuAndNeuralEngine)
    let answered = try await answerer.answer(question, in: passage, nBest: 3)
    for answer in answered.answers {
        print(answer.score, passage[answer.range])
    }
    print("\(answered.windows) windows in \(answered.timings.total)")
}

final class DocumentedExampleTests: XCTestCase {
    func testFolderThatIsNotThereIsNamed() async {
        let folder = URL(fileURLWithPath: "/nowhere/student")
        do {
            try await printAnswers(to: "Who?", about: "Nobody.", artifact: folder)
            XCTFail("a folder that is not there was opened")
        } catch { XCTAssertEqual(error as? KitError, .missing(folder)) }
    }
}

#if !canImport(CoreML)
    extension QuestionAnswerer {
        /// In the place of Core ML's, so that the example compiles where there is none.
        fileprivate init(artifact: Artifact, precision: String? = nil, computeUnits: ComputeUnits = .all) async throws {
            self.init(model: ScriptedModel.longestWord, tokenizer: BlankTokenizer())
        }
    }
#endif
