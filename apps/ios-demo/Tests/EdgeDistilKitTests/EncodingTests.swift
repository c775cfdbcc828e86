import XCTest

@testable import EdgeDistilKit

final class EncodingTests: XCTestCase {
    func testCountIsThatOfTheIds() {
        XCTAssertEqual(Encoding(ids: [5, 6], starts: [0, 3], ends: [2, 4]).count, 2)
    }
}
