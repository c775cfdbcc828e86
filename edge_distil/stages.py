"""The arrows of the pipeline as functions: each reads folders and files, and writes one whole folder.

The command line is a thin caller of these; so can a script be. Every function returns what `--json` prints: `output`,
`metrics`, `seconds`. A None for a model, a corpus or a data file means the starter set.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from tokenizers import Tokenizer
from transformers import PreTrainedModel, set_seed

from edge_distil import starter
from edge_distil.checkpoints import (
    check_length,
    check_output,
    describe_input,
    new_folder,
    read_manifest,
    usable_positions,
    write_manifest,
)
from edge_distil.console import note
from edge_distil.corpus.masking import Masking
from edge_distil.corpus.prepare import from_documents, prepare
from edge_distil.corpus.prepared import PreparedCorpus
from edge_distil.corpus.sources import find_sources
from edge_distil.distillation.corpus_trainer import CorpusTraining
from edge_distil.distillation.pretraining import new_teacher
from edge_distil.distillation.pretraining import pretrain as _pretrain
from edge_distil.distillation.student import student_of
from edge_distil.distillation.trainer import LossWeights, distil
from edge_distil.errors import UserError
from edge_distil.machine import describe_machine
from edge_distil.models import load_model, resolve
from edge_distil.report.cards import checkpoint_card
from edge_distil.report.curves import plot
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks import Task
from edge_distil.tasks.finetuning import SecondDistillation, finetune_squad
from edge_distil.tasks.squad import Question, parse_squad, read_squad
from edge_distil.tokenization import check_same, load_tokenizer, save_tokenizer, write_tokenizer_config
from edge_distil.training import Processes, TrainedModel
from edge_distil.unfinished import UnfinishedRun, lasting

STARTER = {"starter": "the embedded starter set"}


def squad_questions(data: Path | None, split: str, *, version_2: bool = False) -> list[Question]:
    """The questions of a SQuAD file, or of a split of the starter set. Raises `UserError` as `read_squad` does."""
    if data is None:
        return parse_squad(starter.questions(split), f"starter set, {split}")
    return read_squad(data, version_2=version_2)


def pretrain(
    output: Path,
    *,
    from_encoder: str | None,
    corpus: Sequence[Path],
    tokenizer: Path | None,
    layers: int,
    hidden_size: int,
    heads: int,
    block_length: int,
    training: CorpusTraining,
    config: Mapping[str, Any],
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Masked-language-model training of a BERT teacher, from random weights or from an encoder folder.

    `config` is written beside the model. With `resume`, an unfinished run of the same options goes on, and the result
    of a finished one is given again.
    """
    if resume and (earlier := _finished(output, config)):
        return earlier
    check_output(output, overwrite)
    begun = time.monotonic()
    source = resolve(from_encoder) if from_encoder else tokenizer
    used = load_tokenizer(source) if source else starter.build_tokenizer()
    if from_encoder:
        check_length(resolve(from_encoder), block_length, "--block-length")

    if not from_encoder and hidden_size % heads:
        raise UserError(
            f"--hidden-size {hidden_size} is not a multiple of --heads {heads}", "choose heads that divide it"
        )

    def make_model() -> PreTrainedModel:
        if from_encoder:
            return load_model(from_encoder, "masked-lm", new_head=True)
        return new_teacher(used, layers=layers, hidden_size=hidden_size, heads=heads, positions=max(512, block_length))

    inputs = _inputs(find_sources(corpus), "corpus") | ({"encoder": describe_input(source)} if source else {})
    with _unfinished(output, config, inputs, resume=resume, overwrite=overwrite) as run:
        blocks = _blocks(corpus, used, block_length, workers)
        result = _pretrain(make_model, blocks, Masking(used), training, run)
        return _write_once(
            output, result, "masked-lm", "edge-distil pretrain", source or used, config, inputs, begun, overwrite
        )


