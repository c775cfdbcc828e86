/// The generated tables, unpacked once for fast look-ups.
///
/// They stand in memory that is never written again and never freed, so that a look-up counts no references.
struct UnicodeData: @unchecked Sendable {
    static let shared = UnicodeData()

    /// What a scalar is to BERT's normaliser and its splitting; bits as `Scripts/write_unicode_tables.py` writes them.
    struct Class: Sendable {
        let bits: UInt8

        /// Whether it has any of the bits of another.
        @inline(__always)
        func has(_ other: Class) -> Bool { bits & other.bits != 0 }

        /// Dropped by the cleaning of text: control, format, private and other unwanted characters.
        static let control = Class(bits: 1)
        /// Parts words.
        static let space = Class(bits: 2)
        /// A word of its own where ideographs are spaced.
        static let ideograph = Class(bits: 4)
        /// A word of its own.
        static let punctuation = Class(bits: 8)
        /// Dropped where accents are stripped.
        static let mark = Class(bits: 16)
        /// Its canonical decomposition is another sequence.
        static let decomposes = Class(bits: 32)
        /// Its lower-case form is another sequence.
        static let lowers = Class(bits: 64)
        /// Leaves a combining character behind when accents are stripped, so that canonical ordering may move it.
        static let reorders = Class(bits: 128)
        /// Any of what stripping accents looks at.
        static let strippable = Class(bits: 16 | 32 | 128)
    }

    /// A map from scalars to short sequences of scalars, by binary search.
    struct Mapping: @unchecked Sendable {
        private let keys: UnsafeBufferPointer<UInt32>
        private let starts: UnsafeBufferPointer<Int>
        private let scalars: UnsafeBufferPointer<UInt32>

        init(_ packed: StaticString) {
            var keys: [UInt32] = []
            var starts = [0]
            var scalars: [UInt32] = []
            var numbers = PackedNumbers(packed)
            var key: UInt32 = 0
            while let distance = numbers.next(), let count = numbers.next() {
                key += distance
                keys.append(key)
                for _ in 0..<count { scalars.append(numbers.next()!) }
                starts.append(scalars.count)
            }
            self.keys = keys.immortal()
            self.starts = starts.immortal()
            self.scalars = scalars.immortal()
        }

        /// What `scalar` maps to: nothing where it is no key.
        subscript(scalar: UInt32) -> UnsafeBufferPointer<UInt32> {
            let index = keys.lastIndex(notAbove: scalar)
            guard index >= 0, keys[index] == scalar else { return UnsafeBufferPointer(rebasing: scalars[..<0]) }
            return UnsafeBufferPointer(rebasing: scalars[starts[index]..<starts[index + 1]])
        }
    }

    /// A number for each scalar of some ranges, by binary search.
    struct Ranges: @unchecked Sendable {
        private let firsts: UnsafeBufferPointer<UInt32>
        private let ends: UnsafeBufferPointer<UInt32>
        private let values: UnsafeBufferPointer<UInt32>

        init(_ packed: StaticString) {
            var firsts: [UInt32] = []
            var ends: [UInt32] = []
            var values: [UInt32] = []
            PackedNumbers.forEachRange(packed) { first, end, value in
                firsts.append(first)
                ends.append(end)
                values.append(value)
            }
            self.firsts = firsts.immortal()
            self.ends = ends.immortal()
            self.values = values.immortal()
        }

        /// The number of `scalar`, 0 outside the ranges.
        subscript(scalar: UInt32) -> UInt32 {
            let index = firsts.lastIndex(notAbove: scalar)
            return index >= 0 && scalar < ends[index] ? values[index] : 0
        }
    }

    // Classes in blocks of 256 scalars, of which most are alike and stored once.
    private let blockStarts: UnsafeBufferPointer<UInt32>
    private let blocks: UnsafeBufferPointer<UInt8>
    private let decompositions = Mapping(UnicodeTables.decompositions)
    /// Lower-case forms of scalars of class `lowers`. They depend on the scalar alone: Σ is σ at a word's end too.
    let lowercase = Mapping(UnicodeTables.lowercase)
    /// Canonical combining classes of scalars that do not decompose.
    let combiningClass = Ranges(UnicodeTables.combiningClasses)
    private let wordCharacters = Ranges(UnicodeTables.wordCharacters)

