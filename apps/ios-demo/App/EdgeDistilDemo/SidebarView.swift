import EdgeDistilKit
import SwiftUI

/// The library's passages, the user's own, and the study.
@MainActor
struct SidebarView: View {
    let contents: CatalogModel.Contents
    let own: Passage?
    @Binding var screen: Screen?
    @Binding var isWriting: Bool
    @Binding var isOpeningFile: Bool

    var body: some View {
        List(selection: $screen) {
            Section("Passages") {
                ForEach(contents.passages) { PassageRow(passage: $0) }
            }
            Section("Your own") {
                if let own { PassageRow(passage: own) }
                Button("Write or paste a text", systemImage: "square.and.pencil") { isWriting = true }
                Button("Open a file", systemImage: "folder") { isOpeningFile = true }
            }
            Section {
                NavigationLink(value: Screen.study) { Label("Latency study", systemImage: "chart.bar.xaxis") }
            }
            if !contents.problems.isEmpty {
                Section("Could not be used") {
                    ForEach(contents.problems.indices, id: \.self) { ProblemView(problem: contents.problems[$0]) }
                }
            }
        }
        .navigationTitle("edge-distil")
    }
}

private struct PassageRow: View {
    let passage: Passage

    var body: some View {
        NavigationLink(value: Screen.passage(passage)) {
            VStack(alignment: .leading) {
                Text(passage.title).font(.headline)
                Text(passage.excerpt).font(.subheadline).foregroundStyle(.secondary).lineLimit(2)
            }
            .accessibilityElement(children: .ignore)
            .accessibilityLabel(passage.title)
        }
    }
}
