"""Results of other machines and other days: read back, checked field by field, and held against new ones."""

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from edge_distil.bench import statistics
from edge_distil.bench.setups import RUNTIMES
from edge_distil.checkpoints import read_json
from edge_distil.errors import UserError

RESULTS = "results.json"
# What tells contenders apart. `device` and `compute_units` are not in every file.
_KEYS = ("model", "runtime", "precision", "device", "compute_units", "tokens", "tokenization")

# What is in the rows of some machines and null or missing elsewhere.
_MEASURED = ("p99_ms", "load_ms", "first_call_ms", "peak_bytes", "device_peak_bytes", "bytes", "spread")


def read_reports(*paths: Path) -> list[dict[str, Any]]:
    """The reports in files, of `edge-distil bench --json` or of the app's study, or in folders that `--output` wrote.

    Of each, what was measured there comes first, if anything was, then what was imported: a report for each machine,
    and once where several files have the same one. Where rows have `times_ms` but not `p99_ms`, `median_interval_ms` or
    `ratio_interval`, these are worked out from them. Raises `UserError` that names the file and the field where
    something is missing or is not what it should be.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        measured, imported = _read(path)
        for report in (*measured, *imported):
            if not any(each | {"source": None} == report | {"source": None} for each in found):
                found.append(report)
    return found


def read_results(path: Path) -> dict[str, Any]:
    """The one report in a file or folder that is compared with: what was measured, or else the only imported one.

    Raises `UserError` as `read_reports` does, and where nothing was measured and several are imported.
    """
    measured, imported = _read(path)
    if not measured and len(imported) > 1:
        raise UserError(
            f"{path}: holds {len(imported)} imported results, and --against takes one",
            "give the file that one of them was imported from",
        )
    return (measured or imported)[0]


def check_not_read(output: Path, *inputs: Path | None) -> None:
    """Refuse an output folder that is also read, or that a file which is read lies in. Raises `UserError`."""
    target = output.resolve()
    for path in inputs:
        if path is not None and target in (path.resolve(), *path.resolve().parents):
            raise UserError(f"--output {output}: {path} is read from there, and would be lost", "give another --output")


def _read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What was measured, one report at most, and what was imported."""
    file = path / RESULTS if path.is_dir() else path
    document = _Checked(file, "", read_json(file))
    imported = document.imported()
    measured = [] if imported and document.is_empty() else [document]
    return (
        [_completed(each.report(), str(path)) for each in measured],
        [_completed(each.report(), str(path)) for each in imported],
    )


def _completed(document: dict[str, Any], source: str) -> dict[str, Any]:
    first: dict[bool, dict[str, Any]] = {}
    for row in document["results"]:
        base = first.setdefault(row["tokenization"], row)
        if times := row.get("times_ms"):
            units_UK = _units(document, row)
            medians_D = statistics.resampled_medians(times, units_UK)
            row.setdefault("p99_ms", statistics.percentile(times, 99))
            row.setdefault("median_interval_ms", statistics.interval(medians_D, units_UK))
            if len(base.get("times_ms", ())) == len(times):
                base_D = statistics.resampled_medians(base["times_ms"], units_UK)
                row.setdefault("ratio_interval", statistics.interval(medians_D / base_D, units_UK))
    # What stands beside it in its file is no part of it.
    return {name: value for name, value in document.items() if name not in ("imported", "against")} | {"source": source}


