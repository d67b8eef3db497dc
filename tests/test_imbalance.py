"""Classes of unequal size: weights, losses, draws, copies of rare rows, and what is refused."""

from __future__ import annotations

import copy
import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_training
import tiny
import torch
from tiny_work import StopError, workspace
from transformers.trainer_utils import IntervalStrategy

from adapters.errors import AdapterError
from adapters.strategy import learned_state
from adapters.training import last_checkpoint
from distill import objectives
from recipes.errors import RecipeError
from recipes.imbalance import called_here, class_weights, copies_of, draws, label_loss, shares
from recipes.preflight import check_possible
from recipes.problems import problems
from recipes.problems.classes import UNLABELLED, Classes
from recipes.problems.metrics import higher_is_better
from recipes.problems.multi_label import MultiLabel
from recipes.problems.single_label import SingleLabel
from recipes.reading import check, plain, read_recipe
from recipes.recipe import TrainSettings
from recipes.sampling import LengthBuckets, epoch_tokens
from recipes.stages import distill, finetune
from recipes.tasks import Rows, Split
from recipes.tasks.text_classification import TextClassification
from recipes.texts import origins, training_rows
from recipes.workspace import Workspace

Make = Callable[..., Workspace]
NAMES = ["a", "b", "c"]
#: Forty, eight and two rows.
LABELS = [0] * 40 + [1] * 8 + [2] * 2
SINGLE, SEVERAL = SingleLabel(NAMES), MultiLabel(NAMES)
#: Of ten rows eight have "a", of which two have "b" and one "c" too; one has none of them.
SETS = [(1, 0, 0)] * 5 + [(1, 1, 0)] * 2 + [(1, 0, 1), (0, 1, 0), (0, 0, 0)]
NONE = SEVERAL.unlabelled
KEPT = {"animal": 60, "food": 24, "place": 12}


@pytest.fixture
def make(tmp_path: Path, tiny_backbone: Callable[[str], Path]) -> Make:
    """Return what makes a run whose labels have 60, 24 and 12 rows."""
    path = tmp_path / "unequal.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        there: Counter[str] = Counter()
        for text, label in tiny.rows(180):
            there[label] += 1
            if there[label] <= KEPT[label]:
                writer.writerow([text, label])
    return lambda *overrides: workspace(
        tmp_path / "run", tiny_backbone("bert"), f"data.train={path}", *overrides
    )


def balanced(labels: Sequence[int]) -> list[float]:
    """Return scikit-learn's weights."""
    from sklearn.utils.class_weight import compute_class_weight

    return compute_class_weight("balanced", classes=np.unique(labels), y=labels).tolist()


# Weights of the loss


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss

    settings = TrainSettings(class_weights="balanced")
    weights = class_weights(SINGLE, settings, [*LABELS, UNLABELLED])
    assert weights == pytest.approx(balanced(LABELS))
    torch.manual_seed(0)
    logits, labels = torch.randn(len(LABELS), 3), torch.tensor(LABELS)
    loss = label_loss(SingleLabel(NAMES), settings, LABELS)(logits, labels)
    rows = [balanced(LABELS)[label] for label in LABELS]
    wanted = log_loss(LABELS, logits.double().softmax(-1).numpy(), sample_weight=rows)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_given_weights_are_one_on_the_average_of_the_rows() -> None:
    settings = TrainSettings(class_weights={"b": 4.0, "c": 10.0})
    weights = class_weights(SINGLE, settings, LABELS)
    assert np.mean([weights[label] for label in LABELS]) == pytest.approx(1)
    assert np.array(weights) / weights[0] == pytest.approx([1, 4, 10])


def test_balanced_weights_complete_what_is_drawn() -> None:
    """Weights are of what an epoch draws: with half-way draws they do the other half."""
    settings = TrainSettings(class_weights="balanced", resample="sqrt")
    weights = class_weights(SINGLE, settings, LABELS)
    sums = [
        weights[label] * share for label, share in shares(Classes.of_ids(LABELS), "sqrt").items()
    ]
    assert sums == pytest.approx([1 / 3] * 3)


