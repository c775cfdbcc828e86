"""The Swift kit's tokeniser beside the Hugging Face one that it equals, on the same text and one thread each.

    python benchmarks/swift_tokenizer.py [--tokenizer encoder/tokenizer.json] [--text data/corpus/textbooks.txt.gz]
        [--megabytes 8] [--rounds 7]

Both encode the text with offsets and without special tokens, in turns, so that a busy machine slows both. The Swift
tokeniser takes it as one string. The Hugging Face one is given the lines, one call each, because its time for one long
string grows faster than the string; the calls into Rust are part of its time. Writes
`benchmarks/results/swift-tokenizer.json`.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import result_files

from edge_distil.report.tables import markdown
from edge_distil.tokenization import load_tokenizer

ROOT = Path(__file__).parent.parent
APP = ROOT / "apps/ios-demo"
# The only folder of the repository that both see wherever Swift runs; git ignores it.
LOCAL = APP / "Local/benchmark"


def read(path: Path, size: int) -> str:
    """About the first `size` bytes of a text file, perhaps compressed, cut at the end of a line."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        start = file.read(size)
    return start[: start.rfind(b"\n") + 1].decode()


def swift_run(seconds: float) -> dict[str, Any]:
    """One process of the benchmark executable, which repeats the text for so many seconds."""
    command = [APP / "swift.sh", "run", "--configuration", "release", "TokenizerBenchmark", "--json"]
    files = ["--tokenizer", "Local/benchmark/tokenizer.json", "--text", "Local/benchmark/text.txt"]
    done = subprocess.run([*command, *files, "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "encoder/tokenizer.json")
    parser.add_argument("--text", type=Path, default=ROOT / "data/corpus/textbooks.txt.gz", help="UTF-8, .gz or not")
    parser.add_argument("--megabytes", type=float, default=8, help="how much of the text")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each tokeniser")
    parser.add_argument("--seconds", type=float, default=2, help="of each turn of the Swift tokeniser")
    arguments = parser.parse_args()

    # The Rust tokeniser reads this before its first text.
    os.environ["RAYON_NUM_THREADS"] = "1"
    text = read(arguments.text, round(arguments.megabytes * 1e6))
    LOCAL.mkdir(parents=True, exist_ok=True)
    (LOCAL / "text.txt").write_text(text, encoding="utf-8", newline="")
    shutil.copyfile(arguments.tokenizer, LOCAL / "tokenizer.json")
    tokenizer = load_tokenizer(LOCAL)
    size, lines = len(text.encode()), text.splitlines()

    swift: list[dict[str, Any]] = []
    hugging_face: list[float] = []
    tokens = 0
    for number in range(arguments.rounds):
        swift.append(swift_run(arguments.seconds))
        start = time.perf_counter()
        tokens = sum(len(tokenizer.encode(line, add_special_tokens=False).ids) for line in lines)
        hugging_face.append(size / (time.perf_counter() - start) / 1e6)
        print(f"round {number + 1}: {swift[-1]['median_mb_per_s']:.1f} and {hugging_face[-1]:.2f} MB/s", flush=True)
        if swift[-1]["tokens"] != tokens:
            raise SystemExit(f"Swift made {swift[-1]['tokens']} tokens, tokenizers {tokens}")

    medians = [turn["median_mb_per_s"] for turn in swift]
    ratios = [ours / theirs for ours, theirs in zip(medians, hugging_face, strict=True)]
    result = result_files.write(
        "swift-tokenizer",
        command=result_files.command_line(),
        configuration={"rounds": arguments.rounds, "seconds": arguments.seconds, "megabytes": arguments.megabytes},
        versions={"swift": swift_version()},
        runs=[
            {"round": number, "swift_mb_per_s": ours, "tokenizers_mb_per_s": theirs}
            for number, (ours, theirs) in enumerate(zip(medians, hugging_face, strict=True), start=1)
        ],
        results={
            "load_average_at_the_end": os.getloadavg(),
            "text": {"file": arguments.text.name, "bytes": size, "tokens": tokens, "sha256": sha256(text)},
            "swift": {
                "median_mb_per_s": statistics.median(medians),
                "best_mb_per_s": max(turn["best_mb_per_s"] for turn in swift),
                "runs": sum(turn["runs"] for turn in swift),
                "median_tokens_per_s": statistics.median(turn["median_tokens_per_s"] for turn in swift),
                "load_median_ms": statistics.median(turn["load_median_ms"] for turn in swift),
                "load_best_ms": min(turn["load_best_ms"] for turn in swift),
            },
            "tokenizers": {"median_mb_per_s": statistics.median(hugging_face), "best_mb_per_s": max(hugging_face)},
            "median_ratio": statistics.median(ratios),
        },
    )
    result_files.write_blocks(blocks(result))


def blocks(result: dict[str, Any]) -> result_files.Blocks:
    """What the document holds of the result file."""
    found = result["results"]
    names = {"swift": "EdgeDistilKit", "tokenizers": f"Hugging Face tokenizers {result['versions']['tokenizers']}"}
    rows = [
        [label, f"{found[name]['median_mb_per_s']:.1f}", f"{found[name]['best_mb_per_s']:.1f}"]
        for name, label in names.items()
    ]
    rows.append(["median of the turns' ratios", f"{found['median_ratio']:.1f}", ""])
    return {("docs/ios.md", "swift-tokenizer"): markdown(("", "median MB/s", "best MB/s"), rows)}


def swift_version() -> str:
    done = subprocess.run([APP / "swift.sh", "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[0]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
