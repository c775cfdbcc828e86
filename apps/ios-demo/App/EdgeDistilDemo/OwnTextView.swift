import SwiftUI

/// A sheet to write or paste a passage.
@MainActor
struct OwnTextView: View {
    let use: (String) -> Void
    @State private var text = ""
    @FocusState private var isFocused: Bool
    @Environment(\.dismiss) private var dismiss

    var body: some View {
        NavigationStack {
            TextEditor(text: $text)
                .focused($isFocused)
                .padding(.horizontal)
                .accessibilityLabel("Passage")
                .navigationTitle("Your text")
                .navigationBarTitleDisplayMode(.inline)
                .toolbar {
                    ToolbarItem(placement: .cancellationAction) {
                        Button("Cancel", role: .cancel) { dismiss() }
                    }
                    ToolbarItem(placement: .primaryAction) {
                        Button("Use") {
                            use(text)
                            dismiss()
                        }
                        .disabled(text.isEmpty)
                    }
                    ToolbarItem(placement: .bottomBar) {
                        PasteButton(payloadType: String.self) { text += $0.joined(separator: "\n") }
                    }
                }
                .onAppear { isFocused = true }
        }
    }
}
