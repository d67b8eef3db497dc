"""Texts longer than the model takes at once: read alike in training, in ONNX and at the edge."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_work
import torch
from tiny_bundle import GOLDEN, make_bundle, make_tokenizer
from tokenizers import Tokenizer

from adapters.backbone import load_backbone
from distill import CachedTeacher, LiveTeacher
from distill.combined import Mean
from distill.windows import Windows, by_text
from export import bundle, convert, edge
from export.parity import compare, require_equal
from export.predict import Scorer
from export.session import open_model
from recipes.errors import RecipeError
from recipes.long_text import Drawn, check_pool, findings, reading, tokens
from recipes.problems import Problem
from recipes.problems.classes import UNLABELLED
from recipes.problems.single_label import SingleLabel
from recipes.reading import read_recipe
from recipes.recipe import LongSettings, TrainSettings
from recipes.stages import STAGES
from recipes.tasks import Split
from recipes.tasks.text_classification import TextClassification
from recipes.training import Classifier, fit
from recipes.workspace import Workspace, by_length, load_tokenizer, torch_call

Make = Callable[[str], Path]
LENGTH, ROOM = 16, 14
HEAD = LongSettings()
HEAD_TAIL = LongSettings(way="head_tail")
#: Each way to read a long text; windows without a limit, so that all of a text is read.
WAYS = {
    "head": HEAD,
    "head_tail": HEAD_TAIL,
    **{
        pool: LongSettings(way="windows", stride=4, most=None, pool=pool)
        for pool in ("mean", "max", "attention")
    },
    "most": LongSettings(way="windows", stride=4, most=3),
}


def text(tokens: int, seed: int = 0) -> str:
    """A text of so many tokens, to the tiny tokenizer."""
    words = tiny.VOCABULARY[len(tiny.SPECIAL) :]
    return " ".join(np.random.default_rng(seed + tokens).choice(words, tokens))


def task(long: LongSettings) -> TextClassification:
    made = TextClassification()
    made.long = long
    return made


def examples(long: LongSettings, texts: Sequence[str], tokenizer: Any = None) -> list[Any]:
    split = Split(texts, [UNLABELLED] * len(texts))
    return task(long).features(split, tokenizer or tiny.tokenizer(), LENGTH)


def collate(long: LongSettings, rows: Sequence[Any]) -> dict[str, Any]:
    return task(long).collator(tiny.tokenizer())(rows)


# --- What is seen of a text --------------------------------------------------------------------


@pytest.mark.parametrize("most", [None, 1, 2, 5])
@pytest.mark.parametrize("stride", [0, 1, 5])
@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 12, 13, 100, 101])
def test_windows_cover_a_text_and_keep_its_ends(length: int, stride: int, most: int | None) -> None:
    special = [1, *([0] * length), 1]
    places = edge.seen(special, 8, way="windows", stride=stride, most=most)
    windows = [places[at : at + 8] for at in edge.starts(len(places), 8)]
    assert all(len(window) == 8 for window in windows[:-1])
    for window in windows:
        assert window[0] == 0
        assert window[-1] == length + 1
    bodies = [window[1:-1].tolist() for window in windows]
    assert bodies[0] == list(range(1, min(6, length) + 1))
    if length:
        assert bodies[-1][-1] == length or most == 1
    assert most is None or len(bodies) <= most
    if most is None:
        assert sorted({place for body in bodies for place in body}) == list(range(1, length + 1))
        for one, other in pairwise(bodies):
            assert one[len(one) - stride :] == other[:stride]
    assert all(body == list(range(body[0], body[-1] + 1)) for body in bodies if body)


def test_head_and_tail_are_a_quarter_and_the_rest_between_the_special_tokens() -> None:
    special = [1, *([0] * 1000), 1]
    places = edge.seen(special, 512, way="head_tail")
    assert len(places) == 512
    assert places.tolist() == [*range(128), *range(618, 1002)]
    assert edge.seen([1, *([0] * 510), 1], 512, way="head_tail").tolist() == list(range(512))


def test_a_special_token_that_is_written_in_a_text_is_a_part_of_the_text() -> None:
    said = "[SEP] the cat [CLS] " * 20 + "[SEP]"
    for way in ("head", "head_tail"):
        ids = examples(LongSettings(way=way), [said])[0]["input_ids"]
        assert len(ids) == LENGTH
        assert (ids[0], ids[-1]) == (2, 3)
    assert examples(HEAD_TAIL, [said])[0]["input_ids"][1] == tiny.VOCABULARY.index("[SEP]")


@pytest.mark.parametrize("pool", ["mean", "max", "attention"])
def test_logits_are_pooled_alike_with_and_without_torch(pool: str) -> None:
    logits = torch.randn(9, 4, generator=torch.manual_seed(0), requires_grad=True)
    counts = [1, 3, 5]
    windows = Windows(counts, [0, *range(3), *range(5)], LENGTH, pool)
    learnt = windows.pooled(logits)
    found = edge.pooled(logits.detach().numpy(), counts, pool)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, learnt.detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(found[0], logits[0].detach().numpy())
    learnt.square().sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    huge = edge.pooled(np.full((2, 3), 1e30, np.float32), [2], pool)
    np.testing.assert_allclose(huge, 1e30)


def test_attention_goes_by_a_shift_that_the_softmax_does_not_see() -> None:
    logits = np.array([[5.0, 0, 0], [0, 5.0, 0]], np.float32)
    told = [
        edge.pooled(logits + np.array([[shift], [0]], np.float32), [2], "attention")[0].argmax()
        for shift in (9, -9)
    ]
    assert told == [0, 1]


# --- Equal logits ------------------------------------------------------------------------------


def late_rows(count: int) -> list[tuple[str, str]]:
    """Rows of one to four windows whose last words decide: a cut text does not show them."""
    chance = random.Random(0)
    return [
        (" ".join([*chance.choices(tiny.FILLERS, k=chance.randint(ROOM, 30)), said]), label)
        for said, label in tiny.rows(count)
    ]


@pytest.fixture(scope="module")
def run(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A whole run in windows, on such rows."""
    folder = tmp_path_factory.mktemp("long") / "run"
    lines = "".join(f"{said},{label}\n" for said, label in late_rows(240))
    folder.with_suffix(".csv").write_text(f"text,label\n{lines}")
    work = tiny_work.workspace(
        folder,
        tiny_backbone("bert"),
        f"data.max_length={LENGTH}",
        "data.long={way: windows, stride: 4, pool: attention}",
        "train.epochs=1",
        "distill.train.epochs=1",
        "gate.max_drop=1.0",
        "gate.min_label_agreement=0.0",
    )
    for stage in STAGES:
        stage.run(work)
    return work


