"""Problem types: found in the data, and carried from training to the edge."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import tiny
import tiny_server
import torch
import yaml
from test_run import QUICK

from export.edge import Model, Prediction
from recipes.errors import RecipeError
from recipes.ledger import Ledger
from recipes.problems import problems
from recipes.problems.decision import Decision
from recipes.reporting.comparison_students import gain_of
from recipes.reporting.summary import summarize
from recipes.run import main
from recipes.tasks import tasks

Make = Callable[[str], Path]
KINDS = ("multi_label", "ordinal", "regression", "pairs")
#: What is asked for of the answers.
WISHES = {
    "multi_label": ["decide={offsets: macro_f1, precision: 0.7}", "distill.calibrate=true"],
    "ordinal": ["decide.precision=0.6"],
}


def rows_of(kind: str, count: int = 200) -> list[dict[str, Any]]:
    """Return rows whose label a few words give away."""
    found: list[dict[str, Any]] = []
    single = tiny.rows(2 * count)
    random.Random(0).shuffle(single)
    for (one, first), (other, second) in zip(single[::2], single[1::2], strict=True):
        text = f"{one} {other}"
        if kind == "multi_label":
            # Every fifth text is of fillers only, and has no label.
            words = [word for word in text.split() if word in tiny.FILLERS]
            none = len(found) % 5 == 0
            labels = [] if none else sorted({first, second})
            found.append({"text": " ".join(words) if none else text, "label": labels})
        elif kind == "pairs":
            same = "same" if first == second else "other"
            found.append({"premise": one, "hypothesis": other, "label": same})
        else:
            place = tiny.LABELS.index(first)
            value = place + 1 if kind == "ordinal" else place * 2.5 - 1.25
            found.append({"text": one, "stars" if kind == "ordinal" else "score": value})
    if kind == "multi_label":
        found = list({row["text"]: row for row in found}.values())
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, *overrides: str) -> Any:
    from recipes.reading import read_recipe

    recipe = read_recipe("lora_cls", [f"data.train={path}", *overrides])
    return tasks.get("text_classification")().read(recipe.data, offline=True)


@pytest.fixture(scope="module", params=KINDS)
def run(
    request: pytest.FixtureRequest, tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Return a kind and the folder of a whole run of it."""
    kind, folder = request.param, tmp_path_factory.mktemp("kinds")
    data = write(folder / "rows.jsonl", rows_of(kind))
    goals = ["gate={max_drop: 1.0, min_label_agreement: 0.3}", *WISHES.get(kind, ())]
    common = ["lora_cls", f"data.train={data}", f"backbone.model={tiny_backbone('bert')}", *QUICK]
    goals.append("distill.student.layers=1")  # how many has nothing to do with the kind
    if kind == "pairs":
        goals += ["train.augment=[swap]", "distill.augment=[splice]", "distill.copies=1"]
    assert main([*common, *goals, "--out", str(folder / "run")]) == 0
    return kind, folder / "run"


@pytest.mark.chain
def test_the_whole_chain(run: tuple[str, Path]) -> None:
    kind, out = run
    ledger = Ledger(out / "ledger.json")
    manifest = json.loads((out / "bundle/bundle.json").read_text())
    problem = "single_label" if kind == "pairs" else kind
    assert manifest["problem_type"] == problem
    assert {row.headline for row in ledger} == {problems.get(problem).headline}
    if kind != "pairs":  # two words in a line are too much for so small a model
        assert ledger["teacher"].score > ledger["majority"].score
    config = json.loads((out / "student/config.json").read_text())
    assert config.get("problem_type") == problems.get(problem).kind
    page = (out / "report.html").read_text()
    assert kind != "regression" or "rank correlation" in page
    assert ("Can its probabilities be believed?" in page) == (kind != "regression")
    assert Path(out / "README.md").read_text().startswith("---")


