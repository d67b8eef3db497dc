"""What a model has to say about a batch, and what an objective may ask it for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from distill.windows import Windows

#: What an objective may ask student and teacher for. All but the logits and the embeddings are
#: asked for layer by layer.
Need = Literal["logits", "hidden", "embeddings", "attention", "queries", "keys", "values", "pooled"]
#: Which layers are asked for what, counted from 0; ``logits`` are always there and not listed, and
#: ``embeddings`` have an empty list.
Wants = Mapping[Need, Sequence[int]]


@dataclass(frozen=True)
class Answer:
    """What a model says about one batch.

    What comes layer by layer is a tuple with one tensor for each layer that was asked for, in that
    order; empty if none was. Positions are the batch's own, padding included. Where long texts are
    read in windows, logits and pooled states are of texts, and everything else is of windows.

    Attributes:
        logits: ``[batch, classes]``, columns in the order of the data's labels.
        hidden: The output of a layer, ``[batch, length, width]``.
        embeddings: What the first layer is given, ``[batch, length, width]``; None unless asked
            for.
        attention: Attention probabilities of a layer, ``[batch, heads, length, length]``; rows sum
            to 1 over the keys.
        queries: Projected queries of a layer, ``[batch, length, heads × head width]``.
        keys: Projected keys, shaped like the queries.
        values: Projected values, shaped like the queries.
        pooled: The mean of a layer's output over the tokens of a text, ``[batch, width]``; it does
            not depend on how the text is cut into tokens.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    embeddings: Tensor | None = None
    attention: tuple[Tensor, ...] = ()
    queries: tuple[Tensor, ...] = ()
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()
    pooled: tuple[Tensor, ...] = ()


class Outputs(Answer):
    """A student's answer; gradients flow back through it."""


class Signals(Answer):
    """A teacher's answer; nothing in it asks for gradients."""


class TeacherSignals(Protocol):
    """Anything that answers a batch of texts: a live teacher, a cache, several teachers."""

    @property
    def wants(self) -> Wants:
        """What its answers hold besides the logits."""
        ...

    def __call__(
        self,
        texts: Sequence[str],
        inputs: Mapping[str, Tensor],
        windows: Windows | None = None,
    ) -> Signals:
        """Answer a batch.

        Args:
            texts: The batch's texts.
            inputs: The student's own inputs for them, ``input_ids`` and ``attention_mask``
                ``[rows, length]``.
            windows: Which rows are of which text, where that is not one each.
        """
        ...


class Teacher(TeacherSignals, Protocol):
    """A teacher that is asked itself: what those have to know that keep or combine its answers."""

    @property
    def classes(self) -> int:
        """How many labels there are."""
        ...

    @property
    def width(self) -> int:
        """Width of the hidden states and the embeddings; 0 if it has none to give."""
        ...

    def ask(self, texts: Sequence[str]) -> Signals:
        """Answer texts for which there are no inputs of a student; padding is on the right."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has to the teacher."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything that the answers depend on."""
        ...


def text_key(text: str) -> str:
    """Return what a text is known by: 32 hexadecimal digits of a hash of its content."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
