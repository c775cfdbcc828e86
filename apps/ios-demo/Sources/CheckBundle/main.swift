// Reads an app's resource folder as the app does, and says what is in it. Ends with status 1 where something is wrong.
//
//     ./swift.sh run CheckBundle App/EdgeDistilDemo/Bundled

import EdgeDistilKit
import Foundation

guard CommandLine.arguments.count == 2 else {
    FileHandle.standardError.write(Data("usage: CheckBundle FOLDER\n".utf8))
    exit(2)
}
let folder = URL(fileURLWithPath: CommandLine.arguments[1]).standardizedFileURL
var isWhole = true

var isFolder: ObjCBool = false
guard FileManager.default.fileExists(atPath: folder.path, isDirectory: &isFolder), isFolder.boolValue else {
    print("FAILED  There is no folder \(folder.path). A relative path starts in apps/ios-demo, where swift.sh runs.")
    exit(1)
}

func fail(_ error: KitError) {
    isWhole = false
    print("FAILED  \(error.localizedDescription) \(error.recoverySuggestion ?? "")")
}

let library = ModelLibrary(folder: folder.appendingPathComponent("Models"))
for fault in library.faults { fail(fault.error) }
do {
    let passages = try PassageLibrary(contentsOf: folder.appendingPathComponent("passages.json")).passages
    print("ok  passages: \(passages.count)")
    for artifact in library.artifacts {
        let tokenizer = try artifact.loadTokenizer()
        let tokens = passages.reduce(0) { $0 + tokenizer.encode($1.text).count }
        let lengths = artifact.lengths.map { $0.count == 1 ? "\($0[0])" : "up to \($0.last!)" } ?? "any number of"
        print(
            "ok  \(artifact.name): \(artifact.precisions.joined(separator: ", ")), \(artifact.bytes) bytes, "
                + "\(lengths) tokens, the passages have \(tokens)")
    }
} catch let error as KitError {
    fail(error)
}
if !isWhole { print("        in \(folder.path)") }
exit(isWhole ? 0 : 1)