def test_gains_and_the_card_go_by_the_headline(run: tuple[str, Path]) -> None:
    """What was kept is enough to judge the students again, without the data."""
    kind, out = run
    ledger = Ledger(out / "ledger.json")
    assert {row.problem for row in ledger} == {"single_label" if kind == "pairs" else kind}
    gain = gain_of([out])
    assert gain is not None
    difference = ledger["student"].score - ledger["student-alone"].score
    assert gain.mean == pytest.approx(difference)
    assert gain.low <= gain.mean <= gain.high
    head = yaml.safe_load((out / "README.md").read_text().split("---\n")[1])
    first, *others = head["model-index"][0]["results"][0]["metrics"]
    wanted = {"multi_label": ("f1", "micro F1"), "regression": ("r_squared", "explained variance")}
    assert (first["type"], first["name"]) == wanted.get(kind, ("accuracy", "accuracy"))
    judged = summarize(ledger, []).judged  # what the card tells of
    assert first["value"] == round(judged.score, 4)
    assert (kind == "multi_label") == ("all labels right" in [other["name"] for other in others])
    page = (out / "report.html").read_text()
    words = {"multi_label": "Micro F1", "regression": "Explained variance"}.get(kind, "Accuracy")
    assert f"{words} against latency" in page
    assert (kind == "regression") == ("in hundredths of a deviation" in page)
    assert "Does distillation earn its place?" in page
    assert ("right where" in page) == (kind != "regression")


def test_the_edge_answers_as_the_student(run: tuple[str, Path]) -> None:
    """The bundle's own code, its texts and its words against the student in PyTorch."""
    kind, out = run
    edge = Model(out / "bundle")
    with np.load(out / "predictions" / "student-int8.npz") as kept:
        logits, truth = kept["validation"], kept["validation_labels"]
    found = edge.decide(logits)
    problem = problems.get(edge.problem)(edge.labels, facts=edge.manifest)
    decision = Decision.of(edge.manifest)
    moved = decision.moved(logits, edge.labels)
    answers = problem.answers(moved)
    least = np.array([decision.thresholds.get(name, problem.least) for name in edge.labels])
    assert len(found) == len(truth)
    if kind == "multi_label":
        answers = (problem.probabilities(moved) >= least).astype(int)
    for one, answer in zip(found, answers, strict=True):
        if kind == "multi_label":
            assert isinstance(one.label, list)
            assert (", ".join(one.label) or "(no label)") == problem.told(answer)
        elif kind == "ordinal":
            sure = one.probabilities[problem.told(answer)] >= least[answer]
            assert one.label == (problem.told(answer) if sure else None)
        elif kind == "regression":
            assert float(one.label) == pytest.approx(float(problem.told(answer)), rel=1e-3)  # type: ignore[arg-type]
            assert one.probabilities == {}
        else:
            assert one.label == problem.told(answer)
    golden = edge.manifest["golden"]
    assert all(check.passed for check in edge.check_golden())
    assert len(golden["texts"]) > 0


def test_edge_answers_for_people_and_programs(
    run: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from export.edge import _show, answers

    kind, out = run
    model = Model(out / "bundle")
    text = "the cat\ta big house" if kind == "pairs" else "the cat a house"
    (answer,) = answers(model, [text.encode()], 1)
    assert isinstance(answer, Prediction)
    told = json.loads(_show(answer, True))
    assert ("value" in told) == (kind == "regression")
    assert _show(answer, False)
    if kind == "pairs":
        (alone,) = answers(model, [b"the cat"], 1)
        assert isinstance(alone, ValueError)
        assert "tab" in str(alone)


def test_pairs_are_read_as_two_texts(tmp_path: Path) -> None:
    rows = rows_of("pairs", 60)
    rows[0]["premise"] = "with\ta tab"
    found = read(write(tmp_path / "rows.jsonl", rows))
    texts = [text for part in (found.train, found.validation, found.test) for text in part.texts]
    assert all(text.count("\t") == 1 for text in texts)
    assert any("guessed" in note and "pair" in note for note in found.notes)
    assert found.problem == "single_label"


@pytest.mark.parametrize("kind", ["multi_label", "ordinal", "regression"])
def test_the_problem_is_found_and_said_aloud(kind: str, tmp_path: Path) -> None:
    found = read(write(tmp_path / "rows.jsonl", rows_of(kind, 90)))
    assert found.problem == kind
    assert any("data.problem" in note for note in found.notes)
    again = read(tmp_path / "rows.jsonl", f"data.problem={kind}")
    assert again.fingerprint == found.fingerprint


def test_whole_numbers_of_another_name_are_classes(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "class": row["stars"]} for row in rows_of("ordinal", 60)]
    assert read(write(tmp_path / "rows.jsonl", rows)).problem == "single_label"
    found = read(tmp_path / "rows.jsonl", "data.problem=ordinal")
    assert found.problem == "ordinal"
    assert list(found.labels) == ["1", "2", "3"]


