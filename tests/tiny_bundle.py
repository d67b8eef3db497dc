"""A hand-made model and tokenizer, small enough to pack in milliseconds.

The logits are the sum over tokens of a row of a table, divided by the token's place: they depend on
every token and on its place, and on padding only if the attention mask is ignored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from export.bundle import FLOAT_TOLERANCE, pack

LABELS = ["place", "größe", "person"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [
    "where",
    "is",
    "the",
    "moon",
    "how",
    "big",
    "who",
    "was",
    "it",
    "?",
    "##s",
    "漢",
    "e",
    "far",
]
GOLDEN = ["Where is the moon?", "How big is it?", "Who was it?", "Where was it?", "Who is far?"]
MAX_LENGTH = 8


def table(seed: int = 0) -> np.ndarray:
    """Logits of every token [V, C]: the question words decide."""
    rows = np.random.default_rng(seed).normal(0, 0.1, (len(SPECIAL + WORDS), len(LABELS)))
    for label, word in enumerate(["where", "how", "who"]):
        rows[len(SPECIAL) + WORDS.index(word), label] = 9
    return rows.astype(np.float32)


def reference(ids: list[int], rows: np.ndarray) -> np.ndarray:
    """Logits of one unpadded sequence, by definition."""
    return (rows[ids] / np.arange(1, len(ids) + 1)[:, None]).sum(axis=0)


def save_model(path: Path, rows: np.ndarray, second_input: str = "attention_mask") -> Path:
    """Write the model as ONNX."""
    make = helper.make_node
    nodes = [
        make("Gather", ["table", "input_ids"], ["rows"]),
        make("Cast", [second_input], ["mask"], to=TensorProto.FLOAT),
        make("CumSum", ["mask", "one"], ["place"]),
        make("Div", ["mask", "place"], ["share"]),
        make("Unsqueeze", ["share", "two"], ["wide"]),
        make("Mul", ["rows", "wide"], ["parts"]),
        make("ReduceSum", ["parts", "ones"], ["logits"], keepdims=0),
    ]
    whole = TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", whole, ["batch", "length"]),
            helper.make_tensor_value_info(second_input, whole, ["batch", "length"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", rows.shape[1]])],
        [
            numpy_helper.from_array(rows, "table"),
            numpy_helper.from_array(np.array(1), "one"),
            numpy_helper.from_array(np.array([1]), "ones"),
            numpy_helper.from_array(np.array([2]), "two"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def make_tokenizer() -> Tokenizer:
    """A BERT-like tokenizer that, as real ones do, carries settings of another use."""
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=7)
    return tokenizer


def make_bundle(folder: Path, **changes: Any) -> Path:
    """Pack the tiny model into ``folder``."""
    if "model" not in changes:
        folder.parent.mkdir(parents=True, exist_ok=True)
        changes["model"] = save_model(folder.parent / "tiny.onnx", table())
    arguments: dict[str, Any] = {
        "name": "tiny",
        "tokenizer": make_tokenizer(),
        "labels": LABELS,
        "processing": {
            "max_length": MAX_LENGTH,
            "pad_token_id": 0,
            "inputs": ["input_ids", "attention_mask"],
        },
        "session": {
            "intra_op_num_threads": 1,
            "graph_optimization_level": "ORT_ENABLE_ALL",
            "config": {"session.force_spinning_stop": "1"},
        },
        "golden_texts": GOLDEN,
        "tolerance": FLOAT_TOLERANCE,
        "ledger": [{"stage": "export", "metrics": {"accuracy": 1.0}}],
        "versions": {"torch": "2.13.0"},
        "licenses": {"weights": "Apache-2.0", "data": "CC0-1.0"},
        "card": "# Tiny\n\nAnswers questions about the moon.\n",
    }
    return pack(folder, **(arguments | changes))
