import Foundation

/// BERT's tokeniser: the same ids and offsets as the fast one of Hugging Face `tokenizers`, no special tokens added.
///
/// Reads what the ecosystem writes: `tokenizer.json`, or a bare `vocab.txt`. Truncation, padding and post-processing
/// that a `tokenizer.json` asks for are left to the caller. Time is linear in the length of the text; while it encodes,
/// it needs up to 36 bytes for each token, and some 20 more for each byte of a text that has to be normalised first:
/// where added tokens are looked for in normalised text, or where stripping accents leaves combining characters to put
/// in order. Texts must be shorter than 2 GiB, which 32-bit offsets can count.
public struct WordPieceTokenizer: Tokenizer {
    public let special: SpecialTokens
    /// One more than the greatest id, as many rows as an embedding table needs.
    public let vocabularySize: Int

    private let tokens: [Int32: String]
    private let trie: WordPieceTrie
    private let normalizer: Normalizer
    private let maximumScalars: Int
    private let kinds: ContiguousArray<UInt8>
    /// The same, of text that is normalised already.
    private let plainKinds = WordScanner.ByteKind.table(.none)
    private let addedTokens: AddedTokenFinder
    private let normalizedAddedTokens: AddedTokenFinder

    /// Reads a tokeniser.
    ///
    /// - Parameters:
    ///   - url: a `tokenizer.json`, whose model must be WordPiece, normaliser BertNormalizer and pre-tokeniser
    ///     BertPreTokenizer; a `vocab.txt`, one token a line; or a folder with one of them, the first if it has both.
    ///   - lowercase: whether a `vocab.txt` is of an uncased model, whose text is lowered and stripped of accents. That
    ///     file cannot say. Everything else of it is taken to be as in the original BERT: text is cleaned, ideographs
    ///     are spaced, pieces continue with `##`, words of more than 100 characters are unknown, and [PAD], [UNK],
    ///     [CLS], [SEP] and [MASK] are found in the text. A `tokenizer.json` says all of this itself, and this
    ///     parameter is ignored.
    /// - Throws: `TokenizerError`.
    public init(contentsOf url: URL, lowercase: Bool = true) throws {
        try self.init(TokenizerDefinition(contentsOf: url, lowercase: lowercase))
    }

    init(_ definition: TokenizerDefinition) throws {
        let path = definition.path
        let trie: WordPieceTrie
        do {
            trie = try WordPieceTrie(tokens: definition.vocabulary, prefix: definition.continuingPrefix)
        } catch WordPieceTrie.Fault.repeated(let index) {
            throw TokenizerError.duplicateToken(path: path, token: definition.vocabulary[index].token)
        } catch {
            throw TokenizerError.invalidField(path: path, field: "model.vocab", problem: "is too large to be BERT's")
        }

        var tokens: [Int32: String] = [:]
        tokens.reserveCapacity(definition.vocabulary.count + definition.addedTokens.count)
        for (token, id) in try definition.vocabulary + definition.newTokens(trie) {
            if let other = tokens.updateValue(token, forKey: id) {
                throw TokenizerError.duplicateID(path: path, id: id, tokens: [other, token])
            }
        }

        func id(_ token: String) throws -> Int32 {
            if let id = trie.id(of: token) { return id }
            guard let added = definition.addedTokens.first(where: { $0.content.isIdentical(to: token) }) else {
                throw TokenizerError.missingToken(path: path, token: token)
            }
            return added.id
        }
        special = SpecialTokens(
            cls: try id("[CLS]"), sep: try id("[SEP]"), pad: try id("[PAD]"), mask: try id("[MASK]"),
            unk: try id(definition.unknownToken))

        self.trie = trie
        self.tokens = tokens
        vocabularySize = Int(tokens.keys.max() ?? -1) + 1
        normalizer = definition.normalizer
        maximumScalars = definition.maximumScalars
        kinds = WordScanner.ByteKind.table(definition.normalizer)
        // The reference prefers special tokens where two are spelt alike once they are normalised.
        let ordered = definition.addedTokens.filter(\.isSpecial) + definition.addedTokens.filter { !$0.isSpecial }
        addedTokens = AddedTokenFinder(ordered.filter { !$0.isNormalized }, normalizer: .none)
        normalizedAddedTokens = AddedTokenFinder(ordered.filter(\.isNormalized), normalizer: definition.normalizer)
    }

    /// The token with this id, a piece that continues a word with its `##`; nil where there is none.
    public func token(_ id: Int32) -> String? { tokens[id] }

    /// The tokens of a text, none added. Never fails: what the vocabulary cannot spell is [UNK].
    public func encode(_ text: String) -> Encoding {
        var text = text
        return text.withUTF8(encode)
    }

