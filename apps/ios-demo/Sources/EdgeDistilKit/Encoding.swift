/// The tokens of one text: their ids, and where each stands in the text.
///
/// Offsets count UTF-8 bytes of the text as given, from 0, the end one past the last byte, whatever was lowered,
/// stripped or split on the way. They stand on boundaries of Unicode scalars.
public struct Encoding: Sendable, Equatable {
    public var ids: [Int32]
    public var starts: [Int32]
    public var ends: [Int32]

    public init(ids: [Int32] = [], starts: [Int32] = [], ends: [Int32] = []) {
        self.ids = ids
        self.starts = starts
        self.ends = ends
    }

    public var count: Int { ids.count }
}

/// Ids of BERT's special tokens in one vocabulary.
public struct SpecialTokens: Sendable, Equatable {
    public let cls, sep, pad, mask, unk: Int32

    public init(cls: Int32, sep: Int32, pad: Int32, mask: Int32, unk: Int32) {
        self.cls = cls
        self.sep = sep
        self.pad = pad
        self.mask = mask
        self.unk = unk
    }
}

/// Text to tokens. Special tokens are not added.
public protocol Tokenizer: Sendable {
    var special: SpecialTokens { get }
    var vocabularySize: Int { get }
    func encode(_ text: String) -> Encoding
}
