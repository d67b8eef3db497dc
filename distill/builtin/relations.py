"""Objectives about how tokens, or texts, stand to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distill.builtin.layerwise import (
    Layerwise,
    called,
    check_layers,
    check_tokens,
    projections,
    token_mean,
)
from distill.errors import DistillError
from distill.objective import Pair, objectives
from distill.signals import Need

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The score of padding. A token's score with itself is not negative, so the share of padding in a
#: softmax is less than e^-50, which not even float64 tells from 0; and exp is several times slower
#: for numbers so low that it gives 0.
_PADDING = -50.0


@objectives.register("attention")
class Attention(Layerwise):
    """Squared distance of attention maps, layer by layer and head by head.

    The paper compares the scores before the softmax, which models do not hand out; here it is the
    probabilities. Student and teacher have to have equally many heads.
    """

    paper: ClassVar[str] = "Jiao et al., 2020, arXiv:1909.10351"
    needs: ClassVar[frozenset[Need]] = frozenset({"attention"})

    def parts(self, pair: Pair) -> None:
        """Check the pair; there is nothing to learn.

        Raises:
            DistillError: The heads or the tokens do not correspond, or `map` names a layer that
                does not exist.
        """
        check_tokens(self, pair)
        check_layers(self, pair)
        if pair.student_heads != pair.teacher_heads:
            raise DistillError(
                f"{called(self)} compares head by head, but the student has {pair.student_heads} "
                f"attention heads and the teacher {pair.teacher_heads}. Put 'relation' in its "
                "place, which divides both into equally many heads."
            )

    def distance(self, own: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return the squared distance of two rows of a map, the mean over heads and tokens."""
        gaps = (own - target).square().mean(dim=1)
        return token_mean((gaps * mask.unsqueeze(1)).sum(dim=-1), mask)


@objectives.register("relation")
class Relation(Layerwise):
    """Divergence of the relations among queries, among keys and among values, of the last layers.

    How each token's query stands to all queries of the text, softened to probabilities, and keys
    and values likewise. They are divided into heads of their own, so that those of the models need
    not match. Of a large teacher the paper takes a layer a few below the last: see `map`.

    Attributes:
        heads: How many parts queries, keys and values are divided into; it has to divide both
            widths.
        of: What is compared.
    """

    paper: ClassVar[str] = "Wang et al., 2021, arXiv:2012.15828"
    needs: ClassVar[frozenset[Need]] = frozenset({"queries", "keys", "values"})
    last_only: ClassVar[bool] = True

    heads: int = Field(default=12, gt=0)
    of: tuple[Literal["queries", "keys", "values"], ...] = Field(
        default=("queries", "keys", "values"), strict=False, min_length=1
    )

    def parts(self, pair: Pair) -> None:
        """Check the pair; there is nothing to learn.

        Raises:
            DistillError: `heads` does not divide the widths, the tokens do not correspond, or
                `map` names a layer that does not exist.
        """
        check_tokens(self, pair)
        check_layers(self, pair)
        own, theirs = pair.student_width, pair.teacher_width
        if own % self.heads or theirs % self.heads:
            both = math.gcd(own, theirs)
            fit = ", ".join(str(n) for n in range(1, both + 1) if both % n == 0)
            raise DistillError(
                f"{called(self)} cannot divide the student's width {own} and the teacher's width "
                f"{theirs} into {self.heads} heads. Set its heads to one of {fit}."
            )

    def compared(self) -> Sequence[Need]:
        """Return what `of` says."""
        return self.of

    def distance(self, own: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return the divergence of a row, in nats, the mean over heads and tokens."""
        known, learnt = self._among(target, mask), self._among(own, mask)
        return token_mean((known.exp() * (known - learnt)).sum(dim=-1).mean(dim=1), mask)

    def _among(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return for each token log probabilities of all, ``[batch, heads, length, length]``.

        Padding is left out.
        """
        width = states.shape[-1]
        if width % self.heads:  # not the model's width, where its heads are of another size
            raise DistillError(
                f"{called(self)} cannot divide the width {width} of a layer's queries, keys or "
                f"values into {self.heads} heads. Set its heads to a number that divides it."
            )
        heads = states.reshape(*states.shape[:-1], self.heads, -1).transpose(1, 2)
        scores: Tensor = heads @ heads.transpose(-1, -2) / math.sqrt(heads.shape[-1])
        padding = (mask == 0)[:, None, None, :]
        # In place: nothing else needs the scores, and they are the largest tensor here.
        return scores.masked_fill_(padding, _PADDING).log_softmax(dim=-1)


@objectives.register("contrast")
class Contrast(Layerwise):
    """Divergence of how alike a text is to each text of the batch, by pooled hidden states.

    The student's text is held against all texts as the teacher sees them: it is drawn to its own
    place among them, near to what the teacher thinks alike and away from the rest. The teacher's
    likenesses are the target (the first paper), where contrastive distillation without them
    (the second) takes every other text for a stranger. Tokens are averaged first, so that any two
    tokenizers will do. Larger batches tell more; one text alone tells nothing.

    Attributes:
        temperature: What cosines are divided by before the softmax.
    """

    paper: ClassVar[str] = "Fang et al., 2021, arXiv:2101.04731; Sun et al., 2020, arXiv:2009.14167"
    needs: ClassVar[frozenset[Need]] = frozenset({"pooled"})
    last_only: ClassVar[bool] = True

    temperature: float = Field(default=0.1, gt=0)

    def parts(self, pair: Pair) -> nn.Module | None:
        """Return the projection, one for each pair of layers, where the widths differ.

        Raises:
            DistillError: `map` names a layer that does not exist.
        """
        check_layers(self, pair)
        return projections(pair, len(self.layers(pair)))

    def distance(self, own: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return the divergence of a text, in nats, the mean over the batch."""
        from torch.nn.functional import kl_div, normalize

        texts = normalize(target, dim=-1)
        known, learnt = (
            (normalize(side, dim=-1) @ texts.T / self.temperature).log_softmax(dim=-1)
            for side in (target, own)
        )
        return kl_div(learnt, known, log_target=True, reduction="batchmean")
