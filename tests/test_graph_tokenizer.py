"""Graphs with the tokeniser in them: the tokens of tokenizer.json, the windows and answers of the Python path."""

import importlib.util
import json
import sys
from pathlib import Path

import onnx
import pytest
from conftest import bert_config, randomize
from families import byte_level
from onnx import TensorProto, helper
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertForQuestionAnswering, BertForSequenceClassification, PreTrainedModel

from edge_distil.errors import UserError
from edge_distil.models import load_model
from edge_distil.runtimes.onnx import GRAPHS, OnnxRuntime
from edge_distil.runtimes.torch import TorchRuntime
from edge_distil.tasks.classification import encode
from edge_distil.tasks.decoding import Decoding
from edge_distil.tasks.squad import Question, windows
from edge_distil.tasks.texts import Example
from edge_distil.tokenization import load_tokenizer, pad, special_tokens
from exporters import OnnxOptions, export
from exporters.encoder import PlainEncoder
from exporters.onnx.graph import build_graph
from exporters.onnx.tokenizer import HARD_TEXTS, TextGraph, check, text_graph_path, with_tokenizer

needs_extensions = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_extensions") is None,
    reason="onnxruntime-extensions is not installed: pip install 'edge-distil[tokenizer]'",
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# No ##☃, no piece with ß inside a word, and no ##ᄀ: words with these are unknown as a whole.
WORDS = [*"東京☃ß한ᄒσ", "##ᅡ", "##ᆫ", "##σ", "cafe", "##fe", "hello", "##llo", "Hello", "café"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *"0123456789", "é", "É", "ü"]
MARKS = list(".,!?()[]'’“”-—$^`~#&%/|:;§€½")
VOCABULARY = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *MARKS]
CASES = {
    "uncased": {"lowercase": True},
    "cased": {"lowercase": False},
    "accents kept": {"lowercase": True, "strip_accents": False},
    "Chinese kept": {"lowercase": True, "handle_chinese_chars": False},
}


def wordpiece(**rules: bool) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(VOCABULARY))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(**rules)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def echo(*outputs: str) -> onnx.ModelProto:
    """In place of an encoder: gives back the token ids it is given, then their mask."""
    inputs = ("input_ids", "attention_mask")
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", [given], [output], to=TensorProto.FLOAT)
                for given, output in zip(inputs, outputs, strict=False)
            ],
            "echo",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length"]) for name in outputs],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def open_echo(tokenizer: Tokenizer, folder: Path, *, task="question-answering", **sizes: int) -> TextGraph:
    """A text graph that gives the ids of what it was given."""
    tokenizer.save(str(folder / "tokenizer.json"))
    outputs = ("start_logits", "end_logits") if task == "question-answering" else ("logits",)
    proto = with_tokenizer(echo(*outputs), folder, task=task, **sizes)
    onnx.checker.check_model(proto)
    (folder / "onnx").mkdir()
    onnx.save(proto, folder / "onnx" / "model.onnx")
    return TextGraph(folder / "onnx" / "model.onnx")


def assert_same_windows(graph: TextGraph, tokenizer: Tokenizer, question: str, context: str, **sizes: int) -> int:
    """Ids, where the context begins, and offsets of every window. Returns how many windows there are."""
    expected = windows([Question("q", question, context, ())], tokenizer, **sizes)
    found = graph.windows(question, context)
    assert len(found) == len(expected)
    for (window, ids_L, mask_L), wanted in zip(found, expected, strict=True):
        assert ids_L.tolist() == wanted.input_ids
        assert mask_L.tolist() == [1] * len(wanted.input_ids)
        assert window.context_start == wanted.context_start
        assert window.offsets_C2.tolist() == wanted.offsets_C2.tolist()
    return len(found)