@pytest.fixture(scope="module")
def exported(run: Workspace) -> tuple[Any, Path]:
    """The student and its file."""
    return run.load(path=run.folder / "student").cpu(), run.folder / "onnx/model.onnx"


def packed(folder: Path, model: Path, long: LongSettings) -> edge.Model:
    names = ["input_ids", "attention_mask"]
    make_bundle(
        folder,
        model=model,
        tokenizer=tiny.tokenizer().backend_tokenizer,
        labels=tiny.LABELS,
        processing=task(long).processing(tiny.tokenizer(), LENGTH, names),
        golden_texts=[text(length) for length in (3, 9, 40)],
    )
    return edge.Model(folder)


LENGTHS = [1, 2, ROOM - 1, ROOM, ROOM + 1, LENGTH, LENGTH + 1, 24, 25, 50, 333, 20_000]


@pytest.mark.chain
@pytest.mark.parametrize("way", WAYS)
def test_pytorch_and_the_edge_agree_from_one_token_to_20_000(
    exported: tuple[Any, Path], tmp_path: Path, way: str
) -> None:
    (model, path), long = exported, WAYS[way]
    texts = ["", *(text(length) for length in LENGTHS)]
    rows, call = examples(long, texts), torch_call(model)
    runtime, file = packed(tmp_path / "bundle", path, long), open_model(path, 1)
    for said, row in zip(texts, rows, strict=True):
        assert runtime.encode(said)[0].tolist() == row["input_ids"]
    expected = np.concatenate([call(collate(long, [row])) for row in rows])
    found = np.concatenate([runtime.logits([said]) for said in texts])
    assert np.abs(found - expected).max() < 1e-4
    # Neither neighbors nor padding, nor how many windows are computed at once, change an answer.
    together = runtime.logits(texts)
    assert np.abs(together - expected).max() < 1e-4
    for answer in (call, file):
        found = by_length(answer, rows, lambda batch: collate(long, batch), batch_size=5)
        assert np.abs(found - expected).max() < 1e-4
    same = SingleLabel(tiny.LABELS).same
    parity = compare(call, file, rows[:-1], lambda batch: collate(long, batch), same)
    require_equal(parity, 1e-4, way)
    # All but a cut text answer to how a long text ends.
    begin = text(300)
    ends = [runtime.logits([begin + 9 * f" {word}"]) for word in ("cat", "?")]
    assert (np.abs(ends[0] - ends[1]).max() > 1e-6) == (way != "head")


