import Foundation

/// What a study ran on: the fields of `edge_distil.machine.describe_machine`.
public struct Machine: Codable, Sendable, Equatable {
    /// The system and its version, such as "iOS 17.5".
    public var system: String
    public var architecture: String
    /// The maker's name of the device, such as "iPhone15,2".
    public var processor: String
    public var cores: Int
    public var memoryBytes: UInt64
    /// Empty: Apple's systems do not list them.
    public var instructionSets: [String] = []
    /// Always nil: a Core ML model's compute units say more.
    public var gpu: String?
    /// A Mac that plays a phone: its times are the Mac's.
    public var isSimulator = false

    public init(system: String, architecture: String, processor: String, cores: Int, memoryBytes: UInt64) {
        self.system = system
        self.architecture = architecture
        self.processor = processor
        self.cores = cores
        self.memoryBytes = memoryBytes
    }

    /// The machine that this process runs on.
    public static var current: Machine {
        let process = ProcessInfo.processInfo
        let version = process.operatingSystemVersion
        var release = "\(version.majorVersion).\(version.minorVersion)"
        if version.patchVersion != 0 { release += ".\(version.patchVersion)" }
        var machine = Machine(
            system: "\(systemName) \(release)", architecture: architectureName, processor: processorName(),
            cores: process.activeProcessorCount, memoryBytes: process.physicalMemory)
        if let simulated = process.environment["SIMULATOR_MODEL_IDENTIFIER"] {
            machine.processor = "simulator of \(simulated)"
            machine.isSimulator = true
        }
        return machine
    }

    private static var systemName: String {
        #if os(iOS)
            "iOS"
        #elseif os(macOS)
            "macOS"
        #elseif os(visionOS)
            "visionOS"
        #elseif os(tvOS)
            "tvOS"
        #else
            "Linux"
        #endif
    }

    private static var architectureName: String {
        #if arch(arm64)
            "arm64"
        #elseif arch(x86_64)
            "x86_64"
        #else
            "unknown"
        #endif
    }

    private static func processorName() -> String {
        #if os(macOS)
            systemValue("machdep.cpu.brand_string")
        #elseif canImport(Darwin)
            systemValue("hw.machine")
        #else
            architectureName
        #endif
    }

    #if canImport(Darwin)
        private static func systemValue(_ name: String) -> String {
            var size = 0
            guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 1 else { return architectureName }
            var bytes = [UInt8](repeating: 0, count: size)
            guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return architectureName }
            return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    #endif

    private enum CodingKeys: String, CodingKey {
        case system, architecture, processor, cores, gpu
        case memoryBytes = "memory_bytes"
        case instructionSets = "instruction_sets"
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(system, forKey: .system)
        try container.encode(architecture, forKey: .architecture)
        try container.encode(processor, forKey: .processor)
        try container.encode(cores, forKey: .cores)
        try container.encode(memoryBytes, forKey: .memoryBytes)
        try container.encode(instructionSets, forKey: .instructionSets)
        // A null stands in the file: its reader expects every field.
        try container.encode(gpu, forKey: .gpu)
    }
}
