"""The arrows of the pipeline as functions: each reads folders and files, and writes one whole folder.

The command line is a thin caller of these; so can a script be. Every function returns what `--json` prints: `output`,
`metrics`, `seconds`. A None for a model, a corpus or a data file means the starter set.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
    read_json,
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
from edge_distil.qa import QuestionAnswerer
from edge_distil.report.cards import checkpoint_card
from edge_distil.report.curves import plot
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks import Task
from edge_distil.tasks.classification import TextFeatures, decide, encode, predict_texts
from edge_distil.tasks.decoding import Decoding, tune
from edge_distil.tasks.evaluation import labels_for, score_sets
from edge_distil.tasks.finetuning import Features, FineTuning, Judge, SecondDistillation, fine_tune
from edge_distil.tasks.metrics import score_squad
from edge_distil.tasks.spans import SpanFeatures
from edge_distil.tasks.squad import DOC_STRIDE, MAX_LENGTH, Question, parse_squad, read_squad
from edge_distil.tasks.text_metrics import macro_score
from edge_distil.tasks.texts import (
    GLUE,
    TEXT_TASKS,
    Example,
    TextTask,
    labels_of,
    read_examples,
    set_name,
    task_files,
)
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


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What a model is to learn: features to train on, a judge where there is dev data, and the head that is wanted.

    `text_task` and `labels` are those of a text classifier, None for any other head. `finish` gets the model and the
    folder that it is written to, and adds what belongs there.
    """

    task: Task
    features: Features
    judge: Judge | None
    inputs: Mapping[str, Any]
    text_task: TextTask | None = None
    labels: list[str] | None = None
    finish: Callable[[PreTrainedModel, Path], None] = lambda model, folder: None


