"""Processors without VNNI saturate in 8-bit products: our files cannot, others are caught there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.quantization import QuantType, quantize_dynamic

from adapters.backbone import load_backbone
from export.bundle import INT8_TOLERANCE, pack
from export.edge import Check, Model
from export.graph import export_onnx
from export.quantize import quantize_int8
from export.session import session_settings

TEXTS = [text for text, _ in tiny.rows(12)]


def saturating(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply as AVX2's ``vpmaddubsw`` does: pairs of products are added in 16 bits, and clipped.

    Args:
        activations: Unsigned bytes ``[..., k]`` with an even k.
        weights: Signed bytes ``[k, n]``.
    """
    products = activations.astype(np.int64)[..., None] * weights.astype(np.int64)
    pairs = products[..., 0::2, :] + products[..., 1::2, :]
    whole: np.ndarray = np.clip(pairs, -(2**15), 2**15 - 1).sum(axis=-2)
    return whole


class MatMulInteger(OpRun):
    """The operator on a processor without VNNI, as onnxruntime computes it there."""

    def _run(self, a: Any, b: Any, a_zero: Any = 0, b_zero: Any = 0) -> tuple[np.ndarray]:
        total = saturating(a, b)
        total = total - np.asarray(a_zero, np.int64) * b.astype(np.int64).sum(axis=0)
        assert not np.any(b_zero)
        return (total.astype(np.int32),)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a float file with neurons that add many large weights up."""
    folder = tmp_path_factory.mktemp("source")
    torch.manual_seed(0)
    model = load_backbone(tiny.backbone(folder / "bert", layers=1), tiny.LABELS)
    weight = model.bert.pooler.dense.weight.data
    weight[:16] = 0.3 + 0.01 * torch.randn(16, 32)
    model.classifier.weight.data *= 20
    export_onnx(model, tiny.batch(TEXTS[:3]), folder / "m.onnx", optimize="none")
    return folder / "m.onnx"


def eight_bits(source: Path, target: Path) -> None:
    """Quantize as onnxruntime does unless it is told otherwise, with all eight bits."""
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def self_test_without_vnni(folder: Path, source: Path, write: Callable[..., Any]) -> list[Check]:
    """Pack a quantized file here, and check its recorded answers on the other processor."""
    write(source, folder.with_suffix(".onnx"))
    pack(
        folder,
        name="tiny",
        model=folder.with_suffix(".onnx"),
        tokenizer=tiny.tokenizer().backend_tokenizer,
        labels=tiny.LABELS,
        processing={
            "max_length": 32, "pad_token_id": 0, "inputs": ["input_ids", "attention_mask"],
        },
        session=session_settings(1),
        golden_texts=TEXTS,
        tolerance=INT8_TOLERANCE,
        ledger=[],
        versions={},
        licenses={},
        card="",
    )  # fmt: skip
    model = Model(folder)
    graph = onnx.load(folder / "model.onnx")
    model._session = ReferenceEvaluator(graph, new_ops=[MatMulInteger])
    return list(model.check_golden())


def test_the_self_test_passes_on_a_processor_without_vnni(source: Path, tmp_path: Path) -> None:
    assert all(
        check.passed for check in self_test_without_vnni(tmp_path / "b", source, quantize_int8)
    )


def test_the_self_test_catches_a_file_that_saturates_there(source: Path, tmp_path: Path) -> None:
    found = self_test_without_vnni(tmp_path / "b", source, eight_bits)
    assert any("differently" in check.message for check in found if not check.passed)


def test_seven_bits_bear_the_loudest_input() -> None:
    loud, most = np.full((1, 64), 255, np.uint8), np.full((64, 1), 64, np.int8)
    for weights in (most, -most):
        assert saturating(loud, weights) == loud.astype(int) @ weights.astype(int)
    full = np.full((64, 1), 127, np.int8)
    assert saturating(loud, full) < loud.astype(int) @ full.astype(int)
