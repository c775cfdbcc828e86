/// The steps of BERT's normaliser, in this order, each on or off.
struct Normalizer: Sendable, Equatable {
    /// Drop control characters, NUL and U+FFFD; make every white space a blank.
    var cleansText: Bool
    /// Put blanks around CJK ideographs.
    var spacesIdeographs: Bool
    /// Decompose, and drop non-spacing marks.
    var stripsAccents: Bool
    /// Lower-case every scalar by itself.
    var lowercases: Bool

    /// Leaves text as it is.
    static let none = Normalizer(cleansText: false, spacesIdeographs: false, stripsAccents: false, lowercases: false)
}

/// Normalised text, and the bytes of the original that each of its bytes comes from.
struct NormalizedText {
    var bytes: ContiguousArray<UInt8> = []
    /// For each byte, where the scalar that it comes from starts and ends in the original.
    var starts: ContiguousArray<Int32> = []
    var ends: ContiguousArray<Int32> = []

    mutating func append(_ scalar: UInt32, _ source: Range<Int32>) {
        if scalar < 0x80 {
            append(byte: scalar, source)
        } else {
            if scalar < 0x800 {
                append(byte: 0xC0 | scalar >> 6, source)
            } else {
                if scalar < 0x10000 {
                    append(byte: 0xE0 | scalar >> 12, source)
                } else {
                    append(byte: 0xF0 | scalar >> 18, source)
                    append(byte: 0x80 | scalar >> 12 & 0x3F, source)
                }
                append(byte: 0x80 | scalar >> 6 & 0x3F, source)
            }
            append(byte: 0x80 | scalar & 0x3F, source)
        }
    }

    @inline(__always)
    private mutating func append(byte: UInt32, _ source: Range<Int32>) {
        bytes.append(UInt8(truncatingIfNeeded: byte))
        starts.append(source.lowerBound)
        ends.append(source.upperBound)
    }
}

extension Normalizer {
    /// Normalises UTF-8 bytes as the reference does, one step after another, with its alignment of decomposed text.
    ///
    /// `WordScanner` does the same and splits on the way, without the text in between; this is for text that it leaves
    /// alone and for patterns.
    func normalize(_ text: UnsafeBufferPointer<UInt8>) -> NormalizedText {
        var result = NormalizedText()
        result.bytes.reserveCapacity(text.count)
        var pending = CombiningRun()
        let unicode = UnicodeData.shared

        func finish(_ scalar: UInt32, _ source: Range<Int32>) {
            if lowercases, unicode.classOf(scalar).has(.lowers) {
                for lowered in unicode.lowercase[scalar] { result.append(lowered, source) }
            } else {
                result.append(scalar, source)
            }
        }
        func finishRun() {
            pending.takeOrdered { scalar, source in
                if !unicode.classOf(scalar).has(.mark) { finish(scalar, source) }
            }
        }
        func strip(_ scalar: UInt32, _ source: Range<Int32>) {
            guard stripsAccents else { return finish(scalar, source) }
            var isFirst = true
            func place(_ part: UInt32) {
                let combiningClass = unicode.combiningClass[part]
                if combiningClass == 0 { finishRun() }
                pending.append(part, combiningClass, source: isFirst ? source : nil)
                if combiningClass == 0 { finishRun() }
                isFirst = false
            }
            if unicode.classOf(scalar).has(.decomposes) {
                unicode.decompose(scalar, place)
            } else {
                place(scalar)
            }
        }

        var position = 0
        while position < text.count {
            let (scalar, length) = UTF8Scalar.decode(text, at: position)
            let source = Int32(position)..<Int32(position + length)
            position += length
            let kind = unicode.classOf(scalar)
            if cleansText {
                if kind.has(.control) { continue }
                if kind.has(.space) {
                    strip(0x20, source)
                    continue
                }
            }
            if spacesIdeographs, kind.has(.ideograph) {
                strip(0x20, source)
                strip(scalar, source)
                strip(0x20, source)
            } else {
                strip(scalar, source)
            }
        }
        finishRun()
        return result
    }
}

/// Combining characters between two that are not, on their way into canonical order.
///
/// The reference moves scalars, and gives each source position to whatever comes next in the new order: the first
/// scalar of a decomposition takes the next source, the others the source of the one before them.
private struct CombiningRun {
    private var scalars: [(scalar: UInt32, combiningClass: UInt32, isFirst: Bool)] = []
    private var sources: [Range<Int32>] = []
    private var lastSource: Range<Int32> = 0..<0

    /// `source` is nil for all but the first scalar of a decomposition.
    mutating func append(_ scalar: UInt32, _ combiningClass: UInt32, source: Range<Int32>?) {
        scalars.append((scalar, combiningClass, source != nil))
        if let source { sources.append(source) }
    }

    mutating func takeOrdered(_ body: (UInt32, Range<Int32>) -> Void) {
        // Swift's sort is stable, as canonical ordering must be.
        if scalars.count > 1 { scalars.sort { $0.combiningClass < $1.combiningClass } }
        var taken = 0
        for (scalar, _, isFirst) in scalars {
            if isFirst {
                lastSource = sources[taken]
                taken += 1
            }
            body(scalar, lastSource)
        }
        scalars.removeAll(keepingCapacity: true)
        sources.removeAll(keepingCapacity: true)
    }
}

enum UTF8Scalar {
    /// The scalar that starts at `position` in valid UTF-8, and how many bytes it has.
    @inline(__always)
    static func decode(_ bytes: UnsafeBufferPointer<UInt8>, at position: Int) -> (scalar: UInt32, length: Int) {
        let first = UInt32(bytes[position])
        func continuation(_ offset: Int) -> UInt32 { UInt32(bytes[position + offset]) & 0x3F }
        switch first {
        case 0..<0x80: return (first, 1)
        case 0..<0xE0: return ((first & 0x1F) << 6 | continuation(1), 2)
        case 0..<0xF0: return ((first & 0xF) << 12 | continuation(1) << 6 | continuation(2), 3)
        default:
            return ((first & 0x7) << 18 | continuation(1) << 12 | continuation(2) << 6 | continuation(3), 4)
        }
    }

    /// The scalar that ends before `position`, which is not 0, and how many bytes it has.
    static func decode(_ bytes: UnsafeBufferPointer<UInt8>, before position: Int) -> (scalar: UInt32, length: Int) {
        var start = position - 1
        while bytes[start] & 0xC0 == 0x80 { start -= 1 }
        return decode(bytes, at: start)
    }
}
