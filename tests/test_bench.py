"""The latency study: exact arithmetic under a clock of our own, and one real run of a tiny model."""

import io
import json
import os
import statistics as standard
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table
from transformers import DistilBertConfig, DistilBertForQuestionAnswering

from edge_distil import machine, starter
from edge_distil.bench import Call, Contender, latency, measure, random_model, report, statistics
from edge_distil.errors import UserError
from edge_distil.report.latency import bench_table, times
from edge_distil.report.tables import markdown, megabytes, table
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks.squad import Question, parse_squad

KEYS = {"model", "runtime", "precision", "tokens", "tokenization", "median_ms", "p90_ms", "ratio", "calls"}
KEYS |= {"random_weights", "p99_ms", "median_interval_ms", "ratio_interval", "times_ms", "warmup", "spread"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    starter.build_tokenizer().save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return parse_squad(starter.questions("test", passages=5), "starter")


class Clock:
    """Time that passes only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeRuntime:
    """Takes the next of `seconds`, over and over, for each call, and notes the call in a log shared with others."""

    name = "fake"
    precision = "fp32"
    outputs = ("start_logits", "end_logits")
    lengths: tuple[int, ...] | None = None
    batch_size: int | None = None

    def __init__(
        self, folder: Path, clock: Clock, seconds: list[float], log: list["FakeRuntime"] | None = None
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.seconds = seconds
        self.shapes: list[tuple[int, ...]] = []
        self.inputs: list[np.ndarray] = []
        self.threads: set[int] = set()
        self.log = log if log is not None else []

    def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
        self.clock.now += self.seconds[len(self.inputs) % len(self.seconds)]
        self.shapes.append(input_ids_BL.shape)
        self.inputs.append(input_ids_BL)
        self.threads.add(torch.get_num_threads())
        self.log.append(self)
        return {name: np.zeros(input_ids_BL.shape, dtype=np.float32) for name in self.outputs}


def test_median_percentile_and_ratio_are_those_worked_out_by_hand(folder: Path, questions: list[Question]) -> None:
    clock = Clock()
    # 1 to 4 ms: median 2.5, 3 + 0.7 * (4 - 3) at the 90th percentile, 3 + 0.97 * (4 - 3) at the 99th.
    slow = FakeRuntime(folder, clock, [0.001, 0.002, 0.003, 0.004])
    fast = FakeRuntime(folder, clock, [0.001, 0.001, 0.001, 0.001])
    contenders = [Contender("slow", slow), Contender("fast", fast, random_weights=True)]
    rows = measure(contenders, questions[:2], threads=1, tokens=64, repeats=2, warmup=0, clock=clock)
    assert [(row["model"], row["tokenization"]) for row in rows] == [
        ("slow", True),
        ("fast", True),
        ("slow", False),
        ("fast", False),
    ]
    for row in rows:
        assert set(row) == KEYS
        assert row["calls"] == 4
        assert row["random_weights"] == (row["model"] == "fast")
    assert [row["median_ms"] for row in rows] == pytest.approx([2.5, 1.0, 2.5, 1.0])
    assert [row["p90_ms"] for row in rows] == pytest.approx([3.7, 1.0, 3.7, 1.0])
    assert [row["p99_ms"] for row in rows] == pytest.approx([3.97, 1.0, 3.97, 1.0])
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 0.4, 1.0, 0.4])
    assert rows[2]["times_ms"] == pytest.approx([1, 2, 3, 4])
    assert rows[0]["ratio_interval"] == [1.0, 1.0]  # to itself, turn by turn
    low, high = rows[2]["median_interval_ms"]
    assert 1 <= low < 2.5 < high <= 4
    low, high = rows[3]["ratio_interval"]
    assert 0.25 <= low < 0.4 < high <= 1


def test_tokenization_adds_the_time_of_the_tokeniser_and_nothing_else(
    folder: Path, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def slow_windows(*arguments: object, **options: object) -> object:
        clock.now += 0.5
        return windows(*arguments, **options)  # type: ignore[arg-type]

    windows = latency.windows
    monkeypatch.setattr(latency, "windows", slow_windows)
    contender = Contender("model", FakeRuntime(folder, clock, [0.25]))
    included, excluded = measure([contender], questions[:3], threads=1, warmup=0, clock=clock)
    assert (included["tokenization"], included["median_ms"]) == (True, pytest.approx(750))
    assert (excluded["tokenization"], excluded["median_ms"]) == (False, pytest.approx(250))


def test_contenders_take_turns_and_the_first_turn_moves_on(folder: Path, questions: list[Question]) -> None:
    clock, log = Clock(), []
    a, b, c = (FakeRuntime(folder, clock, [0.001], log) for _ in "abc")
    done: list[int] = []
    contenders = [Contender(name, runtime) for name, runtime in zip("abc", (a, b, c), strict=True)]
    measure(contenders, questions[:2], threads=1, repeats=2, warmup=0, clock=clock, progress=done.append)
    first_repeat, second_repeat = [a, b, c, b, c, a], [b, c, a, c, a, b]
    assert log == [*first_repeat, *second_repeat]
    assert done == [1] * 12
    # The question changes only after every contender had it.
    assert np.array_equal(a.inputs[0], c.inputs[0])
    assert np.array_equal(a.inputs[0], a.inputs[2])
    assert a.inputs[0].shape != a.inputs[1].shape or not np.array_equal(a.inputs[0], a.inputs[1])


def take(seconds: list[float], **options: int) -> latency.Measured:
    """What is measured of a contender that takes these times, and then the last of them for ever."""
    given = iter(seconds)
    calls: list[int] = []

    def time_call(question: int) -> Call:
        calls.append(question)
        taken = next(given, seconds[-1])
        return Call(8, taken, taken)

    (measured,) = latency.take_turns([time_call], 2, **{"repeats": 1, "warmup": 1, **options})
    assert len(calls) == measured.warmup + len(measured.calls)
    assert calls[:2] == [0, 1]  # every question once before anything else
    assert set(calls[max(2, options.get("warmup", 1)) : measured.warmup]) <= {0}
    return measured


def test_warm_up_lasts_until_two_groups_of_three_calls_agree_within_five_percent() -> None:
    # Two questions, then medians 3.0, 2.0, 1.2, 1.16: the last two are within 5 %.
    slow_start = [9, 9, 3, 3, 8, 2, 2, 1, 1.2, 1.2, 1.2, 1.16, 1.16, 0.1, 1.0]
    settled = take(slow_start)
    assert (settled.warmup, settled.is_steady, settled.first_call) == (14, True, 9)
    assert [call.ids_to_logits for call in settled.calls] == [1.0, 1.0]
    assert take([1.0]).warmup == 2 + 3 + 3
    assert take([1.0], warmup=7).warmup == 7 + 3 + 3


def test_warm_up_that_never_settles_ends_and_is_named() -> None:
    restless = take([2.0**-number for number in range(60)])
    assert (restless.warmup, restless.is_steady) == (2 + 10 * 3, False)


def test_inputs_keep_their_own_length_or_get_the_one_asked_for(folder: Path, questions: list[Question]) -> None:
    own, padded, cut = (FakeRuntime(folder, Clock(), [0.001]) for _ in range(3))
    row = measure([Contender("own", own)], questions[:3], threads=1, repeats=1, warmup=0)[0]
    lengths = [length for _, length in own.shapes]
    assert len(set(lengths)) > 1
    assert row["tokens"] == sorted(lengths)[1]
    assert measure([Contender("padded", padded)], questions[:3], threads=1, tokens=384)[0]["tokens"] == 384
    assert set(padded.shapes) == {(1, 384)}
    assert measure([Contender("cut", cut)], questions[:3], threads=1, tokens=7)[0]["tokens"] == 7
    assert set(cut.shapes) == {(1, 7)}
    # Cut to the first window: it begins as the whole input does.
    assert list(cut.inputs[0][0, :4]) == list(own.inputs[0][0, :4])


@pytest.mark.parametrize(
    ("lengths", "tokens", "taken"),
    [((128,), 128, "128"), ((16, 120, 384), 120, "16, 120, 384"), (tuple(range(16, 121)), None, "16 to 120")],
)
def test_least_length_that_holds_the_question_is_taken_and_another_one_refused(
    folder: Path, questions: list[Question], lengths: tuple[int, ...], tokens: int | None, taken: str
) -> None:
    runtime = FakeRuntime(folder, Clock(), [0.001])
    own = measure([Contender("model", runtime)], questions[:1], threads=1)[0]["tokens"]
    assert 16 < own < 120
    runtime.lengths = lengths
    assert measure([Contender("model", runtime)], questions[:1], threads=1)[0]["tokens"] == (tokens or own)
    with pytest.raises(UserError, match=f"takes inputs of {taken} tokens, not 400"):
        measure([Contender("model", runtime)], questions[:2], threads=1, tokens=400)


def test_too_few_tokens_or_repeats_are_refused_before_any_call(folder: Path, questions: list[Question]) -> None:
    runtime = FakeRuntime(folder, Clock(), [0.001])
    for options in ({"tokens": 6}, {"max_length": 6}, {"repeats": 0}):
        with pytest.raises(UserError):
            measure([Contender("model", runtime)], questions[:2], threads=1, **options)  # type: ignore[arg-type]
    assert runtime.shapes == []


def test_torch_threads_are_set_while_measuring_and_put_back(folder: Path, questions: list[Question]) -> None:
    before = torch.get_num_threads()
    runtime = FakeRuntime(folder, Clock(), [0.001])
    measure([Contender("model", runtime)], questions[:1], threads=before + 1)
    assert runtime.threads == {before + 1}
    assert torch.get_num_threads() == before


def test_report_warns_of_a_busy_machine_by_calls_of_one_length(folder: Path, questions: list[Question]) -> None:
    clock = Clock()
    noisy, steady = FakeRuntime(folder, clock, [0.1, 0.1, 0.2]), FakeRuntime(folder, clock, [0.1])
    contenders = [Contender("noisy", noisy), Contender("steady", steady)]
    rows = measure(contenders, questions[:2], threads=1, tokens=64, warmup=0, repeats=3, clock=clock)
    (warning,) = report(rows, threads=1, questions=2, tokens=64)["warnings"]
    assert warning.startswith("noisy (fake fp32): one call in ten took 2.00 times the median")


def test_spread_is_of_calls_of_one_length_each_against_its_own_median() -> None:
    # Long inputs take ten times as long, which is no noise.
    assert statistics.spread([1, 1, 1, 10, 10, 10], [5, 5, 5, 50, 50, 50]) == 1
    # Medians 1 and 10: the relative times are 1, 1, 2, 1, 1, 1.5; nine tenths of the way lie half between 1.5 and 2.
    assert statistics.spread([1, 1, 2, 10, 10, 15], [5, 5, 5, 50, 50, 50]) == pytest.approx(1.75)
    assert statistics.spread([1, 2, 1, 2], [5, 5, 6, 6]) is None


def test_bootstrap_draws_turns_of_one_length_and_questions_of_several() -> None:
    assert statistics.units(4, 2, one_length=True).tolist() == [[0], [1], [2], [3]]
    assert statistics.units(6, 3, one_length=False).tolist() == [[0, 3], [1, 4], [2, 5]]
    # Two questions of 1 and 3 s, drawn whole: medians are 1, 2 or 3, a quarter, a half and a quarter of the time.
    medians_D = statistics.resampled_medians([1, 3, 1, 3], statistics.units(4, 2, one_length=False))
    shares = [float((medians_D == value).mean()) for value in (1, 2, 3)]
    assert set(medians_D) == {1, 2, 3}
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.04)


def test_paired_ratio_is_narrower_than_either_median() -> None:
    # What slows a turn down hits both: the ratio is 2 however the machine's mood changes.
    chance = np.random.default_rng(1)
    mood = chance.uniform(1, 3, size=40)
    units_UK = statistics.units(40, 8, one_length=True)
    one, two = (statistics.resampled_medians(factor * mood, units_UK) for factor in (1, 2))
    assert statistics.interval(two / one, units_UK) == pytest.approx([2, 2])
    low, high = statistics.interval(one, units_UK) or (0, 0)
    assert low < standard.median(mood) < high
    assert high / low > 1.1


def test_three_units_have_no_interval(folder: Path, questions: list[Question]) -> None:
    contender = Contender("model", FakeRuntime(folder, Clock(), [0.1]))
    contender.runtime.clock = clock = Clock()  # type: ignore[attr-defined]
    for count, has_interval in ((3, False), (4, True)):
        options = {"threads": 1, "tokens": 32, "repeats": 1, "warmup": 0, "clock": clock}
        row = measure([contender], questions[:count], **options)[0]  # type: ignore[arg-type]
        assert (row["ratio_interval"] is not None) == has_interval


def test_device_is_waited_for_before_the_clock_starts_and_before_it_stops(
    folder: Path, questions: list[Question]
) -> None:
    clock, waited = Clock(), []

    class Device(FakeRuntime):
        def __call__(self, input_ids_BL: np.ndarray, attention_mask_BL: np.ndarray) -> dict[str, np.ndarray]:
            waited.append("called")  # returns at once, and the device works on
            return super().__call__(input_ids_BL, attention_mask_BL)

    def synchronize() -> None:
        clock.now += 0.25
        waited.append("waited")

    time_call = latency.timer(
        "m", Device(folder, clock, [0.0]), questions[:1], 32, clock=clock, synchronize=synchronize
    )
    call = time_call(0)
    assert waited == ["waited", "called", "waited"]
    assert (call.text_to_logits, call.ids_to_logits) == (0.25, 0.25)


def test_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        sample = chance.exponential(size=40)
        units_UK = statistics.units(40, 8, one_length=True)
        low, high = statistics.interval(statistics.resampled_medians(sample, units_UK), units_UK) or (0, 0)
        hits += low <= np.log(2) <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_tiny_torch_model_gives_the_shape_that_scripts_rely_on(folder: Path, questions: list[Question]) -> None:
    tokenizer_size = starter.build_tokenizer().get_vocab_size()
    config = DistilBertConfig(vocab_size=tokenizer_size, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    runtime = TorchRuntime(DistilBertForQuestionAnswering(config), folder)
    rows = measure([Contender("tiny", runtime, random_weights=True)], questions[:3], threads=1, tokens=128, repeats=2)
    document = json.loads(json.dumps(report(rows, threads=1, questions=3, tokens=128)))
    assert set(document) == {"machine", "versions", "threads", "questions", "tokens", "results", "warnings"}
    included, excluded = document["results"]
    assert (included["runtime"], included["precision"], included["tokens"]) == ("torch", "fp32", 128)
    assert 0 < excluded["median_ms"] < included["median_ms"]
    assert included["median_ms"] <= included["p90_ms"]
    assert document["versions"]["torch"]


@pytest.mark.parametrize(("shape", "parameters"), [("bert-base", 108_893_186), ("distilbert", 66_364_418)])
def test_random_models_have_the_published_sizes(shape: str, parameters: int) -> None:
    with torch.device("meta"):
        model = random_model(shape)  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.config.vocab_size == 30_522


def test_random_model_is_the_seeds_alone_and_leaves_the_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny() -> DistilBertConfig:
        return DistilBertConfig(vocab_size=11, dim=8, n_layers=1, n_heads=1, hidden_dim=8)

    monkeypatch.setattr("transformers.DistilBertConfig", tiny)
    state = torch.get_rng_state()
    one, same, other = (random_model("distilbert", seed=seed).qa_outputs.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_machine_is_described() -> None:
    described = machine.describe_machine()
    assert json.loads(json.dumps(described)) == described
    assert 1 <= described["cores"] <= (os.cpu_count() or 1)
    assert described["memory_bytes"] > 2**28
    assert described["processor"]


def test_machine_reads_the_first_core_and_keeps_what_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Xeon: 6\nflags\t\t: fpu amx_int8 avx2\n\nprocessor\t: 1\n")
    described = machine.describe_machine()
    assert (described["processor"], described["instruction_sets"]) == ("Xeon: 6", ["avx2", "amx_int8"])
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd i8mm\n\n")
    assert machine.describe_machine()["instruction_sets"] == ["asimd", "i8mm"]
    cpuinfo.unlink()
    assert machine.describe_machine()["instruction_sets"] == []


def shown(made: Table) -> str:
    """What a terminal of 80 columns shows."""
    console = Console(width=80, file=io.StringIO())
    with console.capture() as captured:
        console.print(made)
    return captured.get()


def row(**changes: object) -> dict[str, object]:
    made = {"model": "BERT-base", "runtime": "onnxruntime", "precision": "fp32", "tokens": 384, "tokenization": True}
    made |= {"median_ms": 266.04, "p90_ms": 270.06, "ratio": 1.0, "calls": 15, "random_weights": True}
    return {**made, **changes}


def document(*rows: dict[str, object]) -> dict[str, object]:
    machine = {"processor": "Xeon [v6]", "system": "Linux 6"}
    return {"machine": machine, "threads": 2, "warnings": ["busy"], "results": list(rows), "versions": {"torch": "2"}}


def test_table_has_the_columns_that_its_rows_have() -> None:
    older = document(row(), row(model="DistilBERT", tokenization=False, random_weights=False))
    assert times(older) == (
        ["Model", "Runtime", "Precision", "Tokens", "Input", "Median ms", "p90 ms", "Ratio"],
        [
            ["BERT-base*", "onnxruntime", "fp32", "384", "text", "266.0", "270.1", "1.00"],
            ["DistilBERT", "onnxruntime", "fp32", "384", "ids", "266.0", "270.1", "1.00"],
        ],
    )
    headers, cells = times(document(row(calls=100, p99_ms=280.0, ratio_interval=[0.98, 1.021], device="cuda")))
    assert [*headers[-4:], headers[2]] == ["p90 ms", "p99 ms", "Ratio", "95 %", "Device"]
    assert cells[0][-1] == "0.98–1.02"
    printed = shown(bench_table(older))
    for text in ("BERT-base*", "266.0", "Xeon [v6], Linux 6; threads: 2", "busy", "* random weights"):
        assert text in printed


def test_title_says_what_was_timed() -> None:
    assert "Latency of one question" in shown(bench_table(document(row())))
    assert "Latency of one input" in shown(bench_table({**document(row()), "input": "input"}))


def test_names_are_whole_in_a_narrow_terminal_and_where_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    from edge_distil.report.tables import show

    name = "qa-student-distilled-" + "x" * 90
    narrow = shown(bench_table(document(row(model="distilled-twice-over", runtime="torch.compile", p99_ms=1.0))))
    assert "distilled-twice-over" in narrow
    assert "torch.compile" in narrow
    show(bench_table(document(row(model=name))))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if name in line]
    assert "1.00" in line


def test_markdown_aligns_numbers_and_escapes_bars() -> None:
    text = markdown(("Model", "Size"), [("a|b\nc", "1,234.5"), ("d", "-7")])
    assert text == "| Model | Size |\n| --- | ---: |\n| a\\|b c | 1,234.5 |\n| d | -7 |\n"


def test_terminal_table_shows_square_brackets_as_they_are() -> None:
    assert "[CLS]" in shown(table("Tokens", ("Token", "Id"), [("[CLS]", "2")]))


def test_megabytes_are_millions_of_bytes() -> None:
    assert megabytes(66_400_000) == "66.4 MB"
    assert megabytes(2**20) == "1.0 MB"
