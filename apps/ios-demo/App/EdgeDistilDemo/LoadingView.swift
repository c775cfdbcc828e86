import SwiftUI

/// A model is opened.
struct LoadingView: View {
    let model: String

    var body: some View {
        ProgressView {
            VStack {
                Text("Opening \(model)…")
                Text("The first time, Core ML makes it ready for this device, which can take minutes.")
                    .font(.footnote)
                    .foregroundStyle(.secondary)
                    .multilineTextAlignment(.center)
            }
        }
        .frame(maxWidth: .infinity)
    }
}
