"""`edge-distil …`: parse, call, print. Heavy imports stand inside the commands, so that `--help` answers at once."""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_distil.errors import UserError

app = typer.Typer(
    name="edge-distil",
    help="Distil a BERT into a student of half its layers, ship it to phones and edge CPUs, check what was shipped.",
    epilog="New here? Run: edge-distil quickstart",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# typer carries its own copy of click: its public errors lead to the base of all usage errors.
_UsageError: Any = typer.BadParameter.__base__

# Options about how a command is run, not about what it makes: they are not saved with the result.
_RUN_OPTIONS = frozenset({"config", "json_output", "debug", "overwrite", "resume"})


@app.callback()
def _help_by_default(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from edge_distil import __version__

        print(f"edge-distil {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a YAML file the defaults of this command's options. Unknown keys are errors."""
    if path is None:
        return None
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as fault:
        raise UserError(f"{path}: cannot be read: {fault.strerror}", "check the path given to --config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise UserError(f"{path}: is not valid YAML: {' '.join(str(fault).split())}", "mend the file") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no options", "write one `option: value` a line")
    # An option goes by its name on the command line too: `from` as well as `from_encoder`.
    names = {
        spelling.lstrip("-").replace("-", "_"): parameter.name
        for parameter in context.command.params
        for spelling in (*parameter.opts, str(parameter.name))
    }
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    # The other side of a switch, such as `no-measure`, and one value of what may be given several times.
    negations = {
        spelling.lstrip("-").replace("-", "_"): parameter.name
        for parameter in context.command.params
        for spelling in parameter.secondary_opts
    }
    values = {negations.get(key, key): not value if key in negations else value for key, value in values.items()}
    values = {names.get(key, key): value for key, value in values.items()}
    repeatable = {each.name for each in context.command.params if each.nargs == -1 or getattr(each, "multiple", False)}
    values = {
        key: [value] if key in repeatable and isinstance(value, (str, int, float)) else value
        for key, value in values.items()
    }
    known = {parameter.name for parameter in context.command.params} - _RUN_OPTIONS - {None}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(
            f"{path}: unknown option {', '.join(map(repr, unknown))}",
            f"{context.command.name} takes: {', '.join(sorted(map(str, known)))}",
        )
    context.default_map = {key: value for key, value in values.items() if value is not None}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        callback=_read_config,
        is_eager=True,
        help="YAML file with any of these options, e.g. the command.yaml of an earlier result. The command line wins.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result of edge-distil at --output.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random choice.")]
Epochs = Annotated[float, typer.Option(min=0.0, help="Passes over the data.")]
MaxSteps = Annotated[int, typer.Option(min=0, help="Stop after so many steps; 0: after --epochs.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Blocks or windows per step.")]
LearningRate = Annotated[float, typer.Option(min=0.0, help="Peak learning rate (AdamW, linear decay).")]
Warmup = Annotated[float, typer.Option(min=0.0, max=1.0, help="Fraction of the steps over which the rate rises.")]
Dropout = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Dropout while training; default: the model's own. 0 is faster.")
]
Corpus = Annotated[
    list[Path] | None,
    typer.Option(help="Text: a file (.txt, .jsonl, .parquet; .gz or .zst too), a folder, a pattern or "
                 "hf://datasets/owner/name. Repeatable. Default: the starter corpus."),
]  # fmt: skip
BlockLength = Annotated[int, typer.Option(min=8, help="Tokens per training block.")]
StepBlocks = Annotated[int, typer.Option("--batch-size", min=1, help="Blocks per step, over all devices.")]
MicroBatch = Annotated[int, typer.Option(min=0, help="Blocks that one device has at a time; 0: as many as run well.")]
Precision = Annotated[
    str, typer.Option(help="fp32, bf16, or auto: bf16 where the hardware has instructions for it.")
]  # fmt: skip
SaveMinutes = Annotated[float, typer.Option(min=0.0, help="Minutes between checkpoints; 0: after every step.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with an unfinished run of the same options; start one if there is none.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads that tokenise. Default: one for every core.")]
SquadV2 = Annotated[bool, typer.Option("--squad-v2", help="The data is SQuAD v2.0: some questions have no answer.")]
TaskName = Annotated[
    str, typer.Option(help="The task: squad, one of GLUE's (cola, sst-2, mrpc, …), or text: texts with labels.")
]
TaskLength = Annotated[
    int | None, typer.Option(min=16, help="Tokens of an input. Default: 384 for squad, 128 for GLUE, 512 for text.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: one for every core.")]
NullThreshold = Annotated[
    float | None,
    typer.Option(
        help="Give no answer where its logit is above the best answer's by more than this. "
        "Default: as the model's decoding.json says."
    ),
]


def _options(context: typer.Context) -> dict[str, Any]:
    """What a command was run with, as it is saved beside the result and can be given back as --config."""

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in context.params.items() if name not in _RUN_OPTIONS}


def _check_inputs(*models: str | Path | None, data: Path | None = None, corpus: list[Path] | None = None) -> None:
    """Refuse what is not there, before seconds of imports for a slip of the pen. A hub is asked later."""
    from edge_distil.checkpoints import check_folder
    from edge_distil.corpus.sources import find_sources, is_on_hub

    for model in models:
        if model is not None:
            check_folder(model)
    if data is not None and not data.exists():
        raise UserError(f"{data}: no such file", "check the path")
    find_sources([path for path in corpus or [] if not is_on_hub(path)])


def _check_written(output: Path | None, overwrite: bool) -> None:
    """Refuse an output that is there already, as early."""
    from edge_distil.checkpoints import check_output

    if output is not None:
        check_output(output, overwrite)


def _choice(option: str, value: str, *choices: str) -> Any:
    if value not in choices:
        raise UserError(f"{option} {value}: unknown", f"choose one of: {', '.join(choices)}")
    return value


