import EdgeDistilKit
import SwiftUI

/// What became of the question: waiting, an error, or the answers.
@MainActor
struct AnswerPanel: View {
    let reader: ReaderModel
    /// Taller answers scroll; nil leaves them as tall as they are.
    var maxHeight: CGFloat?

    var body: some View {
        switch reader.state {
        case .loading(let model): LoadingView(model: model).padding()
        case .answering: ProgressView("Reading the passage…", value: reader.progress).padding()
        case .failed(let problem): ProblemView(problem: problem).padding()
        case .idle:
            if let reply = reader.reply {
                if let maxHeight {
                    ScrollView { AnswersView(reader: reader, reply: reply).padding() }
                        .frame(maxHeight: maxHeight)
                } else {
                    AnswersView(reader: reader, reply: reply)
                }
            }
        }
    }
}
