import EdgeDistilKit
import SwiftUI

/// Where the question is written, with the passage's own questions to choose from.
@MainActor
struct QuestionBar: View {
    @Bindable var reader: ReaderModel
    @FocusState private var isFocused: Bool

    var body: some View {
        VStack {
            if reader.isPaused {
                Text("Questions wait until the latency study has ended.").font(.footnote).foregroundStyle(.secondary)
            } else if isFocused || reader.reply == nil {
                suggestions
            }
            HStack {
                TextField("Ask about this passage", text: $reader.question)
                    .textFieldStyle(.roundedBorder)
                    .submitLabel(.search)
                    .focused($isFocused)
                    .onSubmit { reader.ask() }
                if reader.isBusy {
                    Button("Stop", systemImage: "stop.circle") { reader.stop() }
                } else {
                    Button("Ask", systemImage: "arrow.up.circle.fill") {
                        isFocused = false
                        reader.ask()
                    }
                    .disabled(!reader.canAsk)
                }
            }
            .labelStyle(.iconOnly)
            .imageScale(.large)
        }
        .padding()
        .background(.bar)
    }

    private var suggestions: some View {
        ScrollView(.horizontal) {
            HStack {
                ForEach(reader.suggestions, id: \.self) { suggestion in
                    Button(suggestion) {
                        isFocused = false
                        reader.ask(suggestion)
                    }
                    .buttonStyle(.bordered)
                    .accessibilityHint("Asks this question")
                }
            }
        }
        .scrollIndicators(.hidden)
    }
}
