// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "EdgeDistilKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "EdgeDistilKit", targets: ["EdgeDistilKit"])],
    targets: [
        .target(name: "EdgeDistilKit", swiftSettings: [.enableExperimentalFeature("StrictConcurrency")]),
        .executableTarget(name: "CheckBundle", dependencies: ["EdgeDistilKit"]),
        .executableTarget(name: "TokenizerBenchmark", dependencies: ["EdgeDistilKit"]),
        .testTarget(name: "EdgeDistilKitTests", dependencies: ["EdgeDistilKit"], exclude: ["Golden"]),
    ]
)
