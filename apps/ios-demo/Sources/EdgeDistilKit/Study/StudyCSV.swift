import Foundation

extension StudyResult {
    /// One line for each result under a header, as RFC 4180 has it, with decimal points whatever the device's language.
    public func csv() -> Data {
        let header = [
            "model", "runtime", "precision", "compute_units", "tokens", "tokenization", "median_ms", "p90_ms", "ratio",
            "calls", "random_weights", "thermal_state", "processor", "system",
        ]
        let rows = results.map { row in
            [
                row.model, row.runtime, row.precision, row.computeUnits, "\(row.tokens)", "\(row.tokenization)",
                "\(row.medianMs)", "\(row.p90Ms)", "\(row.ratio)", "\(row.calls)", "\(row.randomWeights)",
                row.thermalState.rawValue, machine.processor, machine.system,
            ]
        }
        let lines = ([header] + rows).map { $0.map(Self.quoted).joined(separator: ",") + "\r\n" }
        return Data(lines.joined().utf8)
    }

    /// A field with a comma, a quotation mark or a line break stands in quotation marks, its own doubled.
    private static func quoted(_ field: String) -> String {
        let needsQuotes = field.unicodeScalars.contains { ",\"\r\n".unicodeScalars.contains($0) }
        return needsQuotes ? "\"" + field.replacingOccurrences(of: "\"", with: "\"\"") + "\"" : field
    }
}
