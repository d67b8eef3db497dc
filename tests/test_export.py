"""Does the ONNX file answer as the model, and does the check notice when it does not?"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch

from adapters.backbone import load_backbone
from export.errors import ExportError
from export.graph import export_onnx
from export.latency import interleaved
from export.parity import Parity, ParityError, compare, require_equal
from export.quantize import quantize_int8
from export.session import open_model
from recipes.problems.single_label import SingleLabel
from recipes.tasks import Split, tasks
from recipes.workspace import torch_call

Make = Callable[[str], Path]
TASK = tasks.get("text_classification")()
COLLATE = TASK.collator(tiny.tokenizer())
TEXTS = [text for text, _ in tiny.rows(60)]
SAME = SingleLabel(tiny.LABELS).same
INPUTS = ("input_ids", "attention_mask")
EXAMPLES = TASK.features(Split(TEXTS, [0] * len(TEXTS)), tiny.tokenizer(), 32)


#: Architecture and optimization to the model, its file and the notes on it.
Exports = Callable[[str, str], tuple[Any, Path, list[str]]]


def export(
    folder: Path, path: Path, optimize: Any = "full", max_length: int | None = None
) -> tuple[Any, list[str]]:
    model = load_backbone(folder, tiny.LABELS)
    batch = COLLATE(EXAMPLES[:3])
    inputs = {name: batch[name] for name in INPUTS}
    notes = export_onnx(
        model, inputs, path, optimize=optimize, max_length=max_length, metadata={"labels": "[1]"}
    )
    return model, notes


@pytest.fixture(scope="module")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function like everybody's, of backbones with a layer and a last one.

    Tracing takes most of the time here, and goes by the layers.
    """

    @functools.cache
    def make(architecture: str) -> Path:
        return tiny.backbone(tmp_path_factory.mktemp(architecture), architecture, layers=2)

    return make


@pytest.fixture(scope="module")
def exports(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    folder = tmp_path_factory.mktemp("exports")

    @functools.cache
    def make(architecture: str, optimize: str) -> tuple[Any, Path, list[str]]:
        path = folder / f"{architecture}-{optimize}.onnx"
        model, notes = export(tiny_backbone(architecture), path, optimize)
        return model, path, notes

    return make


def kinds(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("architecture", "optimize"),
    [("bert", "none"), ("bert", "basic"), *((name, "full") for name in tiny.ARCHITECTURES)],
)
def test_the_file_answers_as_the_model_for_any_batch_length_and_padding(
    exports: Exports, architecture: str, optimize: str
) -> None:
    model, path, _ = exports(architecture, optimize)
    call = open_model(path, 1)
    parity = compare(torch_call(model), call, EXAMPLES, COLLATE, SAME)
    assert parity.answers > 200
    require_equal(parity, 1e-4, "it")
    # Neither neighbors nor padding change a float answer.
    together = call(COLLATE(EXAMPLES[:8]))
    alone = np.concatenate([call(COLLATE([example])) for example in EXAMPLES[:8]])
    assert np.abs(together - alone).max() < 1e-4
    graph = onnx.load(path)
    assert [node.name for node in graph.graph.input] == ["input_ids", "attention_mask"]
    assert [node.name for node in graph.graph.output] == ["logits"]
    assert {entry.key: entry.value for entry in graph.metadata_props}["labels"] == "[1]"
    raw = path.read_bytes()
    assert b"site-packages" not in raw
    assert b".py" not in raw
    fused = kinds(path).keys() & {"BiasGelu", "SkipLayerNormalization"}
    assert bool(fused) == (optimize == "basic")
    # What is rewritten in full stays plain ONNX, for any runtime that knows the operator set.
    assert {entry.domain for entry in graph.opset_import} <= (
        {"", "com.microsoft"} if optimize == "basic" else {""}
    )


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_full_graph_obeys_any_mask(exports: Exports, architecture: str) -> None:
    model, path, _ = exports(architecture, "full")
    batch = COLLATE(EXAMPLES[:6])
    holes = torch.rand(batch["attention_mask"].shape, generator=torch.manual_seed(0)) < 0.6
    masks = {
        "on the left": batch["attention_mask"].flip(1),
        "holes": holes.long(),
        "nothing is text": torch.zeros_like(holes).long(),
        "one row is empty": batch["attention_mask"] * (torch.arange(6) > 0).long()[:, None],
    }
    call = open_model(path, 1)
    for name, mask in masks.items():
        inputs = {"input_ids": batch["input_ids"], "attention_mask": mask}
        difference = np.abs(call(inputs) - torch_call(model)(inputs)).max()
        assert difference < 1e-4, name  # false for NaN too


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_full_graph_has_one_node_for_each_attention(exports: Exports, architecture: str) -> None:
    _, path, notes = exports(architecture, "full")
    found = kinds(path)
    assert found["Attention"] == 2
    assert found["Softmax"] == found["Reshape"] == found["GatherElements"] == 0
    assert "attentions fused: 2" in notes
    assert "past its keys and values, the last layer computes the first token only" in notes


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])  # each counts differently
def test_positions_past_the_longest_text_are_dropped_and_longer_texts_refused(
    tiny_backbone: Make, tmp_path: Path, architecture: str
) -> None:
    longest = max(len(example["input_ids"]) for example in EXAMPLES)
    path = tmp_path / "m.onnx"
    model, notes = export(tiny_backbone(architecture), path, max_length=longest)
    call = open_model(path, 1)
    require_equal(compare(torch_call(model), call, EXAMPLES, COLLATE, SAME), 1e-4, "it")
    held = {tensor.name: tensor.dims for tensor in onnx.load(path).graph.initializer}
    (rows,) = (dims[0] for name, dims in held.items() if name.endswith(".short"))
    assert longest <= rows <= longest + 2  # a place for padding, and one before the first
    assert f"positions past {longest} tokens dropped: {40 - rows}" in notes
    with pytest.raises(Exception, match="out of data bounds"):
        call({name: torch.full((1, longest + 1), 5) for name in INPUTS})