def test_without_weights_the_loss_is_the_problems_own() -> None:
    problem = SingleLabel(NAMES)
    assert label_loss(problem, TrainSettings(), LABELS) == problem.loss
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    for loss in ("ce", {"name": "focal", "gamma": 0}):
        settings = TrainSettings.model_validate({"loss": loss})
        found = label_loss(problem, settings, LABELS)(logits, labels)
        assert float(found) == pytest.approx(float(problem.loss(logits, labels)))


def test_of_labels_with_an_order_ce_is_the_problems_own_loss() -> None:
    """As it is for a student; who wants plain cross-entropy has it as a focal loss."""
    problem, plain_one = problems.get("ordinal")(NAMES), SingleLabel(NAMES)
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = [{"name": "ce"}, {"name": "focal", "gamma": 0}]
    for loss, wanted in zip(losses, (problem, plain_one), strict=True):
        settings = TrainSettings.model_validate({"loss": loss})
        found = label_loss(problem, settings, LABELS)(logits, labels)
        assert float(found) == pytest.approx(float(wanted.loss(logits, labels)))
    assert float(problem.loss(logits, labels)) != pytest.approx(
        float(plain_one.loss(logits, labels))
    )


def test_smoothing_of_labels_with_an_order_is_refused(make: Make) -> None:
    order = "data.order=[place,food,animal]"
    work = make(order, "train.loss={name: ce, smoothing: 0.1}")
    with pytest.raises(RecipeError, match="for ordinal data soft_ordinal takes its place"):
        check_possible(work)


def test_the_loss_is_computed_in_float32() -> None:
    settings = TrainSettings.model_validate({"loss": {"name": "focal"}})
    with torch.autocast("cpu", torch.bfloat16):
        loss = label_loss(SingleLabel(NAMES), settings, LABELS)(
            torch.randn(4, 3, dtype=torch.bfloat16), torch.tensor([0, 1, 2, 0])
        )
    assert loss.dtype == torch.float32


def teachers_loss(work: Workspace) -> Callable[[Any, Any], Any]:
    """Return the loss that the run's teacher is trained with."""
    found: list[Any] = []

    def record(module: Any, *_: Any, **__: Any) -> None:
        found.append(module._loss)
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.training.fit", record)
        with pytest.raises(StopError):
            finetune.run(work)
    return found[0]  # type: ignore[no-any-return]