def test_memory_is_bounded_however_long_a_text_is(
    exported: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = packed(tmp_path / "bundle", exported[1], WAYS["mean"])
    sizes: list[tuple[int, ...]] = []
    run = runtime._session.run

    class Session:
        def run(self, names: Any, feed: Any) -> Any:
            sizes.append(feed["input_ids"].shape)
            return run(names, feed)

    monkeypatch.setattr(runtime, "_session", Session())
    runtime.logits([text(20_000), text(5)])
    assert len(sizes) > 1
    assert max(rows * length for rows, length in sizes) <= edge.TOKENS


def test_a_table_is_scored_as_texts_alone_are(exported: tuple[Any, Path], tmp_path: Path) -> None:
    runtime = packed(tmp_path / "bundle", exported[1], WAYS["attention"])
    texts = [text(length) for length in (3, 300, 20, 4, 90)]
    scorer = Scorer(runtime, "text", "", batch_size=2)
    found = scorer.answer([*texts, None], lambda _: None)
    alone = [runtime.predict([said])[0].label for said in texts]
    assert found["label"] == [*alone, None]


def test_the_bundle_says_how_it_reads_and_its_golden_texts_try_it(
    exported: tuple[Any, Path], tmp_path: Path
) -> None:
    long = LongSettings(way="windows", stride=4, most=7, pool="attention")
    manifest = packed(tmp_path / "bundle", exported[1], long).manifest
    told = manifest["processing"]["long"]
    assert told == {"way": "windows", "stride": 4, "most": 7, "pool": "attention"}
    assert not bundle.verify(tmp_path / "bundle")
    assert any(len(said.split()) > ROOM for said in manifest["golden"]["texts"])
    # A bundle that cuts says nothing, as before there was anything to say.
    assert "long" not in edge.Model(make_bundle(tmp_path / "plain")).manifest["processing"]


@pytest.mark.parametrize("to", ["triton", "onefile"])
def test_what_can_only_cut_refuses_a_bundle_that_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    processing = {
        "max_length": 8,
        "pad_token_id": 0,
        "inputs": ["input_ids", "attention_mask"],
        "long": {"way": "head_tail"},
    }
    folder = make_bundle(
        tmp_path / "bundle",
        processing=processing,
        tokenizer=make_tokenizer(),
        golden_texts=GOLDEN,
    )
    out = tmp_path / "out"
    assert convert.main([str(folder), "--to", to, "--out", str(out)]) == 3
    assert "data.long.way=head_tail" in capsys.readouterr().err
    assert not out.exists()


# --- Training and distillation -----------------------------------------------------------------


def test_each_epoch_draws_windows_of_its_own() -> None:
    long = LongSettings(way="windows", stride=4, train_windows=2, most=None)
    rows = examples(long, [text(5), text(200), text(201)])
    drawn = Drawn(rows, seed=0)
    first = [drawn[row] for row in range(3)]
    assert first[0] is rows[0]
    assert [drawn[row] for row in range(3)] == first
    assert first == list(Drawn(rows, seed=0))
    assert first != list(Drawn(rows, seed=1))
    drawn.epoch = 1
    assert list(drawn) != first
    for example, whole in zip(first[1:], rows[1:], strict=True):
        batch = collate(long, [example])
        every = collate(long, [whole])
        numbers = batch["windows"].numbers
        assert len(numbers) == 2
        width = batch["input_ids"].shape[1]
        torch.testing.assert_close(batch["input_ids"], every["input_ids"][numbers][:, :width])
    assert drawn.lengths == [7, 2 * LENGTH, 2 * LENGTH]
    assert list(Drawn(examples(HEAD, [text(90)]), 0)) == examples(HEAD, [text(90)])


@pytest.fixture(scope="module")
def teacher(tiny_backbone: Make) -> Any:
    model = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    torch.manual_seed(1)
    model.classifier.weight.data.normal_()
    return model


def live(teacher: Any, long: LongSettings, **changes: Any) -> LiveTeacher:
    settings: dict[str, Any] = {"max_length": LENGTH, "reading": reading(long, LENGTH), **changes}
    return LiveTeacher(teacher, tiny.tokenizer(), tiny.LABELS, **settings)


TEXTS = [text(length) for length in (3, 40, 14, 15, 90, 200)]


@pytest.mark.parametrize("way", ["head_tail", "mean", "attention", "most"])
def test_a_cache_says_what_the_live_teacher_says(teacher: Any, tmp_path: Path, way: str) -> None:
    long = WAYS[way]
    asked = live(teacher, long, wants={"embeddings": (), "hidden": (0, 3), "pooled": (1,)})
    cache = CachedTeacher(tmp_path / "cache", asked, TEXTS, batch_size=4)
    chosen = [4, 0, 5, 3]
    rows = [examples(long, TEXTS)[place] for place in chosen]
    batch = collate(long, rows)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    given = [TEXTS[place] for place in chosen], inputs, batch.get("windows")
    one, other = asked(*given), cache(*given)
    assert one.logits.shape == (4, 3)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.pooled[0], other.pooled[0], atol=1e-5, rtol=0)
    assert one.embeddings is not None
    assert other.embeddings is not None
    seen = inputs["attention_mask"].bool()
    pairs = zip((*one.hidden, one.embeddings), (*other.hidden, other.embeddings), strict=True)
    for first, second in pairs:
        assert first.shape == second.shape == (*seen.shape, 32)
        torch.testing.assert_close(first[seen], second[seen], atol=5e-3, rtol=0)
        assert not second[~seen].any()
    # What it answers is what the same model answers when it is tested.
    expected = torch_call(teacher)(batch)
    np.testing.assert_allclose(one.logits.numpy(), expected, atol=1e-5)


