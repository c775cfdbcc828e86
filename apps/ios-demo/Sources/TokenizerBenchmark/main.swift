// How fast the tokeniser is, on one thread: prints MB of UTF-8 and tokens a second, offsets included, and the time that
// loading takes. benchmarks/swift_tokenizer.py of the repository runs it beside the Hugging Face tokeniser.
//
//     ./swift.sh run -c release TokenizerBenchmark [--tokenizer PATH] [--text PATH] [--seconds S] [--json]
//
// Without options it encodes the passages of the starter set, from the tests' golden files, with the starter tokeniser.

import EdgeDistilKit
import Foundation

/// What the user can put right, in one line.
struct UsageError: Error, CustomStringConvertible {
    let description: String
}

struct Options {
    var tokenizer: String?
    var text: String?
    var seconds = 5.0
    var json = false

    init(_ arguments: [String]) throws {
        var rest = arguments[...]
        while let name = rest.popFirst() {
            if name == "--json" {
                json = true
                continue
            }
            guard ["--tokenizer", "--text", "--seconds"].contains(name) else {
                throw UsageError(
                    description: "unknown option \(name): there are --tokenizer, --text, --seconds, --json")
            }
            guard let value = rest.popFirst() else { throw UsageError(description: "\(name) needs a value") }
            switch name {
            case "--tokenizer": tokenizer = value
            case "--text": text = value
            default:
                guard let number = Double(value), number > 0, number.isFinite else {
                    throw UsageError(description: "--seconds needs a number above 0, not \(value)")
                }
                seconds = number
            }
        }
    }
}

/// The part of a golden file that the benchmark reads.
struct Golden: Decodable {
    struct Tokenizer: Decodable { let file: String }
    let vocabulary: String
    let texts: [String]
    let tokenizers: [Tokenizer]

    static func starter() throws -> Golden {
        let url = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Tests/EdgeDistilKitTests/Golden/Tokens/starter.json").standardized
        guard let data = try? Data(contentsOf: url) else {
            throw UsageError(description: "no \(url.path): give --tokenizer and --text")
        }
        return try JSONDecoder().decode(Golden.self, from: data)
    }

    /// Its tokenizer.json, written out.
    func writeTokenizer(to folder: URL) throws -> URL {
        let file = tokenizers[0].file.replacingOccurrences(of: "\"vocab\": {}", with: "\"vocab\": \(vocabulary)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let url = folder.appendingPathComponent("tokenizer.json")
        try Data(file.utf8).write(to: url)
        return url
    }
}

func seconds(_ body: () throws -> Void) rethrows -> Double {
    let time = try ContinuousClock().measure(body)
    return Double(time.components.seconds) + Double(time.components.attoseconds) / 1e18
}

func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}

func rounded(_ number: Double, _ places: Int = 1) -> String { String(format: "%.\(places)f", number) }

func run() throws {
    let options = try Options(Array(CommandLine.arguments.dropFirst()))
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
        "TokenizerBenchmark-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }

    let url =
        if let path = options.tokenizer { URL(fileURLWithPath: path) } else {
            try Golden.starter().writeTokenizer(to: folder)
        }
    var text: String
    if let path = options.text {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw UsageError(description: "\(path): cannot be read")
        }
        text = String(decoding: data, as: UTF8.self)
    } else {
        // Passages are longer than any question. Repeated to a MB, which is past what caches keep.
        let passages = try Golden.starter().texts.filter { $0.utf8.count > 200 }.joined(separator: "\n")
        text = Array(repeating: passages, count: 1 + 1_000_000 / max(1, passages.utf8.count)).joined(separator: "\n")
    }
    text.makeContiguousUTF8()

    var tokenizer = try WordPieceTokenizer(contentsOf: url)
    let loads = try (0..<15).map { _ in try seconds { tokenizer = try WordPieceTokenizer(contentsOf: url) } }

    let bytes = text.utf8.count
    let expected = tokenizer.encode(text)
    var times: [Double] = []
    var spent = 0.0
    while spent < options.seconds || times.count < 5 {
        var encoding = Encoding()
        times.append(seconds { encoding = tokenizer.encode(text) })
        spent += times.last!
        guard encoding == expected else { throw UsageError(description: "run \(times.count) made other tokens") }
    }

    let speeds = times.map { Double(bytes) / $0 / 1e6 }
    let best = speeds.max()!
    let tokensPerSecond = Double(expected.count) / median(times)
    if options.json {
        let result: [String: Any] = [
            "bytes": bytes, "tokens": expected.count, "vocabulary": tokenizer.vocabularySize, "runs": times.count,
            "median_mb_per_s": median(speeds), "best_mb_per_s": best, "median_tokens_per_s": tokensPerSecond,
            "load_median_ms": median(loads) * 1e3, "load_best_ms": loads.min()! * 1e3,
        ]
        print(String(decoding: try JSONSerialization.data(withJSONObject: result, options: .sortedKeys), as: UTF8.self))
        return
    }
    print("text       \(rounded(Double(bytes) / 1e6, 2)) MB, \(expected.count) tokens, the same in \(times.count) runs")
    print("speed      \(rounded(median(speeds))) MB/s median, \(rounded(best)) MB/s best")
    print("tokens     \(rounded(tokensPerSecond / 1e6, 2)) million/s median")
    print(
        "load       \(rounded(median(loads) * 1e3)) ms median, \(rounded(loads.min()! * 1e3)) ms best, "
            + "\(tokenizer.vocabularySize) tokens")
}

do {
    try run()
} catch {
    FileHandle.standardError.write(Data("error: \(error)\n".utf8))
    exit(2)
}
