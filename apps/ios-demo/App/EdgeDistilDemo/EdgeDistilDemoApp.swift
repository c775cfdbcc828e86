import SwiftUI

@main
struct EdgeDistilDemoApp: App {
    var body: some Scene {
        WindowGroup { RootView() }
    }
}
