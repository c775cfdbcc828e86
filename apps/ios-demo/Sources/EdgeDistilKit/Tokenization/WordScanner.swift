/// Tokens as they are found, in memory that grows by itself. Whoever makes one calls `takeEncoding` or `free`.
struct TokenBuffer {
    private(set) var ids: UnsafeMutablePointer<Int32>
    private(set) var starts: UnsafeMutablePointer<Int32>
    private(set) var ends: UnsafeMutablePointer<Int32>
    private var capacity: Int
    var count = 0

    init(capacity: Int) {
        self.capacity = max(capacity, 16)
        ids = .allocate(capacity: self.capacity)
        starts = .allocate(capacity: self.capacity)
        ends = .allocate(capacity: self.capacity)
    }

    @inline(__always)
    mutating func append(_ id: Int32, _ start: Int, _ end: Int) {
        if count == capacity { grow() }
        ids[count] = id
        starts[count] = Int32(truncatingIfNeeded: start)
        ends[count] = Int32(truncatingIfNeeded: end)
        count += 1
    }

    /// Replaces the offsets of all tokens from `first` on, which count bytes of another text, by those that it names.
    mutating func map(from first: Int, starts newStarts: ContiguousArray<Int32>, ends newEnds: ContiguousArray<Int32>) {
        for index in first..<count {
            starts[index] = newStarts[Int(starts[index])]
            ends[index] = newEnds[Int(ends[index]) - 1]
        }
    }

    mutating func shift(from first: Int, by distance: Int) {
        for index in first..<count {
            starts[index] += Int32(truncatingIfNeeded: distance)
            ends[index] += Int32(truncatingIfNeeded: distance)
        }
    }

    @inline(never)
    private mutating func grow() {
        func larger(_ old: UnsafeMutablePointer<Int32>) -> UnsafeMutablePointer<Int32> {
            let new = UnsafeMutablePointer<Int32>.allocate(capacity: capacity * 2)
            new.moveInitialize(from: old, count: count)
            old.deallocate()
            return new
        }
        ids = larger(ids)
        starts = larger(starts)
        ends = larger(ends)
        capacity *= 2
    }

    func takeEncoding() -> Encoding {
        defer {
            ids.deallocate()
            starts.deallocate()
            ends.deallocate()
        }
        func array(_ pointer: UnsafeMutablePointer<Int32>) -> [Int32] {
            Array(UnsafeBufferPointer(start: pointer, count: count))
        }
        return Encoding(ids: array(ids), starts: array(starts), ends: array(ends))
    }
}

/// Normalises, splits into words and cuts words into pieces, in one pass over the bytes of a text.
///
/// Words of ASCII letters and digits, most of English, are cut as they are read. Any other word is collected first, in
/// its normalised form, with where each byte comes from.
struct WordScanner {
    /// What a byte is to a scanner: a blank, a word of its own, part of a word (the byte it is normalised to, all of
    /// which are above these), or something to look at closely.
    enum ByteKind {
        static let other: UInt8 = 0
        static let space: UInt8 = 1
        static let punctuation: UInt8 = 2
        static let firstLetter: UInt8 = 0x30

        /// The kind of each byte under a normaliser.
        static func table(_ normalizer: Normalizer) -> ContiguousArray<UInt8> {
            let unicode = UnicodeData.shared
            return ContiguousArray(
                (0..<256).map { (byte: UInt32) -> UInt8 in
                    guard byte < 0x80 else { return other }
                    let kind = unicode.classOf(byte)
                    if kind.has(.control) { return kind.has(.space) && !normalizer.cleansText ? space : other }
                    if kind.has(.space) { return space }
                    if kind.has(.punctuation) { return punctuation }
                    return UInt8(normalizer.lowercases && kind.has(.lowers) ? byte | 0x20 : byte)
                })
        }
    }