def train(
    output: Path,
    *,
    teacher: str | None,
    corpus: Sequence[Path],
    block_length: int,
    weights: LossWeights,
    training: CorpusTraining,
    config: Mapping[str, Any],
    init: Literal["teacher", "random"] = "teacher",
    layers: Sequence[int] | None = None,
    fold_token_types: bool = True,
    rare_words: bool = True,
    whole_words: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """General distillation of a BERT or RoBERTa masked-LM teacher into a student of half its layers.

    `init`, `layers` and `fold_token_types` are those of `distillation.student.student_of`; `rare_words` and
    `whole_words` say which tokens are masked (`corpus.masking.Masking`). `config` and `resume` are as in `pretrain`.
    """
    if resume and (earlier := _finished(output, config)):
        return earlier
    check_output(output, overwrite)
    begun = time.monotonic()
    folder = resolve(teacher) if teacher else starter.teacher_folder("masked-lm")
    model = load_model(folder, "masked-lm")
    check_length(folder, block_length, "--block-length")
    set_seed(training.seed)
    student = student_of(model, init=init, layers=layers, fold_token_types=fold_token_types)
    used = load_tokenizer(folder)
    inputs = _inputs(find_sources(corpus), "corpus") | {"teacher": describe_input(folder)}
    with _unfinished(output, config, inputs, resume=resume, overwrite=overwrite) as run:
        blocks = _blocks(corpus, used, block_length, workers)
        masking = Masking(used, blocks.token_counts if rare_words else None, whole_words=whole_words)
        result = distil(student, model, blocks, masking, weights, training, run)
        return _write_once(output, result, "masked-lm", "edge-distil train", folder, config, inputs, begun, overwrite)


def finetune(
    output: Path,
    *,
    model: str | None,
    teacher: str | None,
    data: Path | None,
    version_2: bool,
    temperature: float,
    training: Mapping[str, Any],
    config: Mapping[str, Any],
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fine-tune on SQuAD questions; with a question-answering teacher, the second distillation.

    `training` holds the keyword arguments of `tasks.finetuning.finetune_squad`; `config` is written beside the model.
    """
    check_output(output, overwrite)
    begun = time.monotonic()
    questions = squad_questions(data, "train", version_2=version_2)
    folder = resolve(model) if model else starter.teacher_folder("masked-lm")
    check_length(folder, training["max_length"], "--max-length")
    used = load_tokenizer(folder)
    distillation = None
    inputs = _inputs([data] if data else [], "data") | {"model": describe_input(folder)}
    if teacher:
        teacher_folder = resolve(teacher)
        check_same(load_tokenizer(teacher_folder), teacher_folder, used, folder)
        runtime = TorchRuntime.load(teacher_folder, task="question-answering", bf16=True)
        distillation = SecondDistillation(runtime, temperature=temperature)
        inputs["teacher"] = describe_input(teacher_folder)
    loaded = load_model(folder, "question-answering", new_head=True)
    result = finetune_squad(loaded, used, questions, distillation=distillation, **training)
    return write_checkpoint(
        output, result, "question-answering", "edge-distil finetune", folder, config, inputs, begun, overwrite
    )


def _finished(output: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The result of an earlier run of these options at `output`, which a resumed command has nothing to add to."""
    manifest = read_manifest(output) if output.is_dir() else None
    if manifest is None or lasting(manifest.get("config", {})) != lasting(config):
        return None
    note(f"{output}: is finished already")
    return {"output": str(output), "metrics": manifest["measured"], "seconds": 0.0}


@contextmanager
def _unfinished(
    output: Path, config: Mapping[str, Any], inputs: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Iterator[UnfinishedRun]:
    """The folder of the run on its way to `output`; it vanishes unless the run ends early and can go on later."""
    run, all_of_us = UnfinishedRun(output), Processes()
    if all_of_us.is_first:
        run.begin(config, inputs, resume=resume, overwrite=overwrite)
    all_of_us.wait()
    try:
        yield run
    except BaseException:
        # Nothing that a later run could go on from: nothing stays.
        if all_of_us.is_first and run.latest() is None:
            run.end()
        raise
    if all_of_us.is_first:
        run.end()


def _blocks(corpus: Sequence[Path], tokenizer: Tokenizer, length: int, workers: int | None) -> PreparedCorpus:
    """The corpus in blocks; prepared by the first process, while the others wait."""
    note("reading the corpus")
    with Processes().first_to_go():
        if not corpus:
            return from_documents(starter.corpus("train"), tokenizer, length)
        return prepare(corpus, tokenizer, length, workers=workers)


def _write_once(output: Path, trained: TrainedModel, *arguments: Any) -> dict[str, Any]:
    """`write_checkpoint` on the first process; the others wait for it, and give the metrics alone."""
    all_of_us = Processes()
    result: dict[str, Any] = {"output": str(output), "metrics": trained.metrics, "seconds": 0.0}
    if all_of_us.is_first:
        result = write_checkpoint(output, trained, *arguments)
    all_of_us.wait()
    return result


def _inputs(paths: Sequence[Path], name: str) -> dict[str, Any]:
    return {name: [describe_input(path) for path in paths] if paths else STARTER}


def write_checkpoint(
    output: Path,
    result: TrainedModel,
    task: Task,
    command: str,
    tokenizer: Path | Tokenizer,
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    begun: float,
    overwrite: bool,
) -> dict[str, Any]:
    """Write a checkpoint folder: model, tokeniser, card, configuration, loss curve, manifest."""
    parameters = sum(weight.numel() for weight in result.model.parameters())
    seconds = time.monotonic() - begun
    measured = {**result.metrics, "parameters": parameters, "seconds": seconds}
    with new_folder(output, overwrite=overwrite) as folder:
        result.model.save_pretrained(folder)
        max_length = usable_positions(result.model.config.to_dict())
        if isinstance(tokenizer, Path):
            save_tokenizer(tokenizer, folder, max_length)
        else:
            tokenizer.save(str(folder / "tokenizer.json"))
            write_tokenizer_config(folder, max_length=max_length)
        (folder / "command.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in result.curve), encoding="utf-8")
        if result.curve:
            plot(result.curve, folder / "loss.png")
        card = checkpoint_card(
            title=output.absolute().name,
            task=task,
            command=command,
            inputs=inputs,
            measured=measured,
            machine=describe_machine(),
            plotted=bool(result.curve),
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        write_manifest(
            folder, kind="checkpoint", task=task, command=command, config=config, inputs=inputs, measured=measured
        )
    return {"output": str(output), "metrics": measured, "seconds": round(seconds, 1)}
