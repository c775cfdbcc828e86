import Foundation
import XCTest

/// What the scripts in Scripts/ write.
let golden = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("Golden")

extension XCTestCase {
    /// A folder of this test alone, which is removed after it.
    func temporaryFolder() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
        return folder
    }
}

extension URL {
    /// Write a file below this folder, and the folders that it is in.
    func write(_ text: String, to name: String) throws {
        let file = appendingPathComponent(name)
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(text.utf8).write(to: file)
    }
}

/// Both throw, and with this error.
func assertThrows<Fault: Error & Equatable>(
    _ expected: Fault, file: StaticString = #filePath, line: UInt = #line, _ body: () async throws -> some Any
) async {
    do {
        _ = try await body()
        XCTFail("nothing was thrown", file: file, line: line)
    } catch let fault as Fault {
        XCTAssertEqual(fault, expected, file: file, line: line)
    } catch {
        XCTFail("\(error) was thrown", file: file, line: line)
    }
}

func assertThrows<Fault: Error & Equatable>(
    _ expected: Fault, file: StaticString = #filePath, line: UInt = #line, _ body: () throws -> some Any
) {
    XCTAssertThrowsError(try body(), file: file, line: line) { error in
        XCTAssertEqual(error as? Fault, expected, "\(error)", file: file, line: line)
    }
}
