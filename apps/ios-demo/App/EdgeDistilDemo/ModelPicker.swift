import EdgeDistilKit
import SwiftUI

/// Which of the bundled models answers.
@MainActor
struct ModelPicker: View {
    @Bindable var reader: ReaderModel

    var body: some View {
        Menu("Model", systemImage: "cpu") {
            Picker("Model", selection: $reader.modelID) {
                ForEach(reader.models) { model in
                    Text("\(model.name) (\(model.summary()))").tag(Optional(model.id))
                }
            }
        }
    }
}
