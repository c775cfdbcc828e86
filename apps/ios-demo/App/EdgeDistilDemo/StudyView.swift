import EdgeDistilKit
import SwiftUI

/// The paper's comparison on this device: choices, progress, results.
@MainActor
struct StudyView: View {
    let study: StudyModel

    var body: some View {
        Form {
            StudyChoices(study: study).disabled(study.isBusy)
            Section { StudyProgress(study: study) }
            if let result = study.result {
                StudyResults(result: result, files: study.files)
            }
        }
        .navigationTitle("Latency study")
    }
}
