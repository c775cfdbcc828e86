"""A prepared corpus as it lies on disk, and reading it.

A folder, in a cache, named after all that it follows from:

    blocks.arrow      the blocks, a table that is memory-mapped when it is read; `datasets` reads it too
    counts.npy        how often each token of the vocabulary occurs
    prepared.json     what it holds, and what was left out
"""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from edge_distil.checkpoints import read_json
from edge_distil.corpus.packing import Block
from edge_distil.corpus.text import Skips
from edge_distil.errors import UserError

# Pages that were read count as the process's own resident memory until the system wants them, which on a machine with
# room is never. So they are let go of after so many blocks; the system keeps them in its file cache.
_LET_GO_AFTER = 512

FORMAT = 1  # raise it when the same text would be read, cut or packed otherwise


def read_info(folder: Path) -> dict[str, Any] | None:
    """What `prepared.json` says, if the folder is there, whole and of this version's format."""
    try:
        info = read_json(folder / "prepared.json")
    except (UserError, OSError):
        return None
    whole = info.get("format") == FORMAT and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in info["files"].items()
    )
    return info if whole else None


class PreparedCorpus:
    """Blocks on disk, by number, read through a memory map: what was read does not stay in memory.

    It can be pickled for the workers of a data loader, which map the same file. `length` is the tokens L of a block;
    `token_counts` int64 [V] counts the tokens of the text, special tokens left aside; `info` is `prepared.json`.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder that `prepare` made. Raises `UserError` when it is not there, or not whole."""
        info = read_info(folder)
        if info is None:
            raise UserError(f"{folder}: is not a prepared corpus", "prepare the text again")
        self.folder = folder
        self.info: dict[str, Any] = info
        self.length: int = info["length"]
        self.token_counts: np.ndarray = np.load(folder / "counts.npy")
        with (folder / "blocks.arrow").open("rb") as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # The arrays point into the mapped file. Every write but the last has the same number of rows.
        batches = list(pa.ipc.open_stream(pa.py_buffer(self._file)))
        columns = [(batch.column("input_ids"), batch.column("lengths")) for batch in batches]
        self._ids = [ids.values.to_numpy().reshape(-1, self.length) for ids, _ in columns]
        self._offsets = [lengths.offsets.to_numpy() for _, lengths in columns]
        self._lengths = [lengths.values.to_numpy() for _, lengths in columns]
        self._rows = len(self._ids[0])
        self._reads = 0

    def __len__(self) -> int:
        return self.info["blocks"]

    def __getitem__(self, index: int) -> Block:
        """Block `index`: `input_ids` int32 [L] and the `lengths` int32 [P] of its pieces, copies both."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        self._reads += 1
        if self._reads % _LET_GO_AFTER == 0 and hasattr(self._file, "madvise"):
            self._file.madvise(mmap.MADV_DONTNEED)
        batch, row = divmod(index % len(self), self._rows)
        begin, end = self._offsets[batch][row : row + 2]
        return Block(self._ids[batch][row].astype(np.int32), self._lengths[batch][begin:end].copy())

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedCorpus, (self.folder,)

    @property
    def skips(self) -> Skips:
        """What was left out of the corpus when it was prepared."""
        return Skips(self.info["skips"])
