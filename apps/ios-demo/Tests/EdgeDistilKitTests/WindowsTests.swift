import XCTest

@testable import EdgeDistilKit

final class WindowsTests: XCTestCase {
    private let special = SpecialTokens(cls: 101, sep: 102, pad: 0, mask: 103, unk: 100)

    private func encoding(_ count: Int, from first: Int32) -> Encoding {
        let tokens = 0..<Int32(count)
        return Encoding(ids: tokens.map { first + $0 }, starts: tokens.map { 2 * $0 }, ends: tokens.map { 2 * $0 + 1 })
    }

    private func cut(_ question: Int, _ passage: Int, _ maxLength: Int, _ stride: Int) throws -> [Window] {
        try windows(
            question: encoding(question, from: 1000),
            passage: encoding(passage, from: 2000),
            special: special,
            options: WindowOptions(maxLength: maxLength, docStride: stride)
        )
    }

    func testWindowsOverlapByTheStrideAndEndWithThePassage() throws {
        let cut = try cut(2, 9, 9, 2)  // room for 9 - [CLS] - 2 - 2 [SEP] = 4 tokens
        XCTAssertEqual(
            cut.map(\.ids),
            [
                [101, 1000, 1001, 102, 2000, 2001, 2002, 2003, 102],
                [101, 1000, 1001, 102, 2002, 2003, 2004, 2005, 102],
                [101, 1000, 1001, 102, 2004, 2005, 2006, 2007, 102],
                [101, 1000, 1001, 102, 2006, 2007, 2008, 102],
            ])
        XCTAssertEqual(cut.map(\.contextStart), [4, 4, 4, 4])
        XCTAssertEqual(cut[3].starts, [12, 14, 16])
        XCTAssertEqual(cut[3].ends, [13, 15, 17])
    }

    func testAPassageThatFillsItsWindowNeedsNoOther() throws {
        XCTAssertEqual(try cut(2, 4, 9, 1).count, 1)
        XCTAssertEqual(try cut(2, 5, 9, 1).count, 2)
    }

    func testAStrideBeyondTheRoomSkipsNoToken() throws {
        XCTAssertEqual(try cut(2, 9, 9, 128).map { $0.starts.count }, [4, 4, 1])
    }

    func testQuestionsAreCutTo64TokensAndToHalfTheWindow() throws {
        XCTAssertEqual(try cut(100, 1, 384, 128)[0].contextStart, 66)
        XCTAssertEqual(try cut(100, 1, 21, 128)[0].contextStart, 12)
        XCTAssertEqual(try cut(100, 3, 7, 128).map(\.ids.count), [7, 7, 7])
    }

    func testWhatCannotBeCutIsRefused() {
        assertThrows(KitError.emptyQuestion) { try cut(0, 5, 384, 128) }
        assertThrows(KitError.emptyPassage) { try cut(5, 0, 384, 128) }
        assertThrows(KitError.invalidSetting(name: "maxLength", reason: "is 6, not 7 or more")) { try cut(5, 5, 6, 1) }
        assertThrows(KitError.invalidSetting(name: "docStride", reason: "is 0, not 1 or more")) { try cut(5, 5, 9, 0) }
    }
}
