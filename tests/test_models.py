"""Loading: only whole, safe, supported checkpoints with the head that is asked for; everything else is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from families import byte_level, masked_lm, wordpiece
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import BertForMaskedLM, BertModel, PreTrainedModel, RobertaForMaskedLM

from edge_distil.checkpoints import check_length, usable_positions, write_manifest
from edge_distil.errors import UserError
from edge_distil.models import load_model, resolve
from edge_distil.tokenization import special_tokens, write_tokenizer_config

Copy = Callable[[Path], Path]


def edit_config(folder: Path, **values: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def test_a_checkpoint_loads_with_its_own_weights_in_fp32_and_ready_to_run(bert_mlm: Path) -> None:
    model = load_model(bert_mlm, "masked-lm")
    stored = load_file(bert_mlm / "model.safetensors")
    loaded = model.state_dict()
    assert isinstance(model, BertForMaskedLM)
    assert not model.training
    assert {value.dtype for value in loaded.values() if value.is_floating_point()} == {torch.float32}
    assert len(stored) > 60
    for name, value in stored.items():
        assert torch.equal(loaded[name], value), name


def test_weights_stored_in_bf16_load_in_fp32(bert_mlm: Path, save: Callable[[PreTrainedModel], Path]) -> None:
    half = save(load_model(bert_mlm, "masked-lm").to(torch.bfloat16))
    weight = load_model(half, "masked-lm").bert.embeddings.word_embeddings.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, weight.bfloat16().float())


def test_an_encoder_without_a_masked_lm_head_points_at_pretrain(bert_encoder: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_model(bert_encoder, "masked-lm")
    assert f"{bert_encoder}: has no masked-lm head (cls.predictions." in caught.value.message
    assert caught.value.hint == f"train one first: edge-distil pretrain --from {bert_encoder}"


def test_a_model_without_a_question_answering_head_points_at_finetune(bert_mlm: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_model(bert_mlm, "question-answering")
    assert f"{bert_mlm}: has no question-answering head (qa_outputs." in caught.value.message
    assert caught.value.hint == f"fine-tune it first: edge-distil finetune --task squad --model {bert_mlm}"


@pytest.mark.parametrize(("fixture", "task"), [("bert_mlm", "question-answering"), ("bert_encoder", "masked-lm")])
def test_a_fresh_head_leaves_the_encoder_as_it_was(request: pytest.FixtureRequest, fixture: str, task: str) -> None:
    folder = request.getfixturevalue(fixture)
    ours = load_model(folder, task, new_head=True).base_model.state_dict()  # type: ignore[arg-type]
    theirs = BertModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
    assert len(theirs) > 60
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name


def test_pickled_weights_are_refused(bert_mlm: Path, copy_of: Copy) -> None:
    folder = copy_of(bert_mlm)
    (folder / "model.safetensors").unlink()
    torch.save(load_file(bert_mlm / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(UserError) as caught:
        load_model(folder, "masked-lm")
    assert caught.value.message == f"{folder}: has no .safetensors weights"
    assert "pickled weights (.bin, .pt) are never loaded" in caught.value.hint


def test_code_in_the_folder_is_never_run(bert_mlm: Path, copy_of: Copy) -> None:
    folder = edit_config(copy_of(bert_mlm), auto_map={"AutoConfig": "evil.Evil", "AutoModelForMaskedLM": "evil.Evil"})
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    assert isinstance(load_model(folder, "masked-lm"), BertForMaskedLM)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 16}, "the weights do not fit config.json, first at bert.embeddings.LayerNorm.bias"),
        ({"num_hidden_layers": 1}, "the weights do not fit config.json, first at bert.encoder.layer.1."),
        ({"num_hidden_layers": 5}, "the weights do not fit config.json, first at bert.encoder.layer.4."),
        ({"hidden_size": 31}, "the weights do not load: The hidden size (31)"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"model_type": "nope"}, "has model type `nope`"),
    ],
    ids=["width", "fewer layers", "more layers", "heads", "type", "architecture"],
)
def test_a_configuration_of_another_model_is_named(
    bert_mlm: Path, copy_of: Copy, values: dict[str, object], message: str
) -> None:
    folder = edit_config(copy_of(bert_mlm), **values)
    with pytest.raises(UserError) as caught:
        load_model(folder, "masked-lm")
    assert str(folder) in caught.value.message
    assert message in caught.value.message
    assert caught.value.hint


def test_a_checkpoint_that_lacks_a_part_of_its_encoder_is_refused_even_for_a_new_head(
    bert_mlm: Path, copy_of: Copy
) -> None:
    folder = copy_of(bert_mlm)
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.2.output.dense.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"first at bert\.encoder\.layer\.2\.output\.dense\.bias"):
        load_model(folder, "question-answering", new_head=True)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_weights_that_were_cut_short_are_refused(bert_mlm: Path, copy_of: Copy, kept: int) -> None:
    folder = copy_of(bert_mlm)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="the weights do not load") as caught:
        load_model(folder, "masked-lm")
    assert "model.safetensors" in caught.value.hint


def test_weights_that_do_not_match_the_manifest_are_refused(bert_mlm: Path, copy_of: Copy) -> None:
    folder = copy_of(bert_mlm)
    write_manifest(folder, kind="checkpoint", task="masked-lm", command="train", config={}, inputs={}, measured={})
    load_model(folder, "masked-lm")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"model\.safetensors: does not match its checksum"):
        load_model(folder, "masked-lm")


def test_a_tokeniser_of_another_vocabulary_is_refused(bert_mlm: Path, copy_of: Copy, tokenizer: Tokenizer) -> None:
    folder = copy_of(bert_mlm)
    larger = Tokenizer.from_str(tokenizer.to_str())
    larger.add_tokens(["Brenmoor"])
    larger.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    with pytest.raises(UserError, match=f"the model has {size} embeddings and its tokeniser {size + 1} tokens"):
        load_model(folder, "masked-lm")


def model_folder(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> Path:
    """A Hugging Face folder of a model and the tokeniser that belongs to it."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder, max_length=96)
    return folder


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    return model_folder(masked_lm("roberta"), byte_level(), tmp_path)


