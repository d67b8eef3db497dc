"""Objectives about the states of the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from distill.builtin.layerwise import Layerwise, check_tokens, projections, squared, token_mean
from distill.objective import Objective, Pair, objectives
from distill.signals import Need, Outputs, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn


@objectives.register("hidden")
class Hidden(Layerwise):
    """Squared distance of hidden states, layer by layer.

    Each student layer answers to the teacher layer that it was cut from or stands for. Where the
    widths differ, a linear projection of the student's states is learnt beside it and thrown away
    afterwards.
    """

    paper: ClassVar[str] = "Jiao et al., 2020, arXiv:1909.10351"
    needs: ClassVar[frozenset[Need]] = frozenset({"hidden"})

    def distance(self, own: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return the mean squared difference over width and tokens."""
        return token_mean(squared(own, target), mask)


@objectives.register("cosine")
class Cosine(Layerwise):
    """Angle between hidden states, those of the last layer by default.

    As `hidden`, but their length does not count.
    """

    paper: ClassVar[str] = "Sanh et al., 2019, arXiv:1910.01108"
    needs: ClassVar[frozenset[Need]] = frozenset({"hidden"})
    last_only: ClassVar[bool] = True

    def distance(self, own: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Return one minus the cosine, the mean over tokens, between 0 and 2."""
        from torch.nn.functional import cosine_similarity

        return token_mean(1 - cosine_similarity(own, target, dim=-1), mask)


@objectives.register("embeddings")
class Embeddings(Objective):
    """Squared distance of what the first layers are given.

    A student whose embeddings do not learn has nothing from it.
    """

    paper: ClassVar[str] = "Jiao et al., 2020, arXiv:1909.10351"
    needs: ClassVar[frozenset[Need]] = frozenset({"embeddings"})

    def parts(self, pair: Pair) -> nn.Module | None:
        """Return a projection of the student's embeddings where the widths differ.

        Raises:
            DistillError: Teacher and student do not share their tokens.
        """
        check_tokens(self, pair)
        return projections(pair, 1)

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the mean squared difference over width and tokens, padding left out."""
        from torch import nn

        assert teacher is not None
        own, target = student.embeddings, teacher.embeddings
        assert own is not None
        assert target is not None
        if isinstance(parts, nn.ModuleList):
            own = parts[0](own)
        return token_mean(squared(own, target), mask)