    private init() {
        var classes: [UInt8] = []
        var blockStarts: [UInt32] = []
        var uniform: [UInt8: UInt32] = [:]
        var block = [UInt8](repeating: 0, count: 256)
        var filled = 0

        func fill(_ count: Int, with value: UInt8) {
            var count = count
            while count > 0 {
                let step = min(count, 256 - filled)
                if step == 256 {
                    if uniform[value] == nil {
                        uniform[value] = UInt32(classes.count)
                        classes.append(contentsOf: repeatElement(value, count: 256))
                    }
                    blockStarts.append(uniform[value]!)
                } else {
                    for index in filled..<filled + step { block[index] = value }
                    filled += step
                    if filled == 256 {
                        blockStarts.append(UInt32(classes.count))
                        classes.append(contentsOf: block)
                        filled = 0
                    }
                }
                count -= step
            }
        }

        var end: UInt32 = 0
        PackedNumbers.forEachRange(UnicodeTables.classes) { first, last, value in
            fill(Int(first - end), with: 0)
            fill(Int(last - first), with: UInt8(value))
            end = last
        }
        fill(0x110000 - Int(end), with: 0)
        self.blocks = classes.immortal()
        self.blockStarts = blockStarts.immortal()
    }

    @inline(__always)
    func classOf(_ scalar: UInt32) -> Class {
        Class(bits: blocks[Int(blockStarts[Int(scalar >> 8)]) + Int(scalar & 0xFF)])
    }

    /// Whether the reference counts the scalar as part of a word (`\w`) beside an added token that stands alone.
    func isWordCharacter(_ scalar: UInt32) -> Bool { wordCharacters[scalar] != 0 }

    /// Calls `body` with each scalar of the canonical decomposition of a scalar of class `decomposes`.
    func decompose(_ scalar: UInt32, _ body: (UInt32) -> Void) {
        if scalar >= 0xAC00, scalar <= 0xD7A3 {
            // Hangul syllables are numbered: 21 vowels and 28 endings, of which the first is none (Unicode, 3.12).
            let syllable = scalar - 0xAC00
            body(0x1100 + syllable / 588)
            body(0x1161 + syllable % 588 / 28)
            if syllable % 28 > 0 { body(0x11A7 + syllable % 28) }
        } else {
            decompositions[scalar].forEach(body)
        }
    }
}

/// The hexadecimal numbers in a string of `UnicodeTables`.
struct PackedNumbers {
    private var rest: UnsafeBufferPointer<UInt8>.SubSequence

    init(_ packed: StaticString) {
        // A StaticString of more than one scalar always has a pointer, to memory that lives as long as the program.
        rest = UnsafeBufferPointer(start: packed.utf8Start, count: packed.utf8CodeUnitCount)[...]
    }

    mutating func next() -> UInt32? {
        guard !rest.isEmpty else { return nil }
        var number: UInt32 = 0
        while let digit = rest.popFirst(), digit != UInt8(ascii: " ") {
            number = number << 4 | UInt32(digit & 0xF) + (digit > UInt8(ascii: "9") ? 9 : 0)
        }
        return number
    }

    /// Reads triples of the distance from the end of the last range, count and value, as (first, end, value).
    static func forEachRange(_ packed: StaticString, _ body: (UInt32, UInt32, UInt32) -> Void) {
        var numbers = PackedNumbers(packed)
        var end: UInt32 = 0
        while let distance = numbers.next(), let count = numbers.next(), let value = numbers.next() {
            let first = end + distance
            end = first + count
            body(first, end, value)
        }
    }
}

extension Array {
    /// A copy that is never freed.
    fileprivate func immortal() -> UnsafeBufferPointer<Element> {
        let copy = UnsafeMutableBufferPointer<Element>.allocate(capacity: count)
        _ = copy.initialize(from: self)
        return UnsafeBufferPointer(copy)
    }
}

extension UnsafeBufferPointer<UInt32> {
    /// The index of the last element of ascending ones that is not above `value`, -1 where all are.
    fileprivate func lastIndex(notAbove value: UInt32) -> Int {
        var low = -1
        var high = count
        while high - low > 1 {
            let middle = (low + high) / 2
            if self[middle] <= value { low = middle } else { high = middle }
        }
        return low
    }
}
