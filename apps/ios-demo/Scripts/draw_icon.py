"""Draws the app's icon, 1024 x 1024 without transparency: lines of a text, a part of one of them marked.

python apps/ios-demo/Scripts/draw_icon.py
"""

import struct
import zlib
from pathlib import Path

ICON = Path(__file__).parents[1] / "App/EdgeDistilDemo/Assets.xcassets/AppIcon.appiconset/icon.png"
SIDE = 1024
INK, PAPER, MARK = (25, 90, 135), (245, 247, 250), (255, 224, 102)
# Left, top, right, bottom, colour; later ones lie over earlier ones.
BARS = [
    (192, 256, 832, 328, PAPER),
    (192, 400, 832, 472, PAPER),
    (352, 384, 704, 488, MARK),
    (192, 544, 832, 616, PAPER),
    (192, 688, 576, 760, PAPER),
]


def draw() -> bytes:
    """The icon as a PNG of 8-bit RGB."""
    rows = [[INK] * SIDE for _ in range(SIDE)]
    for left, top, right, bottom, colour in BARS:
        for row in rows[top:bottom]:
            row[left:right] = [colour] * (right - left)
    # Each row is led by its filter, 0 for none.
    pixels = b"".join(b"\0" + bytes(channel for pixel in row for channel in pixel) for row in rows)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


if __name__ == "__main__":
    ICON.write_bytes(draw())