def _layers(value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        return [int(number) for number in value.split(",")]
    except ValueError:
        raise UserError(f"--layers {value}: is not a list of numbers", "give e.g. --layers 0,2,4") from None


def _corpus_training(context: typer.Context) -> Any:
    """The options that `pretrain` and `train` share."""
    from dataclasses import fields

    from edge_distil.distillation.corpus_trainer import CorpusTraining

    return CorpusTraining(**{field.name: context.params[field.name] for field in fields(CorpusTraining)})


def _finish(result: dict[str, Any], json_output: bool, *lines: str) -> None:
    """Print a result: one JSON object, or lines for a person. Of many processes the first one alone does."""
    if os.environ.get("RANK", "0") != "0":
        return
    print(json.dumps(result, ensure_ascii=False) if json_output else "\n".join(lines))


def _trained(result: dict[str, Any]) -> list[str]:
    figures = [
        f"  {name}: {', '.join(f'{each:,.4g}' for each in value) if isinstance(value, list) else f'{value:,.4g}'}"
        if isinstance(value, (float, list))
        else f"  {name}: {value:,}"
        for name, value in result["metrics"].items()
        if name != "seconds"
    ]
    return [f"wrote {result['output']} in {result['seconds']:.0f} s", *figures]


@app.command()
def quickstart(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write everything to.")] = Path("quickstart"),
    threads: Threads = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Walk the whole way on the starter set: distil, fine-tune, export, prove, and answer a question. About 5 minutes.

    Needs no data, no network and no GPU. Writes the student, its ONNX export and its Core ML package to --output.

    Example: edge-distil quickstart
    """
    import exporters
    from edge_distil import quickstart as way

    result = way.run(output, export=exporters.export, threads=threads or _cores(), seed=seed, overwrite=overwrite)
    if json_output:
        _finish(result, json_output)
        return
    from edge_distil.report.tables import show, table

    show(table("Starter test set; times for 384 tokens, batch 1", way.HEADERS, way.cells(result["rows"])))
    answer = result["answer"]
    print(f"\n{result['passage']}\n\nQ: {result['question']}\nA: {answer['text']}  (int8 ONNX, {answer['score']:.0%})")
    print(f"\nwrote {result['output']} in {result['seconds']:.0f} s")


@app.command()
def pretrain(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the teacher to.")] = Path(
        "runs/teacher"
    ),
    from_encoder: Annotated[
        str | None,
        typer.Option(
            "--from", help="Encoder to continue from: a BERT folder or hf://owner/name. Default: from scratch."
        ),
    ] = None,
    corpus: Corpus = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="From scratch: folder with the tokenizer.json to use. Default: the starter's.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1, help="From scratch: number of layers.")] = 6,
    hidden_size: Annotated[int, typer.Option(min=2, help="From scratch: width of the hidden states.")] = 128,
    heads: Annotated[int, typer.Option(min=1, help="From scratch: attention heads.")] = 4,
    block_length: BlockLength = 256,
    epochs: Epochs = 1.0,
    max_steps: MaxSteps = 0,
    batch_size: StepBlocks = 32,
    micro_batch: MicroBatch = 0,
    learning_rate: LearningRate = 5e-4,
    warmup: Warmup = 0.05,
    dropout: Dropout = None,
    precision: Precision = "auto",
    seed: Seed = 0,
    workers: Workers = None,
    save_minutes: SaveMinutes = 10.0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train a BERT teacher on plain text by masked-language modelling.

    Reads text files, writes a Hugging Face folder with a masked-LM head, which is what `train` distils. An encoder
    without such a head (any sentence encoder) is given one with --from.

    Example: edge-distil pretrain --from my-encoder --corpus books.txt.gz --output runs/teacher
    """
    _choice("--precision", precision, "auto", "fp32", "bf16")
    if not resume:  # what is finished is given again, whatever became of its inputs
        _check_written(output, overwrite)
        _check_inputs(from_encoder, corpus=corpus)
    from edge_distil import stages

    result = stages.pretrain(
        output,
        from_encoder=from_encoder,
        corpus=corpus or [],
        tokenizer=tokenizer,
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        block_length=block_length,
        training=_corpus_training(context),
        config=_options(context),
        resume=resume,
        overwrite=overwrite,
        workers=workers,
    )
    _finish(result, json_output, *_trained(result), f"next: edge-distil train --teacher {output}")


@app.command()
def train(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the student to.")] = Path(
        "runs/student"
    ),
    teacher: Annotated[
        str | None,
        typer.Option(
            help="BERT or RoBERTa with a masked-LM head: a folder or hf://owner/name. Default: the starter teacher."
        ),
    ] = None,
    corpus: Corpus = None,
    block_length: BlockLength = 256,
    temperature: Annotated[float, typer.Option(min=1e-3, help="Temperature of the soft targets.")] = 2.0,
    alpha_ce: Annotated[float, typer.Option(min=0.0, help="Weight of the soft-target loss.")] = 5.0,
    alpha_mlm: Annotated[float, typer.Option(min=0.0, help="Weight of the masked-LM loss.")] = 2.0,
    alpha_cos: Annotated[float, typer.Option(min=0.0, help="Weight of the hidden states' cosine loss.")] = 1.0,
    alpha_mse: Annotated[float, typer.Option(min=0.0, help="Weight of the squared distance of the logits.")] = 0.0,
    ce_on: Annotated[
        str, typer.Option(help="Soft targets of all tokens, or of the masked ones alone, which is faster.")
    ] = "all",
    init: Annotated[str, typer.Option(help="Start the student from layers of the teacher, or at random.")] = "teacher",
    layers: Annotated[
        str | None, typer.Option(help="Teacher layers to start from, e.g. 0,2,4. Default: half, evenly spaced.")
    ] = None,
    fold_token_types: Annotated[
        bool, typer.Option(help="Add the teacher's embedding of token type 0 to the student's positions.")
    ] = True,
    rare_words: Annotated[bool, typer.Option(help="Mask rare tokens more often than frequent ones.")] = True,
    whole_words: Annotated[bool, typer.Option("--whole-words", help="Mask all pieces of a word together.")] = False,
    epochs: Epochs = 1.0,
    max_steps: MaxSteps = 0,
    batch_size: StepBlocks = 32,
    micro_batch: MicroBatch = 0,
    learning_rate: LearningRate = 5e-4,
    warmup: Warmup = 0.05,
    dropout: Dropout = None,
    precision: Precision = "auto",
    seed: Seed = 0,
    workers: Workers = None,
    save_minutes: SaveMinutes = 10.0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Distil a BERT teacher into a DistilBERT student of half its layers (general distillation, the triple loss).

    Reads a teacher folder and text files, writes the student as a Hugging Face folder with a masked-LM head. A run that
    was killed goes on with --resume, and computes what it would have computed. On several GPUs: torchrun -m edge_distil
    train …

    Example: edge-distil train --teacher runs/teacher --corpus books.txt.gz --output runs/student
    """
    _choice("--precision", precision, "auto", "fp32", "bf16")
    _choice("--ce-on", ce_on, "all", "masked")
    _choice("--init", init, "teacher", "random")
    if not resume:  # what is finished is given again, whatever became of its inputs
        _check_written(output, overwrite)
        _check_inputs(teacher, corpus=corpus)
    from edge_distil import stages
    from edge_distil.distillation.trainer import LossWeights

    result = stages.train(
        output,
        teacher=teacher,
        corpus=corpus or [],
        block_length=block_length,
        weights=LossWeights(
            temperature,
            alpha_ce,
            alpha_mlm,
            alpha_cos,
            alpha_mse,
            ce_on,  # type: ignore[arg-type]
        ),
        init=init,  # type: ignore[arg-type]
        layers=_layers(layers),
        fold_token_types=fold_token_types,
        rare_words=rare_words,
        whole_words=whole_words,
        training=_corpus_training(context),
        config=_options(context),
        resume=resume,
        overwrite=overwrite,
        workers=workers,
    )
    _finish(result, json_output, *_trained(result), f"next: edge-distil finetune --task squad --model {output}")


@app.command()
def finetune(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write the model to. Default: runs/qa, else runs/TASK."),
    ] = None,
    task: TaskName = "squad",
    model: Annotated[
        str | None,
        typer.Option(help="What to fine-tune: a folder or hf://owner/name. Default: the starter's masked-LM teacher."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Teacher for the second distillation, fine-tuned for the same task: a folder or hf://owner/name."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="What to train on: a SQuAD file, a folder of GLUE's, or texts with labels (.jsonl, .csv). "
            "Default: the starter set, for squad and text."
        ),
    ] = None,
    dev: Annotated[
        Path | None,
        typer.Option(
            "--eval", help="File to score after every epoch; the best epoch is kept. Default: the dev files of GLUE."
        ),
    ] = None,
    squad_v2: SquadV2 = False,
    temperature: Annotated[float, typer.Option(min=1e-3, help="Temperature of the teacher's distributions.")] = 2.0,
    max_length: TaskLength = None,
    doc_stride: Annotated[int, typer.Option(min=1, help="Tokens from one window's start to the next one's.")] = 128,
    epochs: Epochs = 3.0,
    max_steps: MaxSteps = 0,
    batch_size: BatchSize = 16,
    learning_rate: LearningRate = 1e-4,
    warmup: Warmup = 0.1,
    layer_decay: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Factor on the learning rate with every layer from the head down.")
    ] = 1.0,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's weight decay.")] = 0.01,
    dropout: Dropout = None,
    patience: Annotated[
        int, typer.Option(min=0, help="With --eval: stop after so many epochs without a better score; 0: never.")
    ] = 2,
    precision: Precision = "auto",
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train so many times, count up from --seed, keep the median by dev score.")
    ] = 1,
    overwrite: Overwrite = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Teach a model a task, alone or with a teacher (the second distillation).

    Reads a model folder and the task's data, writes a Hugging Face folder with the head of the task. With
    --task glue, every task of GLUE that --data has a folder of, and their macro-score.

    Example: edge-distil finetune --task squad --model runs/student --teacher runs/qa-teacher --data train-v1.1.json

    Example: edge-distil finetune --task mrpc --model runs/student --data glue/MRPC --seeds 5
    """
    from dataclasses import fields

    _task(task, "glue")
    _choice("--precision", precision, "auto", "fp32", "bf16")
    if squad_v2 and task != "squad":
        raise UserError(f"--squad-v2 and --task {task} do not go together", "leave one of them out")
    output = output or Path("runs") / ("qa" if task == "squad" else task)
    if task != "glue":
        _check_written(output, overwrite)
    _check_inputs(model, teacher, data=data if task == "squad" else None)
    from edge_distil import stages
    from edge_distil.tasks.finetuning import FineTuning

    of_user = {field.name for field in fields(FineTuning)} & context.params.keys()
    settings: dict[str, Any] = {
        "model": model,
        "temperature": temperature,
        "max_length": max_length,
        "options": FineTuning(**{name: context.params[name] for name in of_user}),
        "seeds": seeds,
        "config": _options(context),
        "overwrite": overwrite,
    }
    if task == "glue":
        if data is None or dev is not None:
            raise UserError("--task glue takes a folder with GLUE's folders as --data, and no --eval", "give --data")
        result = stages.finetune_glue(output, data=data, teacher=teacher, **settings)
        following = f"edge-distil evaluate {output}/TASK --task TASK --data {data}"
    else:
        squad: dict[str, Any] = {"version_2": squad_v2, "doc_stride": doc_stride}
        result = stages.finetune(output, task=task, data=data, dev=dev, teacher=teacher, **squad, **settings)
        scored_on = dev or (data if data and data.is_dir() else None)
        following = f"edge-distil evaluate {output}" + ("" if task == "squad" else f" --task {task}")
        following += f" --data {scored_on}" if scored_on else " --data FILE" if data else ""
    _finish(result, json_output, *_trained(result), f"next: {following}")


@app.command()
def evaluate(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint or export. Default: the starter's question-answering teacher."),
    ] = None,
    task: TaskName = "squad",
    data: Annotated[
        Path | None,
        typer.Option(
            help="What to score on: a SQuAD file, a folder of GLUE's or its dev file, texts with labels (.jsonl, "
            ".csv). Default: the starter's test set, for squad and text."
        ),
    ] = None,
    squad_v2: SquadV2 = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Score this file of predictions, {id: answer}, instead of running a model.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Questions that --predictions leaves out count as wrong.")
    ] = False,
    write_predictions: Annotated[
        Path | None, typer.Option(help="Write the answers to this file, {id: answer}, as the official scripts read it.")
    ] = None,
    errors: Annotated[int, typer.Option(min=0, help="List so many wrong answers, the most certain first.")] = 0,
    reliability: Annotated[
        Path | None, typer.Option(help="Plot the share of right answers against their score to this PNG file.")
    ] = None,
    null_threshold: NullThreshold = None,
    precision: Annotated[str | None, typer.Option(help="Which graph or package of an export, such as int8.")] = None,
    max_length: TaskLength = None,
    doc_stride: Annotated[int, typer.Option(min=1, help="Tokens from one window's start to the next one's.")] = 128,
    batch_size: BatchSize = 16,
    threads: Threads = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of --write-predictions and --reliability.")
    ] = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Score a checkpoint, an exported artifact or a file of predictions, as the task's official script counts.

    SQuAD: exact match and F1. GLUE: each task's own metrics. Texts with labels: accuracy.

    A model's answers can be kept, its most certain errors listed, and its scores held against how often they are right:
    the calibration error is how far the two are apart, 0 to 1.

    Example: edge-distil evaluate runs/qa --data dev-v1.1.json --write-predictions predictions.json --errors 10
    """
    _task(task)
    if predictions and model:
        raise UserError("a model and --predictions do not go together", "leave one of them out")
    if null_threshold is not None and not squad_v2:
        raise UserError("--null-threshold needs --squad-v2", "add --squad-v2, or leave --null-threshold out")
    if predictions:
        of_models = {
            "--write-predictions": write_predictions,
            "--errors": errors or None,
            "--reliability": reliability,
            "--null-threshold": null_threshold,
        }
        if given := [option for option, value in of_models.items() if value is not None]:
            raise UserError(
                f"{given[0]} and --predictions do not go together",
                f"a file of predictions has no scores: leave {given[0]} out, or give a model",
            )
    if not predictions:
        _check_inputs(model)
    if task == "squad":
        _check_inputs(data=data)
    from edge_distil.tasks import evaluation

    extras: dict[str, Any] = {
        "batch_size": batch_size,
        "errors": errors,
        "predictions_file": write_predictions,
        "reliability_file": reliability,
        "overwrite": overwrite,
    }
    if task != "squad":
        result = _evaluate_texts(context, extras)
    elif predictions:
        questions = _questions(data, squad_v2)
        result = evaluation.evaluate_predictions(
            predictions, questions, version_2=squad_v2, allow_missing=allow_missing
        )
    else:
        questions = _questions(data, squad_v2)
        answerer = _open(
            model,
            precision,
            threads,
            null_threshold,
            max_length=max_length or 384,
            doc_stride=doc_stride,
            unanswerable=squad_v2,
        )
        result = evaluation.evaluate(answerer, questions, version_2=squad_v2, **extras)
    _finish(result, json_output, *_evaluated(result))


def _evaluate_texts(context: typer.Context, extras: dict[str, Any]) -> dict[str, Any]:
    """`evaluate` for the tasks about texts, from the options of the command."""
    from edge_distil import stages
    from edge_distil.checkpoints import read_json, read_manifest
    from edge_distil.console import note
    from edge_distil.models import resolve
    from edge_distil.runtimes import open_runtime
    from edge_distil.tasks import evaluation
    from edge_distil.tasks.texts import TEXT_TASKS

    given = context.params
    task = TEXT_TASKS[given["task"]]
    for option in ("squad_v2", "allow_missing"):
        if given[option]:
            raise UserError(f"--{option.replace('_', '-')} is for SQuAD, not for {task.name}", "leave it out")
    if given["predictions"]:
        return evaluation.evaluate_text_predictions(
            given["predictions"], task, stages.dev_sets(task, given["data"], task.labels)
        )
    if given["model"] is None:
        raise UserError("the starter set has no text classifier", "make one: edge-distil finetune --task text")
    folder = resolve(given["model"])
    labels = evaluation.labels_for(task, read_json(folder / "config.json"), folder)
    taught = ((read_manifest(folder) or {}).get("config") or {}).get("task") or task.name
    if taught != task.name:
        # The labels of two tasks may be the same words, and to score one's model on the other can be what is meant.
        note(f"{folder} was fine-tuned for {taught}, and is scored on {task.name}, which it was not taught")
    sets = stages.dev_sets(task, given["data"], labels)
    max_length = stages.length_for(task.name, folder, given["max_length"])
    runtime = open_runtime(folder, task="text-classification", precision=given["precision"], threads=given["threads"])
    return evaluation.evaluate_texts(runtime, task, sets, max_length=max_length, **extras)


def _evaluated(result: dict[str, Any]) -> list[str]:
    """The figures of `evaluate` for a person."""
    if "exact_match" not in result:
        return _evaluated_texts(result)
    groups = {"": "", "has_answer_": "  with an answer: ", "no_answer_": "  without one: "}
    lines = [
        f"{shown}exact match {result[f'{group}exact_match']:.2f}, F1 {result[f'{group}f1']:.2f} "
        f"on {result[f'{group}examples']:,} questions"
        for group, shown in groups.items()
        if f"{group}examples" in result
    ]
    if result.get("missing"):
        lines.append(f"  missing predictions: {result['missing']:,}")
    if "calibration_error" in result:
        lines.append(f"  calibration error {result['calibration_error']:.3f}")
    for error in result.get("errors", []):
        lines += ["", f"Q: {error['question']}  ({error['id']})", f"gold: {' | '.join(error['gold']) or 'no answer'}"]
        lines.append(f"answer: {error['answer'] or 'no answer'}  ({error['score']:.0%})")
    return lines


def _evaluated_texts(result: dict[str, Any]) -> list[str]:
    """The figures of `evaluate` on texts for a person."""
    plain = ("examples", "runtime", "precision", "seconds", "examples_per_second", "errors", "calibration_error")
    metrics = {name: value for name, value in result.items() if name not in plain}
    if len(metrics) == 2:  # one metric and the score, which is that metric
        del metrics["score"]
    lines = [f"{name.replace('_', ' ')} {value:.2f}" for name, value in metrics.items()]
    lines = [f"{', '.join(lines)} on {result['examples']:,} examples"]
    if "calibration_error" in result:
        lines.append(f"  calibration error {result['calibration_error']:.3f}")
    for error in result.get("errors", []):
        pair = f" | {error['text_pair']}" if "text_pair" in error else ""
        certain = f"  ({error['score']:.0%})" if "score" in error else ""
        lines += ["", f"{error['text']}{pair}  ({error['id']})", f"gold: {error['gold']}"]
        lines.append(f"answer: {error['answer']}{certain}")
    return lines


@app.command()
def ask(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Argument(help="Checkpoint or export. Default: the starter's question-answering teacher."),
    ] = None,
    question: Annotated[str | None, typer.Argument(help="The question. Default: one about a starter passage.")] = None,
    passage: Annotated[
        Path | None,
        typer.Option("--context", help="Text file with the passage. Default, without a question: a starter passage."),
    ] = None,
    n_best: Annotated[int, typer.Option(min=1, max=20, help="How many answers to give.")] = 1,
    null_threshold: NullThreshold = None,
    precision: Annotated[str | None, typer.Option(help="Which graph or package of an export, such as int8.")] = None,
    max_length: Annotated[int, typer.Option(min=16, help="Tokens of a window, question included.")] = 384,
    doc_stride: Annotated[int, typer.Option(min=1, help="Tokens from one window's start to the next one's.")] = 128,
    threads: Threads = None,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Answer a question from a passage, with the answer's place in it and a score.

    A model that was tuned on questions without an answer may find none in the passage; so may any with
    --null-threshold.

    Example: edge-distil ask runs/qa-onnx "Who built the bridge?" --context passage.txt
    """
    from edge_distil.starter import example

    if (question is None) != (passage is None):
        raise UserError("a question and a passage go together", 'edge-distil ask MODEL "question" --context FILE')
    if question is None or passage is None:
        question, text, _ = example()
    else:
        text = _read_passage(passage)
    if not question.strip():
        raise UserError("the question is empty", "write a question between the quotes")
    _check_inputs(model)
    answerer = _open(model, precision, threads, null_threshold, max_length=max_length, doc_stride=doc_stride)
    if _given(context, "max_length") and answerer.max_length != max_length:
        from edge_distil.console import note

        note(f"{model}: takes inputs of fixed lengths, {answerer.max_length} tokens in place of {max_length}")
    answerer.unanswerable = answerer.decoding.null_threshold is not None
    answers = answerer.ask(question, text, n_best=n_best)
    result = {
        "question": question,
        **({} if passage else {"context": text}),
        "answers": [{"text": a.text, "start": a.start, "end": a.end, "score": a.score} for a in answers],
    }
    shown = [] if passage else [text, "", question]
    found = [
        f"{a.text}  ({a.score:.0%}, characters {a.start} to {a.end})" if a.text else f"no answer  ({a.score:.0%})"
        for a in answers
    ]
    _finish(result, json_output, *shown, *found)