def test_an_order_can_be_named(tmp_path: Path) -> None:
    names = ["low", "middle", "high"]
    rows = [{"text": r["text"], "label": names[r["stars"] - 1]} for r in rows_of("ordinal", 60)]
    path = write(tmp_path / "rows.jsonl", rows)
    assert list(read(path, "data.order=[low,middle,high]").labels) == names
    with pytest.raises(RecipeError, match=r"Did you mean \"high\""):
        read(path, "data.order=[low,middle,hihg]")
    with pytest.raises(RecipeError, match="every label once"):
        read(path, "data.order=[low,high]")
    with pytest.raises(RecipeError, match="from low to high"):
        read(path, "data.problem=ordinal")


def test_several_labels_in_one_column_or_in_columns_of_their_own(tmp_path: Path) -> None:
    rows = rows_of("multi_label", 90)
    lists = read(write(tmp_path / "rows.jsonl", rows))
    parted = [{**row, "label": "|".join(row["label"])} for row in rows if row["label"]]
    found = read(write(tmp_path / "parted.jsonl", parted), "data.separator=|")
    assert list(found.labels) == list(lists.labels) == tiny.LABELS
    with (tmp_path / "ticked.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", *tiny.LABELS])
        for row in rows:
            writer.writerow([row["text"], *(int(label in row["label"]) for label in tiny.LABELS)])
    ticked = read(tmp_path / "ticked.csv", f"data.label=[{','.join(tiny.LABELS)}]")
    assert list(ticked.train.texts) == list(lists.train.texts)
    assert list(ticked.train.labels) == list(lists.train.labels)


def test_every_split_has_its_share(tmp_path: Path) -> None:
    found = read(write(tmp_path / "rows.jsonl", rows_of("multi_label", 400)))
    shares = [np.mean(part.labels, axis=0) for part in (found.train, found.test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.1
    numbers = [{"text": f"text {i}", "value": i / 7} for i in range(200)]
    found = read(write(tmp_path / "numbers.jsonl", numbers))
    assert found.facts["scale"]["deviation"] > 0
    assert abs(np.mean(found.test.labels)) < 0.1  # deviations from the mean of the training rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": "much"}, "no number"),
        ({"score": [1, 2]}, "no number"),
    ],
)
def test_what_is_no_number_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    rows = rows_of("regression", 60)
    rows[7] |= change
    with pytest.raises(RecipeError, match=said):
        read(write(tmp_path / "rows.jsonl", rows), "data.label=score", "data.problem=regression")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.separator=|", "data.problem=regression"], "several labels"),
        (["data.order=[a,b]", "data.problem=multi_label"], "order is for"),
        (["data.pair=nothing"], "data.pair"),
        (["data.pair=text"], "Name two"),
    ],
)
def test_impossible_combinations(overrides: list[str], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", rows_of("ordinal", 60))
    with pytest.raises(RecipeError, match=said):
        read(path, "data.text=text", *overrides)


def test_pairs_take_no_single_texts_besides(
    tiny_backbone: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of("pairs", 60))
    arguments = ["lora_cls", f"data.train={data}", f"backbone.model={tiny_backbone('bert')}"]
    more = [f"distill.text={data}", "--out", str(tmp_path / "run")]
    assert main([*arguments, *QUICK, *more]) == 3
    assert "pairs of texts" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "ordinal", "regression"])
def test_losses_and_metrics(kind: str) -> None:
    """What answers rightly has the better loss and perfect metrics; a constant is no better."""
    chance = np.random.default_rng(0)
    labels = ["a", "b", "c", "d"][: 1 if kind == "regression" else 4]
    ids = chance.integers(0, 4, 60)
    truth: Any = {
        "multi_label": [tuple(int(x) for x in row) for row in chance.integers(0, 2, (60, 4))],
        "regression": ids.astype(float).tolist(),
    }.get(kind, ids.tolist())
    facts = {"scale": {"mean": 3.0, "deviation": 2.0}}
    problem = problems.get(kind)(labels, truth, facts)
    right = np.asarray(truth, float).reshape(60, -1)
    if kind in ("single_label", "ordinal"):
        right = np.eye(4)[ids]
    logits = right * 3 - 1.5 if kind != "regression" else right
    assert problem.metrics(logits, truth)[problem.headline] == pytest.approx(1)
    assert problem.same(logits, logits).all()
    constant = np.tile(problem.constant(), (60, 1))
    assert problem.metrics(constant, truth)[problem.headline] < 0.8

    def loss(values: np.ndarray) -> float:
        return float(problem.loss(torch.tensor(values), torch.tensor(truth)))

    assert loss(logits) < loss(constant)


