"""Who answers: several teachers, teachers of folds, and how certain they may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_work import StopError, stop, workspace

from adapters.backbone import load_backbone
from distill.calibration import fit_temperature
from distill.errors import DistillError
from recipes import folds
from recipes.errors import RecipeError
from recipes.folds import drawn, fold_teachers
from recipes.preflight import check_possible
from recipes.run import main
from recipes.stages import distill
from recipes.texts import more_texts, origins, training_rows
from recipes.workspace import Workspace

Make = Callable[..., Workspace]


@pytest.fixture
def make(tmp_path: Path, tiny_backbone: Callable[[str], Path]) -> Make:
    return lambda *overrides: workspace(tmp_path / "run", tiny_backbone("bert"), *overrides)


def scrambled(model: Any, seed: int, size: float = 0.3) -> Any:
    """Return the model with a head of its own that is sure of what it says."""
    torch.manual_seed(seed)
    model.classifier.weight.data = size * torch.randn_like(model.classifier.weight)
    return model


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a teacher whose labels stand in another order, and whose tokens do too."""
    folder = tmp_path / "second"
    others = [word for word in tiny.VOCABULARY if word not in tiny.SPECIAL]
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "VOCABULARY", [*tiny.SPECIAL, *reversed(others)])
        tiny.backbone(folder, "bert", layers=2)
    scrambled(load_backbone(folder, tiny.LABELS[::-1]), 1).save_pretrained(folder)
    return folder


def own_teacher(work: Workspace, size: float = 0.3) -> Any:
    """Leave the run's own teacher where the stage before would have left it."""
    teacher = scrambled(work.load(), 0, size)
    teacher.save_pretrained(work.folder / "merged")
    return teacher


def told(work: Workspace, texts: Any, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Return the probabilities that a student is to learn for some texts."""
    found: list[Any] = []

    def record(learner: Any, *_: Any, **given: Any) -> None:
        rows = [row for row in _[0] if row["texts"] in set(texts)]
        batch = given["collate"](sorted(rows, key=lambda row: texts.index(row["texts"])))
        del batch["labels"]
        found.append(learner.teacher(batch.pop("texts"), batch).logits)
        raise StopError

    monkeypatch.setattr(distill, "fit", record)
    with pytest.raises(StopError):
        distill.run(work)
    return found[0].float().softmax(-1)


def said(folder: Path, texts: Any, labels: Any) -> torch.Tensor:
    """Return a model's own probabilities, columns by name."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.inference_mode():
        chances = model(inputs["input_ids"], inputs["attention_mask"]).logits.softmax(-1)
    return chances[:, [model.config.label2id[label] for label in labels]]


@pytest.mark.parametrize("combine", ["mean", "choice", "skill"])
@pytest.mark.parametrize("how", ["cached", "live"])
def test_several_teachers_reach_the_student(
    make: Make, second: Path, monkeypatch: pytest.MonkeyPatch, combine: str, how: str
) -> None:
    work = make(
        "distill.objectives=[kl]", f"distill.teachers=[{second}]",
        f"distill.combine={combine}", f"distill.teacher={how}",
    )  # fmt: skip
    own_teacher(work)
    work.tokenizer.save_pretrained(work.folder / "merged")
    texts, ids = work.rows.train.texts[:12], work.rows.train.labels[:12]
    answer = told(work, texts, monkeypatch)
    one = said(work.folder / "merged", texts, work.rows.labels)
    other = said(second, texts, work.rows.labels)
    assert not torch.allclose(one, other, atol=0.05)
    if combine == "mean":
        assert torch.allclose(answer, (one + other) / 2, atol=1e-4)
    elif combine == "choice":
        places = torch.arange(12)
        better = one[places, list(ids)] >= other[places, list(ids)]
        assert 0 < better.sum() < 12
        assert torch.allclose(answer, torch.where(better[:, None], one, other), atol=1e-4)
    else:
        share = ((answer - other) * (one - other)).sum() / (one - other).square().sum()
        assert torch.allclose(answer, share * one + (1 - share) * other, atol=1e-4)
        validation = [said(f, work.rows.validation.texts, work.rows.labels)
                      for f in (work.folder / "merged", second)]  # fmt: skip
        right = torch.tensor(work.rows.validation.labels)[:, None]

        def likely(weight: float) -> float:
            mixed = weight * validation[0] + (1 - weight) * validation[1]
            return float(mixed.gather(1, right).log().sum())

        assert likely(float(share)) >= max(likely(weight / 50) for weight in range(51)) - 1e-3


def test_a_teacher_too_certain_is_calibrated(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make("distill.objectives=[kl]", "distill.calibrate=true")
    own_teacher(work, size=3.0)
    work.tokenizer.save_pretrained(work.folder / "merged")
    texts, rows = work.rows.train.texts[:12], work.rows.validation
    answer = told(work, texts, monkeypatch)
    certain = said(work.folder / "merged", texts, work.rows.labels).log()
    found = fit_temperature(
        said(work.folder / "merged", rows.texts, work.rows.labels).log().numpy(), rows.labels
    )
    assert found > 1.5
    assert torch.allclose(answer, (certain / found).softmax(-1), atol=1e-4)


# Folds


def record_fits(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, int]]]:
    """Return what each fold's training is given, and train nothing."""
    seen: list[list[tuple[str, int]]] = []

    def record(work: Workspace, model: Any, train: Any, *_: Any, **__: Any) -> None:
        seen.append([(row["texts"], row["labels"]) for row in train])

    monkeypatch.setattr(folds, "fit_adapter", record)
    return seen