def test_of_drawn_windows_the_cache_gives_the_states_of_those(teacher: Any, tmp_path: Path) -> None:
    long = WAYS["mean"]
    asked = live(teacher, long, wants={"hidden": (3,)})
    cache = CachedTeacher(tmp_path / "cache", asked, TEXTS)
    drawn = Drawn(examples(long, TEXTS), seed=0)
    batch = collate(long, list(drawn))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert len(inputs["input_ids"]) < len(collate(long, examples(long, TEXTS))["input_ids"])
    one, other = asked(TEXTS, inputs, batch["windows"]), cache(TEXTS, inputs, batch["windows"])
    seen = inputs["attention_mask"].bool()
    torch.testing.assert_close(one.hidden[0][seen], other.hidden[0][seen], atol=5e-3, rtol=0)
    # So does a teacher whose tokens have other numbers, as where the student's vocabulary is cut.
    foreign = live(teacher, long, wants={"hidden": (3,)}, same_tokens=False)
    again = foreign(TEXTS, inputs, batch["windows"])
    torch.testing.assert_close(again.hidden[0], one.hidden[0])
    torch.testing.assert_close(again.logits, one.logits)
    # The answer to a text is the one about all that is read of it.
    torch.testing.assert_close(other.logits, asked.ask(TEXTS).logits, atol=1e-5, rtol=0)


