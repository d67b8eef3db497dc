"""Texts that are longer than a model takes at once: several rows of a batch, one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeVar

from distill.signals import Answer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T", bound=Answer)

#: Tokens that go through a model at once: on a processor, which reads rows of 256 tokens half as
#: fast again if all that it computes of them stays in its cache, and elsewhere.
_TOKENS, _TOKENS_ELSEWHERE = 2**11, 2**14


@dataclass(frozen=True)
class Windows:
    """Which rows of a batch are windows of which text; a text's windows follow one another.

    Attributes:
        counts: Rows of each text, at least 1.
        numbers: For each row, the index of the window in its text, from 0.
        size: Tokens of every window but a text's last one.
        pool: How a text's logits come from those of its windows: ``mean``, ``max``, or
            ``attention``, the mean weighted by a softmax of each window's mean logit. Logits that
            are trained through a softmax over labels may take any mean, so it is learnt as a score.
    """

    counts: Sequence[int]
    numbers: Sequence[int]
    size: int
    pool: str

    def of_texts(self) -> list[Sequence[int]]:
        """Return the numbers of each text's windows."""
        ends = [*accumulate(self.counts)]
        return [self.numbers[end - n : end] for n, end in zip(self.counts, ends, strict=True)]

    def pooled(self, logits: Tensor) -> Tensor:
        """Return logits ``[texts, classes]`` from those of the windows ``[rows, classes]``."""
        import torch

        return torch.stack([self._one(part) for part in torch.split(logits, list(self.counts))])

    def _one(self, logits: Tensor) -> Tensor:
        if self.pool == "max":
            return logits.amax(dim=0)
        if self.pool == "mean":
            return logits.mean(dim=0)
        shares = logits.mean(dim=1, keepdim=True).softmax(dim=0)
        return (shares * logits).sum(dim=0)

    def joined(self, answer: T, mask: Tensor) -> T:
        """Return an answer about windows as one about texts.

        Logits and pooled states become those of texts; what comes token by token stays with the
        window that the token is in.

        Args:
            answer: What a model says about the rows.
            mask: The rows' attention mask ``[rows, length]``.
        """
        tokens = mask.sum(dim=1, keepdim=True)
        pooled = tuple(self._mean(state, tokens.to(state.dtype)) for state in answer.pooled)
        return replace(answer, logits=self.pooled(answer.logits), pooled=pooled)

    def _mean(self, states: Tensor, tokens: Tensor) -> Tensor:
        import torch

        counts = list(self.counts)
        sums, totals = torch.split(states * tokens, counts), torch.split(tokens, counts)
        pairs = zip(sums, totals, strict=True)
        return torch.stack([part.sum(dim=0) / seen.sum() for part, seen in pairs])


def answers(model: Any, inputs: Mapping[str, Tensor], windows: Windows | None) -> Tensor:
    """Return a model's logits ``[texts, classes]`` of a batch, whether in windows or not.

    Args:
        model: Answers inputs with ``logits``.
        inputs: ``[rows, length]`` each.
        windows: Which rows are of which text; None if each text is one row.
    """
    return by_text(lambda part: model(**part).logits, inputs, windows)


def by_text(
    call: Callable[[dict[str, Tensor]], Tensor],
    inputs: Mapping[str, Tensor],
    windows: Windows | None,
) -> Tensor:
    """Return one row ``[texts, width]`` a text, many rows computed a few at a time.

    Texts of one row each are computed at once, but for a processor that needs no gradient.

    Args:
        call: From inputs ``[rows, length]`` to ``[rows, width]``.
        inputs: ``[rows, length]`` each.
        windows: Which rows are of which text; None if each text is one row.
    """
    import torch

    on_processor = inputs["input_ids"].device.type == "cpu"
    if windows is None and (torch.is_grad_enabled() or not on_processor):
        return call(dict(inputs))
    rows, length = inputs["input_ids"].shape
    step = max(1, (_TOKENS if on_processor else _TOKENS_ELSEWHERE) // length)
    parts = [
        call({name: tensor[first : first + step] for name, tensor in inputs.items()})
        for first in range(0, rows, step)
    ]
    found = torch.cat(parts)
    return found if windows is None else windows.pooled(found)


@dataclass(frozen=True)
class Reading:
    """How texts become rows of a batch.

    Attributes:
        tokens: The token ids of each text, cut to what is read of it; windows follow one another.
        size: Tokens that a model takes at once.
        pool: As in `Windows`; None where a text is one row.
        facts: All that `tokens` depends on besides the tokenizer and `size`, ready for JSON.
    """

    tokens: Callable[[PreTrainedTokenizerBase, Sequence[str]], list[list[int]]]
    size: int
    pool: str | None = None
    facts: Any = None


def picked(row: Sequence[int], numbers: Sequence[int], size: int) -> list[int]:
    """Return the token ids of some windows, by their numbers.

    Args:
        row: All token ids that are read of a text; windows follow one another.
        numbers: Which windows, in rising order.
        size: Tokens of every window but the last.
    """
    return [*chain.from_iterable(row[number * size : (number + 1) * size] for number in numbers)]


def laid_out(
    rows: Sequence[Sequence[int]],
    padding: int,
    *,
    size: int = 0,
    pool: str | None = None,
    numbers: Sequence[Sequence[int]] | None = None,
) -> tuple[dict[str, Tensor], Windows | None]:
    """Make a batch of texts' token ids, padded on the right to its longest row.

    Args:
        rows: Of each text; windows follow one another.
        padding: The id of the padding.
        size: Tokens of every window but a text's last.
        pool: As in `Windows`; None where each text is one row.
        numbers: Of each text, which of its windows are there; all by default.

    Returns:
        ``input_ids`` and ``attention_mask`` ``[rows, length]``, and which row is of which text.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    windows: Windows | None = None
    parts = [torch.tensor(row, dtype=torch.long) for row in rows]
    if pool is not None:
        split = [torch.split(part, size) for part in parts]
        there = numbers or [range(len(one)) for one in split]
        places = [number for one in there for number in one]
        windows = Windows([len(one) for one in split], places, size, pool)
        parts = [part for one in split for part in one]
    inputs = {
        "input_ids": pad_sequence(parts, batch_first=True, padding_value=padding),
        "attention_mask": pad_sequence([torch.ones_like(part) for part in parts], batch_first=True),
    }
    return inputs, windows
