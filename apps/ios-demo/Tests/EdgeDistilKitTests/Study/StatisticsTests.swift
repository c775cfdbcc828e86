import XCTest

@testable import EdgeDistilKit

final class StatisticsTests: XCTestCase {
    func testMedianIsTheMiddleValueOrTheMeanOfTwo() {
        XCTAssertEqual(Statistics.median([3, 1, 2]), 2)
        XCTAssertEqual(Statistics.median([4, 1, 2, 3]), 2.5)
        XCTAssertEqual(Statistics.median([7]), 7)
    }

    func testLowerMedianIsOneOfTheValues() {
        XCTAssertEqual(Statistics.lowerMedian([64, 384, 128, 32]), 64)
        XCTAssertEqual(Statistics.lowerMedian([5, 9, 7]), 7)
    }

    func testPercentileIsInterpolatedAsNumpyDoesIt() {
        // Position 0.9 * 3 = 2.7: seven tenths of the way from the third value to the fourth.
        XCTAssertEqual(Statistics.percentile([40, 10, 30, 20], 90), 37, accuracy: 1e-12)
        // Position 0.9 * 10 = 9 is a value's own.
        XCTAssertEqual(Statistics.percentile((0...10).map(Double.init), 90), 9, accuracy: 1e-12)
        XCTAssertEqual(Statistics.percentile([1, 2], 100), 2)
    }
}