@needs_extensions
def test_tokens_and_characters_worked_out_by_hand(tmp_path):
    graph = open_echo(wordpiece(lowercase=True), tmp_path)
    # é is one character and two bytes, 東 three bytes, 👩 four; x☃ is unknown as a whole, though x is known.
    ((window, ids_L, _),) = graph.windows("Hello?", "Café 東京[SEP]x☃ 👩\u200dab")
    tokens = ["[CLS]", "hello", "?", "[SEP]", "cafe", "東", "京", "[SEP]", "[UNK]", "[UNK]", "[SEP]"]
    assert [VOCABULARY[int(token_id)] for token_id in ids_L] == tokens
    assert window.context_start == 4
    assert window.offsets_C2.tolist() == [[0, 4], [5, 6], [6, 7], [7, 12], [12, 14], [15, 19]]


@needs_extensions
@pytest.mark.parametrize("rules", CASES.values(), ids=CASES.keys())
def test_hard_texts_have_the_tokens_of_tokenizer_json(tmp_path, rules):
    tokenizer = wordpiece(**rules)
    graph = open_echo(tokenizer, tmp_path)
    unicode = "".join(f"a{chr(code)}" for code in range(1, 0x3100))
    beyond = "".join(f" b{chr(code)}" for code in range(0x3100, 0x110000, 389) if not 0xD800 <= code < 0xE000)
    unknown = ["x☃y", "☃x☃", "hello☃ hello", "ßß", "한각", "a" * 100, "a" * 101, "☃" * 101 + " a", "aß" * 50]
    # Marks in canonical order, of which the first is kept.
    unknown.append("a\U0001d165\u0301b a\u1b44\u0301")
    marked = ["[SEP][SEP]", "[ SEP ]", "[sep]", "[SEP", "[[SEP]]", "a[PAD]", "#a ##a", "hello[MASK]hello"]
    for text in [*HARD_TEXTS, *unknown, *marked, unicode, beyond]:
        assert_same_windows(graph, tokenizer, "Hello?", text)


@needs_extensions
def test_a_text_goes_on_after_nul(tmp_path):
    tokenizer = wordpiece(lowercase=True)
    assert_same_windows(open_echo(tokenizer, tmp_path), tokenizer, "a\0b?", "hello\0 cafe\0")


@needs_extensions
def test_windows_are_cut_as_in_python(tmp_path):
    tokenizer = wordpiece(lowercase=True)
    sizes = {"max_length": 32, "doc_stride": 5}
    graph = open_echo(tokenizer, tmp_path, **sizes)
    # A question of 7 tokens leaves room for 22, one that is cut to 16 for 13, fewer than which no stride is.
    counts = [
        assert_same_windows(graph, tokenizer, question, "hello " * length, **sizes)
        for question in ("a b c d e f g", "hello " * 30)
        for length in (1, 12, 13, 14, 21, 22, 23, 27, 28, 60)
    ]
    assert counts[:10] == [1, 1, 1, 1, 1, 1, 2, 2, 3, 9]
    assert counts[10:] == [1, 1, 1, 2, 3, 3, 3, 4, 4, 11]


@needs_extensions
def test_stride_longer_than_a_window_skips_no_token(tmp_path):
    tokenizer = wordpiece(lowercase=True)
    sizes = {"max_length": 16, "doc_stride": 100}
    graph = open_echo(tokenizer, tmp_path, **sizes)
    assert assert_same_windows(graph, tokenizer, "a b c", "hello " * 21, **sizes) == 3


@needs_extensions
def test_texts_and_pairs_are_cut_as_in_python(tmp_path):
    tokenizer = wordpiece(lowercase=True)
    graph = open_echo(tokenizer, tmp_path, task="text-classification", max_length=16)
    lengths = (1, 5, 6, 7, 8, 13, 14, 15, 40)
    examples = [Example("", "a " * first, "b " * second, "") for first in lengths for second in lengths]
    examples += [Example("", "a " * first, None, "") for first in lengths]
    expected_BL, _ = pad(encode(examples, tokenizer, 16), special_tokens(tokenizer).pad)
    found_BL = graph.logits([example.text for example in examples], [example.pair or "" for example in examples])
    assert found_BL.tolist() == expected_BL.tolist()
    alone = [example.text for example in examples[-len(lengths) :]]
    assert graph.logits(alone).tolist() == expected_BL[-len(lengths) :].tolist()