def test_a_roberta_loads_as_a_masked_lm_with_its_own_weights(roberta: Path) -> None:
    model = load_model(roberta, "masked-lm")
    stored = load_file(roberta / "model.safetensors")
    loaded = model.state_dict()
    assert isinstance(model, RobertaForMaskedLM)
    assert len(stored) > 60
    for name, value in stored.items():
        assert torch.equal(loaded[name], value), name
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.config.pad_token_id == special_tokens(byte_level()).pad == 1


def test_a_roberta_without_a_masked_lm_head_points_at_pretrain(tmp_path: Path) -> None:
    folder = model_folder(masked_lm("roberta").roberta, byte_level(), tmp_path)
    with pytest.raises(UserError, match=r"has no masked-lm head \(lm_head\.") as caught:
        load_model(folder, "masked-lm")
    assert caught.value.hint == f"train one first: edge-distil pretrain --from {folder}"
    assert isinstance(load_model(folder, "masked-lm", new_head=True), RobertaForMaskedLM)


def test_question_answering_with_a_roberta_is_refused_even_for_a_new_head(roberta: Path) -> None:
    for new_head in (False, True):
        with pytest.raises(UserError) as caught:
            load_model(roberta, "question-answering", new_head=new_head)
        message = f"{roberta}: is a 'roberta' model, question-answering supports bert, distilbert only"
        assert caught.value.message == message
        assert caught.value.hint == "use a folder of one of these: BERT, DistilBERT"


@pytest.mark.parametrize("model_type", ["xlm-roberta", "electra"])
def test_another_architecture_is_refused_by_name(roberta: Path, model_type: str) -> None:
    edit_config(roberta, model_type=model_type)
    with pytest.raises(UserError) as caught:
        load_model(roberta, "masked-lm")
    message = f"{roberta}: is a {model_type!r} model, masked-lm supports bert, distilbert, roberta only"
    assert caught.value.message == message
    assert caught.value.hint == "use a folder of one of these: BERT, DistilBERT, RoBERTa"


