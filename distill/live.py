"""A teacher that is asked itself, at every step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.signals import Signals, Wants
from distill.taps import ask
from distill.windows import Reading, Windows, answers, laid_out, picked

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Facts of a configuration that no answer depends on; the labels' names are matched apart.
_NAMES = ("_name_or_path", "transformers_version", "architectures", "id2label", "label2id")


class LiveTeacher:
    """Asks the teacher itself, at every step.

    Args:
        model: The teacher, a plain classifier.
        tokenizer: The teacher's tokenizer.
        labels: The data's labels; the teacher's columns are put into this order by name.
        max_length: Length in tokens at which a text is cut.
        wants: What is wanted besides the logits. What comes token by token makes sense only for a
            student with the same tokenizer.
        same_tokens: Whether the student's inputs are the teacher's too; if not, the texts are
            tokenized again.
        reading: How texts become rows where the teacher tokenizes them itself; cut on the right
            by default.
        temperature: What the logits are divided by; `distill.calibration.fit_temperature` finds
            the one that makes the teacher as certain as it is right.
        bf16: Compute in bfloat16, which takes half the time where the device can.

    Raises:
        DistillError: The teacher's labels are not the data's labels.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        *,
        max_length: int,
        wants: Wants = MappingProxyType({}),
        same_tokens: bool = True,
        reading: Reading | None = None,
        temperature: float = 1.0,
        bf16: bool = False,
    ) -> None:
        own = [model.config.id2label[index] for index in range(model.config.num_labels)]
        if set(own) != set(labels):
            odd = sorted(set(own) ^ set(labels))
            raise DistillError(
                f"Teacher and data disagree about the labels: {', '.join(odd)} "
                "is known to one of them only. Use a teacher that was trained for these labels."
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.columns = [own.index(label) for label in labels]
        self.max_length = max_length
        self.wants: Wants = {need: tuple(layers) for need, layers in sorted(wants.items())}
        self.same_tokens = same_tokens
        self.reading = reading or Reading(partial(_cut, max_length), max_length)
        self.temperature = temperature
        self.bf16 = bf16

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.columns)

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    def __call__(
        self,
        texts: Sequence[str],
        inputs: Mapping[str, Tensor],
        windows: Windows | None = None,
    ) -> Signals:
        """Run the teacher on the batch, without gradients.

        It sees the windows that the student sees, by their numbers where it has tokens of its own
        but states are compared token by token. Where they are not, it sees all windows of a text.
        """
        if self.same_tokens:
            return self._run(inputs, windows)
        if windows is None or self.wants.keys() <= {"pooled"}:
            return self.ask(texts)
        return self._read(texts, windows.of_texts())

    def ask(self, texts: Sequence[str]) -> Signals:
        """Run the teacher on its own tokens of some texts, padded on the right."""
        return self._read(texts, None)

    def _read(self, texts: Sequence[str], numbers: Sequence[Sequence[int]] | None) -> Signals:
        """Run the teacher on its own tokens, of some windows of each text or all."""
        rows, read = self.reading.tokens(self.tokenizer, texts), self.reading
        if numbers is not None:
            pairs = zip(rows, numbers, strict=True)
            rows = [picked(row, own, read.size) for row, own in pairs]
        padding = int(self.tokenizer.pad_token_id or 0)
        return self._run(*laid_out(rows, padding, size=read.size, pool=read.pool))

    def _run(self, inputs: Mapping[str, Tensor], windows: Windows | None) -> Signals:
        import torch

        device = self.model.device
        moved = {name: tensor.to(device) for name, tensor in inputs.items()}
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            if self.wants:
                answer = ask(self.model, moved, self.wants, Signals)
                if windows is not None:
                    answer = windows.joined(answer, moved["attention_mask"])
            else:
                answer = Signals(answers(self.model, moved, windows))
        return replace(answer, logits=answer.logits[:, self.columns].float() / self.temperature)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the teacher sees of each text, those of all windows together."""
        return [len(row) for row in self.reading.tokens(self.tokenizer, texts)]

    def fingerprint(self) -> str:
        """Return a hash of everything that the answers depend on."""
        import torch

        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            whole = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {whole.dtype} {tuple(whole.shape)}".encode())
            digest.update(whole.reshape(-1).view(torch.uint8).numpy())
        config = self.model.config.to_dict()
        facts = [
            type(self.model).__name__,
            {name: value for name, value in config.items() if name not in _NAMES},
            self.columns,
            self.max_length,
            self.wants,
            self.temperature,
            self.bf16,
            reading(self.tokenizer),
            *([] if self.reading.facts is None else [self.reading.facts]),
        ]
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def _cut(
    max_length: int, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> list[list[int]]:
    if not texts:  # which tokenizers refuse
        return []
    rows: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_length)[
        "input_ids"
    ]
    return rows


def reading(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return how a tokenizer reads a text, for a hash: all but where it cuts and pads."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.get_vocab()
    return json.loads(backend.to_str()) | {"truncation": None, "padding": None}
