import EdgeDistilKit
import SwiftUI

/// The button that starts and stops the study, and how far it is.
@MainActor
struct StudyProgress: View {
    let study: StudyModel

    var body: some View {
        switch study.state {
        case .idle: EmptyView()
        case .loading(let model): LoadingView(model: model)
        case .running(let done, let calls):
            ProgressView("Call \(done) of \(calls)", value: Double(done), total: Double(calls))
        case .failed(let problem): ProblemView(problem: problem)
        }
        if study.isBusy {
            Button("Stop", systemImage: "stop.circle", role: .cancel) { study.stop() }
        } else {
            Button("Start", systemImage: "play.circle") { study.start() }.disabled(!study.canStart)
        }
    }
}
