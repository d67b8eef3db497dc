"""Students cut, narrowed or trimmed out of their teacher, and what they are said to cost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import tiny
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers import PreTrainedTokenizerFast as Fast

from adapters.backbone import load_backbone
from adapters.tiny import save_tiny_backbone
from distill import DistillError
from distill.estimate import estimate
from distill.pruning import prune_feed_forward, prune_heads
from distill.students import chosen_layers, cut, layer_stack
from distill.vocabulary import trim_embeddings, trimmed_tokenizer

Make = Callable[[str], Path]
TEXTS = [text for text, _ in tiny.rows(48)]
BATCHES = [tiny.batch(TEXTS[i : i + 16]) for i in range(0, 48, 16)]


def load(folder: Path) -> Any:
    return load_backbone(folder, tiny.LABELS)


def logits(model: Any, batch: Any = None) -> torch.Tensor:
    with torch.no_grad():
        return model(**(batch or BATCHES[0])).logits


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


# Which layers


def silence(layer: Any) -> None:
    """Make a layer of a pre-norm model add nothing."""
    for name, weight in layer.named_parameters():
        if "c_proj" in name:
            weight.data.zero_()


def test_layers_that_do_nothing_go_first(tmp_path: Path) -> None:
    teacher = load(tiny.backbone(tmp_path, "gpt2", layers=5))
    for index in (0, 3):
        silence(layer_stack(teacher)[index])
    assert chosen_layers(teacher, 3, BATCHES) == (1, 2, 4)
    assert same(logits(cut(teacher, (1, 2, 4))), logits(teacher))


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, "modernbert"])
def test_the_first_layer_to_go_is_the_one_that_changes_the_last_states_least(
    tiny_backbone: Make, architecture: str
) -> None:
    teacher = load(tiny_backbone(architecture)).train()
    before = copy.deepcopy(teacher.state_dict())
    chosen = chosen_layers(teacher, 3, BATCHES)
    assert chosen == chosen_layers(teacher, 3, BATCHES)
    assert teacher.training
    assert teacher.config.num_hidden_layers == len(layer_stack(teacher)) == 4
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())

    teacher.eval()

    def states(model: Any) -> torch.Tensor:
        return torch.cat(
            [model.base_model(**b).last_hidden_state[b["attention_mask"].bool()] for b in BATCHES]
        )

    likeness = {}
    for left in range(4):
        kept = tuple(i for i in range(4) if i != left)
        own = states(cut(teacher, kept))
        likeness[kept] = torch.cosine_similarity(own, states(teacher), dim=-1).mean().item()
    assert chosen == max(likeness, key=likeness.__getitem__)


def test_padding_does_not_choose(tiny_backbone: Make) -> None:
    teacher = load(tiny_backbone("bert"))
    padded = [tiny.tokenizer()(TEXTS, padding="max_length", max_length=32, return_tensors="pt")]
    padded = [{k: p[k] for k in ("input_ids", "attention_mask")} for p in padded]
    for count in (1, 2, 3):
        assert chosen_layers(teacher, count, padded) == chosen_layers(teacher, count, BATCHES)


def test_all_layers_may_be_wanted_but_not_more(tiny_backbone: Make) -> None:
    teacher = load(tiny_backbone("bert"))
    assert chosen_layers(teacher, 4, BATCHES) == (0, 1, 2, 3)
    with pytest.raises(DistillError, match=r"distill\.student\.layers=5"):
        chosen_layers(teacher, 5, BATCHES)
    with pytest.raises(DistillError, match="at least one batch"):
        chosen_layers(teacher, 2, [])


# Narrower feed-forward parts


def feed_forward(model: Any) -> list[tuple[torch.nn.Linear, torch.nn.Linear]]:
    found = []
    for layer in layer_stack(model):
        linear = [m for m in layer.modules() if isinstance(m, torch.nn.Linear)]
        found.append((linear[-2], linear[-1]))
    return found


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, "deberta-v2"])
def test_a_narrower_student_saves_loads_and_is_the_teacher_when_nothing_goes(
    tiny_backbone: Make, tmp_path: Path, architecture: str
) -> None:
    teacher = load(tiny_backbone(architecture))
    assert torch.equal(logits(prune_feed_forward(teacher, 64, BATCHES)), logits(teacher))
    student = prune_feed_forward(teacher, 24, BATCHES)
    assert student.num_parameters() < teacher.num_parameters()
    assert [inlet.out_features for inlet, _ in feed_forward(student)] == [24] * 4
    assert [inlet.out_features for inlet, _ in feed_forward(teacher)] == [64] * 4
    student.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert torch.equal(logits(again), logits(student))
    again.train().requires_grad_(True)
    again(**BATCHES[0]).logits.sum().backward()
    assert all(inlet.weight.grad.any() for inlet, _ in feed_forward(again))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_neurons_that_say_nothing_can_go_without_loss(
    tiny_backbone: Make, architecture: str
) -> None:
    teacher = load(tiny_backbone(architecture))
    torch.manual_seed(1)
    for inlet, outlet in feed_forward(teacher):
        order = torch.randperm(64)
        unread, constant = order[:20], order[20:40]
        outlet.weight.data[:, unread] = 0  # loud, but nobody listens
        inlet.weight.data[unread] *= 10
        inlet.weight.data[constant] = 0  # always the same, and large
        inlet.bias.data[constant] = 3.0
        inlet.bias.data[order[40:]] = torch.randn(24)
    assert same(logits(prune_feed_forward(teacher, 24, BATCHES)), logits(teacher))
    assert not same(logits(prune_feed_forward(teacher, 12, BATCHES)), logits(teacher))


def test_the_order_of_neurons_does_not_matter(tiny_backbone: Make) -> None:
    teacher = load(tiny_backbone("bert"))
    shuffled = copy.deepcopy(teacher)
    for inlet, outlet in feed_forward(shuffled):
        order = torch.randperm(64)
        inlet.weight.data, inlet.bias.data = inlet.weight.data[order], inlet.bias.data[order]
        outlet.weight.data = outlet.weight.data[:, order]
    one, other = (prune_feed_forward(model, 30, BATCHES) for model in (teacher, shuffled))
    assert same(logits(one), logits(other))


def test_padding_does_not_make_a_neuron_important(tiny_backbone: Make) -> None:
    teacher = load(tiny_backbone("bert"))
    long = dict(tiny.tokenizer()(TEXTS, padding="max_length", max_length=32, return_tensors="pt"))
    long.pop("token_type_ids", None)
    one, other = (prune_feed_forward(teacher, 30, b) for b in (BATCHES, [long]))
    assert same(logits(one), logits(other))


def test_narrowing_is_nearer_to_the_teacher_than_keeping_the_first_neurons(
    tiny_backbone: Make,
) -> None:
    teacher = load(tiny_backbone("bert"))
    first = copy.deepcopy(teacher)
    for _, outlet in feed_forward(first):
        outlet.weight.data[:, 32:] = 0
    kept = prune_feed_forward(teacher, 32, BATCHES)
    near, far = ((logits(m) - logits(teacher)).norm() for m in (kept, first))
    assert near < 0.8 * far


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "modernbert"])
def test_layers_that_are_built_otherwise_are_refused(
    tiny_backbone: Make, architecture: str
) -> None:
    with pytest.raises(DistillError, match="cannot be made narrower"):
        prune_feed_forward(load(tiny_backbone(architecture)), 8, BATCHES)


@pytest.mark.parametrize("width", [0, 65])
def test_more_or_fewer_neurons_than_there_can_be_are_refused(
    tiny_backbone: Make, width: int
) -> None:
    with pytest.raises(DistillError, match=rf"feed_forward={width}, .* 64 neurons"):
        prune_feed_forward(load(tiny_backbone("bert")), width, BATCHES)


# Fewer heads


def nomic() -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "nomic_bert",
        vocab_size=len(tiny.VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_labels=3,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


def test_a_student_with_fewer_heads_saves_loads_and_keeps_their_size(tmp_path: Path) -> None:
    teacher = nomic()
    assert torch.equal(logits(prune_heads(teacher, 4, BATCHES)), logits(teacher))
    student = prune_heads(teacher, 3, BATCHES)
    assert (student.config.num_attention_heads, student.config.head_dim) == (3, 8)
    assert student.num_parameters() == teacher.num_parameters() - 2 * 4 * 8 * 32
    student.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert same(logits(again), logits(student))


def test_heads_that_say_nothing_can_go_without_loss() -> None:
    teacher = nomic()
    for layer, quiet in zip(layer_stack(teacher), (2, 0), strict=True):
        layer.self_attn.o_proj.weight.data[:, 8 * quiet : 8 * quiet + 8] = 0
    assert same(logits(prune_heads(teacher, 3, BATCHES)), logits(teacher))
    assert not same(logits(prune_heads(teacher, 2, BATCHES)), logits(teacher))


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, "gpt2", "modernbert"])
def test_architectures_that_divide_their_width_by_the_heads_are_refused(
    tiny_backbone: Make, architecture: str
) -> None:
    with pytest.raises(DistillError, match="no place in its configuration for the size of a head"):
        prune_heads(load(tiny_backbone(architecture)), 2, BATCHES)


def test_shared_keys_and_wrong_numbers_are_refused(tiny_backbone: Make) -> None:
    with pytest.raises(DistillError, match="one width"):
        prune_heads(load(tiny_backbone("llama")), 2, BATCHES)
    with pytest.raises(DistillError, match=r"heads=5, .* 4 heads"):
        prune_heads(nomic(), 5, BATCHES)


# Trimmed vocabularies

CORPUS = [
    "the quick brown fox jumps over the lazy dog near the river bank",
    "tokenization of unbelievable words, with commas; and (brackets)!",
    "a lower house lowered the lowest tower while newer flowers grew",
    "café naïve 123 numbers 456 and more numbers 789 in the corpus",
] * 5
SEEN = ["the lowest flowers near the house", "unbelievable numbers, 123!", "café"]
UNSEEN = [
    "unlowered foxes tokenize brackets",
    "zzz qqq xylophone 99",
    "Привет мир",
    "東京タワー と ไทย",
    "🙂🙃 👩‍👩‍👧",
    "tab\there\x00\x07\u200b end\n",
    "",
    "[CLS] the [MASK] [unused0]",
    "<0x41> ▁ Ġ ## ##a",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PUNCTUATION = {f"##{mark}" for mark in ",;()!"}
KINDS = ("wordpiece", "byte-level", "unigram", "byte-fallback")


def trained(kind: str) -> Fast:
    settings: dict[str, Any] = {
        "vocab_size": 400,
        "special_tokens": SPECIAL,
        "show_progress": False,
    }
    if kind == "wordpiece":
        raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.normalizer = normalizers.BertNormalizer(strip_accents=False)
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.decoder = decoders.WordPiece(cleanup=False)
        trainer: Any = trainers.WordPieceTrainer(**settings)
    elif kind == "byte-level":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, **settings)
    elif kind == "unigram":
        raw = Tokenizer(models.Unigram())
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        raw.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="[UNK]", **settings)
    else:
        raw = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        raw.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback()])
        settings["special_tokens"] = SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(**{**settings, "vocab_size": 600})
    raw.train_from_iterator(CORPUS, trainer)
    ids = {token: raw.token_to_id(token) for token in SPECIAL}
    around = (("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    if kind == "wordpiece":
        raw.post_processor = processors.BertProcessing(*around)
    elif kind == "byte-level":
        raw.post_processor = processors.RobertaProcessing(*around)
    else:
        raw.post_processor = processors.Sequence(
            [
                processors.TemplateProcessing(
                    single="[CLS] $A [SEP]",
                    special_tokens=[(t, ids[t]) for t in ("[CLS]", "[SEP]")],
                )
            ]
        )
    names = ("pad", "unk", "cls", "sep", "mask")
    tokens = {f"{n}_token": t for n, t in zip(names, SPECIAL, strict=True)}
    whole = Fast(tokenizer_object=raw, model_max_length=32, padding_side="left", **tokens)
    whole.add_tokens(["<new>"])
    return whole


def read(tokenizer: Any, texts: list[str]) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(texts)["input_ids"]]


def unknown(tokenizer: Any, text: str) -> int:
    return tokenizer(text)["input_ids"].count(tokenizer.unk_token_id)


def spelled(tokenizer: Any, text: str) -> str:
    return tokenizer.decode(tokenizer(text)["input_ids"]).replace(" ", "")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Fast]:
    return request.param, trained(request.param)


@pytest.mark.parametrize("extra", [0, 15])
def test_seen_texts_are_read_as_before_and_others_need_no_new_unknowns(
    kind: tuple[str, Fast], tmp_path: Path, extra: int
) -> None:
    whole = kind[1]
    small, kept = trimmed_tokenizer(whole, SEEN, extra)
    assert len(small) == len(kept) < len(whole)
    assert read(small, SEEN) == read(whole, SEEN)
    assert [[kept[i] for i in ids] for ids in small(SEEN)["input_ids"]] == whole(SEEN)["input_ids"]
    for text in [*UNSEEN, *CORPUS, "<new> the [MASK]"]:
        assert unknown(small, text) <= unknown(whole, text), text
        if not unknown(whole, text):
            assert spelled(small, text) == spelled(whole, text), text
    small.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*SEEN, *UNSEEN, "<new>"]
    assert again(texts)["input_ids"] == small(texts)["input_ids"]
    assert again.get_vocab() == small.get_vocab()
    for name in ("padding_side", "model_max_length", "special_tokens_map", "model_input_names"):
        assert getattr(again, name) == getattr(whole, name), name
    padded = again(SEEN, padding=True, return_tensors="pt")["input_ids"]
    assert (padded == again.pad_token_id).any()
    before = whole.backend_tokenizer.to_str()
    trimmed_tokenizer(whole, SEEN, extra)
    assert whole.backend_tokenizer.to_str() == before


def test_extra_tokens_are_the_lowest_ids_and_can_be_reached(kind: tuple[str, Fast]) -> None:
    name, whole = kind
    none, some = (set(trimmed_tokenizer(whole, SEEN, extra)[1]) for extra in (0, 12))
    added = some - none
    assert none < some
    assert len(added) == 12
    left = set(range(len(whole))) - some
    if name == "wordpiece":
        left = {i for i in left if whole.convert_ids_to_tokens(i) not in PUNCTUATION}
    assert max(added) < min(left)
    small, kept = trimmed_tokenizer(whole, SEEN, 12)
    backend = small.backend_tokenizer
    for token, place in small.get_vocab().items():
        if kept[place] in added:
            assert backend.model.tokenize(token)[0].value == token


def test_all_extra_tokens_give_the_whole_vocabulary_back(kind: tuple[str, Fast]) -> None:
    name, whole = kind
    small, kept = trimmed_tokenizer(whole, [], len(whole))
    if name == "wordpiece":  # but for pieces such as ##! that no word can hold
        assert set(whole.get_vocab()) - set(small.get_vocab()) <= PUNCTUATION
    else:
        assert kept == tuple(range(len(whole)))
    assert read(small, CORPUS + UNSEEN) == read(whole, CORPUS + UNSEEN)


def test_characters_and_bytes_stay(kind: tuple[str, Fast]) -> None:
    name, whole = kind
    small = trimmed_tokenizer(whole, [], 0)[0].get_vocab()
    pieces = {t for t in whole.get_vocab() if len(t) == 1 or t.startswith("<0x")}
    if name == "wordpiece":
        pieces |= {f"##{c}" for c in "abcdefgh123é" if f"##{c}" in whole.get_vocab()}
        assert not PUNCTUATION & small.keys()
    assert pieces <= small.keys()
    assert len(pieces) > 25


def test_bert_tokens_that_no_text_can_hold_are_dropped() -> None:
    words = ["[PAD]", "[UNK]", "[unused0]", "a", "##a", ".", "##.", "##a.", "aa", "##aa", "axa"]
    raw = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    whole = Fast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]")
    least = {"[PAD]", "[UNK]", "a", "##a", ".", "axa"}  # no other token has an x
    assert set(trimmed_tokenizer(whole, [], 0)[0].get_vocab()) == least
    assert set(trimmed_tokenizer(whole, [], 1)[0].get_vocab()) == {*least, "aa"}
    assert set(trimmed_tokenizer(whole, [], 9)[0].get_vocab()) == {*least, "aa", "##aa"}


CLS, SEP = ("[CLS]", 4), ("[SEP]", 5)
AROUND = {
    "bert": processors.BertProcessing(SEP, CLS),
    "roberta": processors.RobertaProcessing(SEP, CLS),
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[CLS, SEP]
    ),
}
AROUND["sequence"] = processors.Sequence([AROUND["template"]])


@pytest.mark.parametrize("around", AROUND)
def test_special_tokens_move_with_their_ids(around: str) -> None:
    letters = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase)]
    words = ["rare", "other", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", *letters]
    raw = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = AROUND[around]
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    whole = Fast(tokenizer_object=raw, **names)
    small, kept = trimmed_tokenizer(whole, ["cat"], 0)
    assert small.pad_token_id == 0
    assert read(small, ["cat", "é rare"]) == [
        ["[CLS]", "cat", "[SEP]"],
        ["[CLS]", "[UNK]", "r", "##a", "##r", "##e", "[SEP]"],
    ]
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"pad_token_id": 2, "eos_token_id": [5, 4], "bos_token_id": 1}
    config = AutoConfig.for_model("bert", vocab_size=len(words), **sizes, **tokens)
    teacher = AutoModelForSequenceClassification.from_config(config).eval()
    student = trim_embeddings(teacher, kept)
    ids = [getattr(student.config, name) for name in tokens]
    assert ids == [0, [3, 2], None]
    assert student.get_input_embeddings().padding_idx == 0
    old, own = (t(["cat", "cat cat"], padding=True, return_tensors="pt") for t in (whole, small))
    assert same(logits(student, own), logits(teacher, old))


def test_a_word_level_tokenizer_is_refused() -> None:
    raw = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    with pytest.raises(DistillError, match="kind WordLevel"):
        trimmed_tokenizer(Fast(tokenizer_object=raw, unk_token="[UNK]"), ["a"], 1)


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, "deberta-v2", "gpt2", "llama"])
def test_a_trimmed_student_answers_seen_texts_as_before(tmp_path: Path, architecture: str) -> None:
    alphabet = [*ascii_lowercase, *(f"##{letter}" for letter in ascii_lowercase), "unseen"]
    folder = tmp_path / "whole"
    tokenizer = tiny.tokenizer(alphabet[1:])  # "a" is among the words
    teacher = load(save_tiny_backbone(folder, architecture, vocabulary=len(tokenizer) + 5))
    small, kept = trimmed_tokenizer(tokenizer, TEXTS[:12], 3)
    assert len(kept) < len(tokenizer)
    student = trim_embeddings(teacher, kept)
    assert student.config.vocab_size == student.get_input_embeddings().num_embeddings == len(kept)
    assert teacher.config.vocab_size == len(tokenizer) + 5
    assert student.config.pad_token_id == small.pad_token_id
    student.save_pretrained(tmp_path / "small")
    small.save_pretrained(tmp_path / "small")
    again, reader = load(tmp_path / "small"), AutoTokenizer.from_pretrained(tmp_path / "small")
    names, table = ("input_ids", "attention_mask"), teacher.get_input_embeddings()
    for texts in (TEXTS[:8], TEXTS[8:9]):
        own = reader(texts, padding=True, return_tensors="pt")
        old = tokenizer(texts, padding=True, return_tensors="pt")
        expected = logits(teacher, {k: old[k] for k in names})
        for model in (student, again):
            vectors = model.get_input_embeddings()(own["input_ids"])
            assert torch.equal(vectors, table(old["input_ids"]))
            assert same(logits(model, {k: own[k] for k in names}), expected)


def test_a_model_that_counts_positions_from_its_padding_keeps_it_in_place(
    tiny_backbone: Make,
) -> None:
    roberta = load(tiny_backbone("roberta"))
    assert roberta.config.pad_token_id == 0
    with pytest.raises(DistillError, match="counts positions"):
        trim_embeddings(roberta, [1, 0, 2, 3])


def test_a_tokenizer_of_another_model_is_refused(tiny_backbone: Make) -> None:
    with pytest.raises(DistillError, match="do not belong together"):
        trim_embeddings(load(tiny_backbone("bert")), [0, 1, 1000])


@pytest.mark.network
def test_minilm_reads_questions_as_before_with_a_third_of_its_vocabulary() -> None:
    from recipes import assets

    path = assets.resolve("minilm-l6", "model").path
    whole, teacher = AutoTokenizer.from_pretrained(path), load(path)
    texts = [
        "How many people live in Reykjavík?",
        "What is the tokenization of antidisestablishmentarianism, anyway?",
        "Who wrote 'The Brothers Karamazov' in 1879?",
    ]
    small, kept = trimmed_tokenizer(whole, texts, 2000)
    assert len(kept) < 5000
    assert read(small, texts) == read(whole, texts)
    own, old = (t(texts, padding=True, return_tensors="pt") for t in (small, whole))
    assert same(logits(trim_embeddings(teacher, kept), own), logits(teacher, old))
    others = [*UNSEEN, *CORPUS, "ﷺ İstanbul ﬁne Ǆ ½ Ω", "한국어 हिन्दी العربية עברית", "a" * 200]
    for text in others:
        assert unknown(small, text) <= unknown(whole, text), text
    names = {whole.convert_ids_to_tokens(i) for i in kept}
    assert not any(name.startswith("[unused") for name in names)


# What a student costs


def test_an_estimate_counts_what_files_will_hold(tiny_backbone: Make, tmp_path: Path) -> None:
    model = load(tiny_backbone("bert")).train()
    found = estimate(model, tokens=8)
    assert model.training
    assert found.parameters == model.num_parameters()
    assert found.latency_ms > 0
    model.save_pretrained(tmp_path)
    on_disk = (tmp_path / "model.safetensors").stat().st_size
    assert found.float_bytes == pytest.approx(on_disk, abs=100_000)
    smaller = estimate(model, tokens=8, embedding_bits=4)
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    assert found.int8_bytes - smaller.int8_bytes == pytest.approx(tables / 2, abs=1)
    assert smaller.int8_bytes < found.int8_bytes < found.float_bytes


def test_a_smaller_student_is_estimated_smaller(tiny_backbone: Make) -> None:
    model = load(tiny_backbone("bert"))
    less = estimate(prune_feed_forward(cut(model, (0, 3)), 16, BATCHES), tokens=8)
    whole = estimate(model, tokens=8)
    assert less.parameters < whole.parameters
    assert less.int8_bytes < whole.int8_bytes
