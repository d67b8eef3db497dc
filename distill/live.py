"""A teacher that is asked itself, at every step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.signals import Signals, Wants
from distill.taps import ask

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
        temperature: What the logits are divided by; `distill.calibration.fit_temperature` finds
            the one that makes the teacher as certain as it is right.
        pieces: Turns texts into what the tokenizer is given: the texts, or, where they are pairs,
            all first and all second texts.

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
        temperature: float = 1.0,
        pieces: Callable[[Sequence[str]], tuple[list[str], ...]] = lambda texts: (list(texts),),
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
        self.temperature = temperature
        self.pieces = pieces

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return len(self.columns)

    @property
    def width(self) -> int:
        """Width of the hidden states."""
        return int(self.model.config.hidden_size)

    def __call__(self, texts: Sequence[str], inputs: Mapping[str, Tensor]) -> Signals:
        """Run the teacher on the batch, without gradients."""
        return self._run(inputs) if self.same_tokens else self.ask(texts)

    def ask(self, texts: Sequence[str]) -> Signals:
        """Run the teacher on its own tokens of some texts, padded on the right."""
        inputs = self.tokenizer(
            *self.pieces(texts),
            truncation=True,
            max_length=self.max_length,
            padding=True,
            padding_side="right",
            return_token_type_ids=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return self._run(inputs)

    def _run(self, inputs: Mapping[str, Tensor]) -> Signals:
        import torch

        moved = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        with torch.no_grad():
            answer = ask(self.model, moved, self.wants, Signals)
        return replace(answer, logits=answer.logits[:, self.columns] / self.temperature)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, at most `max_length`."""
        if not texts:  # which tokenizers refuse
            return []
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        return [len(row) for row in rows]

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
            reading(self.tokenizer),
        ]
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def reading(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return how a tokenizer reads a text, for a hash: all but where it cuts and pads."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.get_vocab()
    return json.loads(backend.to_str()) | {"truncation": None, "padding": None}