def finetune(
    output: Path,
    *,
    task: str = "squad",
    model: str | None,
    teacher: str | None,
    data: Path | None = None,
    dev: Path | None = None,
    version_2: bool = False,
    temperature: float = 2.0,
    max_length: int | None = None,
    doc_stride: int = DOC_STRIDE,
    options: FineTuning,
    seeds: int = 1,
    config: Mapping[str, Any],
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fine-tune for SQuAD ("squad"), a task of GLUE, or texts with labels ("text"); with a teacher, distil once more.

    `dev` is scored after every epoch, and the best epoch's weights are kept; a folder of GLUE's brings its own. With
    several `seeds`, counted up from that of `options`, the model with the median score is written, and `metrics` has
    all scores. `max_length` None means 384 tokens for SQuAD, 128 for GLUE, 512 for texts, or as many as the model has
    positions for. `config` is written beside the model.
    """
    check_output(output, overwrite)
    begun = time.monotonic()
    folder = resolve(model) if model else starter.teacher_folder("masked-lm")
    longest = length_for(task, folder, max_length)
    used = load_tokenizer(folder)
    if task == "squad":
        lesson = _squad_lesson(folder, used, data, dev, longest, doc_stride, version_2=version_2, bf16=options.in_bf16)
    else:
        lesson = _text_lesson(TEXT_TASKS[task], folder, used, data, dev, longest, bf16=options.in_bf16)
    if seeds > 1 and lesson.judge is None:
        raise UserError(f"--seeds {seeds} needs dev data to tell the runs apart", "give a file with --eval")
    inputs = {**lesson.inputs, "model": describe_input(folder)}
    if teacher:
        lesson.features.learn_from(
            SecondDistillation(_teacher(teacher, lesson, used, folder, bf16=options.in_bf16), temperature=temperature)
        )
        inputs |= {"teacher": describe_input(resolve(teacher))}
    runs = []
    for seed in range(options.seed, options.seed + seeds):
        set_seed(seed)  # the new head's weights too
        loaded = load_model(folder, lesson.task, new_head=True, labels=lesson.labels)
        runs.append(fine_tune(loaded, lesson.features, replace(options, seed=seed), lesson.judge))
    result = runs[0]
    if lesson.judge and seeds > 1:
        result = _median_of(runs, options.seed, f"dev_{lesson.judge.name}")

    def finish(written: Path) -> None:
        lesson.finish(result.model, written)

    return write_checkpoint(
        output, result, lesson.task, "edge-distil finetune", folder, config, inputs, begun, overwrite, finish
    )


def finetune_glue(
    output: Path, *, data: Path, teacher: str | None, overwrite: bool = False, **options: Any
) -> dict[str, Any]:
    """`finetune` for every task of GLUE that `data` has a folder of, into a folder each below `output`.

    `teacher` is a folder with a teacher in a folder for each task, as this writes it. A task whose folder stands
    already, made with the same options, is not learnt again, so that a suite that was cut off can go on. `metrics`
    holds each task's score, the number of `tasks` and the `macro_score` over them (`text_metrics.macro_score`). Raises
    `UserError` when there is no task.
    """
    begun = time.monotonic()
    tasks = [task for task in GLUE.values() if task.folder and (data / task.folder).is_dir()]
    if not tasks:
        names = ", ".join(str(task.folder) for task in GLUE.values())
        raise UserError(f"{data}: holds no task of GLUE", f"give the folder with GLUE's folders: {names}")
    config = options.pop("config")
    scores: dict[str, float] = {}
    for task in tasks:
        note(f"{task.name}")
        target = output / task.name
        of_task = str(Path(teacher) / task.name) if teacher else None
        own = {**config, "task": task.name, "data": str(data), "teacher": of_task, "output": str(target)}
        result = None if overwrite else _finished(target, own)
        if result is None:
            result = finetune(
                target, task=task.name, data=data, teacher=of_task, config=own, overwrite=overwrite, **options
            )
        metrics = result["metrics"]
        scores[task.name] = metrics.get("dev_score_median", metrics["dev_score"])
    measured = {**scores, "tasks": len(scores), "macro_score": macro_score(scores)}
    return {"output": str(output), "metrics": measured, "seconds": round(time.monotonic() - begun, 1)}


def length_for(task: str, folder: Path, max_length: int | None) -> int:
    """The tokens of an input for a task: what was asked for, else the task's usual, at most what the model has."""
    if max_length is not None:
        check_length(folder, max_length, "--max-length")
        return max_length
    usual = {"squad": MAX_LENGTH, "text": 512}.get(task, 128)
    return min(usual, usable_positions(read_json(folder / "config.json")))


def _teacher(name: str, lesson: _Lesson, tokenizer: Tokenizer, student: Path, *, bf16: bool) -> TorchRuntime:
    """A teacher that was fine-tuned for the same: the same tokens, the same head, the same labels."""
    folder = resolve(name)
    check_same(load_tokenizer(folder), folder, tokenizer, student)
    runtime = TorchRuntime.load(folder, task=lesson.task, bf16=bf16)
    if lesson.text_task:
        labels = labels_for(lesson.text_task, read_json(folder / "config.json"), folder)
        if labels != lesson.labels:
            raise UserError(
                f"{folder}: has the labels {', '.join(labels or ())}, the data {', '.join(lesson.labels or ())}",
                "give a teacher that was fine-tuned on the same labels, in the same order",
            )
    return runtime


def _median_of(runs: Sequence[TrainedModel], first_seed: int, name: str) -> TrainedModel:
    """The run with the median score, the lower of two in the middle; its metrics with the scores of all."""
    scores = [run.metrics[name] for run in runs]
    ranked = sorted(range(len(runs)), key=lambda index: scores[index])
    middle = ranked[(len(runs) - 1) // 2]
    spread: dict[str, Any] = {
        "seed": first_seed + middle,
        f"{name}_median": statistics.median(scores),
        f"{name}_lowest": min(scores),
        f"{name}_highest": max(scores),
        f"{name}_of_seeds": scores,
    }
    return replace(runs[middle], metrics={**runs[middle].metrics, **spread})


def _squad_lesson(
    folder: Path,
    tokenizer: Tokenizer,
    data: Path | None,
    dev: Path | None,
    max_length: int,
    doc_stride: int,
    *,
    version_2: bool,
    bf16: bool,
) -> _Lesson:
    lengths: Any = {"max_length": max_length, "doc_stride": doc_stride}
    questions = squad_questions(data, "train", version_2=version_2)
    features = SpanFeatures(questions, tokenizer, **lengths)
    inputs = _inputs([data] if data else [], "data")
    if dev is None:
        return _Lesson("question-answering", features, None, inputs)
    asked = read_squad(dev, version_2=version_2)

    def answerer(model: PreTrainedModel) -> QuestionAnswerer:
        runtime = TorchRuntime(model, folder, bf16=bf16)
        return QuestionAnswerer(runtime, tokenizer=tokenizer, decoding=Decoding(), unanswerable=version_2, **lengths)

    def metrics(model: PreTrainedModel) -> dict[str, float]:
        best = {identifier: ranked[0].text for identifier, ranked in answerer(model).ask_all(asked).items()}
        found = score_squad(asked, best, version_2=version_2)
        return {"exact_match": found["exact_match"], "f1": found["f1"]}

    def finish(model: PreTrainedModel, written: Path) -> None:
        tune(answerer(model), asked, version_2=version_2).save(written)

    return _Lesson("question-answering", features, Judge(metrics, "f1"), inputs | _inputs([dev], "dev"), finish=finish)


def _text_lesson(
    task: TextTask,
    folder: Path,
    tokenizer: Tokenizer,
    data: Path | None,
    dev: Path | None,
    max_length: int,
    *,
    bf16: bool,
) -> _Lesson:
    if data is None:
        _needs_data(task)
    train_files, dev_files = [data] if data else [], [dev] if dev else []
    if data and data.is_dir():
        train_file, of_folder = task_files(task, data)
        train_files, dev_files = [train_file], dev_files or of_folder
    train = read_examples(train_files[0], task) if train_files else starter_texts("train")
    labels = None if task.regression else list(task.labels or labels_of(train, str(data or "starter set")))
    gold = {set_name(path): read_examples(path, task, labels=labels) for path in dev_files}
    if not data and not dev:
        gold = {"": starter_texts("dev")}
    features = TextFeatures(train, tokenizer, labels, max_length)
    inputs = _inputs(train_files, "data") | (_inputs(dev_files, "dev") if gold else {})
    judge = None
    if gold:
        ids = encode([example for each in gold.values() for example in each], tokenizer, max_length)

        def metrics(model: PreTrainedModel) -> dict[str, float]:
            predicted = decide(predict_texts(TorchRuntime(model, folder, bf16=bf16), ids), labels)
            found = score_sets(task, gold, predicted)
            return {name: value for name, value in found.items() if name != "examples"}

        judge = Judge(metrics, "score")
    return _Lesson("text-classification", features, judge, inputs, task, labels)


def dev_sets(task: TextTask, data: Path | None, labels: Sequence[str] | None) -> dict[str, list[Example]]:
    """What to score a text model on, by the name of the set: dev files, one file, or the starter set's test texts.

    Raises `UserError` as `texts.read_examples` does, and for a task of GLUE without data.
    """
    if data is None:
        _needs_data(task)
        examples = starter_texts("test")
        if labels is not None and (foreign := {str(example.label) for example in examples} - set(labels)):
            raise UserError(
                f"the starter's test texts have the label {min(foreign)!r}, the model has {', '.join(labels)}",
                "give texts with the model's labels as --data",
            )
        return {"": examples}
    files = task_files(task, data)[1] if data.is_dir() else [data]
    return {set_name(path): read_examples(path, task, labels=labels) for path in files}


def _needs_data(task: TextTask) -> None:
    if task.folder:
        raise UserError(
            f"--task {task.name} needs data",
            f"give GLUE's folder {task.folder}, with {', '.join((task.train, *task.dev))}, as --data",
        )


def starter_texts(split: str) -> list[Example]:
    """The starter set's texts with their labels, as examples of `texts.TEXT`."""
    return [
        Example(str(number), text, None, label) for number, (text, label) in enumerate(starter.texts(split), start=1)
    ]


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
    finish: Callable[[Path], None] = lambda folder: None,
) -> dict[str, Any]:
    """Write a checkpoint folder: model, tokeniser, card, configuration, loss curve, manifest; `finish` adds to it."""
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
        plotted = any("loss" in row for row in result.curve)  # a short run may have scores on dev data alone
        if plotted:
            plot(result.curve, folder / "loss.png")
        card = checkpoint_card(
            title=output.absolute().name,
            task=task,
            data_task=config.get("task", "text"),
            command=command,
            inputs=inputs,
            measured=measured,
            machine=describe_machine(),
            plotted=plotted,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        finish(folder)
        write_manifest(
            folder, kind="checkpoint", task=task, command=command, config=config, inputs=inputs, measured=measured
        )
    return {"output": str(output), "metrics": measured, "seconds": round(seconds, 1)}
