"""Temperature, offsets and thresholds: fitted on validation rows, answered with at the edge."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from test_problems import read
from test_run import QUICK
from tiny_bundle import GOLDEN, LABELS, make_bundle

from export import edge
from recipes.errors import RecipeError
from recipes.ledger import Ledger, Row
from recipes.problems import problems
from recipes.problems.decision import (
    OWN,
    Decision,
    fit_offsets,
    fit_own_offsets,
    fit_threshold,
    judge,
    judge_own,
    offsets_gain,
    selective,
)
from recipes.problems.metrics import (
    calibration_noise,
    expected_calibration_error,
    probability_metrics,
)
from recipes.problems.single_label import SingleLabel
from recipes.recipe import DecideSettings
from recipes.reporting.honesty import _about_slices, _slices
from recipes.reporting.summary import summarize
from recipes.run import main
from recipes.slices import sliced
from recipes.tasks.slices import groups

Make = Callable[[str], Path]


def drawn(
    rows: int, shares: Sequence[float], seed: int = 0, signal: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated log-probabilities and labels of classes with some shares."""
    chance = np.random.default_rng(seed)
    labels = chance.choice(len(shares), rows, p=shares)
    seen = chance.normal(size=(rows, len(shares))) + signal * np.eye(len(shares))[labels]
    return signal * seen + np.log(shares), labels


def problem_of(size: int) -> SingleLabel:
    found = problems.get("single_label")([f"label {number}" for number in range(size)])
    assert isinstance(found, SingleLabel)
    return found


# --- Temperature ------------------------------------------------------------------------------


def test_a_temperature_mends_logits_that_are_too_certain() -> None:
    problem = problem_of(4)
    validation, test = (drawn(6_000, [0.25] * 4, seed) for seed in (0, 1))
    decision, _ = problem.decided(validation[0] * 3, validation[1].tolist(), DecideSettings())
    assert decision.temperature == pytest.approx(3, rel=0.1)
    assert not decision.offsets
    assert not decision.thresholds
    errors = [
        expected_calibration_error(problem.probabilities(3 * test[0] / by), test[1])
        for by in (1.0, decision.temperature)
    ]
    assert errors[0] > 0.05
    assert errors[1] < 0.02
    # What is left is what a perfect model would be seen with.
    _, at_most = calibration_noise(problem.probabilities(3 * test[0] / decision.temperature))
    assert errors[1] < at_most
    same = problem.same(decision.moved(3 * test[0], problem.labels), test[0])
    assert same.all()


def test_a_few_rows_that_are_all_right_make_no_model_certain() -> None:
    logits, labels = 4 * np.eye(3)[[0, 1, 2] * 4], [0, 1, 2] * 4
    decision, _ = problem_of(3).decided(logits, labels, DecideSettings())
    sure = problem_of(3).probabilities(logits / decision.temperature).max()
    assert 0.85 < sure < 0.96  # 12 right of 12


def test_nothing_is_fitted_that_is_not_asked_for() -> None:
    logits, labels = drawn(300, [0.5, 0.5])
    decision, facts = problem_of(2).decided(logits, labels, DecideSettings(calibrate=False))
    assert (decision, facts) == (Decision(), {})


# --- Offsets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_offsets_help_where_classes_are_rare(metric: str) -> None:
    shares = [0.9, 0.07, 0.03]
    logits, labels = drawn(3_000, shares, signal=1.2)
    settings = DecideSettings(offsets=metric)  # type: ignore[arg-type]
    decision, facts = problem_of(3).decided(logits, labels.tolist(), settings)
    assert facts["offsets"]["kept"]
    assert decision.offsets["label 2"] > decision.offsets["label 0"]
    fresh, truth = drawn(6_000, shares, seed=1, signal=1.2)
    moved = decision.moved(fresh, problem_of(3).labels)
    assert judge(moved, truth, metric) > judge(fresh, truth, metric) + 0.03


