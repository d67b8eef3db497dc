"""The contract of an objective: a term of the loss that declares what it needs of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.registry import Registry, RegistryError
from distill.errors import DistillError
from distill.signals import Need, Outputs, Signals, Wants

if TYPE_CHECKING:
    from torch import Tensor, nn


#: What a text says: the id of its label, for each of several labels whether it has it, or a number.
LabelForm = Literal["id", "several", "number"]


@dataclass(frozen=True)
class Pair:
    """The facts about student and teacher that an objective may depend on.

    Attributes:
        student_width: Width of the student's hidden states.
        teacher_width: Width of the teacher's hidden states.
        layer_map: For each student layer, the teacher layer that it answers to.
        same_tokens: Whether both see a text as the same tokens.
        student_heads: Attention heads of a student layer.
        teacher_heads: Attention heads of a teacher layer.
        teacher_layers: How many layers the teacher has.
    """

    student_width: int
    teacher_width: int
    layer_map: tuple[int, ...]
    same_tokens: bool
    student_heads: int
    teacher_heads: int
    teacher_layers: int


class Objective(BaseModel):
    """One term of the loss; its fields are its settings.

    A subclass names what it needs of the teacher in `needs` and implements `loss`. One that has
    weights of its own to learn returns them from `parts`.

    Attributes:
        weight: Factor of this term in the sum, at most.
        since: Share of the training after which it counts.
        until: Share of the training after which it counts no more.
        schedule: How its factor moves between the two: it stays, rises from 0, or falls to 0.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    #: Where the method comes from, for lists and reports: authors, year, arXiv number.
    paper: ClassVar[str] = ""
    #: What the teacher has to give; empty if no teacher is needed.
    needs: ClassVar[frozenset[Need]] = frozenset()
    #: The forms of labels that it can hold answers against; all, if it does not look at them.
    takes: ClassVar[frozenset[LabelForm]] = frozenset(get_args(LabelForm))

    weight: float = Field(default=1.0, gt=0)
    since: float = Field(default=0.0, ge=0, lt=1)
    until: float = Field(default=1.0, gt=0, le=1)
    schedule: Literal["constant", "rising", "falling"] = "constant"

    @model_validator(mode="after")
    def _some_time(self) -> Objective:
        if self.since >= self.until:
            raise ValueError(f"since={self.since:g} has to be less than until={self.until:g}")
        return self

    def factor(self, progress: float) -> float:
        """Return the factor of this term when a share of the training is done, 0 to `weight`.

        Args:
            progress: The share of all steps that have been taken, at least 0 and less than 1.
        """
        if not self.since <= progress < self.until:
            return 0.0
        passed = (progress - self.since) / (self.until - self.since)
        return (
            self.weight * {"constant": 1.0, "rising": passed, "falling": 1 - passed}[self.schedule]
        )

    def weighted(self, weights: Sequence[float]) -> Self:
        """Return this objective with a factor for each label, in the order of the outputs.

        One that does not look at labels is as before.

        Args:
            weights: How much a text with this label counts; 1 on the average of all texts. Where
                texts may have several labels: how much one that has the label counts in the
                question whether it has, against one that has not.
        """
        return self

    def layers(self, pair: Pair) -> Sequence[tuple[int, int]]:
        """Return which student layer is held against which teacher layer, counted from 0.

        What comes layer by layer reaches `loss` as tuples in this order. By default every student
        layer answers to the one that the pair's map names.
        """
        return list(enumerate(pair.layer_map))

    def parts(self, pair: Pair) -> nn.Module | None:
        """Check that the objective can hold for this pair, and return what it has to learn.

        Raises:
            DistillError: It cannot; the message says why and what to do.
        """
        return None

    def loss(
        self,
        student: Outputs,
        teacher: Signals | None,
        labels: Tensor,
        mask: Tensor,
        parts: nn.Module | None,
    ) -> Tensor:
        """Return the loss of one batch, a scalar, before `weight`.

        Every number comes in float32, whatever the models compute in, and autocast is off. Where
        texts are read in windows, logits, pooled states and labels are those of the batch's texts;
        the mask and what comes layer by layer, or for each token, are those of its windows, of
        which there may be more.

        Args:
            student: The student's answer, with what `needs` names and the logits.
            teacher: The teacher's answer, likewise; None only if `needs` is empty.
            labels: In a form that it `takes`: label ids ``[batch]``; 0 and 1 for each of several
                labels ``[batch, labels]``; -100 for a text that has none. Or numbers ``[batch]``,
                NaN for a text that has none.
            mask: 1 for tokens and 0 for padding, ``[batch, length]``; a row for each window.
            parts: What `parts` returned.
        """
        raise NotImplementedError


objectives: Registry[type[Objective]] = Registry(
    "objective", group="potstill.objectives", base=Objective
)


def call(objective: Objective, method: str, *arguments: Any) -> Any:
    """Call an objective's method; whatever it trips over becomes one message that names it.

    Args:
        objective: Whose method.
        method: Its name.
        *arguments: What it is given.

    Raises:
        RegistryError: The method raised something else than a `DistillError`.
    """
    return objectives.call(
        objective, method, *arguments,
        passes=(RegistryError, DistillError),
        advice="Mend it (distill.testing.check_objective shows the whole story), or choose another "
        "objective.",
    )  # fmt: skip


def loss_of(objective: Objective, *given: Any) -> Tensor:
    """Return what `Objective.loss` gives.

    Args:
        objective: Whose loss.
        *given: What its loss takes, in that order.

    Raises:
        RegistryError: It fails.
        DistillError: It gives no scalar.
    """
    from torch import Tensor

    found = call(objective, "loss", *given)
    if not isinstance(found, Tensor) or found.numel() != 1:
        what = f"of shape {[*found.shape]}" if isinstance(found, Tensor) else repr(found)[:60]
        raise DistillError(
            f"{objectives.called(objective)} returned something {what} from loss(); it has to be a "
            "scalar tensor, such as the mean over the batch."
        )
    return found.reshape(())


def check_declared(objective: Objective) -> None:
    """Check that an objective names what there is.

    Raises:
        DistillError: Something in `Objective.needs` or `Objective.takes` is not known.
    """
    for name, known in (("needs", get_args(Need)), ("takes", get_args(LabelForm))):
        strange = sorted({*getattr(objective, name)} - {*known})
        if strange:
            raise DistillError(
                f"{objectives.called(objective)} has {strange[0]!r} in {name}; it can be: "
                f"{', '.join(known)}."
            )


def needed(terms: Sequence[Objective]) -> frozenset[Need]:
    """Return what some objectives together need of a teacher; empty if they need none."""
    return frozenset[Need]().union(*(term.needs for term in terms))


def asked(terms: Sequence[Objective], pair: Pair) -> tuple[Wants, Wants]:
    """Return what some objectives together want of the student, and of the teacher."""
    wants: tuple[dict[Need, list[int]], dict[Need, list[int]]] = ({}, {})
    for term in terms:
        for need in sorted(term.needs - {"logits"}):
            for side, own in enumerate(wants):
                layers = own.setdefault(need, [])
                if need != "embeddings":
                    layers += [p[side] for p in term.layers(pair) if p[side] not in layers]
    return wants
