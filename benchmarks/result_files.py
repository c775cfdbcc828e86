"""The one form of every file in `benchmarks/results/`: what was run, on what, and what came out.

`schema.json` beside the files says the same to a validator, and a test holds every file to it. What was not recorded is
null: nothing is filled in afterwards.
"""

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_distil.checkpoints import versions as current_versions
from edge_distil.machine import describe_machine
from edge_distil.report.tables import between_marks

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
FORMAT = 1


def path_of(name: str) -> Path:
    """Where the results of a study stand, such as "train-step"."""
    return RESULTS / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """The results of a study."""
    found: dict[str, Any] = json.loads(path_of(name).read_text(encoding="utf-8"))
    return found


def write(
    study: str,
    *,
    command: str,
    results: Mapping[str, Any],
    configuration: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    runs: Sequence[Mapping[str, Any]] | None = None,
    versions: Mapping[str, str] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Write the results of a study as `name`, by default the study's own, and return what was written.

    `command` is what to type to run it again; `configuration` its options; `seeds` of every random choice; `runs` the
    values of every single run, step or call, each with what tells it apart, None where `results` are those values
    already; `results` the study's own figures, from which its documents are made; `versions` go beside those of
    `edge_distil.checkpoints.versions`. The machine and the commit are those of now: call it where it was measured.
    """
    result = {
        "format": FORMAT,
        "study": study,
        "command": command,
        "configuration": configuration,
        "machine": describe_machine(),
        "versions": {**current_versions(), **(versions or {})},
        "commit": commit(),
        "seeds": seeds,
        "runs": runs,
        "results": results,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path_of(name or study).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    # As it is read back: paths and tuples have become texts and lists.
    return read(name or study)


def runs_folder() -> Path:
    """The only argument of a script that collects runs. Ends the script where it is not there."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(f"usage: python benchmarks/{Path(sys.argv[0]).name} RUNS, the folder of the runs")
    return Path(sys.argv[1])


def settings(runs: Path) -> dict[str, str]:
    """What the script that made the runs was told: see `same_settings.sh`."""
    lines = (runs / "settings.txt").read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines) if value}


def script_command(script: str, runs: Path, **more: Sequence[int]) -> str:
    """What to type to make the runs again: a script of this folder and its variables."""
    given = {**settings(runs), **{name: " ".join(map(str, value)) for name, value in more.items()}}
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in given.items()), f"bash benchmarks/{script}"])


def commit() -> str | None:
    """The commit that is checked out, with a + behind it where files differ from it; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True)
        # A result that is being written anew is no change of the code.
        changed = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs"]
        status = subprocess.run(changed, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def command_line() -> str:
    """What was typed, to be typed again: absolute paths are cut to their names, for they are another machine's."""
    given = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *given])


# What stands between two marks of a document, by the document's path in the repository and the name of the marks.
Blocks = dict[tuple[str, str], str]

# What the text of a document must say, word for word, because a result file says so: fragments by document.
Prose = dict[str, list[str]]


def write_blocks(blocks: Blocks) -> None:
    """Put every block into its document."""
    for (document, name), text in blocks.items():
        between_marks(ROOT / document, name, text)


@dataclass(frozen=True)
class Plot:
    """A picture of `rows`. `draw` takes them, the file to write and metadata that goes into it.

    Fonts and libraries change a picture's bytes, so that it is known by its rows: their digest stands in the PNG.
    """

    rows: list[dict[str, Any]]
    draw: Callable[[list[dict[str, Any]], Path, dict[str, str]], None]

    def __call__(self, path: Path) -> None:
        self.draw(self.rows, path, {"Description": self.digest})

    @property
    def digest(self) -> str:
        """SHA-256 of the rows as JSON."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()


# Pictures by their paths in the repository.
Plots = dict[str, Plot]
