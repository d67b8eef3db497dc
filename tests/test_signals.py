"""Teacher signals: live, cached, several combined, and how certain they are."""

from __future__ import annotations

import copy
import functools
import os
import random
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from apart import exit_code
from tokenizers import models, processors

from adapters.backbone import load_backbone
from distill.cache import CachedTeacher, check_cacheable
from distill.calibration import fit_temperature
from distill.combined import Mean, OutOfFold, PerExample, Weighted, skill_weights
from distill.errors import DistillError
from distill.live import LiveTeacher
from distill.signals import Signals, Teacher

Make = Callable[[str], Path]
TEXTS = [text for text, _ in tiny.rows(40)]
STATES = {"embeddings": (), "hidden": (0, 3), "pooled": (1,)}
#: What a cache answers from; the rest of its files are names and times.
ANSWERS = ("keys.npy", "starts.npy", "logits.npy", "pooled.npy", "states.npy")


@functools.cache
def classifier(folder: Path, seed: int, own: tuple[str, ...]) -> Any:
    model = load_backbone(folder, own, seed=seed)
    torch.manual_seed(seed)
    model.classifier.weight.data.normal_()
    return model


def live(
    folder: Path, *, seed: int = 0, own: Sequence[str] = tiny.LABELS, **changes: Any
) -> LiveTeacher:
    """Return a random teacher that is nobody else's; `own` is its order of the labels."""
    model = copy.deepcopy(classifier(folder, seed, tuple(own)))
    settings: dict[str, Any] = {"max_length": 16, "wants": STATES} | changes
    tokenizer = settings.pop("tokenizer", None) or tiny.tokenizer()
    return LiveTeacher(model, tokenizer, tiny.LABELS, **settings)


def other_tokenizer() -> Any:
    """Return a tokenizer with other numbers for the same words, which does not mark the ends."""
    tokenizer = tiny.tokenizer()
    words = [*tiny.SPECIAL, *tiny.VOCABULARY[:4:-1]]
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer.backend_tokenizer.model = models.WordPiece(numbers, unk_token="[UNK]")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")
    return tokenizer


class Counting:
    """A teacher that remembers what it was asked, and may fail instead of its n-th answer."""

    def __init__(self, teacher: Teacher, fail_at: int = 0, fail: Callable[[], Any] = int) -> None:
        self.teacher, self.fail_at, self.fail = teacher, fail_at, fail
        self.batches: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)

    def ask(self, texts: Sequence[str]) -> Signals:
        self.batches.append(list(texts))
        if len(self.batches) == self.fail_at:
            self.fail()
        return self.teacher.ask(texts)

    def __call__(self, texts: Sequence[str], inputs: Any) -> Signals:
        self.batches.append(list(texts))
        return self.teacher(texts, inputs)

    @property
    def asked(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


def asked(folder: Path, teacher: Teacher, texts: Sequence[str]) -> int:
    """Return of how many texts a cache asks its teacher."""
    counting = Counting(teacher)
    cache = CachedTeacher(folder, counting, texts, batch_size=7)
    assert cache.reused == (not counting.batches)
    return len(counting.asked)


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ANSWERS]