    let normalizer: Normalizer
    let kinds: UnsafeBufferPointer<UInt8>
    let units: UnsafeBufferPointer<UInt32>
    let failures: UnsafeBufferPointer<WordPieceTrie.Failure>
    let pieces: UnsafeBufferPointer<WordPieceTrie.Piece>
    let unknown: Int32
    let maximumScalars: Int
    /// The word that is collected, and how many scalars it has. Those past `maximumScalars` are not kept.
    private var word = NormalizedText()
    private var scalarCount = 0
    private var wordStart: Int32 = 0
    private var wordEnd: Int32 = 0

    init(
        normalizer: Normalizer, kinds: UnsafeBufferPointer<UInt8>, units: UnsafeBufferPointer<UInt32>,
        failures: UnsafeBufferPointer<WordPieceTrie.Failure>, pieces: UnsafeBufferPointer<WordPieceTrie.Piece>,
        unknown: Int32, maximumScalars: Int
    ) {
        self.normalizer = normalizer
        self.kinds = kinds
        self.units = units
        self.failures = failures
        self.pieces = pieces
        self.unknown = unknown
        self.maximumScalars = maximumScalars
    }

    /// Appends the tokens of `text`, valid UTF-8, with offsets into it.
    ///
    /// False where the text has combining characters that outlive the stripping of accents and may change places: then
    /// what was appended is of no use.
    mutating func scan(_ text: UnsafeBufferPointer<UInt8>, into tokens: inout TokenBuffer) -> Bool {
        var position = 0
        while position < text.count {
            let kind = kinds[Int(text[position])]
            if kind == ByteKind.space {
                position += 1
            } else if kind == ByteKind.punctuation {
                cut(UnsafeBufferPointer(rebasing: text[position...position]), at: position, into: &tokens)
                position += 1
            } else if kind != ByteKind.other, let end = scanLetters(text, position, into: &tokens) {
                position = end
            } else if let end = collect(text, position, into: &tokens) {
                position = end
            } else {
                return false
            }
        }
        return true
    }

    /// Cuts a word of ASCII letters and digits and returns where it ends; nil, with nothing appended, for other words.
    @inline(__always)
    private func scanLetters(_ text: UnsafeBufferPointer<UInt8>, _ start: Int, into tokens: inout TokenBuffer) -> Int? {
        let first = tokens.count
        var position = start
        var kind = kinds[Int(text[start])]
        var cutter = Cutter(start: start)
        repeat {
            step(&cutter, kind, into: &tokens)
            position += 1
            kind = position < text.count ? kinds[Int(text[position])] : ByteKind.space
        } while kind >= ByteKind.firstLetter
        if kind == ByteKind.other {
            tokens.count = first
            return nil
        }
        finish(&cutter, into: &tokens)
        if cutter.isUnknown || position - start > maximumScalars {
            tokens.count = first
            tokens.append(unknown, start, position)
        }
        return position
    }

    /// Appends the pieces of a normalised word, offsets counted from `start`.
    private func cut(_ word: UnsafeBufferPointer<UInt8>, at start: Int, into tokens: inout TokenBuffer) {
        let first = tokens.count
        var cutter = Cutter(start: start)
        for byte in word { step(&cutter, byte, into: &tokens) }
        finish(&cutter, into: &tokens)
        if cutter.isUnknown || maximumScalars == 0 {
            tokens.count = first
            tokens.append(unknown, start, start + word.count)
        }
    }

    /// Where in the trie a word is, and where the piece that is being read starts.
    private struct Cutter {
        var node = WordPieceTrie.wordRoot
        var pieceStart: Int
        var isUnknown = false

        init(start: Int) { pieceStart = start }
    }

    @inline(__always)
    private func step(_ cutter: inout Cutter, _ byte: UInt8, into tokens: inout TokenBuffer) {
        while !cutter.isUnknown {
            let next = Int(units[cutter.node] >> 9) ^ Int(byte)
            if units[next] & 0x1FF == WordPieceTrie.occupied | UInt32(byte) {
                cutter.node = next
                return
            }
            fail(&cutter, into: &tokens)
        }
    }

    @inline(__always)
    private func finish(_ cutter: inout Cutter, into tokens: inout TokenBuffer) {
        while cutter.node != WordPieceTrie.suffixRoot, !cutter.isUnknown { fail(&cutter, into: &tokens) }
    }