def test_offsets_that_do_not_help_are_dropped() -> None:
    """Of balanced calibrated scores nothing but chance is left to be fitted."""
    logits, labels = drawn(150, [0.25] * 4)
    settings = DecideSettings(offsets="macro_f1")
    decision, facts = problem_of(4).decided(logits, labels.tolist(), settings)
    assert judge(logits + fit_offsets(logits, labels, "macro_f1"), labels, "macro_f1") > judge(
        logits, labels, "macro_f1"
    )  # where they were fitted they always seem to help
    assert not facts["offsets"]["kept"]
    assert decision.offsets == {}


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "balanced_accuracy"])
def test_the_search_counts_as_scikit_learn_does(metric: str) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    logits, labels = drawn(200, [0.6, 0.3, 0.1], signal=1.0)
    offsets = fit_offsets(logits, labels, metric)
    given = (logits + offsets).argmax(axis=1)
    expected = {
        "accuracy": accuracy_score(labels, given),
        "macro_f1": f1_score(labels, given, average="macro"),
        "balanced_accuracy": balanced_accuracy_score(labels, given),
    }
    assert judge(logits + offsets, labels, metric) == pytest.approx(expected[metric])
    # No single other offset would be better.
    for place in range(3):
        for tried in np.linspace(-4, 4, 81):
            other = offsets.copy()
            other[place] = tried
            assert judge(logits + other, labels, metric) <= expected[metric] + 1e-9


def test_the_gain_is_of_rows_that_were_not_fitted_on() -> None:
    logits, labels = drawn(90, [1 / 3] * 3)
    noise = np.random.default_rng(0).permutation(labels)  # nothing can be learnt from these
    fitted = judge(logits + fit_offsets(logits, noise, "accuracy"), noise, "accuracy")
    assert max(offsets_gain(logits, noise, "accuracy")) < fitted - judge(logits, noise, "accuracy")


# --- Thresholds -------------------------------------------------------------------------------


def test_the_threshold_gives_the_precision_to_as_many_as_possible() -> None:
    sure = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, True, False, True, False])
    assert fit_threshold(sure, right, 0.99, None) == 0.8
    assert fit_threshold(sure, right, 0.8, None) == 0.6
    assert fit_threshold(sure, right, 0.5, None) == 0.5
    assert fit_threshold(sure, ~right, 0.9, None) is None
    # Rows of one probability are given together: two of three are right from 0.8 on.
    assert fit_threshold(sure, np.array([True, True, False, False, False, False]), 0.9, None) == 0.9
    assert selective(sure, right, 0.6) == {"coverage": 5 / 6, "precision": 4 / 5}
    assert selective(sure, right, 0.95) == {"coverage": 0.0}


def test_who_wants_to_be_sure_gets_fewer_answers() -> None:
    problem, shares = problem_of(3), [1 / 3] * 3
    fresh, truth = drawn(20_000, shares, signal=1.2)
    reached, answered = [], []
    for seed in range(1, 31):
        logits, labels = drawn(400, shares, seed, signal=1.2)
        found = []
        for how in (None, 0.95):
            settings = DecideSettings(precision=0.85, confidence=how)
            decision, _ = problem.decided(logits, labels.tolist(), settings)
            found.append(problem.selective(fresh, truth.tolist(), decision))
        reached.append([one["precision"] >= 0.85 for one in found])
        answered.append([one["coverage"] for one in found])
    plain, sure = np.mean(reached, axis=0)
    assert plain < 0.7
    assert sure > 0.85
    assert np.mean(answered, axis=0)[1] < np.mean(answered, axis=0)[0] < 1


def test_few_rows_prove_no_precision() -> None:
    right = np.ones(20, bool)  # 20 of 20 leave 86 % at 95 % confidence
    assert fit_threshold(np.linspace(0.5, 1, 20), right, 0.95, 0.95) is None
    assert fit_threshold(np.linspace(0.5, 1, 20), right, 0.86, 0.95) == 0.5


# --- Several labels at a time, and labels in an order -----------------------------------------


