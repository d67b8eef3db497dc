"""A teacher that a person has already: its labels by name, what is refused, and the whole chain."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny
import torch
from tiny_work import CHARACTERS, wordy

from adapters import strategies
from adapters.backbone import load_backbone
from adapters.classifier import draw_head, load_classifier
from adapters.errors import AdapterError
from adapters.strategy import finish, prepare
from recipes.run import main

Make = Callable[[str], Path]
#: Neither the data's order nor one that happens to lead back to it.
OTHER_ORDER = ["food", "place", "animal"]
TEXTS = ["the cat", "a big house", "old bread is here", "soup ?", "the red dog was there"]


def classifier(folder: Path, backbone: Path, labels: Sequence[str]) -> Path:
    """Save a finished classifier with a head that tells its labels apart."""
    model = load_backbone(backbone, labels)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if not name.startswith(model.base_model_prefix):
            weight.data = 0.3 * torch.randn_like(weight)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_labels_in_another_order_answer_by_name(
    tiny_backbone: Make, tmp_path: Path, architecture: str
) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = classifier(tmp_path / "own", tiny_backbone(architecture), OTHER_ORDER)
    own = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ours = load_classifier(folder, tiny.LABELS)
    with torch.inference_mode():
        expected, found = (model(**tiny.batch(TEXTS)).logits for model in (own, ours))
    assert list(ours.config.id2label.values()) == tiny.LABELS
    assert ours.config.label2id == {label: place for place, label in enumerate(tiny.LABELS)}
    columns = [OTHER_ORDER.index(label) for label in tiny.LABELS]
    assert torch.allclose(found, expected[:, columns], atol=1e-5)
    assert not torch.allclose(found, expected, atol=0.05)
    # What is saved of it is loaded in the data's order again.
    ours.save_pretrained(tmp_path / "again")
    with torch.inference_mode():
        again = load_classifier(tmp_path / "again", tiny.LABELS)(**tiny.batch(TEXTS)).logits
    assert torch.equal(again, found)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_head_drawn_anew_knows_nothing_and_the_encoder_stays(
    tiny_backbone: Make, tmp_path: Path, architecture: str
) -> None:
    folder = classifier(tmp_path / "own", tiny_backbone(architecture), tiny.LABELS)
    model, before = (load_classifier(folder, tiny.LABELS) for _ in range(2))
    draw_head(model, seed=0)
    drawn = {
        name
        for name, weight in model.named_parameters()
        if not torch.equal(weight, dict(before.named_parameters())[name])
    }
    head = {name for name in drawn if not name.startswith(model.base_model_prefix)}
    assert head
    assert all("pooler" in name for name in drawn - head)
    again = load_classifier(folder, tiny.LABELS)
    draw_head(again, seed=0)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_layers_that_a_strategy_left_in_a_model_are_not_lost(
    tiny_backbone: Make, tmp_path: Path
) -> None:
    strategy = strategies.get("bottleneck")()
    model = prepare(load_backbone(tiny_backbone("bert"), tiny.LABELS), strategy)
    torch.manual_seed(0)
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    whole = finish(model, strategy)
    whole.save_pretrained(tmp_path / "merged")
    found = load_classifier(tmp_path / "merged", tiny.LABELS[::-1])
    with torch.inference_mode():
        expected = whole(**tiny.batch(TEXTS)).logits.flip(-1)
        assert torch.allclose(found(**tiny.batch(TEXTS)).logits, expected, atol=1e-5)


# Refusals


@pytest.fixture(scope="module")
def taught(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("taught"), tiny_backbone("bert"), OTHER_ORDER)


def arguments(folder: Path, teacher: Path, student: str, *more: str) -> list[str]:
    data = tiny.table(folder / "rows.csv", 120)
    named = [f"data.train={data}", f"backbone.model={teacher}", f"distill.student.model={student}"]
    out = ["--out", str(folder / "out")]
    return ["distill_only", *named, "distill.student.layers=2", "threads=1", *more, *out]


def refusal(capfd: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(words) == 3
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_an_encoder_without_a_head_is_refused(
    tiny_backbone: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capfd, arguments(tmp_path, tiny_backbone("bert"), "null"))
    assert "is no finished classifier: it lacks the weights of classifier.bias" in said


def test_a_classifier_for_other_labels_is_refused(
    tiny_backbone: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = classifier(tmp_path / "own", tiny_backbone("bert"), ["animal", "food", "mineral"])
    said = refusal(capfd, arguments(tmp_path, folder, "null"))
    assert "knows the labels animal, food, mineral, and the data have animal, food, place" in said


def test_a_classifier_for_another_kind_of_problem_is_refused(taught: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(taught, tmp_path / "multi")
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="was trained for multi label classification"):
        load_classifier(folder, tiny.LABELS)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("train.epochs=9", "the student's training is distill.train"),
        ("merge.into=dequantized", "merge has no effect"),
        ("backbone.quantization=nf4", "set backbone.quantization=none"),
        ("phases.classes=2", "leave phases out"),
        ("distill.folds=2", "it needs a strategy"),
    ],
)
def test_what_a_finished_teacher_cannot_do_is_refused(
    taught: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], more: str, told: str
) -> None:
    assert told in refusal(capfd, arguments(tmp_path, taught, "null", more))


def test_broken_files_are_told_in_one_message(taught: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(taught, tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nothing_known"}))
    with pytest.raises(AdapterError, match="does not load as a sequence classifier"):
        load_classifier(folder, tiny.LABELS)


# The whole chain


@pytest.mark.chain
def test_a_finished_teacher_becomes_a_small_bundle(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    student = wordy(tmp_path / "student", 200)
    plain = tmp_path / "plain.txt"
    plain.write_text("".join(f"{text} extra{i}\n" for i, (text, _) in enumerate(tiny.rows(40, 9))))
    words = arguments(
        tmp_path, taught, str(student),
        "distill.student.vocabulary=20", "distill.augment=[swap]", "distill.copies=1",
        f"distill.imitate={{text: {plain}}}", "distill.objectives=[kl, ce]",
        "distill.train={epochs: 2, learning_rate: 5e-3, batch_size: 16}", "distill.alone=reading",
        "gate={max_drop: 1.0, min_label_agreement: 0.0}",
    )  # fmt: skip
    assert main(words) == 0
    out = tmp_path / "out"
    rows = {row["name"]: row for row in json.loads((out / "ledger.json").read_text())}
    assert rows["merged"]["agreement"]["labels"] == 1
    assert any("taken as it is" in note for note in rows["teacher"]["notes"])
    assert any("imitated its backbone on" in note for note in rows["student"]["notes"])
    assert rows["student"]["parameters"] == rows["student-alone"]["parameters"]
    # It reads as much, whatever validation says on the way.
    assert rows["student-alone"]["tokens_read"] == pytest.approx(
        rows["student"]["tokens_read"], rel=0.1
    )
    left = {path.name for path in out.iterdir()}
    assert "signals" in left  # logits alone: small, and of use to a later student
    assert not {"folds", "imitation"} & left

    bundle = out / "bundle"
    kept = json.loads((bundle / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(kept) == len(tiny.VOCABULARY) + len(CHARACTERS) + 20
    edge = [sys.executable, str(bundle / "edge.py")]
    assert subprocess.run([*edge, "--self-test"], capture_output=True).returncode == 0
    asked = ["the old cat", "extra199 unheard-of words", "猫が好き", "🎉🎉", "!"]
    done = subprocess.run(
        edge, input="\n".join(asked) + "\n", capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(asked)
    for answer in answers:
        assert set(answer["probabilities"]) == set(tiny.LABELS)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
