import XCTest

@testable import EdgeDistilKit

#if os(Linux) || os(macOS)
    /// The program that is built beside these tests.
    final class CheckBundleTests: XCTestCase {
        private func check(_ path: String, in folder: URL) throws -> (status: Int32, output: String) {
            #if os(macOS)
                let products = Bundle(for: Self.self).bundleURL.deletingLastPathComponent()
            #else
                let products = Bundle.main.bundleURL
            #endif
            let process = Process()
            let pipe = Pipe()
            process.executableURL = products.appendingPathComponent("CheckBundle")
            process.arguments = [path]
            process.currentDirectoryURL = folder
            process.standardOutput = pipe
            try process.run()
            let output = pipe.fileHandleForReading.readDataToEndOfFile()
            process.waitUntilExit()
            return (process.terminationStatus, String(decoding: output, as: UTF8.self))
        }

        func testWhatItLookedAtIsNamedInFull() throws {
            let folder = try temporaryFolder().resolvingSymlinksInPath()
            let missing = try check("apps/Bundled", in: folder)
            XCTAssertEqual(missing.status, 1)
            XCTAssertTrue(missing.output.contains("no folder \(folder.path)/apps/Bundled."), missing.output)

            try FileManager.default.createDirectory(
                at: folder.appendingPathComponent("Bundled"), withIntermediateDirectories: true)
            let empty = try check("Bundled", in: folder)
            XCTAssertEqual(empty.status, 1)
            XCTAssertTrue(empty.output.contains("FAILED  Bundled/passages.json is missing."), empty.output)
            XCTAssertTrue(empty.output.hasSuffix("in \(folder.path)/Bundled\n"), empty.output)

            try folder.write("[]", to: "Bundled/passages.json")
            let whole = try check("Bundled", in: folder)
            XCTAssertEqual(whole.status, 0)
            XCTAssertEqual(whole.output, "ok  passages: 0\n")
        }
    }
#endif