def test_several_teachers_and_other_tokens_read_the_whole_text(teacher: Any) -> None:
    long = WAYS["mean"]
    one, foreign = live(teacher, long), live(teacher, long, same_tokens=False)
    batch = collate(long, list(Drawn(examples(long, TEXTS), seed=0)))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    whole = one.ask(TEXTS).logits
    given = TEXTS, inputs, batch["windows"]
    torch.testing.assert_close(foreign(*given).logits, whole)
    likely = Mean([one, one])(*given).logits.softmax(-1)
    torch.testing.assert_close(likely, whole.softmax(-1))


def test_the_way_of_reading_is_a_part_of_what_a_teacher_is(teacher: Any) -> None:
    prints = {live(teacher, long).fingerprint() for long in WAYS.values()}
    assert len(prints) == len(WAYS)
    plain = LiveTeacher(teacher, tiny.tokenizer(), tiny.LABELS, max_length=LENGTH)
    assert live(teacher, HEAD).fingerprint() == plain.fingerprint()
    assert live(teacher, HEAD).lengths(TEXTS) == plain.lengths(TEXTS)


def test_a_run_in_windows_ships_what_it_measured(run: Workspace) -> None:
    rows = {row.name: row for row in run.ledger}
    assert rows["student-onnx"].agreement["max_logit_difference"] < 1e-4
    assert rows["student-onnx"].agreement["batches_labels"] == 1
    assert rows["bundle"].agreement["labels"] > 0.85
    assert rows["student"].tokens_read < 240 * 2 * LENGTH
    assert rows["bundle"].latency_ms["batch_1"]["p50"] > 0
    manifest = edge.read_manifest(run.folder / "bundle")
    assert manifest["processing"]["long"]["pool"] == "attention"
    assert "windows of 16 tokens that share 4" in (run.folder / "bundle" / "README.md").read_text()


def test_the_frozen_backbone_embeds_all_windows(run: Workspace) -> None:
    said = max(run.rows.test.texts, key=len)
    place = list(run.rows.test.texts).index(said)
    with np.load(run.folder / "baseline" / "embeddings.npz") as kept:
        found = kept["test"][place]
    batch = collate(run.recipe.data.long, run.examples("test", run.tokenizer)[place : place + 1])
    assert len(batch["input_ids"]) > 2
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = run.load().base_model.eval()(**inputs).last_hidden_state
    pairs = zip(states, inputs["attention_mask"].bool(), strict=True)
    means = [state[mask].mean(0) for state, mask in pairs]
    np.testing.assert_allclose(found, torch.stack(means).mean(0).numpy(), atol=1e-5)