def _units(document: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
    return statistics.units(len(row["times_ms"]), document["questions"], document["tokens"] is not None)


class _Checked:
    """A value of a file whose fields are looked at one by one; `place` is where in the file it stands."""

    def __init__(self, file: Path, place: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise UserError(f"{file}: {place or 'it'} is no object", self._hint)
        self._file, self._place, self._value = file, place, value

    _hint = "give the JSON of edge-distil bench, or the one that the app's study shares"

    def _refuse(self, name: str, expected: str) -> None:
        where = self._within(name)
        found = f"is {repr(self._value[name])[:40]}" if name in self._value else "is missing"
        raise UserError(f"{self._file}: {where} {found}, expected {expected}", self._hint)

    def _within(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def text(self, *names: str) -> None:
        for name in names:
            if not isinstance(self._value.get(name), str) or not self._value[name]:
                self._refuse(name, "a text")

    def flag(self, *names: str) -> None:
        for name in names:
            if not isinstance(self._value.get(name), bool):
                self._refuse(name, "true or false")

    def count(self, *names: str, or_null: bool = False) -> None:
        for name in names:
            value = self._value.get(name)
            if or_null and value is None and name in self._value:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                self._refuse(name, "a whole number of 1 or more" + (" or null" if or_null else ""))

    def positive(self, *names: str) -> None:
        for name in names:
            if not _is_positive(self._value.get(name)):
                self._refuse(name, "a number above 0")

    def object(self, name: str) -> "_Checked":
        if not isinstance(self._value.get(name), dict):
            self._refuse(name, "an object")
        return _Checked(self._file, self._within(name), self._value[name])

    def imported(self) -> "list[_Checked]":
        """The reports of other machines that it holds."""
        reports = self._value.get("imported", [])
        if not isinstance(reports, list):
            self._refuse("imported", "a list of results")
        return [_Checked(self._file, self._within(f"imported[{index}]"), each) for index, each in enumerate(reports)]

    def is_empty(self) -> bool:
        """Whether nothing was measured: the results of `--no-measure`."""
        return bool(self._value.get("results") == [])

    def report(self) -> dict[str, Any]:
        """All that is read of one report, those that it imports aside."""
        self.object("machine").text("system", "processor")
        versions = self.object("versions")
        versions.text(*versions._value)
        self.count("threads", "tokens", or_null=True)
        self.count("questions")
        if not isinstance(self._value.get("warnings"), list) or not all(
            isinstance(line, str) for line in self._value["warnings"]
        ):
            self._refuse("warnings", "a list of texts")
        if not isinstance(self._value.get("results"), list) or not self._value["results"]:
            self._refuse("results", "a list of one row or more")
        seen: dict[tuple[Any, ...], int] = {}
        bases: dict[bool, float] = {}
        for index, row in enumerate(self._value["results"]):
            place = self._within(f"results[{index}]")
            checked = _Checked(self._file, place, row)
            checked.row()
            base = bases.setdefault(row["tokenization"], row["median_ms"])
            checked.follows("ratio", row["median_ms"] / base, "its median over the first one's")
            if (first := seen.setdefault(_key(row), index)) != index:
                raise UserError(
                    f"{self._file}: {place} is of the same contender as results[{first}]: {_named(_key(row))}",
                    "give each model a name of its own, and measure again",
                )
        return self._value

    def row(self) -> None:
        """One contender."""
        self.text("model", "runtime", "precision")
        if self._value["runtime"] not in RUNTIMES:
            self._refuse("runtime", f"one of: {', '.join(RUNTIMES)}")
        self.text(*(name for name in ("compute_units", "device", "thermal_state") if name in self._value))
        self.flag("tokenization", "random_weights")
        self.count("tokens", "calls")
        self.positive("median_ms", "p90_ms", "ratio")
        self.positive(*(name for name in _MEASURED if self._value.get(name) is not None))
        if self._value.get("warmup"):
            self.count("warmup")
        for name in ("median_interval_ms", "ratio_interval"):
            ends = self._value.get(name)
            if ends is not None and not (isinstance(ends, list) and len(ends) == 2 and all(map(_is_positive, ends))):
                self._refuse(name, "two numbers above 0, or null")
        times = self._value.get("times_ms")
        if times is None:
            return
        if not isinstance(times, list) or len(times) != self._value["calls"] or not all(map(_is_positive, times)):
            self._refuse("times_ms", f"{self._value['calls']} numbers above 0, one for each of its calls")
        self.follows("median_ms", median(times), "the median of its times_ms")
        self.follows("p90_ms", statistics.percentile(times, 90), "the 90th percentile of its times_ms")

    def follows(self, name: str, value: float, what: str) -> None:
        """Refuse a figure that is not what the others make of it."""
        if not math.isclose(value, self._value[name], rel_tol=1e-6):
            self._refuse(name, f"{value:.6g}, {what}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def compare(new: Mapping[str, Any], earlier: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """New results against earlier ones, contender by contender.

    Returns `source`, `differences` (lines on what else changed: the machine, versions, threads, …), `unmatched` (lines
    on contenders that one of the two lacks) and `changes`: what tells the contender apart, `earlier_ms`, `median_ms`,
    `change` (the new median over the earlier one), its 95 % `interval` and a `verdict`: "faster" or "slower" where the
    interval has no 1 in it, "no clear change" where it has; None for both where there
    are no times of single calls, or too few.

    The runs were not made in turns, so that the calls of each are drawn by themselves: the interval holds the noise
    within the two runs, not what the machine was like on either day.
    """
    before, after = ({_key(row): row for row in each["results"]} for each in (earlier, new))
    changes = []
    for key in after.keys() & before.keys():
        interval = None
        if after[key].get("times_ms") and before[key].get("times_ms"):
            both = [
                (row["times_ms"], _units(document, row))
                for document, row in ((new, after[key]), (earlier, before[key]))
            ]
            drawn = [
                statistics.resampled_medians(times, units_UK, seed=seed + offset)
                for offset, (times, units_UK) in enumerate(both)
            ]
            interval = statistics.interval(drawn[0] / drawn[1], min((units_UK for _, units_UK in both), key=len))
        changes.append(
            {
                **dict(zip(_KEYS, key, strict=True)),
                "earlier_ms": before[key]["median_ms"],
                "median_ms": after[key]["median_ms"],
                "change": after[key]["median_ms"] / before[key]["median_ms"],
                "interval": interval,
                "verdict": None if interval is None else _verdict(*interval),
            }
        )
    order = list(after)
    changes.sort(key=lambda change: order.index(tuple(change[name] for name in _KEYS)))
    return {
        "source": earlier.get("source"),
        "differences": _differences(new, earlier),
        "unmatched": [
            *(f"only now: {_named(key)}" for key in after if key not in before),
            *(f"only in the earlier run: {_named(key)}" for key in before if key not in after),
        ],
        "changes": changes,
    }


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name, "cpu" if name == "device" else None) for name in _KEYS)


def _named(key: tuple[Any, ...]) -> str:
    model, runtime, precision, device, units, tokens, tokenization = key
    where = units or (device if device != "cpu" else "")
    parts = (model, runtime, precision, where, f"{tokens} tokens,", "from text" if tokenization else "from ids")
    return " ".join(filter(None, parts))


def _verdict(low: float, high: float) -> str:
    return "faster" if high < 1 else "slower" if low > 1 else "no clear change"


def _differences(new: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, kind in (("machine", "machine: "), ("versions", "")):
        for field in sorted(new[name].keys() | earlier[name].keys()):
            now, before = new[name].get(field), earlier[name].get(field)
            if now != before:
                lines.append(f"{kind}{field} {_shown(before)} → {_shown(now)}")
    for name in ("threads", "cpus", "questions", "repeats", "data", "seed"):
        if name in new and name in earlier and new[name] != earlier[name]:
            lines.append(f"{name} {_shown(earlier[name])} → {_shown(new[name])}")
    return lines


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
