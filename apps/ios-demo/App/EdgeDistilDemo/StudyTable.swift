import EdgeDistilKit
import SwiftUI

/// The figures behind the chart.
struct StudyTable: View {
    let rows: [StudyRow]
    @ScaledMetric private var spacing = 16.0

    var body: some View {
        ScrollView(.horizontal) {
            Grid(alignment: .trailing, horizontalSpacing: spacing) {
                GridRow {
                    Text("model").gridColumnAlignment(.leading)
                    ForEach(StudyRow.heads, id: \.self) { Text($0) }
                }
                .foregroundStyle(.secondary)
                .accessibilityHidden(true)
                ForEach(rows) { row in
                    GridRow {
                        Text(row.label).accessibilityLabel(row.spoken())
                        ForEach(Array(row.cells().enumerated()), id: \.offset) { cell in
                            Text(cell.element).accessibilityHidden(true)
                        }
                    }
                }
            }
            .font(.footnote)
            .monospacedDigit()
        }
    }
}