@app.command()
def export(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint folder. Default: the starter's question-answering teacher.")
    ] = None,
    format: Annotated[str, typer.Option(help="onnx, coreml (ML programs) or openvino (fp16 and int8).")] = "onnx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write. Default: runs/export-FORMAT.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="ONNX: fp32, fp16, int8, int4, or all of them with a table and a plot. Default: fp32 and int8. "
            "Core ML: fp16, fp32, palette8, palette6, palette4 (look-up tables), int8, int4, w8a8 (activations too), "
            "or all that --ios has. Default: fp16."
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="ONNX: x86 (with VNNI or AMX), arm64, web or generic: where few bits are to be fast and exact."
        ),
    ] = "generic",
    quantization: Annotated[
        str, typer.Option(help="ONNX: dynamic, or static: the range of activations is found beforehand.")
    ] = "dynamic",
    calibration: Annotated[
        Path | None,
        typer.Option(help="SQuAD file to calibrate static, w8a8 or OpenVINO's int8 on. Default: that of --eval."),
    ] = None,
    calibration_method: Annotated[
        str, typer.Option(help="How static quantisation finds a range: minmax, percentile or entropy.")
    ] = "minmax",
    input_type: Annotated[
        str,
        typer.Option(help="ONNX: int64 token ids, as pipelines give them, or int32, for accelerators without int64."),
    ] = "int64",
    with_tokenizer: Annotated[
        bool,
        typer.Option("--with-tokenizer", help="ONNX: also write graphs that take text, with the tokeniser inside."),
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="Of a text classifier: the task that the labels of --eval belong to, as in finetune."),
    ] = None,
    max_length: Annotated[int, typer.Option(min=16, help="Core ML: the fixed number of tokens of an input.")] = 384,
    lengths: Annotated[
        str | None,
        typer.Option(help="Core ML: lengths that an input may have, as 128,256,384 (iOS 18) or as a range, 16..384."),
    ] = None,
    ios: Annotated[
        int, typer.Option(help="Core ML: the oldest iOS to run on, 16, 17 or 18; macOS 13, 14 or 15 with it.")
    ] = 16,
    layout: Annotated[
        str, typer.Option(help="Core ML: plain, or ane, channels first and head by head for the Neural Engine.")
    ] = "plain",
    data: Annotated[
        Path | None,
        typer.Option(
            "--eval", help="SQuAD file, or with --task texts with labels, to check on. Default: the starter's test set."
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Points of F1, or of the task's score, that fewer bits may lose: where they lose more, "
            "the most sensitive parts stay in more bits; where nothing helps, nothing is written.",
        ),
    ] = 1.0,
    checked_questions: Annotated[
        int, typer.Option(min=1, help="How many questions or texts of --eval the check asks.")
    ] = 100,
    overwrite: Overwrite = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Export a checkpoint to ONNX, Core ML or OpenVINO, checked against the checkpoint before it is written.

    Takes question-answering models, text classifiers and masked-LM models; `evaluate` runs the first two, `ask` and
    `bench` the first.

    Example: edge-distil export runs/qa --precision int8 --target arm64 --eval dev-v1.1.json --output runs/qa-onnx
    """
    _choice("--format", format, "onnx", "coreml", "openvino")
    _choice("--target", target, "x86", "arm64", "web", "generic")
    _choice("--quantization", quantization, "dynamic", "static")
    _choice("--calibration-method", calibration_method, "percentile", "entropy", "minmax")
    _choice("--input-type", input_type, "int64", "int32")
    _choice("--layout", layout, "plain", "ane")
    _choice("--ios", str(ios), "16", "17", "18")
    if format != "onnx":
        of_onnx = ["target", "quantization", "calibration_method", "input_type", "with_tokenizer"]
        _refuse_given(context, of_onnx, "onnx", format)
    if format != "coreml":
        _refuse_given(context, ["ios", "layout", "lengths"], "coreml", format)
    if format == "openvino":
        _refuse_given(context, ["precision"], "onnx or coreml", format)
    if calibration and format == "onnx" and quantization == "dynamic":
        raise UserError("--calibration needs --quantization static", "add it, or leave --calibration out")
    if lengths and _given(context, "max_length"):
        raise UserError("--max-length is one length, --lengths are several", "leave one of them out")
    if task is None:
        _check_inputs(model, data=data)
    _check_written(output, overwrite)
    import exporters
    from edge_distil.console import note
    from edge_distil.starter import teacher_folder
    from exporters.coreml.plan import PRECISIONS, parse_lengths, precisions_for

    taken = precisions_for(ios) if format == "coreml" else ["fp32", "fp16", "int8", "int4"]  # type: ignore[arg-type]
    known = PRECISIONS if format == "coreml" else taken
    if precision not in (None, "all", *known):
        raise UserError(
            f"--precision {precision}: unknown for --format {format}", f"choose one of: {', '.join(known)}, all"
        )
    chosen = taken if precision == "all" else [precision] if precision else None
    if calibration and format == "coreml" and "w8a8" not in (chosen or []):
        raise UserError("--calibration needs --precision w8a8", "add it, or leave --calibration out")
    folder = model or teacher_folder("question-answering")
    labelled = None
    if task:
        labelled = _labelled(task, folder, data, checked_questions)
    asked = _answerable_questions(None if task else data)[:checked_questions]
    result = exporters.export(
        folder,
        output or Path(f"runs/export-{format}"),
        format=format,  # type: ignore[arg-type]
        questions=asked,
        max_length=max_length,
        max_drop=max_drop,
        onnx=exporters.OnnxOptions(
            precisions=chosen or ("fp32", "int8"),  # type: ignore[arg-type]
            target=target,  # type: ignore[arg-type]
            quantization=quantization,  # type: ignore[arg-type]
            calibration_method=calibration_method,  # type: ignore[arg-type]
            input_type=input_type,  # type: ignore[arg-type]
            family=precision == "all",
            with_tokenizer=with_tokenizer,
        ),
        coreml=exporters.CoreMLOptions(
            precisions=chosen or ("fp16",),  # type: ignore[arg-type]
            layout=layout,  # type: ignore[arg-type]
            ios=ios,  # type: ignore[arg-type]
            lengths=parse_lengths(lengths) if lengths else None,
        ),
        calibration=_answerable_questions(calibration) if calibration else None,
        labelled=labelled,
        config=_options(context),
        overwrite=overwrite,
        progress=note,
    )
    lines = [f"  {file['path']}: {file['precision']}, {file['bytes'] / 1e6:.1f} MB" for file in result["files"]]
    checked = [f"  {name}: {_plain(value)}" for name, value in result["gate"].items()]
    _finish(
        result, json_output, f"wrote {result['artifact']} in {result['seconds']:.0f} s", *lines, "checked:", *checked
    )


def _refuse_given(context: typer.Context, names: list[str], of: str, format: str) -> None:
    """Refuse options of exports `of` one format that the user gave with another, where they would go unheard."""
    for name in names:
        if _given(context, name):
            raise UserError(f"--{name.replace('_', '-')} is for --format {of}, not for {format}", "leave it out")


def _given(context: typer.Context, name: str) -> bool:
    """Whether the user gave an option, on the command line or in a file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def _labelled(task: str, model: Path, data: Path | None, count: int) -> Any:
    """The first examples of --eval with their labels, for the judge of a text classifier."""
    from edge_distil import stages
    from edge_distil.checkpoints import read_json
    from edge_distil.models import resolve
    from edge_distil.tasks.evaluation import labels_for
    from edge_distil.tasks.texts import TEXT_TASKS
    from exporters.gate import LabelledTexts

    _choice("--task", task, *TEXT_TASKS)
    if data is None:
        raise UserError(f"--task {task} needs --eval", "give a file of texts with labels")
    folder = resolve(model)
    text_task = TEXT_TASKS[task]
    labels = labels_for(text_task, read_json(folder / "config.json"), folder)
    sets = stages.dev_sets(text_task, data, labels)
    return LabelledTexts(text_task, next(iter(sets.values()))[:count])


