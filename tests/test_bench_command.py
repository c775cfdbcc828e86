"""`edge-distil bench` as a command: processes, what a folder can be run in, files out, results in, comparisons."""

import copy
import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import bert_config, randomize, run_command
from transformers import BertForSequenceClassification, PreTrainedModel

from edge_distil.bench import processes, results, setups
from edge_distil.bench.results import compare, read_results
from edge_distil.bench.setups import Setup, setups_of
from edge_distil.errors import UserError
from edge_distil.report import latency
from edge_distil.tasks.squad import Question
from exporters.encoder import PlainEncoder
from exporters.onnx import plan_for, write_graph

SHORT = ("--questions", 2, "--repeats", 3, "--warmup", 1, "--threads", 1)


def with_graphs(model: PreTrainedModel, folder: Path, *precisions: str) -> Path:
    for precision in precisions:
        write_graph(PlainEncoder.from_library(model, 3), folder, plan_for(precision, "x86"))  # type: ignore[arg-type]
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def graphs(save: Callable[[PreTrainedModel], Path], tokenizer: Any) -> Path:
    """A question answerer in ONNX, fp32 and int8."""
    from transformers import BertForQuestionAnswering

    model = randomize(BertForQuestionAnswering(bert_config(vocab_size=tokenizer.get_vocab_size())))
    return with_graphs(model, save(model), "fp32", "int8")


