import XCTest

@testable import EdgeDistilKit

final class TextFileTests: XCTestCase {
    private var folder: URL!

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    private func read(_ bytes: [UInt8], largest: Int = TextFile.largest) throws -> String {
        let url = folder.appendingPathComponent("notes.txt")
        try Data(bytes).write(to: url)
        return try TextFile.read(url, largest: largest)
    }

    private func utf16(_ text: String, bigEndian: Bool) -> [UInt8] {
        text.utf16.flatMap { unit in
            let bytes = [UInt8(unit & 255), UInt8(unit >> 8)]
            return bigEndian ? bytes.reversed() : bytes
        }
    }

    func testEncodingsAreTold() throws {
        let text = "Crème brûlée, 12 €"
        XCTAssertEqual(try read(Array(text.utf8)), text)
        XCTAssertEqual(try read([0xEF, 0xBB, 0xBF] + Array(text.utf8)), text)
        XCTAssertEqual(try read([0xFF, 0xFE] + utf16(text, bigEndian: false)), text)
        XCTAssertEqual(try read([0xFE, 0xFF] + utf16(text, bigEndian: true)), text)
        XCTAssertEqual(try read(utf16(text, bigEndian: false)), text)
        XCTAssertEqual(try read(utf16(text, bigEndian: true)), text)
        // Windows-1252: the euro sign is the byte 0x80.
        XCTAssertEqual(try read(Array("Cr".utf8) + [0xE8] + Array("me 12 ".utf8) + [0x80]), "Crème 12 €")
        // UTF-16 of a script without Latin letters needs its mark.
        XCTAssertEqual(try read([0xFF, 0xFE] + utf16("日本の橋", bigEndian: false)), "日本の橋")
    }

    func testOddNumberOfBytesInUTF16IsNoText() {
        XCTAssertThrowsError(try read([0xFF, 0xFE, 0x41])) { error in
            XCTAssertEqual(error as? TextFileError, .noText(name: "notes.txt"))
        }
    }

    func testWhatIsNoTextIsRefused() {
        let png: [UInt8] = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 0x0D, 0x49, 0x48, 0x44, 0x52]
        for (bytes, expected) in [
            (png, TextFileError.noText(name: "notes.txt")), ([], .empty(name: "notes.txt")),
            (Array(" \n\t".utf8), .empty(name: "notes.txt")),
        ] {
            XCTAssertThrowsError(try read(bytes)) { XCTAssertEqual($0 as? TextFileError, expected) }
        }
    }

    func testFileOfTheLimitIsReadAndOneByteMoreIsNot() throws {
        XCTAssertEqual(try read(Array("abcde".utf8), largest: 5), "abcde")
        XCTAssertThrowsError(try read(Array("abcdef".utf8), largest: 5)) { error in
            XCTAssertEqual(error as? TextFileError, .tooLarge(name: "notes.txt", largest: 5))
        }
    }

    func testMissingFileIsNamed() {
        XCTAssertThrowsError(try TextFile.read(folder.appendingPathComponent("gone.txt"))) { error in
            guard case .unreadable(name: "gone.txt", reason: _) = error as? TextFileError else {
                return XCTFail("\(error)")
            }
        }
    }

    func testEveryErrorSaysWhatIsWrongAndWhatToDo() {
        for error in [
            TextFileError.unreadable(name: "a", reason: "b"), .tooLarge(name: "a", largest: 1), .noText(name: "a"),
            .empty(name: "a"),
        ] {
            let problem = Problem(error)
            XCTAssert(problem.description.hasPrefix("a "))
            XCTAssert(problem.description.hasSuffix("."), problem.description)
            XCTAssertEqual(problem.suggestion?.hasSuffix("."), true)
        }
    }

    func testSentencesFollowOneAnother() {
        let file = TextFileError.unreadable(name: "a.txt", reason: "It is gone.")
        XCTAssertEqual(
            Problem(file).sentences,
            "a.txt cannot be read: It is gone. Check that the file is still there and that this app may read it.")
        XCTAssertEqual(Problem(description: "No", suggestion: "Try it again").sentences, "No. Try it again.")
        XCTAssertEqual(Problem(description: "Why?").sentences, "Why?")
        let folder = KitError.unreadable(URL(fileURLWithPath: "/a/b"), reason: "It is gone.")
        XCTAssertEqual(folder.localizedDescription, "a/b cannot be read: It is gone.")
    }
}