def same(one: Signals, other: Signals, mask: torch.Tensor) -> None:
    """Check that a cache answers like its teacher, but for 16 bits of the states and padding."""
    seen = mask.bool()
    assert torch.allclose(one.logits, other.logits, atol=1e-5)
    assert (one.embeddings is None) == (other.embeddings is None)
    pairs = list(zip(one.hidden, other.hidden, strict=True))
    if one.embeddings is not None and other.embeddings is not None:
        pairs.append((one.embeddings, other.embeddings))
    for first, second in pairs:
        assert first.shape == second.shape
        assert first.dtype == second.dtype == torch.float32
        assert second.is_contiguous()
        assert torch.allclose(first[seen], second[seen], atol=5e-3)
        assert not second[~seen].any()
    for first, second in zip(one.pooled, other.pooled, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


# What a cache answers


@pytest.mark.parametrize(
    "wants", [{}, STATES, {"hidden": (3, 1)}, {"embeddings": ()}, {"pooled": (3, 1)}]
)
def test_a_cache_answers_as_the_teacher_itself_in_any_order_and_padding(
    tiny_backbone: Make, tmp_path: Path, wants: Any
) -> None:
    teacher = live(tiny_backbone("bert"), wants=wants)
    cache = CachedTeacher(tmp_path / "c", teacher, [*TEXTS, "", TEXTS[0]], batch_size=7)
    assert cache.wants == teacher.wants
    order = TEXTS[:]
    random.Random(1).shuffle(order)
    for texts in (order[:5], order[5:6], [order[3], order[3], order[9]], ["", order[0]]):
        inputs = tiny.batch(texts)
        same(teacher(texts, inputs), cache(texts, inputs), inputs["attention_mask"])


def test_texts_of_one_token_are_kept(tiny_backbone: Make, tmp_path: Path) -> None:
    tokenizer = other_tokenizer()
    teacher = live(tiny_backbone("bert"), tokenizer=tokenizer)
    texts = ["cat", "old dog", "the"]
    cache = CachedTeacher(tmp_path / "c", teacher, texts)
    assert teacher.lengths(texts) == [1, 2, 1]
    for some in (["cat"], texts):
        inputs = dict(tokenizer(some, padding=True, return_tensors="pt"))
        same(teacher.ask(some), cache(some, inputs), inputs["attention_mask"])


def test_no_texts_make_an_empty_cache(tiny_backbone: Make, tmp_path: Path) -> None:
    teacher = live(tiny_backbone("bert"))
    cache = CachedTeacher(tmp_path / "c", teacher, [])
    assert cache.seconds == 0
    assert CachedTeacher(tmp_path / "c", teacher, []).reused
    with pytest.raises(DistillError, match="announce every text"):
        cache(["cat"], tiny.batch(["cat"]))


def test_a_text_that_was_never_announced_is_refused(tiny_backbone: Make, tmp_path: Path) -> None:
    cache = CachedTeacher(tmp_path / "c", live(tiny_backbone("bert")), TEXTS[:3])
    with pytest.raises(DistillError, match="announce every text"):
        cache(["never seen"], tiny.batch(["never seen"]))


def test_a_teacher_in_half_precision_is_kept(tiny_backbone: Make, tmp_path: Path) -> None:
    teacher = live(tiny_backbone("bert"))
    teacher.model.to(torch.bfloat16)
    told = CachedTeacher(tmp_path / "c", teacher, TEXTS)(TEXTS[:4], tiny.batch(TEXTS[:4]))
    assert {tensor.dtype for tensor in (told.logits, *told.hidden)} == {torch.float32}
    assert torch.equal(told.logits, teacher.ask(TEXTS[:4]).logits.float())


def test_many_read_at_once_and_on_while_the_folder_is_made_anew(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    teacher = live(tiny_backbone("bert"))
    CachedTeacher(tmp_path / "c", teacher, TEXTS)
    readers = [CachedTeacher(tmp_path / "c", teacher, TEXTS) for _ in range(4)]

    def read(number: int) -> None:
        chance = random.Random(number)
        for _ in range(20):
            texts = chance.sample(TEXTS, 6)
            inputs = tiny.batch(texts)
            same(
                teacher(texts, inputs), readers[number % 4](texts, inputs), inputs["attention_mask"]
            )

    with ThreadPoolExecutor(8) as pool:
        reading = [pool.submit(read, number) for number in range(8)]
        CachedTeacher(tmp_path / "c", live(tiny_backbone("bert"), seed=1), TEXTS)
        for one in reading:
            one.result()


# When a cache is made anew


CHANGES: dict[str, Callable[[LiveTeacher], Any]] = {
    "weights": lambda t: next(t.model.parameters()).data.view(-1)[-1].add_(1e-3),
    "label order": lambda t: setattr(t, "columns", t.columns[::-1]),
    "max_length": lambda t: setattr(t, "max_length", 4),
    "temperature": lambda t: setattr(t, "temperature", 2.0),
    "layers": lambda t: setattr(t, "wants", {"hidden": (1, 3)}),
    "heads": lambda t: setattr(t.model.config, "num_attention_heads", 1),
    "tokenizer": lambda t: setattr(t.tokenizer.backend_tokenizer, "normalizer", None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_teacher_is_asked_anew(
    tiny_backbone: Make, tmp_path: Path, change: Callable[[LiveTeacher], Any]
) -> None:
    folder, teacher = tmp_path / "c", live(tiny_backbone("bert"))
    assert asked(folder, teacher, TEXTS) == len(TEXTS)
    assert asked(folder, live(tiny_backbone("bert")), TEXTS[::-1]) == 0
    change(teacher)
    assert asked(folder, teacher, TEXTS) == len(TEXTS)
    assert asked(folder, teacher, TEXTS) == 0


def test_the_labels_of_the_data_decide_about_the_columns(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    own = [tiny.LABELS[2], tiny.LABELS[0], tiny.LABELS[1]]
    teacher = live(tiny_backbone("bert"), own=own)
    inputs = tiny.batch(TEXTS[:3])
    told = teacher(TEXTS[:3], inputs).logits
    assert torch.equal(told, teacher.model(**inputs).logits[:, [1, 2, 0]])
    assert asked(tmp_path / "c", teacher, TEXTS) == len(TEXTS)
    other = LiveTeacher(teacher.model, tiny.tokenizer(), own, max_length=16, wants=STATES)
    assert asked(tmp_path / "c", other, TEXTS) == len(TEXTS)
    with pytest.raises(DistillError, match="disagree about the labels: place, plant"):
        LiveTeacher(teacher.model, tiny.tokenizer(), ["animal", "food", "plant"], max_length=16)


def test_a_teacher_may_answer_in_bfloat16(tiny_backbone: Make, tmp_path: Path) -> None:
    exact = live(tiny_backbone("bert"))
    half = live(tiny_backbone("bert"), bf16=True)
    inputs = tiny.batch(TEXTS)
    told, known = half(TEXTS, inputs), exact(TEXTS, inputs)
    assert told.logits.dtype == torch.float32
    assert not torch.equal(told.logits, known.logits)
    torch.testing.assert_close(told.logits, known.logits, atol=0.05, rtol=0.02)
    assert asked(tmp_path / "c", exact, TEXTS) == len(TEXTS)
    assert asked(tmp_path / "c", half, TEXTS) == len(TEXTS)
    with torch.autocast(
        "cpu", torch.bfloat16
    ):  # a training in bfloat16 does not change the teacher
        assert torch.equal(exact(TEXTS, inputs).logits, known.logits)


def test_only_new_texts_are_asked_for(tiny_backbone: Make, tmp_path: Path) -> None:
    folder, teacher = tmp_path / "c", live(tiny_backbone("bert"))
    assert asked(folder, teacher, TEXTS[:25]) == 25
    assert asked(folder, teacher, TEXTS[:10]) == 0
    counting = Counting(teacher)
    cache = CachedTeacher(folder, counting, TEXTS)
    assert sorted(counting.asked) == sorted(TEXTS[25:])
    inputs = tiny.batch(TEXTS)
    same(teacher(TEXTS, inputs), cache(TEXTS, inputs), inputs["attention_mask"])
    # A text of which a letter changed is a new text.
    assert asked(folder, teacher, [TEXTS[0] + "!", *TEXTS[1:]]) == 1


# Cut off


def cut_off() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("finished", [0, 1, 4])
def test_a_cache_that_was_cut_off_goes_on_and_ends_the_same(
    tiny_backbone: Make, tmp_path: Path, finished: int
) -> None:
    teacher = live(tiny_backbone("bert"))
    whole = Counting(teacher)
    CachedTeacher(tmp_path / "whole", whole, TEXTS, batch_size=7)
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(tmp_path / "c", Counting(teacher, finished + 1, cut_off), TEXTS, batch_size=7)
    assert not (tmp_path / "c").exists()
    rest = Counting(teacher)
    cache = CachedTeacher(tmp_path / "c", rest, TEXTS, batch_size=7)
    assert rest.batches == whole.batches[finished:]
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")
    assert not cache.reused
    assert not (tmp_path / "c.partial").exists()


def test_growing_can_be_cut_off_too(tiny_backbone: Make, tmp_path: Path) -> None:
    teacher = live(tiny_backbone("bert"))
    for name in ("whole", "c"):
        CachedTeacher(tmp_path / name, teacher, TEXTS[:15], batch_size=7)
    CachedTeacher(tmp_path / "whole", teacher, TEXTS, batch_size=7)
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(tmp_path / "c", Counting(teacher, 3, cut_off), TEXTS, batch_size=7)
    assert asked(tmp_path / "c", teacher, TEXTS[:15]) == 0
    rest = Counting(teacher)
    CachedTeacher(tmp_path / "c", rest, TEXTS, batch_size=7)
    assert len(rest.asked) == 25 - 2 * 7
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


def fill_and_die(folder: Path, backbone: Path, threads: int) -> None:
    torch.set_num_threads(threads)  # with another number, sums differ in their last bits
    dying = Counting(live(backbone), 4, lambda: os.kill(os.getpid(), signal.SIGKILL))
    CachedTeacher(folder, dying, TEXTS, batch_size=7)


def test_a_cache_that_was_killed_goes_on_and_ends_the_same(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    teacher = live(tiny_backbone("bert"))
    CachedTeacher(tmp_path / "whole", teacher, TEXTS, batch_size=7)
    given = tmp_path / "c", tiny_backbone("bert"), torch.get_num_threads()
    assert exit_code(fill_and_die, *given) == -signal.SIGKILL
    rest = Counting(teacher)
    CachedTeacher(tmp_path / "c", rest, TEXTS, batch_size=7)
    assert len(rest.asked) == len(TEXTS) - 3 * 7
    assert contents(tmp_path / "c") == contents(tmp_path / "whole")


@pytest.mark.parametrize("name", ["cache.json", "keys.npy", "pooled.npy", "states.npy"])
def test_a_cache_that_a_power_cut_has_emptied_is_made_anew(
    tiny_backbone: Make, tmp_path: Path, name: str
) -> None:
    teacher = live(tiny_backbone("bert"))
    assert asked(tmp_path / "c", teacher, TEXTS) == len(TEXTS)
    whole = contents(tmp_path / "c")
    (tmp_path / "c" / name).write_bytes(b"")
    assert asked(tmp_path / "c", teacher, TEXTS) == len(TEXTS)
    assert contents(tmp_path / "c") == whole


@pytest.mark.parametrize("what", ["teacher", "texts", "wants", "damage"])
def test_what_was_cut_off_of_another_cache_is_not_gone_on_with(
    tiny_backbone: Make, tmp_path: Path, what: str
) -> None:
    folder, backbone, texts = tmp_path / "c", tiny_backbone("bert"), TEXTS
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(folder, Counting(live(backbone), 4, cut_off), TEXTS, batch_size=7)
    if what == "texts":
        texts = [text + " cat" for text in TEXTS]
    if what == "damage":
        (tmp_path / "c.partial" / "cache.json").write_text("{")
    seed, wants = int(what == "teacher"), {"hidden": (0, 1)} if what == "wants" else STATES
    teacher = live(backbone, seed=seed, wants=wants)
    assert asked(folder, teacher, texts) == len(TEXTS)
    inputs = tiny.batch(texts)
    cache = CachedTeacher(folder, teacher, texts)
    same(teacher(texts, inputs), cache(texts, inputs), inputs["attention_mask"])


def test_the_time_that_a_cache_saves_is_known(tiny_backbone: Make, tmp_path: Path) -> None:
    teacher = live(tiny_backbone("bert"))
    with pytest.raises(KeyboardInterrupt):
        CachedTeacher(tmp_path / "c", Counting(teacher, 3, cut_off), TEXTS[:30], batch_size=7)
    spent = float(np.load(tmp_path / "c.partial" / "seconds.npy").sum())
    first = CachedTeacher(tmp_path / "c", teacher, TEXTS[:30], batch_size=7)
    assert first.seconds > spent > 0
    grown = CachedTeacher(tmp_path / "c", teacher, TEXTS, batch_size=7)
    assert grown.seconds > first.seconds
    again = CachedTeacher(tmp_path / "c", teacher, TEXTS)
    assert (again.seconds, again.reused) == (grown.seconds, True)


# What cannot be kept


@pytest.mark.parametrize("wants", [{}, STATES])
def test_the_size_is_known_and_has_to_fit(
    tiny_backbone: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants: Any
) -> None:
    teacher = live(tiny_backbone("bert"), wants=wants)
    estimate = CachedTeacher.estimate(teacher, [*TEXTS, *TEXTS])
    CachedTeacher(tmp_path / "c", teacher, TEXTS)
    size = sum(file.stat().st_size for file in (tmp_path / "c").iterdir())
    assert 0 <= size - estimate < 1500  # headers
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=estimate - 1))
    counting = Counting(teacher)
    told = rf"{estimate / 1e9:.1f} GB in {tmp_path}.*distill\.teacher=live"
    with pytest.raises(DistillError, match=told):
        CachedTeacher(tmp_path / "new", counting, TEXTS)
    assert not counting.batches
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("need", ["attention", "queries", "keys", "values"])
def test_what_is_too_large_is_refused(tiny_backbone: Make, tmp_path: Path, need: Any) -> None:
    check_cacheable(STATES)
    wants = STATES | {need: (0,)}
    with pytest.raises(DistillError, match=rf"teacher's {need}, .* distill\.teacher=live"):
        check_cacheable(wants)
    with pytest.raises(DistillError, match="does not keep"):
        CachedTeacher(tmp_path / "c", live(tiny_backbone("bert"), wants=wants), TEXTS)
    assert not list(tmp_path.iterdir())


def test_states_beyond_float16_are_refused(tiny_backbone: Make, tmp_path: Path) -> None:
    teacher = live(tiny_backbone("bert"))
    teacher.model.base_model.embeddings.LayerNorm.weight.data.mul_(1e6)
    with pytest.raises(DistillError, match=r"16 bits .* distill\.teacher=live"):
        CachedTeacher(tmp_path / "c", teacher, TEXTS)


# Other tokens, other labels, other certainty


def test_a_teacher_with_other_tokens_reads_the_texts_itself(tiny_backbone: Make) -> None:
    teacher = live(tiny_backbone("bert"), wants={}, same_tokens=False)
    wrong = {name: torch.zeros(3, 2, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    told = teacher(TEXTS[:3], wrong).logits
    direct = teacher.model(**tiny.batch(TEXTS[:3])).logits
    assert torch.allclose(told, direct, atol=1e-6)


def test_a_temperature_divides_the_logits(tiny_backbone: Make) -> None:
    inputs = tiny.batch(TEXTS[:3])
    plain, cooler = (live(tiny_backbone("bert"), temperature=t)(TEXTS[:3], inputs) for t in (1, 4))
    assert torch.allclose(plain.logits, 4 * cooler.logits)
    assert all(map(torch.equal, plain.hidden, cooler.hidden))


def drawn(rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits, and labels drawn with just their probabilities."""
    chance = np.random.default_rng(seed)
    logits = 2 * chance.normal(size=(rows, 4))
    return logits, (logits + chance.gumbel(size=logits.shape)).argmax(axis=1)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return torch.nn.functional.cross_entropy(
        torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    ).item()


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al., 2017)."""
    sure, guess = torch.tensor(logits).softmax(-1).max(-1)
    right, place = (guess.numpy() == labels), (sure.numpy() * bins).astype(int)
    gaps = [abs(right[place == b].sum() - sure.numpy()[place == b].sum()) for b in range(bins + 1)]
    return float(sum(gaps)) / len(labels)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_makes_a_teacher_as_certain_as_it_is_right(factor: float) -> None:
    logits, labels = drawn()
    found = fit_temperature(factor * logits, labels)
    assert found == pytest.approx(factor, rel=0.08)
    fresh, right = drawn(seed=1)
    before, after = (calibration_error(factor * fresh / t, right) for t in (1, found))
    assert after < 0.03
    assert after <= before or factor == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_temperature_is_never_worse_than_none_and_the_best_there_is(seed: int) -> None:
    chance = np.random.default_rng(seed)
    logits = chance.normal(scale=chance.choice([0.1, 1, 30]), size=(chance.integers(1, 20), 3))
    labels = chance.integers(3, size=len(logits))
    if seed % 4 == 0:
        labels = logits.argmax(axis=1)
    found = fit_temperature(logits.astype(np.float32), labels)
    assert 0.25 <= found <= 10
    best = min(log_loss(logits / t, labels) for t in [1, *np.geomspace(0.25, 10, 200)])
    assert log_loss(logits / found, labels) <= best + 1e-6


# Several teachers


def several(folder: Path) -> list[LiveTeacher]:
    """Return three teachers, each with its own weights, label order, tokenizer and certainty."""
    a, b, c = tiny.LABELS
    return [
        live(folder, wants={}),
        live(
            folder, wants={}, seed=1, own=[c, a, b], tokenizer=other_tokenizer(), same_tokens=False
        ),
        live(folder, wants={}, seed=2, own=[b, a, c], temperature=2.0),
    ]


def direct(teacher: LiveTeacher, texts: Sequence[str]) -> torch.Tensor:
    """Return a teacher's probabilities, found without it: one text at a time, labels by name."""
    model, rows = teacher.model, []
    for text in texts:
        with torch.no_grad():
            ids = torch.tensor([teacher.tokenizer(text)["input_ids"]])
            row = (model(input_ids=ids).logits[0] / teacher.temperature).softmax(-1)
        rows.append([row[model.config.label2id[label]].item() for label in tiny.LABELS])
    return torch.tensor(rows)


LABEL_OF = {text: place % 3 for place, text in enumerate(TEXTS[:20])}
FOLD_OF = {text: place * 7 % 3 for place, text in enumerate(TEXTS[:30])}
COMBINED: dict[str, Callable[[Sequence[Teacher]], Any]] = {
    "mean": Mean,
    "weighted": lambda teachers: Weighted(teachers, [3, 0, 1]),
    "per example": lambda teachers: PerExample(teachers, LABEL_OF),
    "out of fold": lambda teachers: OutOfFold(teachers, FOLD_OF),
}


def expected(name: str, each: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
    """Return the probabilities that a combination should give, row by row, in plain sums."""
    if name == "mean":
        return each.mean(0)
    if name == "weighted":
        return 0.75 * each[0] + 0.25 * each[2]
    rows = []
    for place, text in enumerate(texts):
        own = each[:, place]
        if name == "per example":
            least = (own * own.log()).sum(-1)
            rows.append(own[(own[:, LABEL_OF[text]] if text in LABEL_OF else least).argmax()])
        else:
            rows.append(own[FOLD_OF[text]] if text in FOLD_OF else own.mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("name", COMBINED)
def test_teachers_with_other_labels_and_tokens_are_combined_by_name(
    tiny_backbone: Make, tmp_path: Path, name: str
) -> None:
    teachers = several(tiny_backbone("bert"))
    combined = COMBINED[name](teachers)
    texts = random.Random(0).sample(TEXTS, 16)
    inputs = tiny.batch(texts)
    wanted = expected(name, torch.stack([direct(one, texts) for one in teachers]), texts)
    cache = CachedTeacher(tmp_path / "c", combined, texts, batch_size=7)
    for told in (combined(texts, inputs), combined.ask(texts), cache(texts, inputs)):
        assert torch.allclose(told.logits.softmax(-1), wanted, atol=1e-5)
    assert combined.classes == 3
    # A combination of combinations is one more teacher.
    again = Mean([combined] * 2).ask(texts).logits
    assert torch.allclose(again.exp(), wanted, atol=1e-5)


def test_teachers_of_folds_answer_where_labels_do_not_exclude_one_another(
    tiny_backbone: Make,
) -> None:
    teachers = several(tiny_backbone("bert"))
    inputs = tiny.batch(TEXTS)
    each = torch.stack([teacher(TEXTS, inputs).logits for teacher in teachers])
    told = OutOfFold(teachers, FOLD_OF, exclusive=False)(TEXTS, inputs).logits
    for row, text in enumerate(TEXTS):
        wanted = each[FOLD_OF[text], row] if text in FOLD_OF else each[:, row].mean(0)
        torch.testing.assert_close(told[row], wanted)


def test_no_teacher_answers_a_row_that_it_learnt_from(tiny_backbone: Make, tmp_path: Path) -> None:
    teachers = [Counting(teacher) for teacher in several(tiny_backbone("bert"))]
    combined = OutOfFold(teachers, FOLD_OF)
    texts = [*TEXTS, *TEXTS[:5]]
    combined(texts, tiny.batch(texts))
    combined.ask(texts)
    CachedTeacher(tmp_path / "c", combined, texts, batch_size=4)
    for own, teacher in enumerate(teachers):
        learnt_from = {text for text, fold in FOLD_OF.items() if fold != own}
        assert not learnt_from & set(teacher.asked)
        assert set(TEXTS[30:]) <= set(teacher.asked)
        assert {text for text, fold in FOLD_OF.items() if fold == own} <= set(teacher.asked)


def test_a_teacher_without_weight_is_not_asked(tiny_backbone: Make) -> None:
    teachers = [Counting(teacher) for teacher in several(tiny_backbone("bert"))]
    Weighted(teachers, [3, 0, 1]).ask(TEXTS[:3])
    assert [len(teacher.asked) for teacher in teachers] == [3, 0, 3]


def test_combined_fingerprints_tell_all_apart(tiny_backbone: Make) -> None:
    teachers = several(tiny_backbone("bert"))
    made = [
        *(make(teachers) for make in COMBINED.values()),
        *(make(teachers[::-1]) for make in COMBINED.values()),
        Weighted(teachers, [1, 2, 1]),
        PerExample(teachers, LABEL_OF | {TEXTS[0]: 1}),
        OutOfFold(teachers, FOLD_OF | {TEXTS[0]: 1}),
        teachers[0],
    ]
    assert len({one.fingerprint() for one in made}) == len(made)
    again = COMBINED["out of fold"](several(tiny_backbone("bert")))
    assert again.fingerprint() == COMBINED["out of fold"](teachers).fingerprint()


def test_combinations_that_cannot_work_are_refused(tiny_backbone: Make) -> None:
    plain, rich = live(tiny_backbone("bert"), wants={}), live(tiny_backbone("bert"))
    with pytest.raises(DistillError, match="want embeddings, hidden, pooled of several teachers"):
        Mean([plain, rich])
    for weights in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(DistillError, match="do not fit 2 teachers"):
            Weighted([plain, plain], weights)
    with pytest.raises(DistillError, match="no teacher for fold 2"):
        OutOfFold([plain, plain], {"a": 0, "b": 2})
    with pytest.raises(DistillError, match="at least one"):
        Mean([])


def test_weights_follow_skill() -> None:
    logits, labels = drawn(600)
    noise = np.random.default_rng(1).normal(size=logits.shape)
    guessing, doubtful = 2 * noise, logits + 2 * noise
    weights = skill_weights([guessing, logits, doubtful], labels)
    assert sum(weights) == pytest.approx(1)
    assert weights[1] > 0.9
    assert skill_weights([logits, logits], labels) == pytest.approx([0.5, 0.5])
    assert skill_weights([logits, logits + 7], labels) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("seed", range(5))
def test_weights_by_skill_are_the_most_likely_mixture(seed: int) -> None:
    chance = np.random.default_rng(seed)
    logits, labels = drawn(100, seed)
    views = [logits + chance.normal(scale=s, size=logits.shape) for s in (1, 2, 3)]
    chances = torch.tensor(np.stack(views)).softmax(-1)[:, range(100), labels]

    def likelihood(weights: Any) -> float:
        return float((torch.tensor(weights, dtype=torch.float64) @ chances).log().mean())

    found = likelihood(skill_weights(views, labels))
    others = [*np.eye(3), *chance.dirichlet([1, 1, 1], size=300), np.full(3, 1 / 3)]
    assert found >= max(map(likelihood, others)) - 1e-4