def test_no_teacher_learns_from_the_texts_that_it_answers(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = make("distill.folds=3"), record_fits(monkeypatch)
    models, folds_of_rows = fold_teachers(work, 3)
    train = dict(zip(work.rows.train.texts, work.rows.train.labels, strict=True))
    fold_of = dict(zip(work.rows.train.texts, folds_of_rows, strict=True))
    assert len(models) == len(seen) == 3
    for fold, given in enumerate(seen):
        assert dict(given) == {text: train[text] for text in train if fold_of[text] != fold}
        answered = [label for text, label in train.items() if fold_of[text] == fold]
        assert max(map(answered.count, set(answered))) <= math.ceil(len(train) / 9) + 1
        assert len(set(answered)) == 3
    monkeypatch.setattr(folds, "fit_adapter", stop)
    assert fold_teachers(work, 3)[1] == folds_of_rows  # what is whole is not learnt again


def test_what_is_made_of_the_rows_stays_in_their_fold(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make("distill.folds=2", "train.augment=[swap, replace]", "train.copies=3")
    seen = record_fits(monkeypatch)
    fold_of = dict(zip(work.rows.train.texts, fold_teachers(work, 2)[1], strict=True))
    whole = training_rows(work, work.recipe.train)
    for fold, given in enumerate(seen):
        mine = [text for text in fold_of if fold_of[text] != fold]
        assert len(given) > 1.5 * len(mine)
        assert not {text for text in fold_of if fold_of[text] == fold} & {text for text, _ in given}
    assert len(whole) > max(map(len, seen))


def test_what_is_made_of_a_row_is_answered_by_the_teacher_that_has_not_seen_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_ways = ["train.augment=[swap]", "train.copies=2", "distill.augment=[swap]"]
    work = make(
        "distill.folds=2", "distill.copies=2", "distill.train.augment=[replace]", *same_ways
    )
    seen = record_fits(monkeypatch)
    fold_of = fold_teachers(work, 2)[1]
    answers = {text: fold_of[row] for text, row in origins(work).items()}
    student = [*more_texts(work), *training_rows(work, work.recipe.distill.train).texts]
    assert set(student) <= answers.keys()
    for fold, given in enumerate(seen):
        assert {text for text, _ in given} & set(student)
        assert not {text for text in student if answers[text] == fold} & {t for t, _ in given}


def test_teachers_of_folds_answer_the_student(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = make("distill.folds=2", "distill.objectives=[kl]")
    own_teacher(work)
    shift = iter((0, 1))

    def learn(work: Workspace, model: Any, *_: Any, **__: Any) -> None:
        """Let the teacher of fold 0 always say label 0, and the other one label 1."""
        head = dict(model.named_parameters())
        name = next(n for n in head if n.endswith("classifier.modules_to_save.default.bias")
                    or n.endswith("classifier.bias"))  # fmt: skip
        head[name].data[next(shift)] = 50

    monkeypatch.setattr(folds, "fit_adapter", learn)
    texts = work.rows.train.texts[:20]
    answer = told(work, texts, monkeypatch)
    fold_of = dict(zip(work.rows.train.texts, drawn(work, 2), strict=True))
    assert answer.argmax(-1).tolist() == [fold_of[text] for text in texts]


@pytest.mark.parametrize(("rare", "way"), [(6, "or less, or leave it out"), (3, "leave it out")])
def test_a_rare_label_is_refused_before_anything_is_learnt(
    make: Make, tmp_path: Path, rare: int, way: str
) -> None:
    lines = [f"{text},{label}" for text, label in tiny.rows(120)]
    lines += [f"a stone of kind {i},mineral" for i in range(rare)]
    (tmp_path / "run.csv").write_text("\n".join(["text,label", *lines]))
    with pytest.raises(RecipeError) as caught:
        check_possible(make("distill.folds=9", "distill.objectives=[kl]"))
    assert "'mineral'" in str(caught.value)
    assert "distill.folds=9" in str(caught.value)
    assert way in str(caught.value).lower()
    assert "\n" not in str(caught.value)


# What is asked once


@pytest.mark.parametrize(("objectives", "stays"), [("[kl, ce]", True), ("[kl, hidden]", False)])
def test_logits_stay_for_a_later_student_and_states_do_not(
    make: Make, monkeypatch: pytest.MonkeyPatch, objectives: str, stays: bool
) -> None:
    from distill import LiveTeacher
    from recipes.proof import answer_splits, measured
    from recipes.workspace import torch_call

    quick = ["distill.train.epochs=1", "distill.student.layers=1"]
    work = make(f"distill.objectives={objectives}", *quick)
    measured(work, "merged", answer_splits(work, torch_call(own_teacher(work)), work.tokenizer))
    distill.run(work)
    assert (work.folder / "signals").exists() == stays
    if stays:
        monkeypatch.setattr(LiveTeacher, "ask", stop)
        work.ledger.drop_stages(["distill"])
        distill.run(work)
        assert work.ledger["student"].teacher_seconds > 0


# Refusals


@pytest.mark.parametrize("more", ["distill.teachers=[TEACHER]", "distill.folds=2"])
def test_states_of_several_teachers_are_refused_before_anything_is_learnt(
    make: Make, second: Path, more: str
) -> None:
    with pytest.raises(
        DistillError, match="want hidden, which only one teacher can give"
    ) as caught:
        check_possible(make(more.replace("TEACHER", str(second))))
    assert "\n" not in str(caught.value)


def test_the_command_refuses_a_teacher_for_other_labels_in_one_line(
    make: Make, second: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tiny.table(tmp_path / "rows.csv", 60)
    data.write_text(data.read_text().replace(",food", ",meal"))
    given = ["lora_cls", f"data.train={data}", f"backbone.model={second}"]
    more = [f"distill.teachers=[{second}]", "distill.student.layers=1", "distill.objectives=[kl]"]
    assert main([*given, *more, "--out", str(tmp_path / "out")]) == 3
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "knows the labels place, food, animal, and the data have animal, meal" in errors[0]


def test_a_teacher_that_reads_less_sets_the_length(make: Make, second: Path) -> None:
    import json

    file = second / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 9}))
    assert make("distill.objectives=[kl]").max_length == 32
    assert make("distill.objectives=[kl]", f"distill.teachers=[{second}]").max_length == 9
