import EdgeDistilKit
import SwiftUI

/// What is timed, and how often.
@MainActor
struct StudyChoices: View {
    @Bindable var study: StudyModel

    var body: some View {
        Section("Models") {
            ForEach(study.models) { model in
                Toggle(isOn: Binding { study.isChosen(model) } set: { study.choose(model, $0) }) {
                    Text(model.name)
                    Text(model.summary())
                }
            }
        }
        Section("Compute units") {
            ForEach(ComputeUnits.allCases, id: \.self) { units in
                Toggle(units.title, isOn: Binding { study.isChosen(units) } set: { study.choose(units, $0) })
            }
        }
        Section {
            Stepper("Questions: \(study.questionCount)", value: $study.questionCount, in: study.questionBounds)
            Stepper("Runs of each: \(study.runs)", value: $study.runs, in: study.runBounds)
        } footer: {
            Text(
                """
                \(study.plannedCalls) calls. All chosen models are held in memory at once, because they take turns on \
                every question. Leave the device alone, and let it cool first.
                """)
        }
    }
}
