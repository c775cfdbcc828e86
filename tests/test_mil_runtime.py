"""Exported packages through the interpreter: what the checkpoint says, at every length, in every command."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import bert_config, randomize, run_command
from mil_programs import ct
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
)

from edge_distil.errors import UserError
from edge_distil.models import task_of
from edge_distil.qa import QuestionAnswerer
from edge_distil.quiet import quiet
from edge_distil.runtimes import open_runtime
from edge_distil.runtimes.mil import PACKAGES, MilRuntime, read_program, stored_precision
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.starter import teacher_folder
from edge_distil.tasks.classification import predict_texts
from edge_distil.tokenization import load_tokenizer, pad, special_tokens
from exporters import export
from exporters.encoder import PlainEncoder

LENGTH = 64


def distilbert_config(**overrides) -> DistilBertConfig:
    sizes = {"vocab_size": 2000, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    return DistilBertConfig(**sizes | {"max_position_embeddings": 96} | overrides)


MODELS = {
    "BERT that answers": lambda v: BertForQuestionAnswering(bert_config(vocab_size=v)),
    "student that answers": lambda v: DistilBertForQuestionAnswering(distilbert_config(vocab_size=v)),
    "BERT that fills in words": lambda v: BertForMaskedLM(bert_config(vocab_size=v, num_hidden_layers=2)),
    "student that classifies": lambda v: DistilBertForSequenceClassification(
        distilbert_config(vocab_size=v, num_labels=3)
    ),
}


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    expected = expected.astype(np.float64)
    return 10 * float(np.log10(np.square(expected).sum() / np.square(expected - found).sum()))


def texts(folder: Path, questions) -> tuple[np.ndarray, np.ndarray]:
    """Four pairs of a question and its context, cut to different lengths, padded to `LENGTH`."""
    special = special_tokens(tokenizer := load_tokenizer(folder))
    asked = [tokenizer.encode(each.question, each.context, add_special_tokens=False) for each in questions[:4]]
    ids = [[special.cls, *each.ids[: 12 * n], special.sep] for n, each in enumerate(asked, start=2)]
    return pad(ids, special.pad, (LENGTH,))


def convert(plain: PlainEncoder, path: Path, shape, precision=ct.precision.FLOAT32, **options) -> None:
    """A package as the exporter does not write it yet."""
    with quiet(), torch.no_grad():
        example = (torch.zeros((1, LENGTH), dtype=torch.int32), torch.ones((1, LENGTH), dtype=torch.int32))
        ct.convert(
            torch.jit.trace(plain, example),
            convert_to="mlprogram",
            inputs=[ct.TensorType(name, shape, np.int32) for name in ("input_ids", "attention_mask")],
            outputs=[ct.TensorType(name, dtype=np.float32) for name in plain.output_names],
            compute_precision=precision,
            skip_model_load=True,
            **options,
        ).save(str(path))


@pytest.fixture(scope="module", params=MODELS)
def exported(request, save, tokenizer, questions, tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint, and the folder of its export."""
    checkpoint = save(randomize(MODELS[request.param](tokenizer.get_vocab_size())))
    output = tmp_path_factory.mktemp("mil") / "coreml"
    export(checkpoint, output, format="coreml", questions=questions[:4], max_length=LENGTH)
    return checkpoint, output


def plain_of(checkpoint: Path) -> PlainEncoder:
    model = TorchRuntime.load(checkpoint, task=task_of(checkpoint)).model
    return PlainEncoder.from_library(model, special_tokens(load_tokenizer(checkpoint)).sep)


def test_package_says_what_its_checkpoint_says(exported, questions):
    """At 40 dB and more in fp16, and nearer where nothing but the weights is in it."""
    checkpoint, output = exported
    ids_BL, mask_BL = texts(checkpoint, questions)
    expected = TorchRuntime.load(checkpoint, task=task_of(checkpoint))(ids_BL, mask_BL)
    halves, whole = (MilRuntime(output, rounding=rounding)(ids_BL, mask_BL) for rounding in ("fp16", "fp32"))
    for name, right in expected.items():
        real = mask_BL == 1 if right.shape[:2] == mask_BL.shape else slice(None)
        assert halves[name].shape == right.shape
        assert 40 <= decibels(right[real], halves[name][real]) < decibels(right[real], whole[name][real])
        assert 50 <= decibels(right[real], whole[name][real]) < 100


