import Accessibility
import EdgeDistilKit
import SwiftUI

/// A passage with the question under it, and the answers below or, where there is room, beside it.
@MainActor
struct ReaderView: View {
    let reader: ReaderModel
    @Environment(\.horizontalSizeClass) private var width
    @ScaledMetric private var columnWidth: CGFloat = 340
    @ScaledMetric private var panelHeight: CGFloat = 220
    /// The answers' largest share of the height or width: both lengths grow with the text, and the passage needs room.
    private let share: CGFloat = 0.4

    var body: some View {
        GeometryReader { area in
            if width == .regular {
                HStack(spacing: 0) {
                    PassageView(reader: reader)
                    Divider()
                    ScrollView { AnswerPanel(reader: reader).padding() }
                        .frame(width: min(columnWidth, area.size.width * share))
                }
                .safeAreaInset(edge: .bottom) { QuestionBar(reader: reader) }
            } else {
                PassageView(reader: reader)
                    .safeAreaInset(edge: .bottom) {
                        VStack(spacing: 0) {
                            AnswerPanel(reader: reader, maxHeight: min(panelHeight, area.size.height * share))
                            QuestionBar(reader: reader)
                        }
                        .background(.bar)
                    }
            }
        }
        .navigationTitle(reader.passage.title)
        .navigationBarTitleDisplayMode(.inline)
        .toolbar { ModelPicker(reader: reader) }
        .onChange(of: reader.outcomes) {
            if let words = reader.announcement { AccessibilityNotification.Announcement(words).post() }
        }
    }
}
