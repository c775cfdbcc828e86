import Charts
import EdgeDistilKit
import SwiftUI

/// Medians as bars, 90th percentiles as marks beside them.
struct StudyChart: View {
    let rows: [StudyRow]
    @ScaledMetric private var rowHeight = 56.0
    @ScaledMetric private var axisHeight = 64.0

    var body: some View {
        Chart(rows) { row in
            BarMark(x: .value("Milliseconds", row.medianMs), y: .value("Model", row.label))
                .foregroundStyle(by: .value("Statistic", "Median"))
                .accessibilityLabel(row.spoken())
            PointMark(x: .value("Milliseconds", row.p90Ms), y: .value("Model", row.label))
                .foregroundStyle(by: .value("Statistic", "90th percentile"))
                .symbol(.diamond)
                .accessibilityHidden(true)
        }
        .chartXAxisLabel("Milliseconds a question")
        .frame(height: axisHeight + rowHeight * CGFloat(rows.count))
    }
}