def test_the_teacher_is_trained_with_them(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    work = make("train.class_weights=balanced", "train.loss={name: focal, gamma: 1}")
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    weights = balanced(work.rows.train.labels)
    likely = logits.softmax(-1)[range(5), labels]
    wanted = -(torch.tensor(weights)[labels] * (1 - likely) * likely.log()).mean()
    assert float(teachers_loss(work)(logits, labels)) == pytest.approx(float(wanted), rel=1e-5)
    assert f"place {weights[2]:.2f}" in capsys.readouterr().err


def learners(work: Workspace) -> dict[str, Any]:
    """Return the modules that learn in the run's stage ``distill``, by title."""
    found: dict[str, Any] = {}

    def record(learner: Any, *_: Any, title: str, **__: Any) -> None:
        found[title] = learner
        raise StopError

    work.load().save_pretrained(work.folder / "merged")
    for name in ("student", "student-alone"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distill, "fit", record)
            patch.setattr("recipes.ledger.Ledger.__contains__", lambda _, row: row == "student")
            if name == "student":
                patch.undo()
                patch.setattr(distill, "fit", record)
            with pytest.raises(StopError):
                distill.run(work)
    return found


def test_both_students_see_the_weights_in_what_looks_at_labels(make: Make) -> None:
    work = make(
        "distill.train.class_weights=balanced", "distill.teacher=live",
        "distill.objectives=[kl, {name: ce, weight: 0.5, since: 0.5, smoothing: 0.1}]",
    )  # fmt: skip
    weights = tuple(balanced(work.rows.train.labels))
    found = learners(work)
    kl, ce = found["student"].objectives
    assert ce._weights == pytest.approx(weights)
    assert (ce.weight, ce.since) == (0.5, 0.5)
    assert kl == objectives.get("kl")()
    (alone,) = found["student-alone"].objectives
    assert alone._weights == pytest.approx(weights)
    assert (alone.weight, alone.since, alone.smoothing) == (1.0, 0.0, 0.1)  # from begin to end
    batch = {**tiny.batch(["the cat", "a big house"]), "texts": ["the cat", "a big house"]}
    learner = found["student-alone"].train()
    losses = [
        float(learner(labels=torch.tensor(labels), **copy.copy(batch))["loss"].detach())
        for labels in ([0, UNLABELLED], [2, UNLABELLED])
    ]
    assert losses[1] > 2 * losses[0]  # a random model finds both labels about as likely


# What an epoch draws


def test_classes_are_drawn_as_asked() -> None:
    classes = Classes.of_ids(LABELS)
    assert draws(classes, None) == {0: 40, 1: 8, 2: 2}
    assert draws(classes, "balanced") == {0: 17, 1: 17, 2: 16}
    roots = np.sqrt([40, 8, 2])
    exact = 50 * roots / roots.sum()
    found = draws(Classes.of_ids([*LABELS, *[UNLABELLED] * 9]), "sqrt")
    assert found.pop(UNLABELLED) == 9
    assert sum(found.values()) == 50
    assert np.abs(np.array([found[label] for label in range(3)]) - exact).max() < 1


def lengths(count: int) -> list[int]:
    return [i * 7 % 31 + 1 for i in range(count)]


@pytest.mark.parametrize("resample", ["balanced", "sqrt"])
def test_the_sampler_draws_rows_of_rare_classes_more_often(resample: Any) -> None:
    labels = [0] * 800 + [1] * 150 + [2] * 50 + [UNLABELLED] * 30
    sampler = LengthBuckets(lengths(1030), 8, 3, Classes.of_ids(labels), resample)
    rows = list(sampler)
    assert len(rows) == len(sampler) == 1030
    drawn = Counter(labels[row] for row in rows)
    assert drawn == draws(Classes.of_ids(labels), resample)
    assert drawn[2] > 2 * 50
    times = Counter(rows)
    for label in (0, 1, 2):
        often = [times[row] for row, own in enumerate(labels) if own == label]
        assert max(often) - min(often) <= 1
    assert all(times[row] == 1 for row in range(1000, 1030))
    batches = [rows[i : i + 8] for i in range(0, 1024, 8)]
    padded = sum(8 * max(sampler.lengths[row] for row in batch) for batch in batches)
    assert padded < 1.1 * sum(sampler.lengths[row] for row in rows)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    labels = [0] * 80 + [1] * 20

    def epoch(number: int, seed: int = 3) -> list[int]:
        sampler = LengthBuckets(lengths(100), 8, seed, Classes.of_ids(labels), "balanced")
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(1) == epoch(1) != epoch(0)
    assert epoch(1) != epoch(1, seed=4)
    common = [{row for row in epoch(number) if row < 80} for number in range(6)]
    assert len(common[0]) == 50
    assert set().union(*common) == set(range(80))  # what one epoch leaves out, others read
    assert list(LengthBuckets(lengths(100), 8, 3, Classes.of_ids(labels))) == list(
        LengthBuckets(lengths(100), 8, 3)
    )


def test_the_tokens_of_an_epoch_are_those_that_are_drawn() -> None:
    labels = [0] * 80 + [1] * 20 + [UNLABELLED] * 4
    examples = [
        {"input_ids": [0] * length, "labels": label}
        for length, label in zip(lengths(104), labels, strict=True)
    ]
    assert epoch_tokens(examples) == sum(lengths(104))
    sampler = LengthBuckets(lengths(104), 8, 0, Classes.of_ids(labels), "balanced")
    found = []
    for number in range(200):
        sampler.set_epoch(number)
        found.append(sum(sampler.lengths[row] for row in sampler))
    assert epoch_tokens(examples, Classes.of_ids(labels), "balanced") == pytest.approx(
        np.mean(found), rel=0.01
    )


def test_a_resampled_training_goes_on_to_the_same_end(
    tiny_backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off within an epoch, it meets the rows that an unbroken one meets."""
    from recipes import training

    settings = test_training.SETTINGS.model_copy(update={"resample": "balanced", "epochs": 2})
    backbone, arguments = tiny_backbone("bert"), training._arguments

    def saving_on_the_way(*given: Any, **named: Any) -> Any:
        made = arguments(*given, **named)
        made.save_strategy = made.eval_strategy = IntervalStrategy.STEPS
        made.save_steps = made.eval_steps = 6
        return made

    def end(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 15:
            raise StopError

    monkeypatch.setattr(training, "_arguments", saving_on_the_way)
    whole, history = test_training.train(backbone, tmp_path / "whole", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.callbacks.Progress.on_step_end", end)
        with pytest.raises(StopError):
            test_training.train(backbone, tmp_path / "cut", settings)
    # Ten steps are an epoch: this one is within the second.
    assert last_checkpoint(tmp_path / "cut") == str(tmp_path / "cut" / "checkpoint-12")
    resumed, again = test_training.train(backbone, tmp_path / "cut", settings)
    assert test_training._steady(again) == test_training._steady(history)
    state, other = learned_state(whole), learned_state(resumed)
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


# Copies of rare rows


def test_rare_classes_get_the_copies_that_they_lack() -> None:
    rows = Split([f"text {number}" for number in range(50)], LABELS)
    settings = TrainSettings.model_validate(
        {"augment": ["swap"], "augment_classes": "rare", "copies": 4}
    )
    copies = copies_of(SINGLE, settings, rows, seed=0)
    of = [[copies[row] for row in range(50) if LABELS[row] == label] for label in range(3)]
    assert of[0] == [0] * 40
    assert sum(of[1]) == 17 - 8  # the mean of all labels
    assert set(of[1]) == {1, 2}
    assert of[2] == [4, 4]  # they lack 15, but no row gives more than 4
    order = list(reversed(range(50)))
    turned = Split([rows.texts[row] for row in order], [LABELS[row] for row in order])
    assert copies_of(SINGLE, settings, turned, seed=0) == [copies[row] for row in order]
    every = settings.model_copy(update={"augment_classes": "all"})
    assert copies_of(SINGLE, every, rows, seed=0) == [4] * 50


def test_new_rows_are_made_of_rare_ones_only(make: Make) -> None:
    given = ["augment=[swap, replace]", "augment_classes=rare", "copies=5"]
    work = make(*(f"{where}.{word}" for where in ("train", "distill.train") for word in given))
    rows, grown = work.rows.train, training_rows(work, work.recipe.train)
    before, after = Counter(rows.labels), Counter(grown.labels)
    mean = round(len(rows) / 3)
    assert after[0] == before[0] > mean
    assert before[1] < after[1] <= mean
    assert 1.5 * before[2] < after[2] <= mean
    found = origins(work)
    new = list(zip(grown.texts, grown.labels, strict=True))[len(rows) :]
    assert all(rows.labels[found[text]] == label for text, label in new)


# What chooses


class ByLoss(SingleLabel):
    """A problem that can be chosen by what is better the less it is."""

    def metrics(self, logits: Any, labels: Any) -> dict[str, float]:
        likely = self.probabilities(logits)[range(len(labels)), labels]
        return {**super().metrics(logits, labels), "log_loss": float(-np.log(likely).mean())}


def test_the_best_epoch_can_be_the_one_with_the_least(
    tiny_backbone: Callable[[str], Path], tmp_path: Path
) -> None:
    assert not higher_is_better("log_loss")
    assert higher_is_better("macro_f1")
    settings = test_training.SETTINGS.model_copy(update={"metric": "log_loss", "epochs": 2})
    problem = ByLoss(tiny.LABELS)
    trained: list[Any] = []

    def keep(**named: Any) -> Any:
        trained.append(real(**named))
        return trained[-1]

    with pytest.MonkeyPatch.context() as patch:
        from recipes import training

        real = training._Trainer
        patch.setattr(training, "_Trainer", keep)
        _, history = test_training.train(tiny_backbone("bert"), tmp_path, settings, problem=problem)
    losses = [entry["eval_log_loss"] for entry in history if "eval_log_loss" in entry]
    assert len(losses) == 2
    assert trained[0].state.best_metric == min(losses) < max(losses)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.metric=macro_f", "train.metric=macro_f is no metric of single_label data. Did you "
         "mean 'macro_f1'? Known: accuracy, balanced_accuracy, macro_f1"),
        ("distill.train.metric=x", "distill.train.metric=x is no metric"),
        ("train.class_weights={animl: 2}", 'names "animl", which no row has as its label. Did you '
         'mean "animal"?'),
        ("distill.train.class_weights={thing: 2}", 'The labels are "animal", "food" and "place"'),
    ],
)  # fmt: skip
def test_names_that_the_data_do_not_know_are_refused(make: Make, override: str, told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check_possible(make(override))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["train.class_weights=balancd"], "'balancd' is neither null nor balanced nor a weight"),
        (["train.class_weights={a: 0}"], "should be greater than 0"),
        (["train.class_weights={a: heavy}"], "should be a valid number"),
        (["train.resample=log"], "should be 'balanced' or 'sqrt'"),
        (["train.loss=focl"], "Did you mean 'focal'"),
        (["train.loss={name: focal, gama: 1}"], "did you mean 'gamma'"),
        (["train.loss={name: focal, gamma: -1}"], "gamma"),
        (["train.loss={name: ce, smoothing: 1}"], "smoothing"),
        (["train.loss={name: ce, since: 0.5}"], "since has no effect on a loss of one term"),
        (["train.loss=kl"], "objective kl is about more than labels"),
        (["distill.train.loss=focal"], "put {name: focal, …} there"),
        (["distill.train.class_weights=balanced", "distill.objectives=[kl]"], "Add ce"),
        (["train.augment_classes=rare"], "because augment names no augmentation"),
        (["train.copies=5"], "because augment names no augmentation"),
        (["distill.imitate.train.class_weights=balanced"], "without labels"),
        (["distill.imitate.train.resample=sqrt"], "without labels"),
        (["distill.imitate.train.loss=focal"], "without labels"),
        (["phases.classes=2", "strategy=olora", "train.loss={name: ce, smoothing: 0.1}"],
         "leaves those out that a phase does not have"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises((RecipeError, AdapterError)) as caught:
        read_recipe("lora_cls", overrides)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


class Numbers(SingleLabel):
    """A problem whose rows have no labels."""

    exclusive = False


class NumberTask(TextClassification):
    """A task with such rows."""

    def read(self, *given: Any, **named: Any) -> Rows:
        rows = super().read(*given, **named)
        return Rows(**{**vars(rows), "problem": "Numbers"})


@pytest.mark.parametrize(
    "override", ["train.class_weights=balanced", "distill.train.resample=sqrt", "train.loss=ce"]
)
def test_classes_are_counted_only_where_there_are_labels(make: Make, override: str) -> None:
    work = make(override)
    work.__dict__["task"] = NumberTask()
    told = "is for rows that have labels"
    with problems.known(Numbers), pytest.raises(RecipeError, match=told):
        check_possible(work)


def test_weights_that_draws_have_made_needless_are_refused(make: Make) -> None:
    work = make("train.class_weights=balanced", "train.resample=balanced")
    with pytest.raises(RecipeError, match="draws all labels alike already"):
        check_possible(work)


@pytest.mark.parametrize(
    ("problem", "name", "told"),
    [
        ("regression", "focal", "not for regression data, in which a row has a number"),
        ("regression", "soft_ordinal", "take ce, which is for all"),
        ("multi_label", "soft_ordinal", "in which a row may have several labels"),
        ("single_label", "soft_ordinal", "not for single_label data"),
    ],
)
def test_a_student_cannot_learn_from_labels_of_another_form(
    problem: str, name: str, told: str
) -> None:
    """A run that would only stop in the student's first step is not begun."""
    known = problems.get(problem)(NAMES)
    with pytest.raises(RecipeError, match=told):
        called_here(known, [objectives.get("kl")(), objectives.get(name)()])
    assert called_here(known, [objectives.get("kl")(), objectives.get("ce")()])


# Rows with several labels


def test_a_row_with_several_labels_counts_as_its_rarest() -> None:
    found = SEVERAL.classes([*SETS, NONE])
    assert found.of == [0] * 5 + [1] * 2 + [2, 1, 3, UNLABELLED]
    assert found.sizes == {0: 8, 1: 3, 2: 1, 3: 8}  # no rarer without any than the most frequent
    assert SEVERAL.classes(()).of == []


def test_a_frequent_label_is_not_rare_where_it_stands_alone() -> None:
    """What counts is how many rows have a label, not of how many it is the rarest."""
    sets = [(1, 1, 0)] * 45 + [(1, 0, 1)] * 44 + [(1, 0, 0)]
    classes = SEVERAL.classes(sets)
    assert draws(classes, "balanced") == {0: 0, 1: 45, 2: 45}
    assert draws(classes, "sqrt")[0] <= 1
    rows = Split([f"text {number}" for number in range(90)], sets)
    settings = TrainSettings.model_validate(
        {"augment": ["swap"], "augment_classes": "rare", "copies": 4}
    )
    assert copies_of(SEVERAL, settings, rows, seed=0)[-1] == 0
    few = [(1, 0, 0)] * 50 + [(0, 1, 0)] * 30 + [(0, 0, 1)] * 18 + [(0, 0, 0)] * 2
    assert draws(SEVERAL.classes(few), "balanced") == {0: 33, 1: 33, 2: 33, 3: 1}
    weights = class_weights(SEVERAL, TrainSettings(class_weights="balanced"), sets * 7)
    assert weights[0] == 1.0  # every row has it
    assert weights[1] == pytest.approx(1)


@pytest.mark.parametrize("resample", [None, "sqrt", "balanced"])
def test_balanced_answers_weigh_the_same_label_by_label(resample: Any) -> None:
    """As often as rows are drawn, those with a label and those without pull alike."""
    settings = TrainSettings(class_weights="balanced", resample=resample)
    weights = class_weights(SEVERAL, settings, [*SETS, NONE])
    sampler = LengthBuckets([4] * 1000, 5, 0, SEVERAL.classes(SETS * 100), resample)
    drawn = np.array([(SETS * 100)[row] for row in sampler])
    yes = drawn.sum(axis=0) * weights
    assert yes == pytest.approx((1 - drawn).sum(axis=0), rel=0.02)
    given = TrainSettings(class_weights={"b": 4.0})
    assert class_weights(SEVERAL, given, SETS) == (1.0, 4.0, 1.0)


@pytest.mark.parametrize("weights", [None, "balanced", {"c": 7.5}])
def test_the_loss_of_several_labels_is_torchs(weights: Any) -> None:
    settings = TrainSettings(loss=objectives.get("ce")(), class_weights=weights)
    torch.manual_seed(0)
    logits, labels = torch.randn(len(SETS), 3), torch.tensor(SETS)
    of = torch.tensor(class_weights(SEVERAL, settings, SETS) or (1.0,) * 3)
    wanted = torch.nn.BCEWithLogitsLoss(pos_weight=of)(logits, labels.float())
    loss = label_loss(SEVERAL, settings, SETS)
    assert float(loss(logits, labels)) == pytest.approx(float(wanted), rel=1e-6)
    more = torch.cat([labels, torch.tensor([NONE])]), torch.cat([logits, torch.randn(1, 3)])
    assert float(loss(more[1], more[0])) == pytest.approx(float(wanted), rel=1e-6)


def test_focal_loss_of_several_labels_counts_sure_answers_less() -> None:
    """Lin et al.'s own case: each label is a yes or a no."""
    settings = TrainSettings(loss=objectives.get("focal")(gamma=1.5))
    torch.manual_seed(0)
    logits, labels = torch.randn(len(SETS), 3), torch.tensor(SETS)
    likely = torch.where(labels == 1, logits.sigmoid(), 1 - logits.sigmoid())
    wanted = -((1 - likely) ** 1.5 * likely.log()).mean()
    found = label_loss(SEVERAL, settings, SETS)(logits, labels)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    sure = torch.where(labels == 1, 80.0, -80.0).requires_grad_()
    label_loss(SEVERAL, settings, SETS)(sure, labels).backward()  # type: ignore[no-untyped-call]
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def test_rare_sets_of_labels_get_copies() -> None:
    rows = Split([f"text {number}" for number in range(len(SETS))], SETS)
    settings = TrainSettings.model_validate(
        {"augment": ["swap"], "augment_classes": "rare", "copies": 4}
    )
    copies = copies_of(SEVERAL, settings, rows, seed=0)
    assert copies[:5] == [0] * 5
    assert copies[7] == 3  # "c" lacks three of the mean label's four rows
    assert sorted(copies[place] for place in (5, 6, 8)) == [0, 0, 1]  # "b" lacks one


def test_a_run_of_several_labels_takes_them_all(
    tmp_path: Path, tiny_backbone: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "several.jsonl"
    path.write_text(
        "".join(
            json.dumps({"text": text, "label": [label] if number % 8 else [label, "rare"]}) + "\n"
            for number, (text, label) in enumerate(tiny.rows(120))
        )
    )
    work = workspace(
        tmp_path / "run", tiny_backbone("bert"), f"data.train={path}",
        "train.class_weights=balanced", "train.resample=sqrt", "train.loss={name: focal, gamma: 1}",
        "train.epochs=1", "distill.train.class_weights={rare: 3}",
        "distill.train.resample=balanced",
    )  # fmt: skip
    check_possible(work)
    assert work.rows.problem == "multi_label"
    finetune.run(work)
    told = capsys.readouterr().err
    assert "rows an epoch, each counted as its rarest label" in told
    labels = work.rows.train.labels
    share = np.asarray(labels)[:, work.rows.labels.index("rare")].mean()
    assert f"rare {class_weights(work.problem, work.recipe.train, labels)[-1]:.2f}" in told
    assert class_weights(work.problem, work.recipe.train, labels)[-1] < 1 / share - 1
    ce = learners(work)["student"].objectives[-1]
    assert ce._weights[work.rows.labels.index("rare")] == 3.0


def test_what_is_given_comes_back() -> None:
    recipe = read_recipe(
        "imbalanced_cls",
        [
            "train.class_weights={1: 2, 2.5: 3, other: 0.5}", "train.loss.name=focal",
            "train.loss.gamma=1.5", "train.augment=[swap]", "train.augment_classes=rare",
        ],
    )  # fmt: skip
    assert recipe.train.class_weights == {"1": 2.0, "2.5": 3.0, "other": 0.5}
    assert recipe.train.metric == recipe.distill.train.metric == "macro_f1"
    assert check(plain(recipe), "again") == recipe


def test_a_named_loss_takes_the_place_of_another(tmp_path: Path) -> None:
    """The fields of the old one go with its name; a field alone is laid over it."""
    path = tmp_path / "r.yaml"
    path.write_text("extends: lora_cls\ntrain: {loss: {name: focal, gamma: 5}}\n")
    assert read_recipe(str(path), ["train.loss.name=ce"]).train.loss == objectives.get("ce")()
    path.write_text("extends: lora_cls\ntrain: {loss: focal}\n")
    assert read_recipe(str(path), ["train.loss.gamma=3"]).train.loss == objectives.get("focal")(
        gamma=3.0
    )