def export_with_tokenizer(checkpoint: PreTrainedModel, folder: Path, **options: object) -> TextGraph:
    """Write both graphs of a model into its folder."""
    plain = PlainEncoder.from_library(checkpoint, special_tokens(load_tokenizer(folder)).sep)
    proto = build_graph(plain)
    (folder / "onnx").mkdir()
    onnx.save(proto, folder / GRAPHS["fp32"])
    before = proto.SerializeToString()
    onnx.save(with_tokenizer(proto, folder, **options), folder / text_graph_path(GRAPHS["fp32"]))
    assert proto.SerializeToString() == before
    return TextGraph(folder / text_graph_path(GRAPHS["fp32"]))


@needs_extensions
def test_answers_are_those_of_the_graph_without_the_tokeniser(bert_qa, questions, copy_of):
    folder = copy_of(bert_qa)
    Decoding(temperature=2.0).save(folder)
    sizes = {"max_length": 64, "doc_stride": 16}
    graph = export_with_tokenizer(load_model(folder, "question-answering"), folder, **sizes)
    assert max(len(graph.windows(each.question, each.context)) for each in questions) > 1
    runtime = OnnxRuntime(folder, precision="fp32")
    done: list[float] = []
    measured = check(graph, runtime, questions, **sizes, progress=done.append)
    assert measured == {"questions": len(questions) + len(HARD_TEXTS), "same_answers": 100.0}
    assert sum(done) == measured["questions"]
    answers = graph.ask(questions[0].question, questions[0].context, n_best=3)
    assert len(answers) == 3
    assert all(questions[0].context[answer.start : answer.end] == answer.text for answer in answers)
    with_empty = graph.ask("Who?", "Mary Ann.", n_best=100, unanswerable=True)
    without = graph.ask("Who?", "Mary Ann.", n_best=100)
    assert {answer.text for answer in with_empty} - {answer.text for answer in without} == {""}
    with pytest.raises(UserError, match="cuts its context into other tokens"):
        check(graph, runtime, questions, max_length=64, doc_stride=17)


@needs_extensions
def test_check_refuses_another_answer(bert_qa, tokenizer, questions, copy_of):
    folder = copy_of(bert_qa)
    graph = export_with_tokenizer(load_model(folder, "question-answering"), folder, max_length=64)
    other = randomize(BertForQuestionAnswering(bert_config(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=1)))
    onnx.save(build_graph(PlainEncoder.from_library(other, special_tokens(tokenizer).sep)), folder / GRAPHS["fp32"])
    with pytest.raises(UserError, match="the graph with the tokeniser answers"):
        check(graph, OnnxRuntime(folder, precision="fp32"), questions, max_length=64)


@needs_extensions
def test_classifier_has_the_logits_of_the_graph_without_the_tokeniser(save, tokenizer, questions):
    config = bert_config(vocab_size=tokenizer.get_vocab_size(), num_labels=3)
    model = randomize(BertForSequenceClassification(config))
    folder = save(model)
    options = {"task": "text-classification", "max_length": 48}
    graph = export_with_tokenizer(model, folder, **options)
    runtime = OnnxRuntime(folder, precision="fp32")
    measured = check(graph, runtime, questions[:4], **options)
    assert measured["questions"] == 4 + len(HARD_TEXTS)
    assert measured["max_logit_difference"] < 1e-4
    with pytest.raises(UserError, match="the logits of the graph with the tokeniser differ"):
        check(graph, runtime, questions, task="text-classification", max_length=40)
    with pytest.raises(UserError, match="answers no questions"):
        graph.ask("Who?", "Mary.")


