import Accessibility
import EdgeDistilKit
import SwiftUI

/// A passage with the question under it, and the answers below or, where there is room, beside it.
@MainActor
struct ReaderView: View {
    let reader: ReaderModel
    @Environment(\.horizontalSizeClass) private var width
    @ScaledMetric private var columnWidth = 340.0
    @ScaledMetric private var panelHeight = 220.0

    var body: some View {
        Group {
            if width == .regular {
                HStack(spacing: 0) {
                    PassageView(reader: reader)
                    Divider()
                    ScrollView { AnswerPanel(reader: reader).padding() }.frame(width: columnWidth)
                }
                .safeAreaInset(edge: .bottom) { QuestionBar(reader: reader) }
            } else {
                PassageView(reader: reader)
                    .safeAreaInset(edge: .bottom) {
                        VStack(spacing: 0) {
                            AnswerPanel(reader: reader, maxHeight: panelHeight)
                            QuestionBar(reader: reader)
                        }
                        .background(.bar)
                    }
            }
        }
        .navigationTitle(reader.passage.title)
        .navigationBarTitleDisplayMode(.inline)
        .toolbar { ModelPicker(reader: reader) }
        .onChange(of: reader.reply) {
            if let words = reader.announcement { AccessibilityNotification.Announcement(words).post() }
        }
    }
}
