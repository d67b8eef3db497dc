"""The first step of a Triton ensemble: texts in, what the model is to see of them out.

``python -m export.convert --to triton`` copies this file as it is. It runs in Triton's Python
backend and needs numpy and tokenizers; ``tokenizer.json`` lies beside it, and config.pbtxt gives
the settings. Answers are those of the bundle's edge.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

PARTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class TritonPythonModel:
    """TEXT, BYTES [N, 1], to the model's inputs, INT64 [N, L], padded on the right."""

    def initialize(self, args: dict[str, Any]) -> None:
        """Load the tokenizer; called once by Triton."""
        config = json.loads(args["model_config"])
        settings = {name: each["string_value"] for name, each in config["parameters"].items()}
        self.inputs = [output["name"] for output in config["output"]]
        self.padding = int(settings["pad_token_id"])
        self.tokenizer = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(int(settings["max_length"]))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request by itself; one that is not UTF-8 gets an error of its own."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        try:
            texts = [text.decode("utf-8") for text in given.reshape(-1)]
        except UnicodeDecodeError as error:
            message = f"TEXT is not UTF-8 (byte {error.start} of a text): encode it as UTF-8."
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
        tensors = [pb_utils.Tensor(name, rows) for name, rows in self._encode(texts).items()]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _encode(self, texts: list[str]) -> dict[str, Any]:
        encodings = self.tokenizer.encode_batch(texts)
        shape = len(texts), max(len(encoding) for encoding in encodings)
        made = {}
        for name in self.inputs:
            made[name] = np.full(shape, self.padding if name == "input_ids" else 0, dtype=np.int64)
            for row, encoding in zip(made[name], encodings, strict=True):
                row[: len(encoding)] = getattr(encoding, PARTS[name])
        return made