    /// Appends the pieces that are certain where the trie has no way on, and goes where it has one.
    @inline(__always)
    private func fail(_ cutter: inout Cutter, into tokens: inout TokenBuffer) {
        let failure = failures[cutter.node]
        guard failure.link >= 0 else {
            cutter.isUnknown = true
            return
        }
        for index in Int(failure.firstPiece)..<Int(failure.firstPiece + failure.pieceCount) {
            let piece = pieces[index]
            let end = cutter.pieceStart + Int(piece.byteCount)
            tokens.append(piece.id, cutter.pieceStart, end)
            cutter.pieceStart = end
        }
        cutter.node = Int(failure.link)
    }

    /// Collects and cuts a word of any scalars, and returns a position behind it where another word may start.
    ///
    /// Nil where accents are stripped and combining characters remain, whose canonical order is left to `Normalizer`.
    private mutating func collect(
        _ text: UnsafeBufferPointer<UInt8>, _ start: Int, into tokens: inout TokenBuffer
    ) -> Int? {
        let unicode = UnicodeData.shared
        var position = start
        repeat {
            let (scalar, length) = UTF8Scalar.decode(text, at: position)
            let source = Int32(truncatingIfNeeded: position)..<Int32(truncatingIfNeeded: position + length)
            position += length
            let kind = unicode.classOf(scalar)
            if normalizer.cleansText, kind.has(.control) { continue }
            if kind.has(.space) {
                finishWord(into: &tokens)
                break
            }
            let isIdeograph = normalizer.spacesIdeographs && kind.has(.ideograph)
            if isIdeograph { finishWord(into: &tokens) }
            if normalizer.stripsAccents, kind.has(.strippable) {
                if kind.has(.reorders) {
                    clearWord()
                    return nil
                }
                if kind.has(.decomposes) {
                    unicode.decompose(scalar) { part in
                        let partKind = unicode.classOf(part)
                        if !partKind.has(.mark) { lower(part, partKind, source, into: &tokens) }
                    }
                }
            } else {
                lower(scalar, kind, source, into: &tokens)
            }
            if isIdeograph { finishWord(into: &tokens) }
        } while position < text.count && scalarCount > 0
        finishWord(into: &tokens)
        return position
    }

    @inline(__always)
    private mutating func lower(
        _ scalar: UInt32, _ kind: UnicodeData.Class, _ source: Range<Int32>, into tokens: inout TokenBuffer
    ) {
        if normalizer.lowercases, kind.has(.lowers) {
            let unicode = UnicodeData.shared
            for lowered in unicode.lowercase[scalar] { place(lowered, unicode.classOf(lowered), source, into: &tokens) }
        } else {
            place(scalar, kind, source, into: &tokens)
        }
    }

    /// Puts a normalised scalar where it belongs: into the word, or behind it.
    @inline(__always)
    private mutating func place(
        _ scalar: UInt32, _ kind: UnicodeData.Class, _ source: Range<Int32>, into tokens: inout TokenBuffer
    ) {
        let isAlone = kind.has(.space) || kind.has(.punctuation)
        if isAlone { finishWord(into: &tokens) }
        if kind.has(.space) { return }
        if scalarCount == 0 { wordStart = source.lowerBound }
        wordEnd = source.upperBound
        scalarCount += 1
        if scalarCount <= maximumScalars { word.append(scalar, source) }
        if isAlone { finishWord(into: &tokens) }
    }

    private mutating func finishWord(into tokens: inout TokenBuffer) {
        guard scalarCount > 0 else { return }
        if scalarCount > maximumScalars {
            tokens.append(unknown, Int(wordStart), Int(wordEnd))
        } else {
            let first = tokens.count
            word.bytes.withUnsafeBufferPointer { cut($0, at: 0, into: &tokens) }
            tokens.map(from: first, starts: word.starts, ends: word.ends)
        }
        clearWord()
    }

    private mutating func clearWord() {
        word.bytes.removeAll(keepingCapacity: true)
        word.starts.removeAll(keepingCapacity: true)
        word.ends.removeAll(keepingCapacity: true)
        scalarCount = 0
    }
}
