import EdgeDistilKit

/// What the sidebar leads to.
enum Screen: Hashable {
    case passage(Passage)
    case study
}
