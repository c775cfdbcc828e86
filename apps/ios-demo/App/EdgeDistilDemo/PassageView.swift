import EdgeDistilKit
import SwiftUI

/// The passage, scrolled to the answer that is highlighted.
@MainActor
struct PassageView: View {
    let reader: ReaderModel
    @ScaledMetric private var spacing = 12.0
    @Environment(\.accessibilityReduceMotion) private var reduceMotion

    var body: some View {
        ScrollViewReader { scroller in
            ScrollView {
                LazyVStack(alignment: .leading, spacing: spacing) {
                    ForEach(reader.paragraphs) { ParagraphView(paragraph: $0) }
                }
                .padding()
            }
            .onChange(of: reader.shows) {
                guard let target = reader.highlighted else { return }
                withAnimation(reduceMotion ? nil : .default) {
                    scroller.scrollTo(target.id, anchor: UnitPoint(x: 0, y: target.highlightPosition))
                }
            }
        }
        // Another passage starts at its top.
        .id(reader.openings)
    }
}

private struct ParagraphView: View {
    let paragraph: Paragraph

    var body: some View {
        Text(styled)
            .textSelection(.enabled)
            .frame(maxWidth: .infinity, alignment: .leading)
            .accessibilityValue(paragraph.isHighlighted ? "Answer: \(paragraph.highlight)" : "")
    }

    /// Colour, weight and a line under it: not everyone tells it by the colour.
    private var styled: AttributedString {
        var highlight = AttributedString(paragraph.highlight)
        highlight.swiftUI.backgroundColor = Color("Highlight")
        highlight.swiftUI.underlineStyle = Text.LineStyle.single
        highlight.inlinePresentationIntent = .stronglyEmphasized
        return AttributedString(paragraph.before) + highlight + AttributedString(paragraph.after)
    }
}
