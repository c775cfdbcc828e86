import EdgeDistilKit
import SwiftUI

/// The best answer, its runners-up on demand, and what it took.
@MainActor
struct AnswersView: View {
    let reader: ReaderModel
    let reply: ReaderModel.Reply

    var body: some View {
        VStack(alignment: .leading) {
            Text(reply.question).font(.subheadline).foregroundStyle(.secondary)
            AnswerRow(answer: reply.best, isShown: reader.shown == reply.best) { reader.show(reply.best) }
                .font(.headline)
            DisclosureGroup("Other answers") {
                ForEach(reply.runnersUp) { answer in
                    AnswerRow(answer: answer, isShown: reader.shown == answer) { reader.show(answer) }
                }
            }
            DisclosureGroup("Times with \(reply.model)") { TimingsView(answered: reply.answered) }
        }
    }
}

private struct AnswerRow: View {
    let answer: Answer
    let isShown: Bool
    let show: () -> Void

    var body: some View {
        Button(action: show) {
            HStack(alignment: .firstTextBaseline) {
                if answer.isEmpty { Text("No answer in this passage").italic() } else { Text(answer.text) }
                Spacer()
                Text(answer.score, format: .percent.precision(.fractionLength(0))).monospacedDigit()
            }
            .multilineTextAlignment(.leading)
        }
        .accessibilityElement(children: .combine)
        .accessibilityHint("Shows it in the passage")
        .accessibilityAddTraits(isShown ? .isSelected : [])
    }
}
