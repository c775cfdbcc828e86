import Foundation

/// The bytes of a file. Throws `KitError` where there is none, or it cannot be read.
func readData(_ url: URL) throws -> Data {
    guard FileManager.default.fileExists(atPath: url.path) else { throw KitError.missing(url) }
    do {
        return try Data(contentsOf: url)
    } catch {
        throw KitError.unreadable(url, reason: error.localizedDescription)
    }
}

/// A value from a JSON file. Throws `KitError` that names the field, or the fault of the JSON.
func readJSON<Value: Decodable>(_ type: Value.Type, from url: URL) throws -> Value {
    let data = try readData(url)
    guard String(data: data, encoding: .utf8) != nil else {
        throw KitError.malformed(url, reason: "it is not UTF-8 text")
    }
    do {
        return try JSONDecoder().decode(type, from: data)
    } catch let fault as DecodingError {
        throw KitError.malformed(url, reason: describe(fault))
    }
}

private func describe(_ fault: DecodingError) -> String {
    func place(_ path: [any CodingKey], _ last: (any CodingKey)? = nil) -> String {
        let parts = (path + (last.map { [$0] } ?? [])).map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }
        return parts.isEmpty ? "the whole file" : "field “\(parts.joined(separator: "."))”"
    }
    switch fault {
    case .keyNotFound(let key, let context): return "\(place(context.codingPath, key)) is missing"
    case .typeMismatch(let type, let context): return "\(place(context.codingPath)) is not \(jsonName(type))"
    case .valueNotFound(let type, let context): return "\(place(context.codingPath)) is null, not \(jsonName(type))"
    case .dataCorrupted(let context):
        let problem = "\(place(context.codingPath)): \(context.debugDescription)"
        return context.codingPath.isEmpty ? "it is not valid JSON" : problem
    @unknown default: return "\(fault)"
    }
}

private func jsonName(_ type: Any.Type) -> String {
    switch type {
    case is String.Type: "text"
    case is Double.Type, is Int.Type: "a number"
    case is [Any].Type: "a list"
    case is [String: Any].Type: "an object"
    default: "a value of \(type)"
    }
}