def test_a_near_miss_costs_less_than_a_far_one() -> None:
    problem = problems.get("ordinal")(["1", "2", "3", "4"])
    near, far = (torch.eye(4)[[place]] * 8 for place in (1, 3))
    truth = torch.tensor([0])
    assert float(problem.loss(near, truth)) < float(problem.loss(far, truth))
    # Torn between the ends, the middle is the least wrong.
    assert problem.answers(np.log([[0.4, 0.11, 0.09, 0.4]]))[0] == 1


def test_metrics_of_numbers_are_in_their_unit() -> None:
    problem = problems.get("regression")(["euro"], facts={"scale": {"mean": 10, "deviation": 4}})
    found = problem.metrics(np.array([[0.5], [-0.5]]), [0.0, 0.0])
    assert found["mae"] == pytest.approx(2)
    assert problem.told(0.25) == "11"


@pytest.mark.parametrize(("rare", "left"), [("drop", 60), ("merge", 64)])
def test_labels_with_few_rows(rare: str, left: int, tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in tiny.rows(60)]
    rows += [{"text": f"odd {i}", "label": "odd" if i else "strange"} for i in range(4)]
    path = write(tmp_path / "rows.jsonl", rows)
    found = read(path, "data.min_rows=4", f"data.rare={rare}")
    assert sum(len(part) for part in (found.train, found.validation, found.test)) == left
    assert ("other" in found.labels) == (rare == "merge")
    assert not {"odd", "strange"}.intersection(found.labels)
    assert any('"strange"' in note and "4 rows" in note for note in found.notes)
    with pytest.raises(RecipeError, match="no label has so many"):
        read(path, "data.min_rows=99")
    several = [{**row, "label": [row["label"], "any"]} for row in rows]
    found = read(write(tmp_path / "several.jsonl", several), "data.min_rows=4", f"data.rare={rare}")
    assert sum(len(part) for part in (found.train, found.validation, found.test)) == 64
    assert "odd" not in found.labels


def test_the_server_answers_as_the_bundle(run: tuple[str, Path], tmp_path: Path) -> None:
    """Over JSON and over the protocol; a pair without its second text is refused."""
    kind, out = run
    shutil.copytree(out / "bundle", tmp_path / "bundle")
    text = "the cat\ta big house" if kind == "pairs" else "the cat a house"
    (expected,) = Model(out / "bundle").predict([text])
    with tiny_server.running(tmp_path / "bundle") as at:
        answer = at.ask("/predict", {"text": text}).content
        model, (found,) = f"/v2/models/{answer['model']}", answer["predictions"]
        name = "value" if kind == "regression" else "label"
        assert found[name] == expected.label
        about = at.ask(model).content
        assert about["parameters"]["problem_type"] == Model(out / "bundle").problem
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [text]}
        tensors = at.ask(f"{model}/infer", {"inputs": [tensor]}).content["outputs"]
        outputs = {each["name"]: each["data"] for each in tensors}
        assert outputs.keys() == {each["name"] for each in about["outputs"]}
        told = outputs[name][0]
        assert (json.loads(told) if kind == "multi_label" else told) == expected.label
        strange = {"inputs": [tensor], "outputs": [{"name": "value"}]}
        status = at.ask(f"{model}/infer", strange).status
        assert status == (200 if kind == "regression" else 400)
        if kind == "pairs":
            assert at.ask("/predict", {"text": "the cat"}).status == 400


