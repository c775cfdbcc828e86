/// A token that is found in the text itself, before or after it is normalised, instead of by cutting words.
struct AddedToken: Equatable, Sendable {
    var content: String
    var id: Int32
    var isSpecial = false
    /// Found in normalised text; its content is normalised too.
    var isNormalized = false
    /// Takes the white space in front of it, and behind it.
    var stripsLeft = false
    var stripsRight = false
    /// Found only where no word character stands beside it.
    var isSingleWord = false
}

/// Finds added tokens, leftmost first and the longest of those that start at one place.
struct AddedTokenFinder: Sendable {
    struct Match: Equatable {
        let id: Int32
        let range: Range<Int>
    }

    private struct Pattern: Sendable {
        let bytes: ContiguousArray<UInt8>
        let token: AddedToken
    }

    /// Patterns by their first byte, longer ones first.
    private var patterns: ContiguousArray<ContiguousArray<Pattern>> = []
    private var isFirst = ContiguousArray<Bool>(repeating: false, count: 256)

    var isEmpty: Bool { patterns.isEmpty }

    /// `normalizer` is applied to the contents. Of two with the same pattern the first is found; an empty one never.
    init(_ tokens: [AddedToken], normalizer: Normalizer) {
        for token in tokens {
            var content = token.content
            let bytes = content.withUTF8 { normalizer.normalize($0).bytes }
            guard let first = bytes.first else { continue }
            if patterns.isEmpty { patterns = ContiguousArray(repeating: [], count: 256) }
            isFirst[Int(first)] = true
            if patterns[Int(first)].contains(where: { $0.bytes == bytes }) { continue }
            let place = patterns[Int(first)].firstIndex { $0.bytes.count < bytes.count }
            patterns[Int(first)].insert(Pattern(bytes: bytes, token: token), at: place ?? patterns[Int(first)].count)
        }
    }

    /// The tokens in a text, with the white space that they take.
    func matches(in text: UnsafeBufferPointer<UInt8>) -> [Match] {
        guard !isEmpty else { return [] }
        var found: [Match] = []
        var position = 0
        // How far tokens before have taken the text.
        var taken = 0
        isFirst.withUnsafeBufferPointer { isFirst in
            while position < text.count {
                guard isFirst[Int(text[position])], let pattern = pattern(at: position, in: text) else {
                    position += 1
                    continue
                }
                let (start, end) = (position, position + pattern.bytes.count)
                position = end
                if pattern.token.isSingleWord, standsInWord(start, end, text) { continue }
                let left = pattern.token.stripsLeft ? max(blanks(before: start, text), taken) : start
                taken = pattern.token.stripsRight ? blanks(after: end, text) : end
                found.append(Match(id: pattern.token.id, range: left..<taken))
            }
        }
        return found
    }

    private func pattern(at position: Int, in text: UnsafeBufferPointer<UInt8>) -> Pattern? {
        patterns[Int(text[position])].first { text[position...].starts(with: $0.bytes) }
    }

    private func standsInWord(_ start: Int, _ end: Int, _ text: UnsafeBufferPointer<UInt8>) -> Bool {
        let unicode = UnicodeData.shared
        return start > 0 && unicode.isWordCharacter(UTF8Scalar.decode(text, before: start).scalar)
            || end < text.count && unicode.isWordCharacter(UTF8Scalar.decode(text, at: end).scalar)
    }

    private func blanks(before end: Int, _ text: UnsafeBufferPointer<UInt8>) -> Int {
        var start = end
        while start > 0 {
            let (scalar, length) = UTF8Scalar.decode(text, before: start)
            guard UnicodeData.shared.classOf(scalar).has(.space) else { break }
            start -= length
        }
        return start
    }

    private func blanks(after start: Int, _ text: UnsafeBufferPointer<UInt8>) -> Int {
        var end = start
        while end < text.count {
            let (scalar, length) = UTF8Scalar.decode(text, at: end)
            guard UnicodeData.shared.classOf(scalar).has(.space) else { break }
            end += length
        }
        return end
    }
}
