import EdgeDistilKit
import SwiftUI

/// What each part of answering took.
struct TimingsView: View {
    let answered: Answered

    var body: some View {
        VStack {
            ForEach(answered.timings.parts()) { part in
                LabeledContent(part.name, value: "\(part.milliseconds) ms")
            }
            LabeledContent("Windows of the passage", value: answered.windows, format: .number)
        }
        .font(.footnote)
        .monospacedDigit()
    }
}
