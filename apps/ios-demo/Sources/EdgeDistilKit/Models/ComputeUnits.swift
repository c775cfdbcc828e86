/// The processors that Core ML may use. Raw values are those of `edge-distil bench`.
public enum ComputeUnits: String, CaseIterable, Codable, Sendable {
    case all
    case cpuOnly = "cpu_only"
    case cpuAndGPU = "cpu_and_gpu"
    case cpuAndNeuralEngine = "cpu_and_ne"
}
