import EdgeDistilKit
import SwiftUI
import UniformTypeIdentifiers

/// The sidebar, and beside or over it the passage or the study that was chosen there.
@MainActor
struct LibraryView: View {
    let contents: CatalogModel.Contents
    @State private var reader: ReaderModel
    @State private var study: StudyModel
    @State private var screen: Screen?
    @State private var isWriting = false
    @State private var isOpeningFile = false
    @Environment(\.scenePhase) private var scenePhase

    init(contents: CatalogModel.Contents) {
        self.contents = contents
        let first = contents.passages.first ?? Passage(title: "", text: "")
        let reader = ReaderModel(models: contents.models, passage: first)
        _reader = State(initialValue: reader)
        _study = State(initialValue: StudyModel(models: contents.models, passages: contents.passages, reader: reader))
    }

    var body: some View {
        NavigationSplitView {
            SidebarView(
                contents: contents, own: reader.own, screen: $screen, isWriting: $isWriting, isOpeningFile: $isOpeningFile)
        } detail: {
            NavigationStack { detail }
        }
        .onChange(of: screen) {
            if case .passage(let passage) = screen { reader.open(passage) }
        }
        .sheet(isPresented: $isWriting) {
            OwnTextView { text in
                reader.open(text: text)
                showOwn()
            }
        }
        .fileImporter(isPresented: $isOpeningFile, allowedContentTypes: [.text]) { picked in
            Task { if await reader.open(picked) { showOwn() } }
        }
        .alert(
            "The file was not opened", isPresented: Binding { reader.fileProblem != nil } set: { _ in reader.fileProblem = nil },
            presenting: reader.fileProblem
        ) { _ in
        } message: { problem in
            Text(problem.sentences)
        }
        .onReceive(NotificationCenter.default.publisher(for: UIApplication.didReceiveMemoryWarningNotification)) { _ in
            reader.releaseModel()
            study.stop()
        }
        .onChange(of: scenePhase) {
            // The system halts an app in the background, and the clock runs on.
            if scenePhase == .background { study.stop() }
        }
        .onChange(of: study.isBusy) {
            UIApplication.shared.isIdleTimerDisabled = study.isBusy
        }
    }

    @ViewBuilder private var detail: some View {
        switch screen {
        case .passage: ReaderView(reader: reader)
        case .study: StudyView(study: study)
        case nil: ContentUnavailableView("Choose a passage", systemImage: "text.book.closed")
        }
    }

    private func showOwn() {
        screen = reader.own.map(Screen.passage)
    }
}
