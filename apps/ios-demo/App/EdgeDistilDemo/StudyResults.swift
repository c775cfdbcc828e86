import EdgeDistilKit
import SwiftUI

/// Chart, table, warnings, and the files to share.
struct StudyResults: View {
    let result: StudyResult
    let files: StudyModel.Files?
    @State private var tokenization = true

    var body: some View {
        Section("Results on \(result.machine.processor), \(result.machine.system)") {
            Picker("Timed", selection: $tokenization) {
                Text("From text").tag(true)
                Text("Model alone").tag(false)
            }
            .pickerStyle(.segmented)
            StudyChart(rows: result.rows(tokenization: tokenization))
            StudyTable(rows: result.rows(tokenization: tokenization))
            ForEach(result.warnings, id: \.self) { Label($0, systemImage: "exclamationmark.triangle") }
            if let files {
                ShareLink("Share as JSON, for edge-distil bench --import", item: files.json)
                ShareLink("Share as CSV", item: files.csv)
            }
        }
    }
}
