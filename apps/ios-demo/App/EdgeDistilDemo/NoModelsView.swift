import EdgeDistilKit
import SwiftUI

/// What to do while the app has no model.
struct NoModelsView: View {
    let problems: [Problem]

    var body: some View {
        ContentUnavailableView {
            Label("No model yet", systemImage: "shippingbox")
        } description: {
            Text("Put one into the app on the machine that builds it, then build it again:")
            Text(CatalogModel.bundleCommand).font(.body.monospaced()).textSelection(.enabled)
            ForEach(problems.indices, id: \.self) { ProblemView(problem: problems[$0]) }
        }
    }
}
