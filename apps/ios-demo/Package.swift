// swift-tools-version: 5.9
import PackageDescription

// Swift 5.9 to 6.2 ship a libswiftObservation.so on Linux with one symbol missing, which only a fault of a mutex would
// call (swiftlang/swift issue 75670): the linker is told to let it be. Only what is run from this package needs that; the
// library has no such flag, and other packages can depend on it.
let linuxObservation: [LinkerSetting] = [
    .unsafeFlags(["-Xlinker", "--allow-shlib-undefined"], .when(platforms: [.linux]))
]

let package = Package(
    name: "EdgeDistilKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "EdgeDistilKit", targets: ["EdgeDistilKit"])],
    targets: [
        .target(name: "EdgeDistilKit", swiftSettings: [.enableExperimentalFeature("StrictConcurrency")]),
        .executableTarget(name: "CheckBundle", dependencies: ["EdgeDistilKit"], linkerSettings: linuxObservation),
        .executableTarget(
            name: "TokenizerBenchmark", dependencies: ["EdgeDistilKit"], linkerSettings: linuxObservation),
        .testTarget(
            name: "EdgeDistilKitTests", dependencies: ["EdgeDistilKit"], exclude: ["Golden"],
            linkerSettings: linuxObservation),
    ]
)
