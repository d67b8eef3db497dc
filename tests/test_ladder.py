"""The ladder: a form that collapses is left with its reason, and the next one is tried."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import tiny_work
import torch
from onnx import numpy_helper

from adapters.backbone import load_backbone
from export.errors import ExportError
from export.float16 import store_float16
from export.graph import export_onnx
from export.quantize import QuantizerError, quantizable, quantize_int8
from export.sensitivity import most_sensitive
from export.session import open_model
from recipes.gate import GateCheck, verdict
from recipes.ladder import Tried, choose, entries
from recipes.ledger import Row
from recipes.reporting.ladder import frontier, ladder_panel, print_ladder, rungs
from recipes.stages import quantize
from recipes.workspace import Workspace, by_length

Model = Any
#: Puts a fault into a model.
Plant = Callable[[Model], None]
STRICT = "gate={max_drop: 0.02, min_label_agreement: 0.97}"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.backbone(tmp_path_factory.mktemp("backbone"), layers=2)


@pytest.fixture(scope="module")
def taught(backbone: Path) -> Model:
    """Return a tiny classifier that knows its labels, so that a collapse shows in them."""
    torch.manual_seed(0)
    model = load_backbone(backbone, tiny.LABELS)
    texts, labels = zip(*tiny.rows(120), strict=True)
    batch, goal = tiny.batch(texts), torch.tensor([tiny.LABELS.index(label) for label in labels])
    learn = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, goal)
        learn.zero_grad()
        loss.backward()
        learn.step()
    assert loss < 0.1
    return model.eval()


def sound(model: Model) -> None:
    """Plant nothing."""


def huge_weights(model: Model) -> None:
    """Plant a neuron with huge weights that says the same of all: one scale crushes the others."""
    model.bert.pooler.dense.weight.data[0] = 300 * torch.randn(32)
    model.bert.pooler.dense.bias.data[0] = 1e5
    model.classifier.weight.data[:, 0] = 0


def loud_activation(model: Model) -> None:
    """Plant a number that is huge and heard by nobody: it crushes all that stand beside it."""
    model.bert.encoder.layer[-1].output.LayerNorm.weight.data[0] = 0
    model.bert.encoder.layer[-1].output.LayerNorm.bias.data[0] = 1e5
    model.bert.pooler.dense.weight.data[:, 0] = 0


@pytest.fixture(scope="module")
def exported(
    taught: Model, backbone: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Plant], Path]:
    """Return a function that exports a classifier with something planted, once for each."""

    @functools.cache
    def make(plant: Plant) -> Path:
        folder = tmp_path_factory.mktemp(plant.__name__)
        model = load_backbone(backbone, tiny.LABELS)
        model.load_state_dict(taught.state_dict())
        plant(model)
        model.eval().save_pretrained(folder / "student")
        tiny.tokenizer().save_pretrained(folder / "student")
        (folder / "onnx").mkdir()
        export_onnx(model, tiny.batch(["the cat", "a big house here"]), folder / "onnx/model.onnx")
        return folder

    return make


@pytest.fixture
def stage(
    exported: Callable[[Plant], Path], backbone: Path, tmp_path: Path
) -> Callable[..., Workspace]:
    """Return a function that runs the stage on an exported classifier."""

    def go(plant: Plant, *overrides: str) -> Workspace:
        folder = tmp_path / "run"
        shutil.copytree(exported(plant), folder)
        work = tiny_work.workspace(folder, backbone, STRICT, *overrides)
        path, collate = folder / "onnx/model.onnx", work.task.collator(work.tokenizer)
        call = open_model(path, 1)
        logits = {
            split: by_length(call, work.examples(split, work.tokenizer), collate)
            for split in ("validation", "test")
        }
        work.save_logits("student-onnx", logits)
        score = work.problem.metrics(logits["validation"], work.rows.validation.labels)
        size = path.stat().st_size
        work.ledger.put(
            Row("export", "student-onnx", "onnx/model.onnx", size_bytes=size, validation=score)
        )
        quantize.run(work)
        return work

    return go


def steps(row: Row) -> list[str]:
    return [entry["step"] for entry in row.ladder]


def test_the_fastest_form_is_taken_if_it_holds(stage: Any) -> None:
    work = stage(sound)
    row = work.ledger["student-int8"]
    (only,) = row.ladder
    assert (only["step"], only["held"], only["chosen"]) == ("dynamic, per tensor", True, True)
    assert only["reason"] == "the first that holds"
    assert not (work.folder / "onnx/tried").exists()
    assert row.size_bytes == (work.folder / row.path).stat().st_size
    assert row.latency_ms["gate"] == row.latency_ms["dynamic, per tensor"]
    assert any("vector extensions" in note for note in row.notes)
    assert verdict(work) == []


def test_a_planted_weight_that_one_scale_cannot_bear_is_left_for_a_scale_each(
    stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    work = stage(huge_weights)
    row = work.ledger["student-int8"]
    first, second = row.ladder
    assert (first["step"], first["held"]) == ("dynamic, per tensor", False)
    assert "gate.min_label_agreement asks for at least 0.97" in first["reason"]
    assert (second["step"], second["chosen"]) == ("dynamic, per channel", True)
    assert row.agreement["validation_labels"] >= 0.97
    assert "dynamic, per channel; rejected: dynamic, per tensor" in row.notes
    shown = rungs(row)
    assert shown[0].outcome.startswith("rejected: ")
    assert [rung.chosen for rung in shown] == [False, True]
    capsys.readouterr()
    print_ladder(work)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [one.step for one in shown]


def test_nodes_that_nothing_else_rescues_stay_in_float(stage: Any) -> None:
    """Neither a scale for each channel nor known ranges help against one loud activation."""
    work = stage(loud_activation)
    row = work.ledger["student-int8"]
    assert steps(row)[:3] == ["dynamic, per tensor", "dynamic, per channel", "static, per channel"]
    assert not any(entry["held"] for entry in row.ladder[:3])
    last = row.ladder[-1]
    assert (last["step"], last["chosen"]) == ("dynamic, per channel, 1 in float", True)
    graph = onnx.load(work.folder / "onnx/model.onnx").graph
    (kept,) = [node for node in graph.node if node.name in last["kept_float"]]
    assert "pooler" in kept.input[1]  # the scan has found it
    assert f"left in float: {kept.name}" in row.notes


def test_with_auto_what_collapses_in_integers_leaves_as_float16(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export import ladder

    def broken(*_: Any, **__: Any) -> None:
        raise QuantizerError("no such thing")

    monkeypatch.setattr(ladder, "quantize_static_int8", broken)
    monkeypatch.setattr(ladder, "quantize_int8", zeroed(ladder.quantize_int8))
    monkeypatch.setattr(ladder, "most_sensitive", lambda source, *_, **__: quantizable(source))
    work = stage(sound, "export.quantization=auto")
    row = work.ledger["student-int8"]
    reasons = {entry["step"]: entry["reason"] for entry in row.ladder}
    assert reasons["static, per channel"] == "it could not be written: no such thing"
    assert row.path == "onnx/model.float16.onnx"
    assert (steps(row)[-1], row.ladder[-1]["form"]) == ("float16", "float16")
    assert not (work.folder / "onnx/model.int8.onnx").exists()
    assert verdict(work) == []


def zeroed(write: Any) -> Any:
    """Collapse all integers, as a silent failure would."""

    def spoil(source: Path, target: Path, **options: Any) -> None:
        write(source, target, **options)
        model = onnx.load(target)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.int8:
                tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
        onnx.save(model, target)

    return spoil


def test_goals_for_size_and_time_are_held_and_end_the_climb(stage: Any) -> None:
    work = stage(sound, "gate.max_size_mb=0.01", "gate.max_latency_ms=1e-6")
    assert len(work.ledger["student-int8"].ladder) == 1  # what comes after is larger and slower
    told = verdict(work)
    assert any("gate.max_size_mb asks for at most 0.01" in reason for reason in told)
    assert any("gate.max_latency_ms asks for at most 1e-06" in reason for reason in told)
    assert not any("against float" in reason for reason in told)


def test_goals_are_asked_of_the_float_file_too(stage: Any) -> None:
    work = stage(
        sound, "export.quantization=none", "gate.max_latency_ms=1e-6", "gate.max_size_mb=100"
    )
    assert "student-int8" not in work.ledger
    (only,) = verdict(work)
    assert "gate.max_latency_ms" in only


def test_pareto_measures_all_and_takes_the_smallest_near_the_best(
    stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    work = stage(sound, "export.quantization=auto", "export.choose=pareto")
    row = work.ledger["student-int8"]
    assert steps(row) == [
        "dynamic, per tensor", "dynamic, per channel", "static, per channel", "float16", "float32",
    ]  # fmt: skip
    near = [entry for entry in row.ladder if entry["held"]]
    chosen = next(entry for entry in row.ladder if entry["chosen"])
    best = max(entry["metrics"]["accuracy"] for entry in near)
    assert chosen["metrics"]["accuracy"] >= best - 0.02
    assert chosen["size_bytes"] == min(entry["size_bytes"] for entry in near)
    panel = ladder_panel(row)
    assert panel is not None
    assert all(step in panel.chart for step in ("float16", "float32"))
    capsys.readouterr()
    print_ladder(work)
    said = capsys.readouterr().out
    assert all(step in said for step in steps(row))
    assert "frontier" in said


@pytest.mark.parametrize(
    ("metrics", "guarded"),
    [
        ([], "accuracy"),
        (["train.metric=macro_f1"], "macro f1"),
        (["train.metric=macro_f1", "distill.train.metric=recall"], "recall"),
        (["distill.train.metric=accuracy", "train.metric=macro_f1"], "accuracy"),
        (["train.metric=macro_f1", "distill.train.metric=mae"], "macro f1"),
    ],
)
def test_what_may_be_lost_is_of_the_metric_that_is_chosen_by(
    metrics: list[str], guarded: str, backbone: Path, tmp_path: Path
) -> None:
    work = tiny_work.workspace(tmp_path / "run", backbone, STRICT, *metrics)
    agreed = {"validation_labels": 1.0, "batches_labels": 1.0, "batches_worst": ""}
    for lost in ("accuracy", "macro_f1", "recall"):
        whole = {"accuracy": 0.9, "macro_f1": 0.8, "recall": 0.7, "mae": 0.3}
        small = {**whole, lost: whole[lost] - 0.05, "mae": 0.1}
        work.ledger.put(
            Row("x", "student-onnx", validation=whole),
            Row("x", "student-int8", validation=small, agreement=agreed),
        )
        told = verdict(work)
        if lost == guarded.replace(" ", "_"):
            assert told == [
                f"int8 against float: 0.0500 ({guarded} on the validation rows), gate.max_drop "
                "asks for at most 0.02"
            ]
        else:
            assert told == []


def test_forms_are_tried_by_the_metric_that_is_chosen_by(
    stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    work = stage(huge_weights, "train.metric=macro_f1", "gate.min_label_agreement=0")
    first = work.ledger["student-int8"].ladder[0]
    lost = work.ledger["student-onnx"].validation["macro_f1"] - first["metrics"]["macro_f1"]
    assert lost > 0.02
    assert f"{lost:.4f} (macro f1 on the validation rows), gate.max_drop" in first["reason"]
    assert f"macro f1 {100 * first['metrics']['macro_f1']:.2f} %" in capsys.readouterr().err


def a_form(step: str, accuracy: float, size: int, held: bool = True, alike: float = 1.0) -> Tried:
    return Tried(
        step, "int8", Path(step), "student", [] if held else ["no"], metrics={"accuracy": accuracy},
        agreement={"validation_labels": alike, "batches_labels": 1.0}, size_bytes=size,
    )  # fmt: skip


def test_choosing() -> None:
    forms = [a_form("a", 0.89, 10), a_form("b", 0.92, 11), a_form("c", 0.925, 30)]
    assert choose(forms, "first", 0.01)[0].step == "a"
    assert choose(forms, "pareto", 0.01)[0].step == "b"
    assert choose(forms, "pareto", 0.0)[0].step == "c"
    none = [a_form("a", 0.9, 1, False, 0.5), a_form("b", 0.8, 2, False, 0.9)]
    assert choose(none, "pareto", 0.01)[0].step == "b"
    with pytest.raises(ExportError, match="because"):
        choose([Tried("a", "int8", None, "student", ["because"])], "first", 0.01)


def test_what_is_not_a_number_can_be_packed() -> None:
    """A bundle carries the ledger as JSON, and a form that collapsed must not spoil a good one."""
    good = a_form("b", 0.9, 2)
    nan = {"validation_labels": 0.1, "batches_max_logit_difference": float("nan")}
    metrics = {"r2": -1.0, "pearson": float("nan")}
    spoilt = replace(a_form("a", 0.2, 1, False), agreement=nan, metrics=metrics)
    kept = entries([spoilt, good], good, "why")
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert kept[0]["agreement"]["validation_labels"] == 0.1


def test_the_frontier_is_what_nothing_beats() -> None:
    marks = {"a": (0.90, 10, 1.0), "b": (0.92, 12, 2.0), "c": (0.91, 13, 3.0)}
    row = Row(
        "quantize",
        "student-int8",
        ladder=[
            {"step": step, "metrics": {"accuracy": accuracy}, "size_bytes": size}
            for step, (accuracy, size, _) in marks.items()
        ],
        latency_ms={step: {"p50": time} for step, (_, _, time) in marks.items()},
    )
    assert frontier(row) == {"a", "b"}


def test_a_bound_is_told_with_its_unit() -> None:
    check = GateCheck("gate.max_latency_ms", 1.25, 1.0, True, "median", "ms")
    assert check.told == "1.25 ms (median), gate.max_latency_ms asks for at most 1"
    assert not check.passed


@pytest.fixture(scope="module")
def graph(exported: Callable[[Plant], Path]) -> Path:
    return exported(sound) / "onnx/model.onnx"


def test_float16_halves_the_file_and_keeps_the_answers(graph: Path, tmp_path: Path) -> None:
    small = tmp_path / "m.onnx"
    store_float16(graph, small)
    batch = tiny.batch([text for text, _ in tiny.rows(30)])
    difference = np.abs(open_model(graph, 1)(batch) - open_model(small, 1)(batch)).max()
    assert 0 < difference < 0.05
    assert small.stat().st_size < 0.7 * graph.stat().st_size
    onnx.checker.check_model(str(small))


def test_the_scan_names_every_node_once(graph: Path) -> None:
    batches = [tiny.batch([text for text, _ in tiny.rows(8)])]
    found = most_sensitive(graph, batches, threads=1)
    assert sorted(found) == sorted(quantizable(graph))
    assert found == most_sensitive(graph, batches, threads=1)


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_take_seven_bits(graph: Path, tmp_path: Path, per_channel: bool) -> None:
    """With 255 × 64 twice a sum of two products stays within 16 bits; tests/test_saturation.py."""
    quantize_int8(graph, tmp_path / "m.onnx", per_channel=per_channel)
    tensors = onnx.load(tmp_path / "m.onnx").graph.initializer
    held = [numpy_helper.to_array(t) for t in tensors if not t.name.endswith(".int8")]  # no tables
    weights = [w for w in held if w.dtype == np.int8 and w.ndim == 2]
    assert len(weights) == len(quantizable(graph))
    assert max(abs(weight.astype(int)).max() for weight in weights) <= 64
