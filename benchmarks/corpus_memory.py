"""How much memory it takes to prepare a large corpus, and to read it afterwards.

    python benchmarks/corpus_memory.py data/corpus/textbooks.txt.gz --gigabytes 0.2 3 --tokenizer encoder

For each size a text file of it is written to a temporary folder: the given text over and over, each time with other
words in it, and with one document that is no UTF-8. One process prepares it while this one samples the memory of the
whole process tree; another reads every block, in order and in random order. Both import torch first, as training does.

Peaks are of resident memory, which counts those pages of a memory-mapped file that the process has in use. The system
can take them back at any time, so for reading, anonymous memory, which it cannot take back, is given apart. Linux only:
the figures are those of /proc.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import result_files

from edge_distil.report.tables import markdown

ALTERED = 8  # one word in so many
BAD = b"This document holds a byte that is no UTF-8: \xff.\n\n"
POINTS = 8  # at which memory is looked at while reading


def altered_passes(lines: list[str]) -> Iterator[bytes]:
    """The text again and again. In each pass other words are replaced, by words from elsewhere or by new ones."""
    words = sorted({word for line in lines for word in line.split()})
    for number in range(sys.maxsize):
        draw = random.Random(number)
        for line in lines:
            parts = line.split(" ")
            for place in range(draw.randrange(ALTERED), len(parts), ALTERED):
                word = words[int(draw.random() * len(words))]
                parts[place] = word if place % 5 else word[:3] + parts[place][-4:]
            yield (" ".join(parts) + "\n").encode()
        yield b"\n" + BAD


def write_text(source: Path, target: Path, size: int) -> int:
    """Write `size` bytes or a little more. Gives the number of passes, which is that of the bad documents."""
    opener = gzip.open if source.suffix == ".gz" else open
    with opener(source, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    written = passes = 0
    with target.open("wb") as file:
        for data in altered_passes(lines):
            written += file.write(data)
            passes += data == b"\n" + BAD
            if written >= size:
                return passes
    return passes


def memory(process: psutil.Process) -> dict[str, int]:
    """Resident and anonymous memory of a process and its children, in bytes. A process that has ended counts 0."""
    total = {"resident": 0, "anonymous": 0}
    try:
        for each in [process, *process.children(recursive=True)]:
            fields = dict(line.split(":") for line in Path(f"/proc/{each.pid}/status").read_text().splitlines())
            total["resident"] += int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
            total["anonymous"] += int(fields.get("RssAnon", "0 kB").split()[0]) * 1024
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        pass
    return total


def run(step: str, *arguments: object) -> dict[str, Any]:
    """Run a step of this script as a process of its own, and sample its memory five times a second."""
    command = [sys.executable, __file__, "--step", step, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watched = psutil.Process(child.pid)
    peaks, samples = {"resident": 0, "anonymous": 0}, 0
    while child.poll() is None:
        now = memory(watched)
        peaks = {name: max(peaks[name], now[name]) for name in peaks}
        samples += 1
        time.sleep(0.2)
    assert child.stdout is not None
    said = child.stdout.read()
    if child.returncode:
        raise SystemExit(f"the step {step} failed")
    return {**json.loads(said), "peak_resident_bytes": peaks["resident"], "samples": samples}


def prepare_step(text: str, cache: str, tokenizer: str, length: str, workers: str) -> dict[str, Any]:
    """Prepare, and say what was made."""
    import torch  # noqa: F401 (training has it in memory too)

    from edge_distil import starter
    from edge_distil.corpus.prepare import prepare
    from edge_distil.tokenization import load_tokenizer

    used = load_tokenizer(Path(tokenizer)) if tokenizer else starter.build_tokenizer()
    before = memory(psutil.Process())
    begun = time.monotonic()
    corpus = prepare([text], used, int(length), cache=Path(cache), workers=int(workers))
    seconds = time.monotonic() - begun
    begun = time.monotonic()
    again = prepare([text], used, int(length), cache=Path(cache), workers=int(workers))
    kept = ("documents", "tokens", "blocks", "pieces", "padding")
    return {
        "vocabulary": used.get_vocab_size(),
        "resident_before_bytes": before["resident"],
        "seconds": round(seconds, 1),
        "megabytes_per_second": round(Path(text).stat().st_size / 1e6 / seconds, 2),
        "seconds_when_found_again": round(time.monotonic() - begun, 3),
        **{name: corpus.info[name] for name in kept},
        "left_out": {kind: entry["count"] for kind, entry in corpus.skips.found.items()},
        "bytes_on_disk": sum(corpus.info["files"].values()),
        "folder": str(again.folder),
    }


def read_step(folder: str) -> dict[str, Any]:
    """Read every block in order, then as many in random order, and look at memory on the way."""
    import torch  # noqa: F401

    from edge_distil.corpus.prepare import PreparedCorpus

    me = psutil.Process()
    before = memory(me)
    corpus = PreparedCorpus(Path(folder))
    count = len(corpus)
    points = [{"blocks_read": 0, **memory(me)}]
    begun, tokens, draw = time.monotonic(), 0, random.Random(0)
    for number in range(2 * count):
        block = corpus[number if number < count else int(draw.random() * count)]
        tokens += len(block.input_ids)
        if (number + 1) % max(1, 2 * count // POINTS) == 0:
            points.append({"blocks_read": number + 1, **memory(me)})
    seconds = time.monotonic() - begun
    return {
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds),
        "anonymous_before_opening_bytes": before["anonymous"],
        "anonymous_growth_by_opening_bytes": points[0]["anonymous"] - before["anonymous"],
        "anonymous_growth_while_reading_bytes": points[-1]["anonymous"] - points[0]["anonymous"],
        "points": points,
    }


def measure(source: Path, gigabytes: float, tokenizer: Path | None, length: int, workers: int) -> dict[str, Any]:
    """Everything about one size."""
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.txt"
        passes = write_text(source, text, round(gigabytes * 1e9))
        prepared = run("prepare", text, Path(scratch) / "cache", tokenizer or "", length, workers)
        read = run("read", prepared.pop("folder"))
        return {
            "text_bytes": text.stat().st_size,
            "bad_documents_in_it": passes,
            "block_length": length,
            "workers": workers,
            "prepare": prepared,
            "read": read,
        }


def tables(result: dict[str, Any]) -> str:
    """The document's tables, in Markdown, and what they were measured on."""

    def mb(size: float) -> str:
        return f"{size / 1e6:,.0f}"

    headers = ("text, MB", "million tokens", "blocks", "padding %", "MB/s", "MB at first", "peak, MB")
    headers += ("left out", "on disk, MB")
    prepared = [
        [
            mb(run["text_bytes"]), mb(made["tokens"]), f"{made['blocks']:,}", f"{100 * made['padding']:.3f}",
            f"{made['megabytes_per_second']:.1f}", mb(made["resident_before_bytes"]), mb(made["peak_resident_bytes"]),
            ", ".join(str(count) for count in made["left_out"].values()), mb(made["bytes_on_disk"]),
        ]
        for run in result["runs"]
        for made in [run["prepare"]]
    ]  # fmt: skip
    reading = ("text, MB", "blocks read", "opening adds, MB", "reading adds, MB", "resident at most, MB")
    read = [
        [
            mb(run["text_bytes"]), f"{made['points'][-1]['blocks_read']:,}",
            f"{made['anonymous_growth_by_opening_bytes'] / 1e6:.1f}",
            f"{made['anonymous_growth_while_reading_bytes'] / 1e6:.1f}", mb(made["peak_resident_bytes"]),
        ]
        for run in result["runs"]
        for made in [run["read"]]
    ]  # fmt: skip
    machine, first = result["machine"], result["runs"][0]
    conditions = (
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{first['workers']} worker, blocks of {first['block_length']} tokens, "
        f"a vocabulary of {first['prepare']['vocabulary']:,}, {result['configuration']['text']}; "
        f"tokenizers {result['versions']['tokenizers']}, pyarrow {result['versions']['pyarrow']}."
    )
    titles = ("### Preparing", "### Reading: every block in order, then as many at random")
    written = (markdown(headers, prepared), markdown(reading, read))
    notes = [f"{mb(run['text_bytes'])} MB: {run['note']}.\n" for run in result["runs"] if "note" in run]
    return "\n".join([conditions, "", titles[0], "", written[0], titles[1], "", written[1], *notes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?", help="text to repeat, .txt or .txt.gz")
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.2, 3.0], help="sizes, in units of 10^9 bytes")
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json; default: the starter's")
    parser.add_argument("--block-length", type=int, default=512)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, *arguments = options.step
        print(json.dumps({"prepare": prepare_step, "read": read_step}[step](*arguments)))
        return
    if options.text is None:
        parser.error("give a text to repeat")
    runs: list[dict[str, Any]] = []
    for gigabytes in options.gigabytes:
        runs.append(measure(options.text, gigabytes, options.tokenizer, options.block_length, options.workers))
        result = result_files.write(
            "corpus-memory",
            command=result_files.command_line(),
            configuration={"text": options.text.name},
            seeds=[0],
            runs=runs,
            results={},
            versions={"pyarrow": metadata.version("pyarrow")},
        )
        peak = runs[-1]["prepare"]["peak_resident_bytes"]
        print(f"{gigabytes} GB: prepared with {peak / 1e6:,.0f} MB at most", file=sys.stderr)
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    return {("docs/corpus.md", "tables"): tables(result)}


if __name__ == "__main__":
    main()
