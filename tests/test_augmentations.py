"""Text augmentation: what changes, what never does, and what may flow in."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from adapters import AdapterError
from adapters.plugins import load_plugins
from adapters.registry import RegistryError
from recipes import augmentations as module
from recipes import list as lists
from recipes.augmentations import (
    AnyAugmentation,
    AnyLabelKeepingAugmentation,
    Augmentation,
    Source,
    augmentations,
    neighbors,
    rows,
    variants,
)
from recipes.augmentations.words import Bag, spans, words
from recipes.errors import RecipeError

TEXTS = [text for text, _ in tiny.rows(120)]
BUILT_IN = ["delete", "neighbors", "replace", "splice", "swap", "tagged"]
CHANGES = [name for name in BUILT_IN if name != "splice"]
ODD = [
    "",
    " \n",
    "cat",
    "😀",
    "👨‍👩‍👧 ❤️ 👍🏽!",
    "?? !!",
    "नमस्ते दुनिया",
    "你好世界",
    "cafe\u0301 ferme\u0301",
    "don't stop-me now...",
    "the cat\tis\nhere",
    "\ud83d the cat",
    "İstanbul Straße",
    "cat cat cat",
    "a " * 2000,
]


@pytest.fixture(autouse=True)
def _registry_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentations, "_entries", dict(augmentations._entries))
    monkeypatch.setattr(augmentations, "_origins", dict(augmentations._origins))


def way(name: str, **fields: Any) -> Augmentation:
    if name == "tagged":
        pytest.importorskip("textblob")
    made: Augmentation = augmentations.get(name)(**fields)
    return made


def embeddings() -> Tensor:
    """Return embeddings in which the words of one label, and no others, are near each other."""
    torch.manual_seed(0)
    table = torch.randn(len(tiny.VOCABULARY), 32)
    for group in tiny.WORDS.values():
        center = 10 * torch.randn(32)
        for word in group:
            table[tiny.VOCABULARY.index(word)] += center
    return table


def source(texts: Sequence[str] = TEXTS) -> Source:
    return Source(texts, tiny.tokenizer, embeddings)


# ---- every one of them --------------------------------------------------------------------------


def test_all_are_registered() -> None:
    assert augmentations.names() == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_seed_decides_everything(name: str) -> None:
    first = rows(TEXTS, [way(name)], 3, 7, source())
    assert first == rows(TEXTS, [way(name)], 3, 7, source())
    assert first != rows(TEXTS, [way(name)], 3, 8, source())


def by_origin(texts: Sequence[str], ways: Sequence[Augmentation], source: Source) -> dict[str, str]:
    """Return what each new text was made of."""
    return {made.text: texts[made.origin] for made in variants(texts, ways, 3, 0, source)}


@pytest.mark.parametrize("name", BUILT_IN)
def test_order_and_company_do_not_matter(name: str) -> None:
    ways = [way(name), way("delete", share=0.5)]
    made = by_origin(TEXTS, ways, source())
    mixed = random.Random(1).sample(TEXTS, len(TEXTS))
    again = by_origin(mixed, ways, source(mixed[::-1]))
    # Of two texts that give the same new one, the first has it.
    assert made.keys() == again.keys()
    given = source()
    alone = {text for each in TEXTS for text in rows([each], ways, 3, 0, given)}
    assert set(made) == alone - set(TEXTS)


@pytest.mark.parametrize("name", BUILT_IN)
def test_fewer_copies_are_the_first_of_more(name: str) -> None:
    few, many = (rows(TEXTS[:1], [way(name), way("swap")], n, 0, source()) for n in (2, 9))
    assert many[: len(few)] == few


@pytest.mark.parametrize("name", BUILT_IN)
def test_new_texts_are_new_distinct_and_never_blank(name: str) -> None:
    texts = [*TEXTS, *ODD, *TEXTS]
    made = variants(texts, [way(name)], 4, 0, source(texts))
    found = [variant.text for variant in made]
    assert len(set(found)) == len(found) > len(TEXTS)
    assert not set(found) & set(texts)
    assert all(text.strip() for text in found)
    most = max(sum(variant.origin == place for variant in made) for place in range(len(texts)))
    assert most <= 4


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("name", BUILT_IN)
def test_odd_texts_are_taken(name: str, text: str) -> None:
    for place in (source(), source([]), source([text])):
        new = way(name, **({} if name == "splice" else {"share": 1.0})).vary(
            text, random.Random(0), place
        )
        assert isinstance(new, str)
        assert bool(words(new)) >= bool(words(text))


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "neighbors"])
def test_nothing_flows_in_but_the_training_texts(name: str) -> None:
    def touched() -> Any:
        raise AssertionError("the backbone is not needed")

    unlabelled = ["Quite another matter altogether , indeed !", "Something else"]
    given = Source(TEXTS, touched, touched)
    known = {word for text in (*TEXTS, *unlabelled) for word in words(text)}
    made = rows(unlabelled, [way(name)], 20, 0, given)
    assert made
    assert {word for text in made for word in words(text)} <= known
    # What is varied is not drawn from: it gives no word to another text.
    own = [set(words(text)) for text in unlabelled]
    assert not any(set(words(text)) & own[0] and set(words(text)) & own[1] for text in made)


# ---- words and shares ---------------------------------------------------------------------------


def test_words_are_found_whole() -> None:
    assert words("Isn't it (really) a state-of-the-art  café?!") == [
        "Isn't", "it", "really", "a", "state-of-the-art", "café",
    ]  # fmt: skip
    assert words("नमस्ते, cafe\u0301 \u201cquoted\u201d 😀 ❤️ -- @user #tag $5") == [
        "नमस्ते", "cafe\u0301", "quoted", "user", "tag", "5",
    ]  # fmt: skip
    assert spans(" 👍🏽 ") == []


def changed(old: str, new: str) -> int:
    before, after = words(old), words(new)
    assert len(before) == len(after)
    return sum(a != b for a, b in zip(before, after, strict=True))


LONG = "the big old cat is here and the red dog was there , a new house !"


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("name", CHANGES)
def test_the_share_is_kept(name: str, share: float) -> None:
    count = len(words(LONG))
    wanted = max(1, round(share * count))
    for seed in range(20):
        new = way(name, share=share).vary(LONG, random.Random(seed), source())
        if name == "delete":
            assert len(words(new)) == max(1, count - wanted)
        elif name == "swap":
            assert sorted(words(new)) == sorted(words(LONG))
            # Two words of a text may be the same one.
            assert max(2, wanted) - 1 <= changed(LONG, new) <= max(2, wanted)
        else:
            # A word that is the only one with its tag stays.
            able = count - 5 if name == "tagged" else count
            assert changed(LONG, new) == min(wanted, able)
        if name != "delete":
            assert re.sub(r"\w+", "", new) == re.sub(r"\w+", "", LONG)


def test_deleting_leaves_no_double_spaces() -> None:
    text = "one two\nthree (four) five ."
    for seed in range(50):
        new = way("delete", share=0.6).vary(text, random.Random(seed), source())
        assert not re.search(r"\s\s", new.replace("()", "x"))
        assert new == new.strip()


def test_words_are_drawn_as_often_as_they_occur() -> None:
    bag = Bag(["cat"] * 6 + ["dog"] * 3 + ["Cat"])
    chance = random.Random(0)
    drawn = [bag.other("bird", chance) for _ in range(5000)]
    assert drawn.count("cat") / 5000 == pytest.approx(0.6, abs=0.03)
    assert drawn.count("dog") / 5000 == pytest.approx(0.3, abs=0.03)
    assert {bag.other("CAT", chance) for _ in range(50)} == {"dog"}
    assert {bag.other("dog", chance) for _ in range(50)} == {"cat", "Cat"}
    assert Bag(["cat", "CAT"]).other("cat", chance) is None


def test_spliced_texts_are_halves_of_two() -> None:
    given = source(["one two three four"])
    assert way("splice").vary("five six seven", random.Random(0), given) == "five three four"
    assert way("splice").vary("five", random.Random(0), given) == "five three four"
    assert way("splice").vary("five six", random.Random(0), source(["one"])) == "five one"


def test_tags_are_kept() -> None:
    pytest.importorskip("textblob")
    from textblob.en import parser

    texts = ["The dog sleeps quietly .", "A cat runs quickly .", "My friend sings loudly ."]
    made = rows(texts, [way("tagged", share=0.5)], 30, 0, source(texts))
    assert len(made) > 20

    def tags(text: str) -> list[str]:
        return [tag for _, tag in parser.find_tags(words(text))]

    assert {tuple(tags(text)) for text in made} <= {tuple(tags(text)) for text in texts}


def test_a_missing_tagger_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RegistryError, match=r"tagged is wrong: .*pip install 'potstill\[tagger\]'"):
        TypeAdapter(AnyAugmentation).validate_python("tagged")


# ---- neighbors ----------------------------------------------------------------------------------


def near(given: Source, word: str, count: int = 4) -> set[str]:
    chance, choose = random.Random(0), way("neighbors", neighbors=count)
    return {choose.vary(word, chance, given) for _ in range(100)}


def test_neighbors_are_the_nearest_words() -> None:
    for group in tiny.WORDS.values():
        assert near(source(), group[0]) == set(group[1:])
        assert near(source([]), group[0]) == set(group[1:]), "one that the texts do not have"
    assert near(source(), "zzz") == {"zzz"}
    assert near(source(), "[CLS]") == {"[CLS]"}
    assert not near(source(), "cat", count=100) & {*tiny.SPECIAL, "?"}


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [way("neighbors", neighbors=3)]
    whole = rows(TEXTS, ways, 3, 0, source())
    monkeypatch.setattr(neighbors, "_HELD", 1)
    assert rows(TEXTS, ways, 3, 0, source()) == whole


def test_the_table_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str, make: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (calls.append(name), make())[1]

    given = Source(TEXTS, counted("tokenizer", tiny.tokenizer), counted("table", embeddings))
    made = neighbors._Table
    monkeypatch.setattr(neighbors, "_Table", lambda *args: counted("near", lambda: made(*args))())
    assert not calls
    rows(TEXTS, [way("neighbors"), way("neighbors", share=0.9)], 3, 0, given)
    assert sorted(calls) == ["near", "table", "tokenizer"]


def test_tokens_that_start_with_a_space_are_words() -> None:
    merges = [("c", "a"), ("ca", "t"), ("d", "o"), ("do", "g"), ("Ġ", "cat"), ("Ġ", "dog")]
    pieces = ["<unk>", *"Ġabcdefghijklmnopqrstuvwxyz", *map("".join, merges)]
    raw = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    table = torch.nn.functional.one_hot(torch.arange(len(pieces) + 2)).float()
    table[pieces.index("Ġdog")] = table[pieces.index("Ġcat")] + 0.1
    given = Source(["cat bird"], lambda: tokenizer, lambda: table)
    assert near(given, "cat", count=1) == {"dog"}
    assert near(given, "bird") == {"bird"}


def test_without_a_backbone_neighbors_say_so() -> None:
    with pytest.raises(RecipeError, match=r"Give Source a tokenizer"):
        rows(TEXTS, [way("neighbors")], 1, 0, Source(TEXTS))


@pytest.mark.network
def test_neighbors_of_a_real_backbone() -> None:
    from safetensors import safe_open
    from transformers import AutoTokenizer

    from recipes import assets

    folder = assets.resolve("minilm-l6", "model").path
    with safe_open(folder / "model.safetensors", "pt") as file:
        [name] = [name for name in file.keys() if name.endswith("word_embeddings.weight")]  # noqa: SIM118
        table = file.get_tensor(name)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = Source(["Russia dog"], lambda: tokenizer, lambda: table)
    assert {"russian", "soviet"} & near(given, "Russia", count=8)
    assert {"dogs", "puppy", "canine"} & near(given, "dog", count=8)


# ---- several together ---------------------------------------------------------------------------


class Marked(Augmentation):
    """Puts a mark before a text."""

    mark: str

    def vary(self, text: str, random: random.Random, source: Source) -> str:
        return f"{self.mark}{random.random()} {text}"


def test_several_take_turns() -> None:
    ways = [Marked(mark=mark) for mark in "abc"]
    made = variants(TEXTS, ways, 2, 0, source())
    assert len(made) == 2 * len(TEXTS)
    marks = [variant.text[0] for variant in made]
    assert all(one != two for one, two in zip(marks[::2], marks[1::2], strict=True))
    assert all(50 < marks.count(mark) < 110 for mark in "abc")
    assert all(TEXTS[variant.origin] in variant.text for variant in made)
    draws = {variant.text[1:].partition(" ")[0] for variant in made}
    assert len(draws) == len(made), "every text has a stream of its own"


class Wrong(Augmentation):
    """Does what it is told."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    act: Any

    def vary(self, text: str, random: random.Random, source: Source) -> str:
        return self.act(text)  # type: ignore[no-any-return]