def test_positions_of_another_form_stay(tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "gpt2", "gpt2", layers=1)
    model, notes = export(folder, tmp_path / "m.onnx", max_length=4)
    parity = compare(torch_call(model), open_model(tmp_path / "m.onnx", 1), EXAMPLES, COLLATE, SAME)
    require_equal(parity, 1e-4, "it")
    assert not any("dropped" in note for note in notes)


def test_onnxruntime_leaves_norms_apart_when_it_opens_a_full_graph(
    exports: Exports, tmp_path: Path
) -> None:
    seen = {}
    for optimize in ("basic", "full"):
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(tmp_path / f"{optimize}.onnx")
        settings.log_severity_level = 3  # it warns that the file fits this processor only
        onnxruntime.InferenceSession(str(exports("bert", optimize)[1]), settings)
        seen[optimize] = kinds(tmp_path / f"{optimize}.onnx")
    assert (seen["basic"]["SkipLayerNormalization"], seen["basic"]["LayerNormalization"]) == (4, 1)
    assert (seen["full"]["SkipLayerNormalization"], seen["full"]["LayerNormalization"]) == (0, 5)
    assert sum(seen["full"].values()) < 0.65 * sum(seen["basic"].values())


def test_two_full_graphs_of_one_model_are_equal(
    exports: Exports, tiny_backbone: Make, tmp_path: Path
) -> None:
    again = tmp_path / "m.onnx"
    export(tiny_backbone("distilbert"), again)
    assert again.read_bytes() == exports("distilbert", "full")[1].read_bytes()


def test_attention_of_another_form_stays_as_it_is(tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "llama", "llama", layers=1)
    model, notes = export(folder, tmp_path / "m.onnx")
    parity = compare(torch_call(model), open_model(tmp_path / "m.onnx", 1), EXAMPLES, COLLATE, SAME)
    require_equal(parity, 1e-4, "it")
    assert any(note.startswith("attention not fused") for note in notes)
    assert kinds(tmp_path / "m.onnx")["Softmax"] == 1


@pytest.mark.parametrize(
    ("architecture", "optimize", "attention"),
    [("bert", "basic", "Softmax"), ("bert", "full", "Attention"), ("mpnet", "full", "Attention")],
)
@pytest.mark.parametrize("embeddings", ["int8", "int4"])
def test_small_integers_are_smaller_and_close(
    exports: Exports,
    tmp_path: Path,
    architecture: str,
    optimize: str,
    attention: str,
    embeddings: Any,
) -> None:
    _, whole, _ = exports(architecture, optimize)
    small = tmp_path / "m.int8.onnx"
    quantize_int8(whole, small, embeddings=embeddings)
    parity = compare(open_model(whole, 1), open_model(small, 1), EXAMPLES, COLLATE, SAME)
    assert 0 < parity.max_logit_difference < 0.1
    found = kinds(small)
    assert found["MatMulInteger"]
    assert found[attention]
    assert found["BitShift"] == (embeddings == "int4")
    assert small.stat().st_size < whole.stat().st_size


def ignores_the_mask(call: Any) -> Any:
    def broken(batch: Mapping[str, Any]) -> Any:
        return call({**batch, "attention_mask": torch.ones_like(batch["attention_mask"])})

    return broken


def wrong_for_one_row_alone(call: Any) -> Any:
    def broken(batch: Mapping[str, Any]) -> Any:
        answer = call(batch)
        return answer + 1e-3 if len(answer) == 1 else answer

    return broken


def not_a_number(call: Any) -> Any:
    return lambda batch: call(batch) * float("nan")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ignores_the_mask, "short with long"),
        (wrong_for_one_row_alone, "a row alone"),
        (not_a_number, "differ by nan"),
    ],
)
def test_a_planted_fault_fails_parity_and_is_located(
    tiny_backbone: Make, fault: Any, told: str
) -> None:
    call = torch_call(load_backbone(tiny_backbone("bert"), tiny.LABELS))
    with pytest.raises(ParityError, match=told):
        require_equal(compare(call, fault(call), EXAMPLES, COLLATE, SAME), 1e-4, "it")


def test_one_label_that_disagrees_fails_parity() -> None:
    with pytest.raises(ParityError, match=r"99\.00% of labels"):
        require_equal(Parity(100, 0.99, 1e-6, "here"), 1e-4, "it")


def test_a_model_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    class Untraceable(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return print(input_ids.sum().item()) or input_ids.nothing

    with pytest.raises(ExportError, match="Untraceable does not export"):
        export_onnx(
            Untraceable(), {"input_ids": torch.ones(2, 4, dtype=torch.long)}, tmp_path / "m.onnx"
        )
    assert not (tmp_path / "m.onnx").exists()


def test_timing_takes_turns_and_counts_no_warm_up() -> None:
    calls: list[str] = []
    times = interleaved(
        {"a": lambda row: calls.append("a"), "b": lambda row: calls.append("b")}, rows=5, rounds=2
    )
    assert "".join(calls) == ("a" * 12 + "b" * 12) * 2
    assert set(times) == {"a", "b"}
    assert all(0 <= entry["p50"] <= entry["p95"] for entry in times.values())