def test_a_cased_bert_loads(tmp_path: Path) -> None:
    model = masked_lm("bert")
    loaded = load_model(model_folder(model, wordpiece(), tmp_path), "masked-lm")
    ids_BL = torch.tensor([wordpiece().encode("The Tower of Brenmoor").ids])
    assert torch.equal(loaded(ids_BL).logits, model(ids_BL).logits)


@pytest.mark.parametrize("vocab_size", [28996, 119547], ids=["cased", "multilingual"])
def test_a_published_vocabulary_loads_and_stays_with_its_own_model(tmp_path: Path, vocab_size: int) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(vocab_size - len(special)))])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    folder = model_folder(masked_lm("bert", vocab_size=vocab_size, layers=1), tokenizer, tmp_path)
    assert load_model(folder, "masked-lm").get_output_embeddings().out_features == vocab_size
    wordpiece().save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=f"the model has {vocab_size} embeddings and its tokeniser"):
        load_model(folder, "masked-lm")


def test_weights_under_the_names_of_the_first_published_berts_load(bert_mlm: Path, copy_of: Copy) -> None:
    """Those call a norm's weight and bias gamma and beta, and hold what the library does not use."""
    folder = copy_of(bert_mlm)
    stored = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in stored.items()
    }
    old |= {"bert.pooler.dense.weight": torch.zeros(32, 32), "cls.seq_relationship.bias": torch.zeros(2)}
    assert len(old.keys() - stored.keys()) == 2 * (1 + 2 * 4 + 1) + 2
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(folder, "masked-lm").state_dict()
    for name, value in stored.items():
        assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize(("family", "usable"), [("bert", 96), ("distilbert", 96), ("roberta", 96)])
def test_a_model_takes_as_many_tokens_as_it_has_usable_positions(tmp_path: Path, family: str, usable: int) -> None:
    model = masked_lm(family)
    model.save_pretrained(tmp_path)
    assert usable_positions(model.config.to_dict()) == usable
    check_length(tmp_path, usable, "--block-length")
    model(torch.full((1, usable), 7))
    with pytest.raises(UserError, match=f"has {usable} positions, not {usable + 1}") as caught:
        check_length(tmp_path, usable + 1, "--block-length")
    assert caught.value.hint == f"give --block-length {usable} or less"
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, usable + 1), 7))


def test_the_published_robertas_take_512_tokens() -> None:
    sizes = {"max_position_embeddings": 514, "pad_token_id": 1}
    assert usable_positions({"model_type": "roberta", **sizes}) == 512
    assert usable_positions({"model_type": "bert", **sizes}) == 514


def no_network(*arguments: object, **options: object) -> str:
    raise ConnectionError("offline")


@pytest.mark.parametrize("name", ["no/such/folder", "bert-base-uncased"])
def test_a_path_that_is_not_there_never_reaches_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("went to the network"))
    with pytest.raises(UserError) as caught:
        resolve(name)
    assert caught.value.message == f"{name}: no such model folder"
    assert "hf://owner/name" in caught.value.hint


def test_a_folder_without_config_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve(tmp_path)
    assert caught.value.message == f"{tmp_path}: has no config.json"
    assert "Hugging Face model folder" in caught.value.hint


def test_a_hub_model_without_a_network_is_an_error_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(UserError) as caught:
        resolve("hf://owner/name")
    assert caught.value.message == "hf://owner/name: the hub did not give it: offline"
    assert "network" in caught.value.hint


def test_a_hub_model_is_fetched_without_pickles_or_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.update(name=name, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert resolve("hf://owner/name") == tmp_path
    assert asked["name"] == "owner/name"
    files = ["config.json", "tokenizer.json", "vocab.txt", "model.safetensors", "onnx/model.onnx"]
    files += ["pytorch_model.bin", "modeling.py", "model.pkl", "tf_model.h5"]
    fetched = list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=asked["patterns"]))
    assert fetched == files[:5]


def test_a_model_is_found_by_text_or_path_alike(bert_mlm: Path, tmp_path: Path) -> None:
    link = tmp_path / "model"
    shutil.copytree(bert_mlm, link)
    assert resolve(str(link)) == resolve(link) == link
