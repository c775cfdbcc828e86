import XCTest

@testable import EdgeDistilKit

final class InputShapeTests: XCTestCase {
    func testTheLengthsOfAnExport() {
        XCTAssertEqual(InputShape("384"), .fixed(384))
        XCTAssertEqual(InputShape("64,128, 384"), .enumerated([64, 128, 384]))
        XCTAssertEqual(InputShape("16..384"), .range(16...384))
        for text in ["", "a", "16..", "384..16", "64,,128", "0", "-5", "1..2..3"] {
            XCTAssertNil(InputShape(text), text)
        }
    }

    func testOfARangeStepsAreUsedAndTheLongestIsWarmedUp() {
        let range = InputShape.range(16...100)
        XCTAssertEqual(range.lengths, [16, 32, 64, 96, 100])
        XCTAssertEqual(range.warmUp, [100])
        XCTAssertEqual(InputShape.enumerated([128, 64]).warmUp, [64, 128])
        XCTAssertEqual(InputShape.fixed(384).lengths, [384])
    }

    func testTheLeastLengthThatHoldsAWindowIsUsed() {
        XCTAssertEqual([1, 64, 65, 500].map { fittingLength($0, of: [64, 128]) }, [64, 64, 128, 128])
        XCTAssertEqual(fittingLength(77, of: nil), 77)
    }
}
