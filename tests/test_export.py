"""Does the ONNX file answer as the model, and does the check notice when it does not?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
from recipes.tasks import Split, tasks
from recipes.workspace import torch_call

Make = Callable[[str], Path]
TASK = tasks.get("text_classification")()
COLLATE = TASK.collator(tiny.tokenizer())
TEXTS = [text for text, _ in tiny.rows(60)]
EXAMPLES = TASK.features(Split(TEXTS, [0] * len(TEXTS)), tiny.tokenizer(), 32)


def exported(folder: Path, path: Path, optimize: Any = "full") -> Any:
    model = load_backbone(folder, tiny.LABELS)
    batch = COLLATE(EXAMPLES[:3])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    export_onnx(model, inputs, path, optimize=optimize, metadata={"labels": "[1]"})
    return model


@pytest.mark.parametrize(
    ("architecture", "optimize"),
    [("bert", "none"), *((name, "full") for name in tiny.ARCHITECTURES)],
)
def test_the_file_answers_as_the_model_for_any_batch_length_and_padding(
    tiny_backbone: Make, tmp_path: Path, architecture: str, optimize: str
) -> None:
    path = tmp_path / "m.onnx"
    model = exported(tiny_backbone(architecture), path, optimize)
    call = open_model(path, 1)
    parity = compare(torch_call(model), call, EXAMPLES, COLLATE)
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
    fused = {node.op_type for node in graph.graph.node} & {"BiasGelu", "SkipLayerNormalization"}
    assert bool(fused) == (optimize == "full")


def test_int8_is_smaller_and_close(tiny_backbone: Make, tmp_path: Path) -> None:
    whole, small = tmp_path / "m.onnx", tmp_path / "m.int8.onnx"
    exported(tiny_backbone("bert"), whole)
    quantize_int8(whole, small)
    parity = compare(open_model(whole, 1), open_model(small, 1), EXAMPLES, COLLATE)
    assert 0 < parity.max_logit_difference < 0.1
    kinds = {node.op_type for node in onnx.load(small).graph.node}
    assert "MatMulInteger" in kinds or "DynamicQuantizeMatMul" in kinds
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
        require_equal(compare(call, fault(call), EXAMPLES, COLLATE), 1e-4, "it")


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
