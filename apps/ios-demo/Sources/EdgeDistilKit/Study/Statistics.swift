import Foundation

/// The statistics of `edge-distil bench`, in its definitions, so that its tables can hold both.
enum Statistics {
    /// The middle value, the mean of the two middle ones of an even number. There must be one at least.
    static func median(_ values: [Double]) -> Double {
        percentile(values, 50)
    }

    /// The lower of the two middle values of an even number.
    static func lowerMedian(_ values: [Int]) -> Int {
        values.sorted()[(values.count - 1) / 2]
    }

    /// Linearly interpolated between the two nearest values, as numpy's `percentile` is.
    static func percentile(_ values: [Double], _ percent: Double) -> Double {
        let sorted = values.sorted()
        let position = percent / 100 * Double(sorted.count - 1)
        let below = Int(position)
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (position - Double(below)) * (sorted[above] - sorted[below])
    }
}
