import XCTest

@testable import EdgeDistilKit

final class KitErrorTests: XCTestCase {
    func testEachSaysWhatIsWrongWithWhichFileAndWhatToDo() {
        let url = URL(fileURLWithPath: "/a/long/way/student/config.json")
        let errors: [KitError] = [
            .missing(url), .unreadable(url, reason: "why"), .malformed(url, reason: "why"),
            .unsupportedFormat(url, found: 2), .wrongKind(url, found: "onnx"), .wrongTask(url, found: "masked-lm"),
            .unsafePath(url, name: "../x"), .changed(url), .unlisted(url),
            .noPackage(url, precision: "int8", present: ["fp16"]), .vocabularyMismatch(url, rows: 1, tokens: 2),
            .modelFailed(url, reason: "why"),
        ]
        for error in errors {
            XCTAssertTrue(error.localizedDescription.contains("student/config.json"), error.localizedDescription)
            XCTAssertFalse(error.localizedDescription.contains("long/way"), error.localizedDescription)
            XCTAssertTrue(error.recoverySuggestion?.hasSuffix(".") == true, "\(error)")
        }
    }

    func testWhatIsAboutNoFileSaysWhatToDoToo() {
        let errors: [KitError] = [
            .emptyQuestion, .emptyPassage, .passageTooLong(bytes: 2, limit: 1),
            .invalidSetting(name: "nBest", reason: "is 0, not 1 or more"), .windowTooLong(tokens: 2, longest: 1),
            .invalidLogits(reason: "why"),
        ]
        for error in errors {
            XCTAssertTrue(error.localizedDescription.hasSuffix("."), error.localizedDescription)
            XCTAssertTrue(error.recoverySuggestion?.hasSuffix(".") == true, "\(error)")
        }
        XCTAssertEqual(
            KitError.passageTooLong(bytes: 5_000_000, limit: 4_194_304).localizedDescription,
            "The passage has 5000000 bytes, at most 4194304 are read at once.")
    }
}