def _plain(value: Any) -> str:
    """A figure of the gate for a person."""
    if isinstance(value, dict):
        shown = {name: each for name, each in value.items() if name not in ("tried", "operations")}  # in the manifest
        return ", ".join(f"{name.replace('_', ' ')} {_plain(each)}" for name, each in shown.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@app.command()
def verify(
    context: typer.Context,
    artifact: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint, ONNX, OpenVINO or Core ML export. Default: the starter's question-answering teacher."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="SQuAD file to take questions from. Default: the starter's test set.")
    ] = None,
    checked_questions: Annotated[int, typer.Option(min=1, help="How many questions are asked.")] = 100,
    threads: Threads = None,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Check that a checkpoint or an export is whole and works. Needs the folder alone, and writes nothing.

    Every file against its checksum, the tokeniser against the model; every graph that takes token ids is opened and
    run, its logits must be finite, follow the text and not the padding; a question answerer is asked questions, each
    graph in turn. Ends with status 2 when a check fails. A Core ML package is run on any machine, operation by
    operation as it says, in fp16.

    Example: edge-distil verify runs/qa-onnx --data dev-v1.1.json
    """
    if artifact is not None and not artifact.is_dir():
        raise UserError(f"{artifact}: no such folder", "give the folder of a checkpoint or of an export")
    _check_inputs(data=data)
    from edge_distil import verification
    from edge_distil.console import note
    from edge_distil.starter import teacher_folder

    result = verification.verify(
        artifact or teacher_folder("question-answering"),
        questions=_answerable_questions(data)[:checked_questions],
        threads=threads,
        progress=note,
    )
    files = f"{result['files']['count']} files, {result['files']['bytes'] / 1e6:.1f} MB"
    checks = [
        f"  {'ok' if each['passed'] else 'FAILED'}  {each['check']}: {each['detail']}" for each in result["checks"]
    ]
    notes = [f"  note: {each}" for each in result["notes"]]
    _finish(result, json_output, f"{result['artifact']}: {result['kind']}, {result['task']}, {files}", *checks, *notes)
    faults = [each for each in result["checks"] if not each["passed"]]
    if faults:
        more = f" ({len(faults) - 1} more of the checks failed)" if len(faults) > 1 else ""
        raise UserError(faults[0]["detail"] + more, faults[0]["hint"])


@app.command()
def bundle(
    context: typer.Context,
    artifact: Annotated[
        Path | None,
        typer.Argument(
            help="Core ML export. Default: one of the starter's question-answering teacher, made on the way."
        ),
    ] = None,
    app_folder: Annotated[
        Path, typer.Option("--app", help="The app's folder, with one resource folder Bundled in it, or that folder.")
    ] = Path("apps/ios-demo"),
    name: Annotated[
        str | None, typer.Option(help="What the app calls the model. Default: the export folder's name.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Which package of an export of several. Default: fp16, or the first there is.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="SQuAD file to take sample passages from. Default: leave the app's, the starter's if none."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the app's sample passages.")] = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Put a Core ML export into the iOS app: package, tokeniser and manifest, checked, and sample passages.

    A model of the same name in the app is replaced, whole or not at all; others stay, so that two can be compared in
    the app's study.

    Example: edge-distil bundle runs/qa-student-coreml --app apps/ios-demo --name DistilBERT
    """
    from tempfile import TemporaryDirectory

    _check_inputs(data=data)
    if artifact and not artifact.is_dir():
        raise UserError(f"{artifact}: no such folder", "give the folder of a Core ML export")
    import exporters
    from edge_distil.console import note
    from edge_distil.starter import teacher_folder
    from exporters import bundle as bundling

    bundling.find_resources(app_folder)  # before a model is exported
    questions = _answerable_questions(data) if data else None
    if overwrite and questions is None:
        raise UserError("--overwrite replaces the sample passages, and no --data gives others", "leave it out")
    with TemporaryDirectory(prefix="edge-distil-bundle-") as scratch:
        if artifact is None:
            asked = _answerable_questions(None)[:100]
            artifact = Path(scratch) / "starter"
            exporters.export(
                teacher_folder("question-answering"), artifact, format="coreml", questions=asked, progress=note
            )
        result = bundling.bundle(
            artifact, app_folder, name=name, precision=precision, questions=questions, overwrite=overwrite
        )
    for warning in result["warnings"]:
        note(f"warning: {warning}")
    lengths = result["lengths"]
    taken = (
        "any length"
        if lengths is None
        else f"{lengths[0]} tokens"
        if len(lengths) == 1
        else f"up to {lengths[-1]} tokens"
    )
    project = bundling.project_of(app_folder)
    _finish(
        result,
        json_output,
        f"{'replaced' if result['replaced'] else 'wrote'} {result['model']}: {result['precision']}, "
        f"{result['bytes'] / 1e6:.1f} MB, {taken}, iOS {result['ios']} or later",
        f"the app now holds: {', '.join(result['models'])}",
        "next, on a Mac (git does not carry the model: copy its folder there):"
        if project
        else "next: add the folder to the app's target as a folder reference",
        *(
            (
                f"  open {project}",
                "  choose your team under Signing & Capabilities, and a phone or a simulator",
                "  run (⌘R): the first question waits while the phone compiles the model",
            )
            if project
            else ()
        ),
    )


@app.command()
def bench(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="Checkpoints and exports. Default: BERT-base and DistilBERT shapes, random weights."),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="torch, torch.compile, onnxruntime, openvino, coreml (on macOS) or mil (Core ML packages run "
            "operation by operation). Repeatable. Default: all that can run a model."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, bf16, int8, … Repeatable. Default: all that there are.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where to run: cpu, cuda, mps or coreml (GPU and Neural Engine).")
    ] = "cpu",
    data: Annotated[
        Path | None, typer.Option(help="SQuAD file to take questions from. Default: the starter's test set.")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="How many questions to ask.")] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="How often each question is asked.")] = 5,
    warmup: Annotated[
        int, typer.Option(min=0, help="Least number of calls until times are steady, not counted; 0: no warm-up.")
    ] = 3,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Pad or cut every input to so many tokens; 0: its own length. "
            "Default: 384, or the most that every model takes.",
        ),
    ] = None,
    threads: Threads = None,
    seed: Seed = 0,
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            "--import", help="Results of the app's study, or of another bench, for the same table. Repeatable."
        ),
    ] = None,
    measure: Annotated[bool, typer.Option(help="Measure; or only show what --import gives.")] = True,
    against: Annotated[
        Path | None, typer.Option(help="Results of an earlier run to compare with: a results.json or its folder.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for results.json, results.csv, README.md, chart.png and command.yaml."
        ),
    ] = None,
    overwrite: Overwrite = False,
    config: Config = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure latency, batch 1, with and without tokenisation: every model in every runtime, taking turns.

    Each contender has a process of its own, all of them open at once. Without models this takes four minutes on two
    idle cores, ten on busy ones, 10 GB of memory and 3 GB in the temporary folder. Times of single calls are in
    --json. With --against a slower result is said and is no error.

    Example: edge-distil bench runs/qa-teacher runs/qa-student-onnx --data dev-v1.1.json --output runs/bench
    """
    import shlex
    from tempfile import TemporaryDirectory

    from edge_distil.bench.processes import check_threads, measure_apart, stopped_once
    from edge_distil.bench.results import check_not_read, compare, read_reports, read_results
    from edge_distil.bench.setups import RUNTIMES, Setup, check_device, labelled, setups_of
    from edge_distil.checkpoints import check_output
    from edge_distil.console import note, progress

    for name in runtime or []:
        _choice("--runtime", name, *RUNTIMES)
    if not measure and (models or not imported):
        raise UserError("--no-measure shows what --import gives", "give --import FILE and no models")
    threads = threads or _cores()
    check_threads(threads, _cores())
    if output:
        check_not_read(output, *models or (), *imported or (), data, against)
        check_output(output, overwrite)
    others = read_reports(*imported or ())
    earlier = read_results(against) if against else None
    if earlier and not measure and len(others) > 1:
        raise UserError(f"--against compares one run, and --import gives {len(others)}", "give one --import at a time")
    if not measure:
        report: dict[str, Any] = {"results": [], "warnings": []}
    else:
        check_device(device)
        chosen: dict[str, Any] = {"device": device, "runtimes": runtime or (), "precisions": precision or ()}
        given = labelled(models or [])
        setups: list[Setup] = [each for name in given for each in setups_of(given[name], name=name, **chosen)]
        asked = _answerable_questions(data)[:questions]
        load = list(os.getloadavg())
        with stopped_once(), TemporaryDirectory(prefix="edge-distil-bench-") as scratch:
            if not models:
                folders = _random_shapes(Path(scratch), device, asked, chosen)
                for name, folder in folders.items():
                    setups += setups_of(folder, name=name, random_weights=True, **chosen)
            with progress("measuring", len(setups) * repeats * len(asked)) as advance:
                found = measure_apart(
                    setups,
                    asked,
                    threads=threads,
                    scratch=Path(scratch),
                    tokens=tokens,
                    repeats=repeats,
                    warmup=warmup,
                    seed=seed,
                    strict=bool(runtime),
                    note=note,
                    progress=advance,
                )
        report = _bench_report(
            found, threads, asked, device=device, data=str(data or "starter set"), repeats=repeats, seed=seed, load=load
        )
    if others:
        report["imported"] = others
    if earlier:
        report["against"] = compare(report if measure else others[0], earlier, seed=seed)
    if output:
        _write_bench(output, report, shlex.join(["edge-distil", *sys.argv[1:]]), _options(context), overwrite)
    if json_output:
        _finish(report, json_output)
    else:
        from edge_distil.report.latency import bench_table
        from edge_distil.report.tables import show

        show(bench_table(report))
        if output:
            print(f"wrote {output}")


def _bench_report(
    found: dict[str, Any], threads: int, asked: Any, *, load: list[float], **conditions: Any
) -> dict[str, Any]:
    """What `bench --json` prints, of what was measured in processes."""
    from edge_distil.bench import report

    return report(
        found["results"],
        threads=threads,
        questions=len(asked),
        tokens=found["tokens"],
        conditions={
            **conditions,
            "cpus": found["cpus"],
            "load_average_before": load,
            "input": found["input"],
            "left_out": found["left_out"],
        },
        warnings=[f"{name}: its times did not settle in the warm-up" for name in found["unsteady"]],
    )


def _write_bench(output: Path, report: dict[str, Any], command: str, options: dict[str, Any], overwrite: bool) -> None:
    """The folder of `bench --output`."""
    import yaml

    from edge_distil.bench.results import RESULTS
    from edge_distil.checkpoints import new_folder, write_manifest
    from edge_distil.report.latency import page, plot, write_csv

    with new_folder(output, overwrite=overwrite) as staging:
        (staging / RESULTS).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        write_csv(report, staging / "results.csv")
        plot(report, staging / "chart.png")
        (staging / "README.md").write_text(page(report, command=command, chart="chart.png"), encoding="utf-8")
        (staging / "command.yaml").write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        write_manifest(staging, kind="bench", task="latency", command="bench", config=options, inputs={}, measured={})


def _task(task: str, *more: str) -> None:
    from edge_distil.tasks.texts import TEXT_TASKS

    if task not in (names := ("squad", *TEXT_TASKS, *more)):
        raise UserError(f"--task {task}: unknown task", f"the tasks are: {', '.join(names)}")


def _questions(data: Path | None, version_2: bool = False) -> Any:
    """The questions of a file, or the starter's test set."""
    from edge_distil.starter import questions
    from edge_distil.tasks.squad import parse_squad, read_squad

    if data is None:
        return parse_squad(questions("test"), "starter set, test")
    return read_squad(data, version_2=version_2)


