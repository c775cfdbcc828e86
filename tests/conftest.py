"""Tiny models with random weights, the starter's tokeniser and questions. Tests that change a folder copy it first."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    PreTrainedModel,
)

from edge_distil import cli, starter
from edge_distil.tasks.squad import Question, parse_squad
from edge_distil.tokenization import write_tokenizer_config

POSITIONS = 384


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return starter.build_tokenizer()


@pytest.fixture(scope="session")
def squad() -> dict[str, Any]:
    """Three passages and their questions, in the format of SQuAD v1.1."""
    return starter.questions("test", passages=3)


@pytest.fixture(scope="session")
def questions(squad: dict[str, Any]) -> list[Question]:
    return parse_squad(squad, "starter")


@pytest.fixture(scope="session")
def squad_file(squad: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squad") / "test-v1.1.json"
    path.write_text(json.dumps(squad), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(starter.corpus("test", documents=6)) + "\n", encoding="utf-8")
    return path


def bert_config(**overrides: Any) -> BertConfig:
    """Four layers of width 32; dropout is off so that one input has one loss."""
    sizes = {"vocab_size": 2000, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": POSITIONS}
    return BertConfig(**{**sizes, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **overrides})


def randomize(model: PreTrainedModel) -> PreTrainedModel:
    """Every weight, bias and norm random and distinct, so that a swapped, lost or untrained one shows.

    Wide enough that the logits differ from token to token by more than any tolerance.
    """
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        is_norm = name.lower().endswith("norm.weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_norm else 0.0, std=0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Callable[[PreTrainedModel], Path]:
    """Write a model and the starter's tokeniser as a Hugging Face folder."""

    def save(model: PreTrainedModel) -> Path:
        folder = tmp_path_factory.mktemp(model.config.model_type)
        model.save_pretrained(folder)
        tokenizer.save(str(folder / "tokenizer.json"))
        write_tokenizer_config(folder, lower_case=True, max_length=model.config.max_position_embeddings)
        return folder

    return save


@pytest.fixture(scope="session")
def bert_mlm(save: Callable[[PreTrainedModel], Path], tokenizer: Tokenizer) -> Path:
    return save(randomize(BertForMaskedLM(bert_config(vocab_size=tokenizer.get_vocab_size()))))


@pytest.fixture(scope="session")
def bert_encoder(save: Callable[[PreTrainedModel], Path], bert_mlm: Path) -> Path:
    """The encoder of `bert_mlm` alone, without any head."""
    return save(BertForMaskedLM.from_pretrained(bert_mlm).bert)


@pytest.fixture(scope="session")
def bert_qa(save: Callable[[PreTrainedModel], Path], tokenizer: Tokenizer) -> Path:
    return save(randomize(BertForQuestionAnswering(bert_config(vocab_size=tokenizer.get_vocab_size()))))


@pytest.fixture(scope="session")
def distilbert_qa(save: Callable[[PreTrainedModel], Path], tokenizer: Tokenizer) -> Path:
    config = DistilBertConfig(
        vocab_size=tokenizer.get_vocab_size(), dim=32, n_layers=2, n_heads=2, hidden_dim=64,
        max_position_embeddings=POSITIONS, dropout=0.0, attention_dropout=0.0, qa_dropout=0.0,
    )  # fmt: skip
    return save(randomize(DistilBertForQuestionAnswering(config)))


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The line after `error:`, once it is sure that the whole of the output is an error and its hint."""
        assert self.status == 2
        assert self.out == ""
        assert "Traceback" not in self.err
        first, second = self.err.splitlines()[-2:]
        assert first.startswith("error: ")
        assert second.startswith("hint: ")
        assert second != "hint: "
        return first.removeprefix("error: ")

    @property
    def hint(self) -> str:
        return self.err.splitlines()[-1].removeprefix("hint: ")


def run_command(*arguments: object) -> Ended:
    """Run a command in this process, as the console script would."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", ["edge-distil", *map(str, arguments)])
        with redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as exit:
            cli.main()
    return Ended(exit.value.code, out.getvalue(), err.getvalue())  # type: ignore[arg-type]


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a shared folder that the test may change."""
    return lambda folder: shutil.copytree(folder, tmp_path / folder.name)
