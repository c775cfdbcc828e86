import EdgeDistilKit
import SwiftUI

/// What is wrong, and what to do about it.
struct ProblemView: View {
    let problem: Problem

    var body: some View {
        Label {
            VStack(alignment: .leading) {
                Text(problem.description)
                if let suggestion = problem.suggestion {
                    Text(suggestion).font(.footnote).foregroundStyle(.secondary)
                }
            }
        } icon: {
            Image(systemName: "exclamationmark.triangle").foregroundStyle(.orange)
        }
        .accessibilityElement(children: .combine)
    }
}