@pytest.fixture(scope="module")
def measured(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The JSON of one run over the two graphs, and the folder that it wrote."""
    output = tmp_path_factory.mktemp("bench") / "out"
    ended = run_command("bench", graphs, *SHORT, "--tokens", 64, "--output", output, "--json")
    assert ended.status == 0, ended.err
    return json.loads(ended.out), output


def test_json_has_what_scripts_rely_on_and_the_costs_of_each_contender(
    measured: tuple[dict[str, Any], Path], graphs: Path
) -> None:
    report, _ = measured
    assert {"machine", "versions", "threads", "questions", "tokens", "results", "warnings"} <= report.keys()
    assert [(row["precision"], row["tokenization"]) for row in report["results"]] == [
        ("int8", True),
        ("fp32", True),
        ("int8", False),
        ("fp32", False),
    ]
    for row in report["results"]:
        assert (row["model"], row["runtime"], row["tokens"], row["calls"]) == (graphs.name, "onnxruntime", 64, 6)
        assert len(row["times_ms"]) == 6
        assert 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["load_ms"] > 1
        assert row["first_call_ms"] > 0
        assert row["warmup"] >= 8
        assert not row["random_weights"]
    int8, fp32 = report["results"][2:]
    sizes = {name: (graphs / "onnx" / name).stat().st_size for name in ("model.onnx", "model_quantized.onnx")}
    assert (int8["bytes"], fp32["bytes"]) == (sizes["model_quantized.onnx"], sizes["model.onnx"])
    # Onnxruntime and numpy take some 60 MB; torch, which must not be among them, would take over 200.
    assert 30e6 < int8["peak_bytes"] < 190e6
    assert report["seed"] == 0
    assert report["cpus"] is None or len(report["cpus"]) == 1


def test_folder_holds_results_table_page_and_chart(measured: tuple[dict[str, Any], Path]) -> None:
    report, output = measured
    names = {"results.json", "results.csv", "README.md", "chart.png", "command.yaml", "edge_distil.json"}
    assert {path.name for path in output.iterdir()} == names
    assert json.loads((output / "results.json").read_text()) == report
    with (output / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["median_ms"]) for row in rows] == [row["median_ms"] for row in report["results"]]
    assert rows[0]["tokenization"] == "true"
    assert float(rows[1]["ratio_low"]) == report["results"][1]["ratio_interval"][0]
    page = (output / "README.md").read_text()
    for text in ("edge-distil bench", "chart.png", f"{report['results'][3]['median_ms']:.1f}", "1 threads", "torch 2"):
        assert text in page
    assert (output / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_output_that_is_there_is_refused_before_anything_is_measured(
    measured: tuple[dict[str, Any], Path], graphs: Path
) -> None:
    _, output = measured
    assert "already holds an earlier result" in run_command("bench", graphs, "--output", output).error


def test_folder_of_results_is_no_model(measured: tuple[dict[str, Any], Path]) -> None:
    _, output = measured
    assert "holds no model" in run_command("bench", output).error
    assert run_command("evaluate", output).error == f"{output}: is a bench folder of edge-distil, no model"


def test_against_itself_nothing_changed(measured: tuple[dict[str, Any], Path]) -> None:
    report, output = measured
    against = compare(report, read_results(output))
    assert (against["differences"], against["unmatched"], against["source"]) == ([], [], str(output))
    assert [change["change"] for change in against["changes"]] == [1, 1, 1, 1]
    assert {change["verdict"] for change in against["changes"]} == {"no clear change"}


def test_against_says_what_is_slower_and_what_else_is_not_the_same(measured: tuple[dict[str, Any], Path]) -> None:
    earlier, _ = measured
    now = copy.deepcopy(earlier)
    now["machine"]["processor"], now["threads"] = "Abacus", 7
    for row in now["results"]:
        factor = 1000 if row["precision"] == "fp32" else 1 / 1000  # beyond any noise of six calls
        row["times_ms"] = [factor * each for each in row["times_ms"]]
        row["median_ms"] *= factor
    now["results"][0]["model"] = "other"
    against = compare(now, earlier)
    assert against["differences"] == [
        f"machine: processor {earlier['machine']['processor']} → Abacus",
        f"threads {earlier['threads']} → 7",
    ]
    assert len(against["unmatched"]) == 2
    fp32, int8, fp32_ids = against["changes"]
    assert [fp32["verdict"], int8["verdict"], fp32_ids["verdict"]] == ["slower", "faster", "slower"]
    assert [fp32["change"], int8["change"]] == pytest.approx([1000, 1 / 1000])
    low, high = fp32["interval"]
    assert 1 < low <= 1000 <= high


def test_comparison_stands_below_the_table_and_in_the_page(
    measured: tuple[dict[str, Any], Path], graphs: Path, tmp_path: Path
) -> None:
    earlier, _ = measured
    slowed = copy.deepcopy(earlier)
    for row in slowed["results"]:
        row["times_ms"] = [each / 1000 for each in row["times_ms"]]
        row["median_ms"] /= 1000
        row["p90_ms"] /= 1000
    path, output = tmp_path / "earlier.json", tmp_path / "out"
    path.write_text(json.dumps(slowed))
    ended = run_command("bench", graphs, *SHORT, "--tokens", 64, "--against", path, "--output", output)
    assert ended.status == 0, ended.err  # slower is said, and is no error
    assert f"Against {path}\n" in ended.out
    assert f"## Against {path}\n" in (output / "README.md").read_text()
    assert sum(line.rstrip().endswith("slower") for line in ended.out.splitlines()) == 4
    assert (output / "README.md").read_text().count("| slower |") == 4


def test_earlier_results_without_single_calls_have_no_verdict(measured: tuple[dict[str, Any], Path]) -> None:
    now, _ = measured
    earlier = copy.deepcopy(now)
    for row in earlier["results"]:
        del row["times_ms"]
    assert {(change["interval"], change["verdict"]) for change in compare(now, earlier)["changes"]} == {(None, None)}


def test_text_classifier_is_timed_and_called_no_question(
    save: Callable[[PreTrainedModel], Path], tokenizer: Any
) -> None:
    model = randomize(BertForSequenceClassification(bert_config(vocab_size=tokenizer.get_vocab_size())))
    ended = run_command("bench", with_graphs(model, save(model), "fp32"), *SHORT, "--tokens", 32)
    assert ended.status == 0, ended.err
    assert "Latency of one input" in ended.out
    assert "question," not in ended.out


def test_tokens_are_by_default_what_every_model_takes(graphs: Path, bert_qa: Path) -> None:
    class Opened:
        def __init__(self, folder: Path, lengths: list[int] | None) -> None:
            self.setup = Setup("model", str(folder), "mil", "fp16", 1)
            self.opened = {"lengths": lengths}

    def length(*all_lengths: list[int] | None) -> int:
        return processes._length([Opened(bert_qa, lengths) for lengths in all_lengths])  # type: ignore[misc]

    assert length(None) == 384
    assert length([64, 128], None) == 128
    assert length([64, 128], [64, 256]) == 64
    assert length([400, 512]) == 400
    with pytest.raises(UserError, match="no length in common"):
        length([64], [128])


def test_checkpoint_is_run_by_torch_plain_and_compiled_and_exports_by_their_own(bert_qa: Path, graphs: Path) -> None:
    def found(folder: Path, **options: Any) -> list[tuple[str, str | None]]:
        return [(setup.runtime, setup.precision) for setup in setups_of(folder, **options)]

    by_default = [("torch", "fp32"), ("torch", "bf16"), ("torch.compile", "fp32")]
    assert found(bert_qa) == by_default
    assert found(bert_qa, device="cuda") == by_default
    compiled = [("torch.compile", "fp32"), ("torch.compile", "bf16")]
    assert found(bert_qa, runtimes=["torch.compile"]) == compiled
    assert found(bert_qa, runtimes=["torch"], precisions=["fp32"]) == [("torch", "fp32")]
    assert found(graphs) == [("onnxruntime", "int8"), ("onnxruntime", "fp32")]
    (setup,) = setups_of(bert_qa, name="BERT", runtimes=["torch"], precisions=["fp32"])
    assert (setup.model, setup.bytes) == ("BERT", (bert_qa / "model.safetensors").stat().st_size)
    with pytest.raises(UserError, match="nothing in it runs as openvino"):
        setups_of(graphs, runtimes=["openvino"])
    with pytest.raises(UserError, match="nothing in it runs as on cuda"):
        setups_of(graphs, device="cuda")


def test_what_cannot_be_opened_is_left_out_and_named(graphs: Path, tmp_path: Path) -> None:
    questions = [Question("1", "Who?", "Mary wrote it in 1818.", ())]
    good, bad = (Setup("model", str(graphs), "onnxruntime", precision, 1) for precision in ("int8", "fp16"))
    options: dict[str, Any] = {"threads": 1, "scratch": tmp_path, "tokens": 16, "repeats": 1, "warmup": 0}
    found = processes.measure_apart([good, bad], questions, **options)
    assert [row["precision"] for row in found["results"]] == ["int8", "int8"]
    (left_out,) = found["left_out"]
    assert (left_out["precision"], "holds no fp16 graph" in left_out["reason"]) == ("fp16", True)
    with pytest.raises(UserError, match="holds no fp16 graph"):
        processes.measure_apart([good, bad], questions, strict=True, **options)


def test_process_that_dies_is_an_error_with_its_last_words(graphs: Path, tmp_path: Path) -> None:
    worker = processes.Worker(
        Setup("model", str(graphs), "onnxruntime", "int8", 1), threads=1, cpus=[], scratch=tmp_path
    )
    worker.prepare([Question("1", "Who?", "Mary.", ())], 16)
    with pytest.raises(UserError, match=r"model \(onnxruntime int8\): its process ended with status 1: .*IndexError"):
        worker(5)
    worker.kill()


def test_short_memory_is_refused_before_a_model_is_opened(graphs: Path) -> None:
    with pytest.raises(UserError, match="GB of memory are free"):
        processes._check_memory(Setup("model", str(graphs), "onnxruntime", "int8", 10**15))


@pytest.mark.parametrize(
    ("device", "lacking"), [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
)
def test_device_that_the_machine_lacks_is_refused(device: str, lacking: bool) -> None:
    if lacking:
        pytest.skip(f"this machine has {device}")
    assert f"--device {device}: this machine has none" in run_command("bench", "--device", device).error


def test_core_ml_is_refused_off_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setups.sys, "platform", "linux")
    assert "Core ML runs on macOS alone" in run_command("bench", "--device", "coreml").error


# The app's study, as the kit's encoder writes it.
STUDY = Path(__file__).parent.parent / "apps/ios-demo/Tests/EdgeDistilKitTests/Golden/study.json"


def study() -> dict[str, Any]:
    row = {
        "model": "qa", "runtime": "coreml", "precision": "fp16", "compute_units": "all", "tokens": 384,
        "tokenization": True, "median_ms": 12.0, "p90_ms": 14.1, "ratio": 1.0, "calls": 4, "random_weights": False,
        "thermal_state": "nominal", "times_ms": [11.0, 12.0, 12.0, 15.0],
    }  # fmt: skip
    slow = {"compute_units": "cpu_only", "median_ms": 24.0, "p90_ms": 28.2, "ratio": 2.0}
    machine = {"system": "iOS 17.5", "architecture": "arm64", "processor": "iPhone15,2", "cores": 6}
    return {
        "machine": {**machine, "memory_bytes": 6 * 10**9, "instruction_sets": [], "gpu": None},
        "versions": {"edge-distil-kit": "0.1.0"},
        "threads": None,
        "questions": 2,
        "tokens": 384,
        "results": [row, {**row, **slow, "times_ms": [22.0, 24.0, 24.0, 30.0]}],
        "warnings": ["the device was hot"],
    }


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    def write(document: Any) -> Path:
        path = tmp_path / "study.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write


def test_study_of_the_app_stands_in_the_same_table_with_its_machine(
    written: Callable[[Any], Path], graphs: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ended = run_command(
        "bench", graphs, *SHORT, "--tokens", 32, "--import", written(study()), "--output", output, "--precision", "int8"
    )
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert sum(line.split()[:1] == ["A"] and "onnxruntime" in line for line in lines) == 3  # two inputs, one cost
    (all_units,) = [line for line in lines if line.split()[:4] == ["B", "qa", "coreml", "all"]]
    assert "nominal" in all_units
    (cpu,) = [line for line in lines if line.split()[:4] == ["B", "qa", "coreml", "CPU"]]
    assert "2.00  2.00–2.00" in cpu  # within its machine, turn by turn
    assert "B: iPhone15,2, iOS 17.5; threads: the runtime's choice" in ended.out
    assert "the device was hot" in ended.out
    report = json.loads((output / "results.json").read_text())
    assert [row["runtime"] for row in report["results"]] == ["onnxruntime"] * 2
    (imported,) = report["imported"]
    # 12 + 0.97 * 3 between the third and the fourth of four calls, at 2.97 of 3 steps.
    assert imported["results"][0]["p99_ms"] == pytest.approx(12 + 0.97 * 3)
    with (output / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["processor"] for row in rows[2:]] == ["iPhone15,2"] * 2
    assert rows[2]["thermal_state"] == "nominal"


def test_imported_results_alone_need_no_measurement(written: Callable[[Any], Path]) -> None:
    ended = run_command("bench", "--no-measure", "--import", written(study()))
    assert ended.status == 0, ended.err
    assert "iPhone15,2" in ended.out
    assert "--no-measure shows what --import gives" in run_command("bench", "--no-measure").error


@pytest.mark.skipif(not STUDY.is_file(), reason="the kit's golden file is not here")
def test_golden_study_of_the_kit_is_read() -> None:
    found = read_results(STUDY)
    assert all(row["runtime"] == "coreml" for row in found["results"])
    assert all(math.isfinite(row["p99_ms"]) for row in found["results"] if "times_ms" in row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("machine"), "machine is missing, expected an object"),
        (lambda d: d["machine"].pop("processor"), "machine.processor is missing, expected a text"),
        (lambda d: d["versions"].update(kit=3), "versions.kit is 3, expected a text"),
        (lambda d: d.update(questions=0), "questions is 0, expected a whole number of 1 or more"),
        (lambda d: d.pop("threads"), "threads is missing, expected a whole number of 1 or more or null"),
        (lambda d: d.update(results=[]), r"results is \[\], expected a list of one row or more"),
        (lambda d: d["results"].append(7), r"results\[2\] is no object"),
        (lambda d: d["results"][1].update(median_ms=-1), r"results\[1\].median_ms is -1, expected a number above 0"),
        (lambda d: d["results"][1].update(median_ms=True), r"results\[1\].median_ms is True"),
        (lambda d: d["results"][0].update(p90_ms=float("nan")), r"results\[0\].p90_ms is nan"),
        (lambda d: d["results"][0].update(tokenization=1), r"results\[0\].tokenization is 1, expected true or false"),
        (lambda d: d["results"][0].update(times_ms=[1.0]), r"times_ms is \[1.0\], expected 4 numbers above 0"),
        (
            lambda d: d["results"][0].update(median_ms=12.5),
            "median_ms is 12.5, expected 12, the median of its times_ms",
        ),
        (
            lambda d: d["results"][1].update(p90_ms=30.0),
            r"results\[1\].p90_ms is 30.0, expected 28.2, the 90th percentile of its times_ms",
        ),
        (
            lambda d: d["results"][1].update(ratio=77),
            r"results\[1\].ratio is 77, expected 2, its median over the first one's",
        ),
        (lambda d: d["results"][0].update(ratio_interval="x"), r"ratio_interval is 'x', expected two numbers above 0"),
        (
            lambda d: d["results"][0].update(median_interval_ms=[1]),
            r"median_interval_ms is \[1\], expected two numbers",
        ),
        (lambda d: d["results"][0].update(peak_bytes="many"), r"results\[0\].peak_bytes is 'many', expected a number"),
        (lambda d: d["results"][0].update(warmup="x"), r"results\[0\].warmup is 'x', expected a whole number"),
        (lambda d: d["results"][0].update(runtime="wrong"), r"results\[0\].runtime is 'wrong', expected one of: torch"),
        (
            lambda d: d["results"].append(d["results"][1]),
            r"results\[2\] is of the same contender as results\[1\]: qa coreml fp16 cpu_only 384 tokens",
        ),
        (lambda d: d.update(imported={}), r"imported is {}, expected a list of results"),
        (lambda d: d.update(imported=[{}]), r"imported\[0\].machine is missing"),
        (lambda d: d["results"][0].pop("model"), r"results\[0\].model is missing, expected a text"),
        (lambda d: d.update(warnings="hot"), "warnings is 'hot', expected a list of texts"),
    ],
)
def test_malformed_results_are_refused_by_field(
    written: Callable[[Any], Path], change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    document = study()
    change(document)
    with pytest.raises(UserError, match=message) as refused:
        read_results(written(document))
    assert "study.json" in refused.value.message


def test_results_that_are_no_object_are_refused(written: Callable[[Any], Path]) -> None:
    with pytest.raises(UserError, match="it is no object"):
        read_results(written([1]))
    assert results.RESULTS == "results.json"


def test_folders_of_one_name_are_told_apart_by_their_paths(
    graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/qa", "b/qa", "c/other"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).symlink_to(graphs)  # the target has one name
    assert setups.labelled([Path("x/a/qa"), Path("x/b/qa"), Path("y/other")]) == {
        "a/qa": Path("x/a/qa"),
        "b/qa": Path("x/b/qa"),
        "other": Path("y/other"),
    }
    assert list(setups.labelled([Path("/qa"), Path("/x/qa"), Path("/y/x/qa")])) == ["/qa", "/x/qa", "y/x/qa"]
    assert "is given twice" in run_command("bench", tmp_path / "a/qa", tmp_path / "b/qa").error

    for name in ("a/qa", "b/qa"):
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        (tmp_path / name / "onnx").symlink_to(graphs / "onnx")
        for file in ("config.json", "tokenizer.json"):
            (tmp_path / name / file).symlink_to(graphs / file)
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out"
    ended = run_command(
        "bench", "a/qa", "b/qa", *SHORT, "--tokens", 32, "--precision", "int8", "--output", output, "--json"
    )
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    assert [row["model"] for row in report["results"]] == ["a/qa", "b/qa"] * 2
    assert len(compare(report, read_results(output))["changes"]) == 4


def test_file_is_no_model_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("#")
    assert run_command("bench", tmp_path / "README.md").error.endswith("README.md: is a file, no model folder")


def test_imported_results_are_read_again_from_the_folder_that_they_were_written_to(
    written: Callable[[Any], Path], measured: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    phone, both = tmp_path / "phone", tmp_path / "both"
    path = written(study())
    assert run_command("bench", "--no-measure", "--import", path, "--output", phone).status == 0
    again = run_command("bench", "--no-measure", "--import", phone, "--against", phone, "--json")
    assert again.status == 0, again.err
    report = json.loads(again.out)
    (imported,) = report["imported"]
    assert [row["median_ms"] for row in imported["results"]] == [12.0, 24.0]
    assert [change["change"] for change in report["against"]["changes"]] == [1, 1]
    assert report["against"]["source"] == str(phone)

    # What is measured, what is imported, and that read again: one machine each.
    options = ("--no-measure", "--import", measured[1], "--import", phone)
    assert run_command("bench", *options, "--output", both).status == 0
    runtimes = [[row["runtime"] for row in each["results"]] for each in results.read_reports(both)]
    assert runtimes == [["onnxruntime"] * 4, ["coreml"] * 2]
    assert "holds 2 imported results" in run_command("bench", "--no-measure", "--import", path, "--against", both).error
    assert "--import gives 2" in run_command("bench", *options, "--against", path).error


def test_measured_results_are_those_compared_with_though_others_stand_beside_them(
    measured: tuple[dict[str, Any], Path], written: Callable[[Any], Path]
) -> None:
    path = written({**measured[0], "imported": [study()]})
    assert [row["runtime"] for row in read_results(path)["results"]] == ["onnxruntime"] * 4
    assert [each.keys() & {"imported", "against"} for each in results.read_reports(path)] == [set(), set()]


@pytest.mark.parametrize("option", ["--import", "--against"])
def test_output_that_is_also_read_is_refused(
    measured: tuple[dict[str, Any], Path], copy_of: Callable[[Path], Path], option: str
) -> None:
    output = copy_of(measured[1])
    before = (output / "results.json").read_bytes()
    reads = ["--import", measured[1], option, output / "results.json"]
    for read in (output, output / "results.json"):
        reads[-1] = read
        ended = run_command("bench", "--no-measure", *reads, "--output", output, "--overwrite")
        assert "is read from there, and would be lost" in ended.error
    assert (output / "results.json").read_bytes() == before


def test_numbers_that_would_fail_after_measuring_are_refused_before(graphs: Path) -> None:
    for seed in (-1, 2**32):
        for command in ("bench", "finetune"):
            assert "Invalid value for '--seed'" in run_command(command, "--seed", seed).error
    cores = processes.cpus_for(10**6)
    ended = run_command("bench", graphs, "--threads", 100000)
    assert ended.error.startswith("--threads 100000: is more than there are cores, ")
    assert not cores or ended.error.endswith(f", {len(cores)}")


def test_inputs_without_room_are_refused_before_anything_is_opened(graphs: Path) -> None:
    ended = run_command("bench", graphs, "--tokens", 5)
    assert ended.error == "--tokens 5: inputs have no room for a question and a context"
    assert "opening" not in ended.err


def test_results_that_are_imported_twice_are_shown_once(written: Callable[[Any], Path], tmp_path: Path) -> None:
    file = written(study())
    again = tmp_path / "again.json"
    again.write_bytes(file.read_bytes())
    ended = run_command("bench", "--no-measure", "--import", file, "--import", again, "--json")
    assert [report["source"] for report in json.loads(ended.out)["imported"]] == [str(file)]


def _workers(scratch: Path) -> list[int]:
    """The processes that have a file open in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            targets = [str(file.readlink()) for file in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(target.startswith(str(scratch)) for target in targets):
            found.append(int(process.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("until", ["opening", "warming up"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_measurement_leaves_no_process_and_no_folder(
    graphs: Path, tmp_path: Path, until: str, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "edge_distil", "bench", graphs, "--repeats", 10**6, "--threads", 1]
    running = subprocess.Popen(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert running.stderr
    while not (line := running.stderr.readline()).startswith(until):
        assert line, "it ended by itself"
    while not _workers(tmp_path):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    scratch = "edge-distil-bench-*"  # libraries leave files of their own beside it
    while list(tmp_path.glob(scratch)) and running.poll() is None:  # again and again, as impatient people do
        running.send_signal(number)
        time.sleep(0.005)
    _, said = running.communicate(timeout=30)
    assert running.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert "Traceback" not in said
    assert list(tmp_path.glob(scratch)) == []
    assert _workers(tmp_path) == []


def with_mil(document: dict[str, Any]) -> dict[str, Any]:
    document["results"][0]["runtime"] = "mil"
    return document


def test_operation_by_operation_is_said_to_be_no_phone_wherever_its_times_are(
    written: Callable[[Any], Path], tmp_path: Path, drawn: list[Any]
) -> None:
    for document, count in ((study(), 0), (with_mil(study()), 1)):
        output = tmp_path / f"out{count}"
        ended = run_command("bench", "--no-measure", "--import", written(document), "--output", output)
        assert ended.status == 0, ended.err
        page = (output / "README.md").read_text()
        (axes,) = drawn.pop().axes
        for text in (ended.out, page, axes.get_title(loc="left")):
            assert text.count("says nothing of a phone's time") == count


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are written."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    savefig = Figure.savefig

    def kept(figure: Any, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def test_legend_of_the_chart_hides_no_bar(
    measured: tuple[dict[str, Any], Path], tmp_path: Path, drawn: list[Any]
) -> None:
    latency.plot(measured[0], tmp_path / "chart.png")
    (figure,) = drawn
    (axes,) = figure.axes
    (legend,) = [*figure.legends, *filter(None, [axes.get_legend()])]
    box, frame = legend.get_window_extent(), figure.bbox
    assert not box.overlaps(axes.get_tightbbox())
    assert frame.y0 <= box.y0
    assert box.y1 <= frame.y1
    assert [text.get_text() for text in legend.get_texts()] == ["with tokenisation", "the runtime alone"]


def test_options_of_a_run_can_be_given_back_as_config(
    measured: tuple[dict[str, Any], Path], graphs: Path, tmp_path: Path
) -> None:
    _, first = measured
    saved = yaml.safe_load((first / "command.yaml").read_text())
    assert saved["models"] == [str(graphs)]
    assert (saved["tokens"], saved["repeats"], saved["output"]) == (64, 3, str(first))
    assert saved == json.loads((first / "edge_distil.json").read_text())["config"]
    again = run_command("bench", "--config", first / "command.yaml", "--output", tmp_path / "again", "--json")
    assert again.status == 0, again.err
    keys = ("model", "precision", "tokens", "calls")
    rows = ([[row[key] for key in keys] for row in each["results"]] for each in (json.loads(again.out), measured[0]))
    assert next(rows) == next(rows)
    assert yaml.safe_load((tmp_path / "again/command.yaml").read_text()) == saved | {"output": str(tmp_path / "again")}


def test_one_value_stands_for_a_list_of_one_in_a_config(graphs: Path, tmp_path: Path) -> None:
    config = tmp_path / "bench.yaml"
    config.write_text(f"models: {graphs}\nprecision: int8\nthreads: 1\nquestions: 1\nrepeats: 1\ntokens: 32\n")
    ended = run_command("bench", "--config", config, "--json")
    assert ended.status == 0, ended.err
    assert [row["precision"] for row in json.loads(ended.out)["results"]] == ["int8"] * 2


@pytest.mark.parametrize("line", ["no-measure: true", "no_measure: true", "measure: false"])
def test_switch_is_turned_off_by_either_of_its_names_in_a_config(
    written: Callable[[Any], Path], tmp_path: Path, line: str
) -> None:
    config = tmp_path / "bench.yaml"
    config.write_text(f"{line}\nimport: {written(study())}\n")
    ended = run_command("bench", "--config", config, "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    assert (report["results"], len(report["imported"])) == ([], 1)


def test_runs_with_nothing_in_common_are_said_to_be_so(
    written: Callable[[Any], Path], measured: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    options = ("--import", written(study()), "--against", measured[1], "--output", output)
    ended = run_command("bench", "--no-measure", *options)
    assert ended.status == 0, ended.err
    for text in (ended.out, (output / "README.md").read_text()):
        assert f"Against {measured[1]}\n" in text
        assert "nothing to compare: no contender is in both runs" in text
        assert "The interval holds the noise" not in text


def test_p99_is_shown_of_a_hundred_calls_and_more() -> None:
    document = study()
    for calls, is_shown in ((99, False), (100, True)):
        for row in document["results"]:
            row.update(calls=calls, p99_ms=17.0)
        headers, cells = latency.times(document)
        assert ("p99 ms" in headers) == is_shown
        assert ("17.0" in cells[0]) == is_shown


def test_one_contender_is_warmed_up_in_the_singular(graphs: Path) -> None:
    one = run_command("bench", graphs, *SHORT, "--tokens", 32, "--precision", "int8", "--json")
    assert "warming up 1 contender\n" in one.err