def test_blank_and_known_results_are_left_out() -> None:
    given = {"cat": " \t", "dog": "", "bird": "cat", "fish": "new", "horse": "new"}
    made = variants(list(given), [Wrong(act=given.get)], 2, 0, source())
    assert made == [("new", 3)]


def test_a_faulty_one_is_named_in_one_line() -> None:
    def fails(text: str) -> str:
        raise ValueError("no\nway")

    for act, fault in ((fails, r"failed on the text 'cat': ValueError: no way"),
                       (len, r"returned int from vary\(\)")):  # fmt: skip
        with pytest.raises(RecipeError, match=rf"'Wrong' \(.*test_augment.*\.py\) {fault}") as told:
            rows(["cat"], [Wrong(act=act)], 1, 0, source())
        assert "\n" not in str(told.value)


# ---- in recipes, lists and plug-ins -------------------------------------------------------------


class Section(BaseModel):
    augment: tuple[AnyAugmentation, ...] = ()
    train: tuple[AnyLabelKeepingAugmentation, ...] = ()


def test_a_recipe_names_them() -> None:
    plain = {"name": "neighbors", "share": 0.3, "neighbors": 15}
    section = Section.model_validate({"augment": [{"name": "neighbors", "share": 0.3}, "splice"]})
    assert section.model_dump()["augment"] == (plain, {"name": "splice"})
    assert Section.model_validate(section.model_dump()) == section


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"name": "neighbours"}, r"Unknown augmentation 'neighbours'.*'neighbors'"),
        ({"name": "swap", "shar": 0.1}, r"swap is wrong: unknown key 'shar': did you mean 'share'"),
        ({"name": "swap", "share": 0}, r"share=0 should be greater than 0"),
        ({"name": "swap", "share": 1.5}, r"share=1.5 should be less than or equal to 1"),
        ({"name": "swap", "share": "0.1"}, r"share='0.1' should be a valid number"),
        ({"name": "neighbors", "neighbors": 0}, r"neighbors=0 should be greater"),
        ({"share": 0.1}, r"needs a name"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(value: Any, fault: str) -> None:
    with pytest.raises(AdapterError, match=fault) as told:
        Section.model_validate({"augment": [value]})
    assert "\n" not in str(told.value)


def test_what_does_not_keep_labels_is_refused_for_training() -> None:
    for name in CHANGES:
        if name != "tagged":
            Section.model_validate({"train": [name]})
    with pytest.raises(ValueError, match=r"'splice' makes texts .* move it to distill\.augment"):
        Section.model_validate({"train": ["swap", "splice"]})


def test_lists_show_them_with_every_field(capfd: pytest.CaptureFixture[str]) -> None:
    assert lists.main(["augmentations", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capfd.readouterr().out)}
    assert list(entries) == BUILT_IN
    for entry in entries.values():
        assert entry["summary"]
        assert entry["paper"]
        assert all(field["description"] for field in entry["fields"].values())
    assert entries["neighbors"]["fields"]["share"]["limits"] == "> 0, ≤ 1"
    assert lists.main(["augmentations", "spice"]) == 3
    assert "Did you mean 'splice'?" in capfd.readouterr().err


PLUGIN = """
from recipes.augmentations import Augmentation, augmentations

@augmentations.register("shout")
class Shout(Augmentation):
    '''Everything in capitals.'''

    def vary(self, text, random, source):
        return text.upper()
"""


def test_a_plugin_adds_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shout.py"
    file.write_text(PLUGIN)
    load_plugins([str(file)])
    [shout] = Section.model_validate({"augment": ["shout"]}).augment
    assert rows(["the cat", "CAT"], [shout], 3, 0, source()) == ["THE CAT"]
    assert lists.main(["augmentations"]) == 0
    assert "shout  Everything in capitals." in capfd.readouterr().out
    with pytest.raises(RegistryError, match="registered twice"):
        augmentations.register("shout")(Marked)


def test_the_contract_has_to_be_kept() -> None:
    with pytest.raises(RegistryError, match=r"derives from recipes\.augmentations\.Augmentation"):
        augmentations.register("odd")(int)  # type: ignore[type-var]
    assert module.augmentations is augmentations


@pytest.mark.parametrize("name", ["delete", "swap", "replace", "neighbors", "splice"])
def test_both_texts_of_a_pair_are_varied_by_themselves(name: str) -> None:
    first, second = "cat dog bird horse", "bread soup rice cake"
    given = Source(
        [f"{first}\t{second}", "red blue\tone two"], tiny.tokenizer, embeddings, pairs=True
    )
    assert given.texts == tuple(sorted([first, second, "red blue", "one two"]))
    made = rows([f"{first}\t{second}"], [way(name)], 8, 0, given)
    assert made
    parts = [text.split("\t") for text in made]
    assert all(len(each) == 2 and all(part.strip() for part in each) for each in parts)
    if name in ("delete", "swap"):
        assert all({*one.split()} <= {*first.split()} for one, _ in parts)
        assert all({*other.split()} <= {*second.split()} for _, other in parts)