def test_package_of_fp32_equals_its_checkpoint(exported, questions, tmp_path):
    checkpoint, output = exported
    folder = tmp_path / "folder"
    shutil.copytree(output, folder)
    plain = plain_of(checkpoint)
    convert(plain, folder / "model_fp32.mlpackage", (1, LENGTH))
    ids_BL, mask_BL = texts(checkpoint, questions)
    runtime = MilRuntime(folder, precision="fp32")
    found = runtime(ids_BL, mask_BL)
    with torch.no_grad():
        expected = plain(torch.from_numpy(ids_BL), torch.from_numpy(mask_BL))
    for name, right in zip(runtime.outputs, expected, strict=True):
        real = mask_BL == 1 if right.shape[:2] == mask_BL.shape else slice(None)
        np.testing.assert_allclose(found[name][real], right.numpy()[real], atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def answerer(save, tokenizer, questions, tmp_path_factory) -> tuple[Path, Path]:
    """The starter's teacher, which answers questions, and its export."""
    output = tmp_path_factory.mktemp("answerer") / "coreml"
    checkpoint = teacher_folder("question-answering")
    export(checkpoint, output, format="coreml", questions=questions[:4], max_length=192)
    return checkpoint, output


@pytest.mark.parametrize(
    ("shape", "lengths"),
    [
        (ct.EnumeratedShapes([[1, 32], [1, LENGTH], [1, 96]], default=[1, LENGTH]), (32, LENGTH, 96)),
        (ct.Shape([1, ct.RangeDim(16, 96, default=LENGTH)]), tuple(range(16, 97))),
    ],
)
def test_flexible_package_runs_each_text_at_the_least_length_that_holds_it(shape, lengths, save, questions, tokenizer):
    checkpoint = save(randomize(MODELS["BERT that answers"](tokenizer.get_vocab_size())))
    path, target = checkpoint / "model_fp32.mlpackage", ct.target.iOS18  # earlier ones list lengths for one input alone
    convert(plain_of(checkpoint), path, shape, minimum_deployment_target=target)
    runtime = MilRuntime(checkpoint)
    assert (runtime.lengths, runtime.precision) == (lengths, "fp32")
    seen = set()

    class Watched:
        def __getattr__(self, name):
            return getattr(runtime, name)

        def __call__(self, ids_BL, mask_BL):
            seen.add(ids_BL.shape)
            return runtime(ids_BL, mask_BL)

    found = QuestionAnswerer(Watched(), max_length=80).ask_all(questions[:3])  # type: ignore[arg-type]
    # Windows fill the length that holds 80: 96 where lengths are listed.
    expected = QuestionAnswerer(
        TorchRuntime.load(checkpoint, task="question-answering"), max_length=96 if len(lengths) == 3 else 80
    )
    for key, answers in expected.ask_all(questions[:3]).items():
        assert found[key][0].score == pytest.approx(answers[0].score, abs=1e-3)
    assert len(seen) > 1
    assert {length for _, length in seen} <= set(lengths)
    assert {batch for batch, _ in seen} == {1}
    with pytest.raises(UserError, match="an input has 97 tokens, the model takes at most 96"):
        predict_texts(runtime, [[5] * 97])


def test_batch_is_run_row_by_row(answerer, questions):
    runtime = MilRuntime(answerer[1])
    ids_BL, mask_BL = pad([[2, 30, 40, 3], [2, 50, 3]], 0, runtime.lengths)
    together = runtime(ids_BL, mask_BL)["start_logits"]
    for row in range(2):
        alone = runtime(ids_BL[row : row + 1], mask_BL[row : row + 1])["start_logits"]
        assert np.array_equal(together[row : row + 1], alone)


def test_packages_of_a_folder_are_told_by_name_and_others_by_their_weights(answerer, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(answerer[1], folder, ignore=shutil.ignore_patterns("edge_distil.json"))
    assert (MilRuntime(folder).precision, MilRuntime(folder, precision="fp16").lengths) == ("fp16", (192,))
    with pytest.raises(UserError, match=r"holds no int8 package \(it has: fp16\)"):
        open_runtime(folder, precision="int8")
    (folder / "model.mlpackage").rename(folder / "Answerer.mlpackage")
    assert open_runtime(folder, name="mil").precision == "fp16"
    shutil.copytree(folder / "Answerer.mlpackage", folder / "Other.mlpackage")
    with pytest.raises(UserError, match=r"holds no Core ML package \(it has: Answerer\.mlpackage, Other\.mlpackage\)"):
        open_runtime(folder, name="mil")


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
@pytest.mark.parametrize(
    ("precision", "bits"), [("palette4", 4), ("palette6", 6), ("palette8", 8), ("int8", "int8"), ("int4", "int4")]
)
def test_compressed_package_runs_and_its_precision_is_told_by_how_it_is_stored(
    precision, bits, target, save, tokenizer, questions, tmp_path
):
    import coremltools.optimize.coreml as cto

    if precision == "int4" and target is ct.target.iOS16:
        pytest.skip("weights of four bits came with iOS 18")
    config = distilbert_config(vocab_size=tokenizer.get_vocab_size(), dim=64, n_layers=1, hidden_dim=128)
    checkpoint = save(randomize(DistilBertForQuestionAnswering(config)))
    convert(
        plain_of(checkpoint),
        checkpoint / "half.mlpackage",
        (1, LENGTH),
        ct.precision.FLOAT16,
        minimum_deployment_target=target,
    )
    half = MilRuntime(checkpoint)
    assert half.precision == "fp16"
    with quiet():
        package = ct.models.MLModel(str(checkpoint / "half.mlpackage"), skip_model_load=True)
        if isinstance(bits, int):
            scheme = cto.OpPalettizerConfig(mode="kmeans" if bits < 8 else "uniform", nbits=bits, weight_threshold=0)
            package = cto.palettize_weights(package, cto.OptimizationConfig(scheme))
        else:
            granularity = {"granularity": "per_block", "block_size": 32} if bits == "int4" else {}
            scheme = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=bits, weight_threshold=0, **granularity)
            package = cto.linear_quantize_weights(package, cto.OptimizationConfig(scheme))
    name = PACKAGES[precision]
    package.save(str(checkpoint / name))
    assert stored_precision(read_program(checkpoint / name)) == precision
    runtime = MilRuntime(checkpoint, precision=precision)
    ids_BL, mask_BL = texts(checkpoint, questions)
    start = {each.precision: each(ids_BL, mask_BL)["start_logits"][mask_BL == 1] for each in (half, runtime)}
    least = {"palette4": 5, "int4": 5, "palette6": 15, "palette8": 25, "int8": 25}[precision]
    assert least < decibels(start["fp16"], start[precision]) < 60


def test_observer_names_the_operation_that_overflows_first(save, tokenizer, questions, tmp_path):
    model = randomize(MODELS["student that answers"](tokenizer.get_vocab_size()))
    with torch.no_grad():
        model.distilbert.transformer.layer[1].ffn.lin1.bias[:] = 65000.0
        model.distilbert.transformer.layer[1].ffn.lin2.weight[:] = 1.0
    checkpoint = save(model)
    convert(plain_of(checkpoint), checkpoint / "model.mlpackage", (1, LENGTH), ct.precision.FLOAT16)
    ids_BL, mask_BL = texts(checkpoint, questions)
    # The sixth product of the second layer, the last of the feed-forward part: 64 times 65000 is more than 65504.
    for rounding, expected in (("fp16", [("linear", "linear_11_cast_fp16")]), ("fp32", [])):
        first: list[tuple[str, str]] = []

        def watch(operation, name, value, first=first):
            if value.is_floating_point() and not torch.isfinite(value).all() and not first:
                first.append((operation.type, name))

        MilRuntime(checkpoint, rounding=rounding)(ids_BL[:1], mask_BL[:1], watch)
        assert first == expected


def test_package_of_other_inputs_or_batches_is_refused(save, tokenizer):
    checkpoint = save(randomize(MODELS["student that answers"](tokenizer.get_vocab_size())))
    convert(plain_of(checkpoint), checkpoint / "model.mlpackage", (2, LENGTH))
    with pytest.raises(UserError, match="takes no single text"):
        MilRuntime(checkpoint)


def test_runtime_is_chosen_by_name_and_a_wrong_name_refused(answerer):
    checkpoint, output = answerer
    assert open_runtime(output, name="mil").name == "mil"
    for folder, name in ((checkpoint, "mil"), (output, "onnxruntime")):
        with pytest.raises(UserError, match=f"{name} does not run this"):
            open_runtime(folder, name=name)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there on macOS")
def test_core_ml_itself_is_refused_off_macos_and_is_not_the_default(answerer):
    assert open_runtime(answerer[1]).name == "mil"
    with pytest.raises(UserError, match="Core ML runs on macOS alone") as refusal:
        open_runtime(answerer[1], name="coreml")
    assert "mil" in refusal.value.hint


@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML runs on macOS alone")
def test_core_ml_and_the_interpreter_say_the_same(exported, questions):
    checkpoint, output = exported
    ids_BL, mask_BL = texts(checkpoint, questions)
    device, here = open_runtime(output), open_runtime(output, name="mil")
    assert device.name == "coreml"
    assert (device.lengths, device.outputs, device.precision) == (here.lengths, here.outputs, here.precision)
    found, expected = device(ids_BL, mask_BL), here(ids_BL, mask_BL)
    for name in here.outputs:
        real = mask_BL == 1 if expected[name].shape[:2] == mask_BL.shape else slice(None)
        assert decibels(expected[name][real], found[name][real]) > 40


def test_commands_take_a_package_as_they_take_a_checkpoint(answerer, squad_file, tmp_path):
    checkpoint, output = answerer
    scores = {}
    for folder in (checkpoint, output):
        ended = run_command("evaluate", folder, "--data", squad_file, "--json")
        assert ended.status == 0, ended.err
        scores[folder] = json.loads(ended.out)
    assert (scores[output]["runtime"], scores[output]["precision"]) == ("mil", "fp16")
    assert scores[output]["f1"] == pytest.approx(scores[checkpoint]["f1"], abs=3)
    assert scores[output]["f1"] > 80

    passage = tmp_path / "passage.txt"
    question, context = (
        json.loads(squad_file.read_text())["data"][0]["paragraphs"][0][key] for key in ("qas", "context")
    )
    passage.write_text(context)
    answers = [
        json.loads(run_command("ask", folder, question[0]["question"], "--context", passage, "--json").out)["answers"]
        for folder in (checkpoint, output)
    ]
    assert answers[0][0]["text"] == answers[1][0]["text"]
    assert answers[0][0]["score"] == pytest.approx(answers[1][0]["score"], abs=0.02)

    ended = run_command("verify", output, "--checked-questions", "4", "--json")
    assert ended.status == 0, ended.err
    assert json.loads(ended.out)["measured"]["fp16"]["f1"] >= 50


def test_bench_times_every_package_of_a_folder_by_the_runtime_that_is_asked_for(answerer, tmp_path):
    checkpoint, output = answerer
    folder = tmp_path / "both"
    shutil.copytree(output, folder, ignore=shutil.ignore_patterns("edge_distil.json"))
    convert(plain_of(checkpoint), folder / "model_fp32.mlpackage", (1, 192))
    options = ("--questions", 1, "--repeats", 1, "--warmup", 1, "--threads", 1, "--json")
    both = ("--runtime", "torch", "--runtime", "mil", "--precision", "fp16", "--precision", "fp32")
    ended = run_command("bench", checkpoint, folder, *both, *options)
    assert ended.status == 0, ended.err
    rows = [row for row in json.loads(ended.out)["results"] if not row["tokenization"]]
    assert [(row["runtime"], row["precision"]) for row in rows] == [("torch", "fp32"), ("mil", "fp16"), ("mil", "fp32")]
    assert {row["tokens"] for row in rows} == {192}  # the one length that the packages take
    refused = run_command("bench", folder, "--runtime", "mil", "--tokens", 64)
    assert "takes inputs of 192 tokens, not 64" in refused.error
    assert "--runtime tflite: unknown" in run_command("bench", folder, "--runtime", "tflite").error


def test_ask_says_when_the_package_has_another_length_than_was_asked_for(answerer, tmp_path):
    passage = tmp_path / "passage.txt"
    passage.write_text("Ada built the bridge.", encoding="utf-8")
    given = ("ask", answerer[1], "Who built the bridge?", "--context", passage)
    assert "192 tokens in place of 64" in run_command(*given, "--max-length", 64).err
    assert "in place of" not in run_command(*given).err