    /// Valid UTF-8 to tokens.
    private func encode(_ text: UnsafeBufferPointer<UInt8>) -> Encoding {
        precondition(text.count <= Int(Int32.max), "a text of 2 GiB and more has offsets that do not fit 32 bits")
        // English has a token in four or five bytes.
        var tokens = TokenBuffer(capacity: text.count / 4)
        withScanner(normalizer, kinds) { scanner in
            withScanner(.none, plainKinds) { plainScanner in
                var position = 0
                for match in addedTokens.matches(in: text) {
                    // A token may start in white space that the one before it has taken.
                    let rest = position..<max(position, match.range.lowerBound)
                    encode(text, rest, &scanner, &plainScanner, into: &tokens)
                    tokens.append(match.id, match.range.lowerBound, match.range.upperBound)
                    position = match.range.upperBound
                }
                encode(text, position..<text.count, &scanner, &plainScanner, into: &tokens)
            }
        }
        return tokens.takeEncoding()
    }

    /// Appends the tokens of a part of the text that has no added tokens but normalised ones.
    private func encode(
        _ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>, _ scanner: inout WordScanner,
        _ plainScanner: inout WordScanner, into tokens: inout TokenBuffer
    ) {
        if range.isEmpty { return }
        let part = UnsafeBufferPointer(rebasing: text[range])
        let first = tokens.count
        if !normalizedAddedTokens.isEmpty || !scanner.scan(part, into: &tokens) {
            tokens.count = first
            encodeInSteps(part, &plainScanner, into: &tokens)
        }
        if range.lowerBound > 0 { tokens.shift(from: first, by: range.lowerBound) }
    }

    /// Normalises, finds normalised tokens, and scans the rest.
    private func encodeInSteps(
        _ text: UnsafeBufferPointer<UInt8>, _ plainScanner: inout WordScanner, into tokens: inout TokenBuffer
    ) {
        let normalized = normalizer.normalize(text)
        let first = tokens.count
        normalized.bytes.withUnsafeBufferPointer { bytes in
            func scan(_ range: Range<Int>) {
                if range.isEmpty { return }
                let first = tokens.count
                // Without stripping nothing changes places, and the scan goes through.
                _ = plainScanner.scan(UnsafeBufferPointer(rebasing: bytes[range]), into: &tokens)
                tokens.shift(from: first, by: range.lowerBound)
            }
            var position = 0
            for match in normalizedAddedTokens.matches(in: bytes) {
                scan(position..<max(position, match.range.lowerBound))
                tokens.append(match.id, match.range.lowerBound, match.range.upperBound)
                position = match.range.upperBound
            }
            scan(position..<bytes.count)
        }
        tokens.map(from: first, starts: normalized.starts, ends: normalized.ends)
    }

    private func withScanner(
        _ normalizer: Normalizer, _ kinds: ContiguousArray<UInt8>, _ body: (inout WordScanner) -> Void
    ) {
        kinds.withUnsafeBufferPointer { kinds in
            trie.units.withUnsafeBufferPointer { units in
                trie.failures.withUnsafeBufferPointer { failures in
                    trie.pieces.withUnsafeBufferPointer { pieces in
                        var scanner = WordScanner(
                            normalizer: normalizer, kinds: kinds, units: units, failures: failures, pieces: pieces,
                            unknown: special.unk, maximumScalars: maximumScalars)
                        body(&scanner)
                    }
                }
            }
        }
    }
}

extension TokenizerDefinition {
    /// The added tokens that are not in the vocabulary, each once.
    ///
    /// Throws where a file gives an added token another id than the reference, which numbers them itself: what the
    /// vocabulary has keeps its id, the rest follow its tokens.
    fileprivate func newTokens(_ vocabulary: WordPieceTrie) throws -> [(token: String, id: Int32)] {
        var new: [(token: String, id: Int32)] = []
        var next = Int32(self.vocabulary.count)
        for (index, token) in addedTokens.enumerated() {
            let known = new.first { $0.token.isIdentical(to: token.content) }?.id ?? vocabulary.id(of: token.content)
            let id = known ?? next
            if known == nil { new.append((token.content, id)) }
            next = max(next, id + 1)
            if token.id != id {
                throw TokenizerError.invalidField(
                    path: path, field: "added_tokens[\(index)].id",
                    problem: "is \(token.id), where the vocabulary makes \(token.content) number \(id)")
            }
        }
        return new
    }
}

extension String {
    /// Whether two strings are the same scalars. `==` also holds for canonically equivalent ones.
    func isIdentical(to other: String) -> Bool { utf8.elementsEqual(other.utf8) }
}