def test_a_table_is_scored(run: tuple[str, Path], tmp_path: Path) -> None:
    from export.predict import main as predict

    kind, out = run
    rows = rows_of(kind, 12)
    source = write(tmp_path / "rows.jsonl", rows)
    pair = ["--text", "premise", "--pair", "hypothesis"] if kind == "pairs" else []
    command = [str(out / "bundle"), "--input", str(source), "--prefix", "given_", *pair]
    for name in ("scored.jsonl", "scored.parquet", "scored.csv"):
        assert predict([*command, "--output", str(tmp_path / name)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    texts = [f"{r['premise']}\t{r['hypothesis']}" if pair else r["text"] for r in rows]
    model = Model(out / "bundle")
    name = "given_value" if kind == "regression" else "given_label"
    expected = [model.predict([text])[0].label if text.strip() else None for text in texts]
    alike = [one[name] == other for one, other in zip(lines, expected, strict=True)]
    if kind == "regression":  # int8 scales a whole batch alike
        alike = [abs(a[name] - b) < 0.5 for a, b in zip(lines, expected, strict=True)]
    assert sum(alike) >= 10
    table = pandas.read_parquet(tmp_path / "scored.parquet")
    assert len(table) == len(rows)
    assert isinstance(table[name][0], float | str | np.ndarray)
    if kind != "pairs":
        assert predict([*command, "--pair", "text", "--output", str(tmp_path / "x.csv")]) == 3


def test_pairs_and_single_texts_are_encoded_each_in_their_way() -> None:
    """An imitation on pairs reads plain texts beside them: neither changes what the other is."""
    from recipes.long_text import tokens

    tokenizer = tiny.tokenizer()
    texts = ["the cat", "the cat\ta house", "a dog"]
    mixed = tokens(tokenizer, texts, 32, None, pairs=True)
    assert mixed == [tokens(tokenizer, [text], 32, None, pairs=True)[0] for text in texts]
    assert mixed[1] == tokenizer("the cat", "a house")["input_ids"]


def test_numbers_that_do_not_differ_have_nothing_to_explain() -> None:
    problem = problems.get("regression")(["euro"], facts={"scale": {"mean": 0, "deviation": 1}})
    for rows in (1, 2, 3):
        logits = np.linspace(-1, 1, rows)[:, None]
        found = problem.resampled([logits], [0.5, -0.5, 0.1][:rows])["r2"]
        assert np.isfinite(found).all()
        assert found.min() > -1e6


def test_what_an_objective_cannot_keep_is_refused(
    tiny_backbone: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", rows_of("ordinal", 90))
    arguments = ["lora_cls", f"data.train={data}", f"backbone.model={tiny_backbone('bert')}"]
    more = ["distill.objectives=[{name: ce, smoothing: 0.1}]", "--out", str(tmp_path / "run")]
    assert main([*arguments, *QUICK, *more]) == 3
    assert "smoothing of the objective ce has no effect" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [7, 100, 333])
def test_a_model_of_numbers_that_collapsed_is_judged_in_numbers(rows: int) -> None:
    """One and the same number in float32 has a tiny deviation that is no correlation."""
    problem = problems.get("regression")(["y"], facts={"scale": {"mean": 3.1, "deviation": 0.7}})
    truth = np.random.default_rng(0).normal(size=rows)
    constant = problem.metrics(np.full((rows, 1), 0.1, np.float32), truth)
    assert (constant["pearson"], constant["spearman"]) == (0, 0)
    lost = problem.metrics(np.full((rows, 1), np.nan, np.float32), truth)
    assert all(np.isfinite(value) for value in lost.values())
    assert lost["r2"] < constant["r2"]


@pytest.mark.parametrize("run", ["multi_label"], indirect=True)
def test_what_is_told_of_several_labels(run: tuple[str, Path]) -> None:
    """Shares are of rows, and mistakes are about labels that are wrong."""
    from recipes.reading import read_recipe
    from recipes.reporting.answers import misses
    from recipes.reporting.panels import classes
    from recipes.run import workspace

    _, out = run
    work = workspace(read_recipe(str(out / "recipe.yaml")), out, offline=True)
    share = np.asarray(work.rows.train.labels).mean(axis=0).max()
    assert f"largest label with {100 * share:.1f}%" in classes(work).takeaway
    bundle = work.ledger["bundle"]
    decision, labels = Decision.of(bundle.decision), work.rows.labels
    shares = work.problem.probabilities(decision.moved(work.logits("bundle")["test"], labels))
    truth = np.asarray(work.rows.test.labels)
    off = np.where((shares >= 0.5) != (truth == 1), np.abs(shares - truth), 0).max(axis=1)
    summary = summarize(work.ledger, [])
    assert summary.judged.name == "bundle"
    told = [row["probability"] for row in misses(work, summary)]
    expected = sorted(off[off > 0], reverse=True)[: len(told)]
    assert told == [f"{100 * value:.1f}%" for value in expected]