@needs_extensions
@pytest.mark.parametrize("blank", ["", " \t", "\u200d", "\0"])
def test_empty_texts_are_refused_as_in_python(tmp_path, blank):
    graph = open_echo(wordpiece(lowercase=True), tmp_path)
    with pytest.raises(UserError, match="the context is empty"):
        graph.ask("hello", blank)
    with pytest.raises(UserError, match="the question is empty"):
        graph.ask(blank, "hello")
    with pytest.raises(UserError, match="the context is empty"):
        graph.ask(blank, blank)
    with pytest.raises(UserError, match="classifies no texts"):
        graph.logits(["hello"])


@needs_extensions
def test_file_that_takes_no_text_is_refused(tmp_path):
    onnx.save(echo("start_logits", "end_logits"), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="takes token ids, not text"):
        TextGraph(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match="ONNX Runtime cannot load it"):
        TextGraph(tmp_path / "model.onnx")


def test_missing_package_is_named_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    with pytest.raises(UserError, match="onnxruntime-extensions, which is not installed") as refused:
        TextGraph(tmp_path / "model.onnx")
    assert refused.value.hint == "pip install 'edge-distil[tokenizer]'"


def _other_normalizer(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])


def _no_normalizer(tokenizer: Tokenizer) -> None:
    state = json.loads(tokenizer.to_str())
    tokenizer.normalizer = Tokenizer.from_str(json.dumps(state | {"normalizer": None})).normalizer


def _other_words(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


def _control_characters(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=False)


def _added_token(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("Mary Ann", normalized=True)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_normalizer, "its normalizer is Sequence; only BertNormalizer"),
        (_no_normalizer, "its normalizer is none; only BertNormalizer"),
        (_other_words, "its pre-tokenizer is Whitespace; only BertPreTokenizer"),
        (_control_characters, "keeps control characters"),
        (_added_token, "the added token 'Mary Ann' is matched by rules of its own"),
    ],
)
def test_tokeniser_with_other_rules_is_refused(tmp_path, change, message):
    tokenizer = wordpiece(lowercase=True)
    change(tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=message):
        with_tokenizer(echo("start_logits", "end_logits"), tmp_path)


def test_byte_level_tokeniser_is_refused(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="its model is BPE; only WordPiece"):
        with_tokenizer(echo("start_logits", "end_logits"), tmp_path)


def test_masked_language_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="masked-lm does not take text"):
        with_tokenizer(echo("logits"), tmp_path, task="masked-lm")


@needs_extensions
def test_export_with_the_tokeniser_of_a_masked_language_model_is_refused_before_any_work(
    bert_mlm, questions, tmp_path, monkeypatch
):
    monkeypatch.setattr(TorchRuntime, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    options = OnnxOptions(with_tokenizer=True)
    with pytest.raises(UserError, match="masked-lm does not take text"):
        export(bert_mlm, tmp_path / "out", format="onnx", questions=questions[:1], onnx=options)


@needs_extensions
@pytest.mark.parametrize("input_type", ["int64", "int32"])
def test_export_writes_a_graph_that_takes_text_beside_each_that_takes_tokens(
    save, tokenizer, questions, tmp_path, input_type
):
    checkpoint = save(randomize(BertForQuestionAnswering(bert_config(vocab_size=tokenizer.get_vocab_size()))))
    options = OnnxOptions(precisions=("fp32", "int8"), with_tokenizer=True, input_type=input_type)
    asked, output = questions[:3], tmp_path / "out"
    result = export(checkpoint, output, format="onnx", questions=asked, max_length=64, max_drop=100, onnx=options)
    texts = {file["precision"]: file for file in result["files"] if file.get("input") == "text"}
    assert [texts[precision]["path"] for precision in ("fp32", "int8")] == [
        "onnx/model_with_tokenizer.onnx",
        "onnx/model_quantized_with_tokenizer.onnx",
    ]
    assert result["gate"]["int8"]["with_tokenizer"]["same_answers"] == 100
    assert f'np.array([encoding.ids], "{input_type}")' in (output / "README.md").read_text()
    answer = TextGraph(output / texts["fp32"]["path"]).ask(asked[0].question, asked[0].context)[0]
    assert asked[0].context[answer.start : answer.end] == answer.text
