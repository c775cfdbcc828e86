/// A vocabulary as an automaton that cuts a word into its longest pieces in one pass over its bytes.
///
/// LinMaxMatch of "Fast WordPiece Tokenization" (Song et al., 2021, section 3): every node of the trie knows the pieces
/// that the text up to it is cut into when it cannot go on (its failure pops) and the node to go on from (its failure
/// link), so that no byte is read twice. Here the trie is one of UTF-8 bytes, laid out as a double array: the child of
/// a node by byte b stands at `base ^ b`. Pieces are valid UTF-8, so they end where scalars end.
struct WordPieceTrie: Sendable {
    /// What a node does when the next byte has no child, or the word ends.
    struct Failure: Sendable {
        /// The node to go on from; -1 where the word cannot be made of pieces.
        var link: Int32 = -1
        /// Which of `pieces` come before it.
        var firstPiece: Int32 = 0
        var pieceCount: Int32 = 0
    }

    struct Piece: Sendable {
        let id: Int32
        let byteCount: Int32
    }

    /// The start of a word, and the start of what follows the first piece. They are children of no node.
    static let wordRoot = 1
    static let suffixRoot = 2
    /// Set in units that a child stands at. The byte below and this bit together are what a step must find.
    static let occupied: UInt32 = 0x100

    /// For each node its base, shifted by 9, the bit `occupied`, and the byte that leads to it.
    private(set) var units: ContiguousArray<UInt32> = []
    private(set) var failures: ContiguousArray<Failure> = []
    private(set) var pieces: ContiguousArray<Piece> = []

    /// Why a vocabulary makes no trie.
    enum Fault: Error {
        case repeated(index: Int)
        case tooLarge
    }

    /// - Parameters:
    ///   - tokens: the vocabulary; empty ones are never found.
    ///   - prefix: what tokens that continue a word begin with, "##" in BERT.
    init(tokens: [(token: String, id: Int32)], prefix: String) throws {
        var tree = Tree()
        let prefix = Array(prefix.utf8)
        for (index, entry) in tokens.enumerated() {
            var token = entry.token
            try token.withUTF8 { bytes in
                guard !bytes.isEmpty else { return }
                if !tree.insert(bytes[...], below: 0, entry.id) { throw Fault.repeated(index: index) }
                if bytes.count > prefix.count, bytes.starts(with: prefix) {
                    _ = tree.insert(bytes[prefix.count...], below: 1, entry.id)
                }
            }
        }
        let positions = try lay(tree)
        link(tree, positions)
    }

    /// The trie as it grows: children of a node are a list.
    private struct Tree {
        struct Node {
            var id: Int32 = -1
            var firstChild: Int32 = -1
            var sibling: Int32 = -1
            var depth: Int32
            var byte: UInt8
        }

        /// The two roots come first.
        var nodes: ContiguousArray<Node> = [Node(depth: 0, byte: 0), Node(depth: 0, byte: 0)]

        /// False where the token is there already.
        mutating func insert(_ token: Slice<UnsafeBufferPointer<UInt8>>, below root: Int, _ id: Int32) -> Bool {
            var node = root
            for byte in token { node = child(of: node, byte) }
            guard nodes[node].id < 0 else { return false }
            nodes[node].id = id
            return true
        }

        private mutating func child(of node: Int, _ byte: UInt8) -> Int {
            var child = nodes[node].firstChild
            while child >= 0 {
                if nodes[Int(child)].byte == byte { return Int(child) }
                child = nodes[Int(child)].sibling
            }
            nodes.append(Node(sibling: nodes[node].firstChild, depth: nodes[node].depth + 1, byte: byte))
            nodes[node].firstChild = Int32(nodes.count - 1)
            return nodes.count - 1
        }

        @inline(__always)
        func forEachChild(of node: Int, _ body: (Int) -> Void) {
            var child = nodes[node].firstChild
            while child >= 0 {
                body(Int(child))
                child = nodes[Int(child)].sibling
            }
        }
    }

