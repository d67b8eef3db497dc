"""The last step of a Triton ensemble: logits in, label and probabilities out.

``python -m export.convert --to triton`` copies this file as it is. It runs in Triton's Python
backend and needs numpy; config.pbtxt gives labels, temperature, offsets and thresholds. Answers are
those of the bundle's edge.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """LOGITS, FP32 [N, C], to LABEL, BYTES [N, 1], and PROBABILITIES, FP32 [N, C].

    A label is empty where its probability is under its threshold.
    """

    def initialize(self, args: dict[str, Any]) -> None:
        """Read the settings; called once by Triton."""
        parameters = json.loads(args["model_config"])["parameters"]
        given = {key: json.loads(each["string_value"]) for key, each in parameters.items()}
        labels, self.temperature = given["labels"], given["temperature"]
        self.labels = np.array([label.encode() for label in labels], dtype=object)
        self.least = np.array([given["thresholds"].get(label, 0.0) for label in labels])
        self.offsets = np.array([given["offsets"].get(label, 0.0) for label in labels])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = pb_utils.get_input_tensor_by_name(request, "LOGITS").as_numpy()
        logits = given.astype(np.float64) / self.temperature
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
        best = (logits + self.offsets).argmax(axis=1)
        sure = np.take_along_axis(scores, best[:, None], axis=1)[:, 0] >= self.least[best]
        labels = np.where(sure, self.labels[best], b"").astype(object).reshape(-1, 1)
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor("LABEL", labels),
                pb_utils.Tensor("PROBABILITIES", scores.astype(np.float32)),
            ]
        )
