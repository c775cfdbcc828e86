import Foundation

/// How hot the device says that it is. From `serious` on it slows down, and times say nothing about it at rest.
public enum ThermalState: String, Codable, Sendable, CaseIterable, Comparable {
    /// The system does not tell.
    case unknown
    case nominal, fair, serious, critical

    public static func < (left: ThermalState, right: ThermalState) -> Bool {
        left.rank < right.rank
    }

    private var rank: Int { Self.allCases.firstIndex(of: self)! }

    /// The device's state now.
    public static var current: ThermalState {
        #if canImport(Darwin)
            switch ProcessInfo.processInfo.thermalState {
            case .nominal: .nominal
            case .fair: .fair
            case .serious: .serious
            case .critical: .critical
            @unknown default: .unknown
            }
        #else
            .unknown
        #endif
    }
}
