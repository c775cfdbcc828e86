import EdgeDistilKit
import SwiftUI

/// Reads the bundled models and passages, then shows them.
@MainActor
struct RootView: View {
    @State private var catalog = CatalogModel(folder: Bundle.main.bundleURL.appendingPathComponent("Bundled"))

    var body: some View {
        Group {
            if let contents = catalog.contents {
                if contents.models.isEmpty {
                    NoModelsView(problems: contents.problems)
                } else {
                    LibraryView(contents: contents)
                }
            } else {
                ProgressView("Checking the models’ files…")
            }
        }
        .task { await catalog.load() }
    }
}