def several(rows: int, shares: Sequence[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated log-odds of labels with some shares, and 1 where a row has one."""
    chance = np.random.default_rng(seed)
    labels = (chance.random((rows, len(shares))) < shares).astype(int)
    seen = chance.normal(size=labels.shape) + 1.2 * labels
    return 1.2 * (seen - 0.6) + np.log(np.divide(shares, 1 - np.array(shares))), labels


SHARES = (0.5, 0.1, 0.04)


def test_decisions_for_single_labels_are_calibrated_too() -> None:
    problem = problems.get("multi_label")(["a", "b", "c"])
    logits, labels = several(6_000, SHARES)
    decision, _ = problem.decided(3 * logits, labels.tolist(), DecideSettings())
    assert decision.temperature == pytest.approx(3, rel=0.1)
    fresh, truth = several(6_000, SHARES, seed=1)
    before, after = (problem.all_metrics(3 * fresh, truth, d) for d in (Decision(), decision))
    assert after["ece"] < 0.01 < before["ece"]
    assert after["log_loss"] < before["log_loss"]
    for name in ("micro_f1", "accuracy", "auroc"):  # no answer and no order of answers changes
        assert after[name] == pytest.approx(before[name])


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1"])
def test_every_label_gets_a_threshold_of_its_own(metric: str) -> None:
    from sklearn.metrics import f1_score

    logits, labels = several(400, SHARES)
    offsets = fit_own_offsets(logits, labels, metric)
    best = judge_own(logits + offsets, labels, metric)
    average = metric.removesuffix("_f1")
    assert best == pytest.approx(f1_score(labels, logits + offsets >= 0, average=average))
    for place in range(3):  # no single other offset would be better
        for tried in np.linspace(-4, 4, 81):
            other = offsets.copy()
            other[place] = tried
            assert judge_own(logits + other, labels, metric) <= best + 1e-9
    problem = problems.get("multi_label")(["a", "b", "c"])
    logits, labels = several(3_000, SHARES)
    settings = DecideSettings(offsets=metric)  # type: ignore[arg-type]
    decision, facts = problem.decided(logits, labels.tolist(), settings)
    assert facts["offsets"]["kept"]
    assert decision.offsets["c"] > 0.3  # rare: worth naming before it is likely
    fresh, truth = several(6_000, SHARES, seed=1)
    plain, decided = (problem.all_metrics(fresh, truth, d) for d in (Decision(), decision))
    assert decided[metric] > plain[metric] + 0.01


def test_own_offsets_that_do_not_help_are_dropped() -> None:
    logits, labels = several(120, (0.5, 0.5))
    noise = np.random.default_rng(0).permutation(labels)
    fitted = judge_own(logits + fit_own_offsets(logits, noise, "macro_f1"), noise, "macro_f1")
    gained = fitted - judge_own(logits, noise, "macro_f1")
    assert max(offsets_gain(logits, noise, "macro_f1", OWN)) < gained


def test_figures_of_several_labels_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    problem = problems.get("multi_label")(["a", "b", "c"])
    logits, labels = several(500, SHARES)
    found = problem.all_metrics(logits, labels)
    shares = problem.probabilities(logits)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, shares, average="macro"))
    expected = np.mean([log_loss(labels[:, k], shares[:, k]) for k in range(3)])
    assert found["log_loss"] == pytest.approx(expected)
    own = problem.by_class(logits, labels)["labels"]
    assert [own[name]["rows"] for name in "abc"] == labels.sum(axis=0).tolist()
    assert np.mean([own[name]["f1"] for name in "abc"]) == pytest.approx(found["macro_f1"])


def test_the_edge_gives_several_labels_as_the_problem_does(tmp_path: Path) -> None:
    decision = Decision(2.5, {"größe": 1.3, "person": -0.4}, {"place": 0.7})
    bundle = make_bundle(tmp_path / "bundle", problem="multi_label", **decision.plain())
    model, problem = edge.Model(bundle), problems.get("multi_label")(LABELS)
    logits, labels = several(500, SHARES)
    found = model.decide(logits.astype(np.float32))
    sets = np.array([[label in (one.label or ()) for label in LABELS] for one in found])
    places, sure, right = problem.told_labels(logits, labels, decision)
    told = problem.selective(logits, labels, decision)
    assert told["coverage"] == pytest.approx(sets.sum() / len(places))
    assert told["precision"] == pytest.approx(labels[sets].mean())
    assert told["coverage"] < 1
    assert sure.min() >= 0.5
    assert len(right) == len(places)
    without = Decision(decision.temperature, decision.offsets)
    given = sets.copy()
    at = LABELS.index("place")
    given[:, at] = problem.answers(without.moved(logits, LABELS))[:, at]
    assert (given == problem.answers(without.moved(logits, LABELS))).all()


def test_a_precision_of_several_labels_is_that_of_all_that_are_given() -> None:
    problem = problems.get("multi_label")(["a", "b", "c"])
    logits, labels = several(3_000, SHARES)
    plain = problem.all_metrics(logits, labels)["precision"]
    assert plain < 0.85
    decision, _ = problem.decided(logits, labels.tolist(), DecideSettings(precision=0.9))
    fresh, truth = several(6_000, SHARES, seed=1)
    assert problem.selective(fresh, truth, decision)["precision"] > 0.87
    # A wish that holds anyway withholds nothing, and gives nothing under one half.
    easy, _ = problem.decided(logits, labels.tolist(), DecideSettings(precision=0.1))
    assert min(easy.thresholds.values()) >= 0.5
    assert problem.selective(logits, labels, easy)["coverage"] == 1


def test_the_median_of_ordered_labels_goes_by_calibrated_probabilities() -> None:
    problem = problems.get("ordinal")(["1", "2", "3", "4"])
    logits, labels = drawn(4_000, [0.25] * 4, signal=1.2)
    decision, _ = problem.decided(logits / 4, labels.tolist(), DecideSettings())
    assert decision.temperature == pytest.approx(0.25, rel=0.1)
    found = problem.all_metrics(logits / 4, labels, decision)
    answers = problem.answers(decision.moved(logits / 4, problem.labels))
    assert found["mae"] == pytest.approx(np.abs(answers - labels).mean())
    assert found["mae"] < problem.all_metrics(logits / 4, labels)["mae"]


# --- The edge ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "decision", "judged"),
    [
        ("single_label", {"temperature": 2.0, "offsets": {}}, "student-int8"),
        ("single_label", {"temperature": 2.0, "offsets": {"a": 1.0}}, "bundle"),
        ("ordinal", {"temperature": 2.0, "offsets": {}}, "bundle"),
        ("ordinal", {"temperature": 1.0, "offsets": {}}, "student-int8"),
    ],
)
def test_the_report_judges_the_answers_that_leave(
    problem: str, decision: dict[str, Any], judged: str, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    ledger.put(Row("merge", "merged"), Row("quantize", "student-int8", problem=problem))
    ledger.put(Row("export", "student-onnx"))
    ledger.put(Row("bundle", "bundle", problem=problem, decision=decision))
    assert summarize(ledger, []).judged.name == judged


def test_the_edge_answers_as_the_problem_does(tmp_path: Path) -> None:
    decision = Decision(2.5, {"größe": 1.3, "person": -0.4}, {"place": 0.7, "größe": 0.4})
    model = edge.Model(make_bundle(tmp_path / "bundle", **decision.plain()))
    problem = problems.get("single_label")(LABELS)
    logits = np.random.default_rng(0).normal(0, 3, (500, 3)).astype(np.float32)
    answers = problem.answers(decision.moved(logits, LABELS))
    assert model.best(logits) == [LABELS[place] for place in answers]
    found = model.decide(logits)
    shares = problem.probabilities(logits.astype(np.float64) / decision.temperature)
    assert [list(one.probabilities.values()) for one in found] == shares.tolist()
    given = [one.label is not None for one in found]
    truth = np.random.default_rng(1).integers(0, 3, 500)
    told = problem.selective(logits, truth.tolist(), decision)
    assert told["coverage"] == np.mean(given)
    right = [one.label == LABELS[t] for one, t in zip(found, truth, strict=True) if one.label]
    assert told["precision"] == np.mean(right)
    assert 0 < sum(given) < 500
    assert all(check.passed for check in model.check_golden())
    assert len(model.manifest["golden"]["texts"]) <= len(GOLDEN)


@pytest.fixture(scope="module")
def run(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole run that makes use of everything."""
    folder = tmp_path_factory.mktemp("decisions")
    lines = [
        f"{text},{label},{'web' if number % 3 else 'mail'},{number}"
        for number, (text, label) in enumerate(tiny.rows(240))
    ]
    (folder / "rows.csv").write_text("\n".join(["text,label,source,number", *lines]))
    wishes = [
        "decide={offsets: macro_f1, precision: 0.8}", "data.slices=[source, number]",
        "data.text=text", "data.label=label",
    ]  # fmt: skip
    data = [f"data.train={folder / 'rows.csv'}", f"backbone.model={tiny_backbone('bert')}"]
    assert main(["lora_cls", *data, *QUICK, *wishes, "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.chain
def test_the_row_of_the_bundle_tells_what_the_edge_answers(run: Path) -> None:
    row = Ledger(run / "ledger.json")["bundle"]
    model = edge.Model(run / "bundle")
    assert {key: model.manifest[key] for key in ("temperature", "offsets", "thresholds")} == {
        key: row.decision[key] for key in ("temperature", "offsets", "thresholds")
    }
    with np.load(run / "predictions/bundle.npz") as kept:
        logits, truth = kept["test"], kept["test_labels"]
    best = np.array([model.labels.index(label) for label in model.best(logits)])
    assert row.metrics["accuracy"] == pytest.approx((best == truth).mean())
    found = model.decide(logits)
    shares = np.array([list(one.probabilities.values()) for one in found])
    expected = probability_metrics(shares, truth)
    assert {name: row.metrics[name] for name in expected} == pytest.approx(expected)
    assert row.decision["calibration"]["bundle"]["test"][1] == pytest.approx(expected["ece"])
    fit = row.decision["precision_fit"]
    assert fit["splits"]["test"]["coverage"] == np.mean([one.label is not None for one in found])
    assert row.decision["offsets_fit"]["kept"] == bool(row.decision["offsets"])


def test_every_row_has_intervals_and_figures_of_its_labels(run: Path) -> None:
    ledger = Ledger(run / "ledger.json")
    for row in ledger:
        assert row.intervals["accuracy"][0] <= row.score <= row.intervals["accuracy"][1]
        for found in row.differences:
            other = ledger[found["from"]]
            for figure in ("accuracy", "macro_f1"):
                value, low, high = found[figure]
                assert value == pytest.approx(row.metrics[figure] - other.metrics[figure])
                assert low <= value <= high
        figures = json.loads((run / "predictions" / f"{row.name}.json").read_text())
        assert list(figures["test"]["labels"]) == tiny.LABELS
        assert np.trace(figures["test"]["confusion"]) / row.examples == pytest.approx(row.score)
    assert [one["from"] for one in ledger["student-onnx"].differences] == ["student", "teacher"]
    assert ledger["majority"].differences == []


def test_parts_of_the_rows_are_told_worst_first(run: Path) -> None:
    row = Ledger(run / "ledger.json")["bundle"]
    parts: dict[str, list[Any]] = {}
    for entry in row.slices:
        parts.setdefault(entry["slice"], []).append(entry)
    assert list(parts) == ["length in tokens", "true label", "source", "number"]
    assert {entry["value"] for entry in parts["source"]} == {"web", "mail"}
    assert len(parts["number"]) == 4
    for name, entries in parts.items():
        scores = [entry["accuracy"][0] for entry in entries]
        assert scores == sorted(scores)
        assert sum(entry["rows"] for entry in entries) == row.examples
        whole = sum(e["accuracy"][0] * e["rows"] for e in entries) / row.examples
        assert whole == pytest.approx(row.score)
        if name == "true label":  # with one label there is nothing to average
            assert not any("macro_f1" in entry for entry in entries)
        assert all(e["accuracy"][1] <= e["accuracy"][0] <= e["accuracy"][2] for e in entries)


@pytest.mark.parametrize("kind", ["regression", "multi_label"])
def test_a_part_of_few_rows_is_not_worse_by_more_than_chance(kind: str) -> None:
    """All draws of one row are the same row, which says nothing of how others would do."""
    chance = np.random.default_rng(0)
    truth = chance.standard_normal(41)
    logits = truth[:, None] + chance.normal(0, 0.1, (41, 1))
    logits[40] = -truth[40]
    facts = {"scale": {"mean": 0.0, "deviation": 1.0}}
    labels = truth.tolist() if kind == "regression" else [(int(one > 0),) for one in truth]
    test = SimpleNamespace(labels=labels, slices={"source": ["web"] * 40 + ["mail"]})
    work: Any = SimpleNamespace(
        problem=problems.get(kind)(["a"], facts=facts),
        rows=SimpleNamespace(problem=kind, test=test, labels=["a"]),
        task=SimpleNamespace(features=lambda *_: [{"input_ids": [1]}] * 41),
        tokenizer=None,
        max_length=8,
    )
    headline = work.problem.headline
    parts = [one for one in sliced(work, logits, logits) if one["slice"] == "source"]
    assert [len(one[headline]) for one in parts] == [1, 3]
    assert parts[0]["value"] == "mail"
    assert parts[0][headline][0] == 0
    row = Row("bundle", "bundle", headline=headline, metrics={headline: 0.9}, slices=parts)
    told = _about_slices(row)
    assert "1 part of too few rows" in told
    assert "No part is below" in told
    assert next(line[1][1] for line in _slices(row)[0]["lines"]) == "0.0%"


def test_who_looks_at_many_parts_is_told_what_chance_does() -> None:
    parts = [
        {"slice": "user", "value": str(n), "rows": 50, "accuracy": [0.7, 0.6, 0.8], "teacher": 0.9}
        for n in range(80)
    ]
    row = Row("bundle", "bundle", metrics={"accuracy": 0.9}, slices=parts)
    assert "of 80, chance alone puts about 2 there" in _about_slices(row)
    assert "chance alone" not in _about_slices(replace(row, slices=parts[:10]))


@pytest.mark.parametrize(
    ("numbers", "first"),
    [
        ([1_700_000_000 + n for n in range(40)], "1700000000 to 1700000009"),
        ([1 + n / 10**7 for n in range(40)], "1 to 1.0000009"),
        ([n / 3 for n in range(40)], "0 to 3"),
    ],
)
def test_quarters_of_large_or_near_numbers_stay_apart(numbers: list[float], first: str) -> None:
    found = groups([repr(number) for number in numbers])
    assert [len(rows) for _, rows in found] == [10] * 4
    assert len({name for name, _ in found}) == 4
    assert found[0][0] == first


def test_report_and_card_tell_of_all_of_it(run: Path) -> None:
    row = Ledger(run / "ledger.json")["bundle"]
    page = (run / "report.html").read_text()
    for told in ("On parts of the test rows", "source, worst first", "How answers are made",
                 "Every label: precision, recall and F1", "AUROC"):  # fmt: skip
        assert told in page
    for text in ((run / "README.md").read_text(), (run / "bundle/README.md").read_text()):
        assert f"temperature of {row.decision['temperature']:.3f}" in text
        assert "a label is given from a probability of" in text
    assert "95% interval" in (run / "README.md").read_text()


def test_decisions_and_slices_are_made_anew_without_what_came_before(run: Path) -> None:
    recipe = [str(run / "recipe.yaml"), "decide=null", "data.slices=[]"]
    done = ["--out", str(run), "--from", "bundle"]
    assert main([*recipe[:1], "decide={calibrate: false, offsets: null, precision: null}",
                 *recipe[2:], *done]) == 0  # fmt: skip
    row = Ledger(run / "ledger.json")["bundle"]
    assert (row.decision["temperature"], row.decision["offsets"]) == (1.0, {})
    assert {entry["slice"] for entry in row.slices} == {"length in tokens", "true label"}
    assert edge.Model(run / "bundle").manifest["thresholds"] == {}


def test_a_column_of_names_is_no_slice(tmp_path: Path) -> None:
    rows = [f"{text},{label},user {text}" for text, label in tiny.rows(300)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,user", *rows]))
    with pytest.raises(RecipeError, match=r'column "user" has \d+ values, and at most 30'):
        read(tmp_path / "rows.csv", "data.slices=[user]", "data.text=text", "data.label=label")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["decide.confidence=0.9"], "no effect without a precision"),
        (["decide.precision=95"], "less than 1"),
        (["data.slices=[sauce]"], 'Did you mean "source"'),
        (["data.problem=ordinal", "data.label=number2", "decide.offsets=macro_f1"], "calibrate"),
        (["data.problem=regression", "data.label=number2", "decide.precision=0.9"], "nothing"),
        (["decide.offsets=micro_f1"], "Give one of accuracy, macro_f1, balanced_accuracy"),
    ],
)
def test_what_cannot_be_is_refused(
    overrides: list[str],
    said: str,
    tiny_backbone: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [f"{text},{label},web,{len(label)}" for text, label in tiny.rows(90)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label,source,number2", *lines]))
    arguments = ["lora_cls", f"data.train={tmp_path / 'rows.csv'}", "data.text=text",
                 "data.label=label", f"backbone.model={tiny_backbone('bert')}"]  # fmt: skip
    assert main([*arguments, *QUICK, *overrides, "--out", str(tmp_path / "run")]) == 3
    assert said in capsys.readouterr().err