def _answerable_questions(data: Path | None) -> Any:
    """`_questions` for the commands that take SQuAD v1.1 alone."""
    try:
        return _questions(data)
    except UserError as fault:
        if "--squad-v2" in fault.hint:
            raise UserError(fault.message, "give a SQuAD v1.1 file") from None
        raise


def _open(
    model: Path | None, precision: str | None, threads: int | None, null_threshold: float | None, **options: Any
) -> Any:
    """A `QuestionAnswerer` over a folder, or over the starter's teacher. A threshold wins over its `decoding.json`."""
    import math
    from dataclasses import replace

    from edge_distil.qa import QuestionAnswerer
    from edge_distil.runtimes import open_runtime
    from edge_distil.starter import teacher_folder

    if null_threshold is not None and not math.isfinite(null_threshold):
        raise UserError(f"--null-threshold {null_threshold}: is no finite number", "give a difference of logits")
    folder = model or teacher_folder("question-answering")
    answerer = QuestionAnswerer(open_runtime(folder, precision=precision, threads=threads), **options)
    if null_threshold is not None:
        answerer.decoding = replace(answerer.decoding, null_threshold=null_threshold)
    return answerer


def _read_passage(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", "check the path given to --context") from None
    except UnicodeDecodeError as fault:
        raise UserError(f"{path}: is not UTF-8 text (byte {fault.start})", "convert the file to UTF-8") from None
    if not text.strip():
        raise UserError(f"{path}: is empty", "give a passage with some text in it")
    return text


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _random_shapes(scratch: Path, device: str, asked: Any, chosen: dict[str, Any]) -> dict[str, Path]:
    """A folder for each of BERT-base and DistilBERT with random weights, and in it what the chosen runtimes run."""
    from importlib.util import find_spec

    import numpy as np

    from edge_distil.bench import random_model
    from edge_distil.console import note
    from edge_distil.starter import build_tokenizer
    from edge_distil.tokenization import special_tokens
    from exporters import samples_of
    from exporters.encoder import PlainEncoder

    def wants(runtime: str, *precisions: str) -> list[str]:
        of_device = {"cpu": ("torch", "onnxruntime", "openvino"), "coreml": ("coreml",)}.get(device, ("torch",))
        if sys.platform == "darwin" and device == "cpu":
            of_device = (*of_device, "coreml")
        if runtime not in (chosen["runtimes"] or of_device):
            return []
        return [each for each in precisions if each in (chosen["precisions"] or precisions)]

    note("no model given: timing BERT-base and DistilBERT with random weights of the true shapes")
    tokenizer = build_tokenizer()
    folders = {}
    for shape, name in (("bert-base", "BERT-base"), ("distilbert", "DistilBERT")):
        note(f"making {name}")
        folders[name] = folder = scratch / shape
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
        model = random_model(shape)  # type: ignore[arg-type]
        if wants("torch", "fp32", "bf16") or wants("torch.compile", "fp32", "bf16"):
            model.save_pretrained(folder)
        plain = PlainEncoder.from_library(model, special_tokens(tokenizer).sep)
        for precision in wants("onnxruntime", "fp32", "int8"):
            from exporters.onnx import plan_for, write_graph

            write_graph(plain, folder, plan_for(precision, "x86"))  # type: ignore[arg-type]
        for precision in wants("openvino", "fp16", "int8") if find_spec("openvino") and find_spec("nncf") else []:
            from exporters.openvino import convert

            ids = samples_of("question-answering", folder, asked, 384)
            convert(plain, folder, precision=precision, calibration=[(each, np.ones_like(each)) for each in ids])  # type: ignore[arg-type]
        if wants("coreml", "fp16") or "mil" in chosen["runtimes"]:
            from edge_distil.runtimes.mil import PACKAGES
            from exporters.coreml import CoreMLPlan, write_package

            write_package(plain, folder / PACKAGES["fp16"], CoreMLPlan())
    return folders


def main() -> None:
    """The console script. Exits with 2 and two lines, `error: …` and `hint: …`, for what the user can fix."""
    debug = "--debug" in sys.argv
    # Where a command does not handle SIGTERM itself, it ends like any other exit: staging folders are removed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        status = app(prog_name="edge-distil", standalone_mode=False)
    except UserError as fault:
        status = _fail(fault.message, fault.hint, debug)
    except _UsageError as fault:
        command = fault.ctx.command_path if fault.ctx else "edge-distil"
        status = _fail(fault.format_message(), f"see {command} --help", debug)
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        is_folder = isinstance(fault, IsADirectoryError)
        hint = "give a file, not a folder" if is_folder else "check free space and permissions, then run it again"
        status = _fail(f"{where}{fault.strerror or fault}", hint, debug)
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    if status == 130:  # also what typer makes of an interrupt inside a command
        print("stopped", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, hint: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