    /// Places every node in `units` and returns where.
    private mutating func lay(_ tree: Tree) throws -> ContiguousArray<Int32> {
        // Free positions are a ring; position 0 is in it always and stands for its end. A node without children keeps
        // base 0, whose block 0 ..< 256 holds no child.
        var nextFree: ContiguousArray<Int32> = [0]
        var previousFree: ContiguousArray<Int32> = [0]
        var isBase: ContiguousArray<Bool> = []

        func addBlock() {
            let first = units.count
            units.append(contentsOf: repeatElement(0, count: 256))
            isBase.append(contentsOf: repeatElement(false, count: 256))
            if first == 0 {
                nextFree.append(contentsOf: repeatElement(0, count: 255))
                previousFree.append(contentsOf: repeatElement(0, count: 255))
                return
            }
            for position in first..<first + 256 {
                previousFree.append(position == first ? previousFree[0] : Int32(position - 1))
                nextFree.append(position == first + 255 ? 0 : Int32(position + 1))
            }
            nextFree[Int(previousFree[first])] = Int32(first)
            previousFree[0] = Int32(first + 255)
        }

        var bytes: ContiguousArray<Int> = []
        func fits(_ base: Int) -> Bool {
            !isBase[base] && bytes.allSatisfy { units[base ^ $0] & Self.occupied == 0 }
        }
        // A search that goes through all gaps would take quadratic time: after some, a new block has room.
        func findBase() -> Int {
            var position = Int(nextFree[0])
            for _ in 0..<64 where position > 0 {
                let base = position ^ bytes[0]
                if fits(base) { return base }
                position = Int(nextFree[position])
            }
            addBlock()
            return units.count - 256
        }

        addBlock()
        var positions = ContiguousArray<Int32>(repeating: 0, count: tree.nodes.count)
        positions[0] = Int32(Self.wordRoot)
        positions[1] = Int32(Self.suffixRoot)
        // Parents come before their children in `nodes`.
        for node in tree.nodes.indices where tree.nodes[node].firstChild >= 0 {
            bytes.removeAll(keepingCapacity: true)
            tree.forEachChild(of: node) { bytes.append(Int(tree.nodes[$0].byte)) }
            let base = findBase()
            guard base < 1 << 23 else { throw Fault.tooLarge }
            isBase[base] = true
            units[Int(positions[node])] |= UInt32(base) << 9
            tree.forEachChild(of: node) { child in
                let position = base ^ Int(tree.nodes[child].byte)
                nextFree[Int(previousFree[position])] = nextFree[position]
                previousFree[Int(nextFree[position])] = previousFree[position]
                units[position] = Self.occupied | UInt32(tree.nodes[child].byte)
                positions[child] = Int32(position)
            }
        }
        return positions
    }

    /// Failure links and pops, the shallow nodes first.
    private mutating func link(_ tree: Tree, _ positions: ContiguousArray<Int32>) {
        failures = ContiguousArray(repeating: Failure(), count: units.count)
        var queue: ContiguousArray<Int> = [0, 1]
        var next = 0
        while next < queue.count {
            let parent = queue[next]
            next += 1
            tree.forEachChild(of: parent) { child in
                queue.append(child)
                let node = tree.nodes[child]
                var failure = Failure(firstPiece: Int32(pieces.count))
                if node.id >= 0 {
                    pieces.append(Piece(id: node.id, byteCount: node.depth))
                    failure.link = Int32(Self.suffixRoot)
                } else {
                    // What the parent is cut into, then what its failure link is cut into until that has this byte.
                    var from = Int(positions[parent])
                    repeat {
                        let step = failures[from]
                        from = Int(step.link)
                        if from < 0 { break }
                        for index in 0..<Int(step.pieceCount) { pieces.append(pieces[Int(step.firstPiece) + index]) }
                        failure.link = Int32(self.child(of: from, node.byte))
                    } while failure.link < 0
                    if failure.link < 0 { pieces.removeSubrange(Int(failure.firstPiece)...) }
                }
                failure.pieceCount = Int32(pieces.count) - failure.firstPiece
                failures[Int(positions[child])] = failure
            }
        }
    }

    /// The id of a token as the vocabulary spells it, with its prefix.
    func id(of token: String) -> Int32? {
        var node = Self.wordRoot
        for byte in token.utf8 {
            node = child(of: node, byte)
            if node < 0 { return nil }
        }
        // Pops of other nodes are shorter than the text up to them.
        let failure = failures[node]
        guard failure.link >= 0, failure.pieceCount == 1 else { return nil }
        let piece = pieces[Int(failure.firstPiece)]
        return Int(piece.byteCount) == token.utf8.count ? piece.id : nil
    }

    private func child(of node: Int, _ byte: UInt8) -> Int {
        let position = Int(units[node] >> 9) ^ Int(byte)
        return units[position] & 0x1FF == Self.occupied | UInt32(byte) ? position : -1
    }
}