class Bag(torch.nn.Module):
    """Answers with the mean over a row's tokens of what each of them says."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(len(tiny.VOCABULARY), len(tiny.LABELS))
        self.table.weight.data.zero_()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        seen = attention_mask.unsqueeze(-1)
        return SimpleNamespace(logits=(self.table(input_ids) * seen).sum(1) / seen.sum(1))


@pytest.mark.parametrize(("way", "learns"), [("attention", True), ("max", True), ("head", False)])
def test_a_training_learns_from_the_windows_that_say_something(
    tmp_path: Path, way: str, learns: bool
) -> None:
    long, rows = WAYS[way], late_rows(400)
    split = Split([said for said, _ in rows], [tiny.LABELS.index(label) for _, label in rows])
    made = task(long).features(split, tiny.tokenizer(), LENGTH)
    module = Classifier(Bag(), SingleLabel(tiny.LABELS))
    settings = TrainSettings(epochs=3, learning_rate=0.5, batch_size=8, precision="float32")
    seen: list[tuple[str, Any]] = []

    def record(given: Sequence[Any]) -> dict[str, Any]:
        seen.extend((one["texts"], one.get("numbers")) for one in given)
        return collate(long, given)

    trained = fit(
        module, made[:300], made[300:], title="bag", folder=tmp_path / "fit", settings=settings,
        problem=SingleLabel(tiny.LABELS), collate=record,
        hardware=tiny_work.CPU, allow_fallback=True, seed=0,
    )  # fmt: skip
    drawn = Drawn(made[:300], seed=0)
    for epoch in range(3):
        drawn.epoch = epoch
        expected = [(one["texts"], one.get("numbers")) for one in drawn]
        assert sorted(seen[400 * epoch :][:300], key=str) == sorted(expected, key=str)
    best = max(entry.get("eval_accuracy", 0) for entry in trained.history)
    assert (best > 0.8) == learns, best


# --- What is told, and refused -----------------------------------------------------------------


def test_limits_are_said_aloud() -> None:
    long = LongSettings(way="windows", stride=4, most=3, train_windows=2)
    said = " ".join(findings(long, LENGTH, examples(long, TEXTS)))
    for part in ("4 of 6", "share 4", "at most 3", "3 fill the limit", "data.long.most",
                 "2 that a step", "data.long.train_windows"):  # fmt: skip
        assert part in said, part


def test_windows_that_share_everything_are_refused(tiny_backbone: Make, tmp_path: Path) -> None:
    work = tiny_work.workspace(tmp_path / "run", tiny_backbone("bert"), "data.long.way=windows")
    with pytest.raises(RecipeError, match=r"stride=64.*room for 30.*data\.long\.stride=7"):
        _ = work.max_length


def test_attention_is_refused_where_the_mean_of_the_logits_is_an_answer() -> None:
    class Several(SingleLabel):
        shift_free = False

    long = LongSettings(way="windows", pool="attention")
    check_pool(long, SingleLabel(tiny.LABELS), pairs=False)
    problem: Problem = Several(tiny.LABELS)
    with pytest.raises(RecipeError, match="exactly one of several labels"):
        check_pool(long, problem, pairs=False)
    check_pool(LongSettings(way="windows", pool="max"), problem, pairs=False)


@pytest.mark.parametrize("key", ["stride=9", "pool=max", "most=3", "train_windows=null"])
def test_a_key_of_windows_without_windows_is_refused(key: str) -> None:
    name = key.partition("=")[0]
    with pytest.raises(RecipeError, match=f"{name} has no effect with way=head_tail"):
        read_recipe("lora_cls", ["data.long.way=head_tail", f"data.long.{key}"])


@pytest.mark.parametrize("way", ["head", "mean"])
def test_reading_a_few_rows_at_a_time_changes_no_answer(
    tiny_backbone: Make, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Without a gradient, a batch goes through the model in parts; with one, as it is."""
    model = load_backbone(tiny_backbone("bert"), tiny.LABELS)
    batch = collate(WAYS[way], examples(WAYS[way], [text(n) for n in (3, 9, 14, 40, 5, 22, 1)]))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    rows, seen = len(inputs["input_ids"]), []

    def call(part: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(len(part["input_ids"]))
        return model.eval()(**part).logits  # type: ignore[no-any-return]

    with torch.no_grad():
        whole = by_text(call, inputs, batch.get("windows"))
        assert seen == [rows]
        monkeypatch.setattr("distill.windows._TOKENS", 3 * inputs["input_ids"].shape[1])
        parts = by_text(call, inputs, batch.get("windows"))
    assert seen[1:] == [3] * (rows // 3) + [rows % 3] * (rows % 3 > 0)
    assert len(whole) == 7
    assert torch.allclose(parts, whole, atol=1e-6)
    if way == "head":
        seen.clear()
        by_text(call, inputs, None)
        assert seen == [rows]


def test_a_backbone_saved_to_keep_the_end_is_read_as_the_edge_reads(tmp_path: Path) -> None:
    """What is kept of a long text is for ``data.long`` to say, not for the backbone's files."""
    tiny.tokenizer().save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "truncation_side": "left"}))
    tokenizer = load_tokenizer(tmp_path)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    raw.enable_truncation(5)
    for words, pairs in ("cat dog horse bird fish", False), ("cat dog\thorse bird fish", True):
        ids = raw.encode(*words.split("\t")).ids
        assert tokens(tokenizer, [words], 5, None, pairs) == [ids]
