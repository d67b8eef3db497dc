"""The conformance kit for objectives: the built-in ones pass, and each check finds its defect."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from distill import DistillError, Objective, Outputs, objectives
from distill.builtin.prediction import CrossEntropy, KullbackLeibler
from distill.builtin.states import Hidden
from distill.testing import CHECKS, ConformanceError, check_objective

BUILT_IN = [cls for _, cls in objectives if cls.__module__.startswith("distill")]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors of a few numbers are slower on many threads, and slower still on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def failing(cls: Any, **fields: Any) -> set[str]:
    """Return the names of the checks that fail, each made by itself."""

    def fails(name: str) -> bool:
        try:
            check_objective(cls, only=[name], **fields)
        except ConformanceError:
            return True
        return False

    return {name for name in CHECKS if fails(name)}


def found(cls: Any, **fields: Any) -> str:
    with pytest.raises(ConformanceError) as caught:
        check_objective(cls, **fields)
    return str(caught.value)


@pytest.mark.parametrize("cls", BUILT_IN, ids=lambda cls: cls.__name__)
def test_built_in_objectives_pass(cls: type[Objective]) -> None:
    check_objective(cls)
    check_objective(cls, weight=0.3)


def test_settings_reach_the_objective() -> None:
    check_objective(KullbackLeibler, temperature=7.0)
    assert "temperature" in found(KullbackLeibler, temperature=-1.0)
    assert "temprature" in found(KullbackLeibler, temprature=2.0)


# An author's objectives that keep the contract in other ways than the built-in ones.


class Cosine(Objective):
    """Angle of pooled states through a projection that is always learnt; copes with any tokens."""

    needs: ClassVar[Any] = frozenset({"hidden"})

    def parts(self, pair: Any) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(pair.student_width, pair.teacher_width))

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        seen = mask.unsqueeze(-1)
        own = parts((student.hidden[-1] * seen).sum(1) / seen.sum(1))
        return 1 - torch.cosine_similarity(own, teacher.hidden[-1][:, 0]).mean()


class Mixed(KullbackLeibler):
    """Labels and teacher in one term; refuses what it was not made for."""

    takes: ClassVar[Any] = frozenset({"id"})

    share: float = Field(default=0.5, ge=0, le=1)
    scales: tuple[float, ...] = Field(default=(1.0, 2.0), strict=False)

    def parts(self, pair: Any) -> None:
        if pair.student_width != pair.teacher_width:
            raise DistillError("Mixed wants equal widths; choose distill.student.layers instead.")

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        told = super().loss(student, teacher, labels, mask, parts)
        own = cross_entropy(student.logits, labels, reduction="sum") / (labels >= 0).sum().clamp(1)
        return self.share * told + (1 - self.share) * own


class Relations(Objective):
    """Similarities between the rows of a batch, which must not depend on their order."""

    needs: ClassVar[Any] = frozenset({"logits"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        own, told = (x.logits @ x.logits.T for x in (student, teacher))
        return ((own - told) ** 2).mean()


class Several(Objective):
    """Labels of several at a time only, of which some may be unknown."""

    takes: ClassVar[Any] = frozenset({"several"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        known = labels >= 0
        own, wanted = student.logits[known], labels[known].to(student.logits.dtype)
        total = binary_cross_entropy_with_logits(own, wanted, reduction="sum")
        return total / known.sum().clamp(1)


class Numbers(Objective):
    """Absolute distance from a number."""

    takes: ClassVar[Any] = frozenset({"number"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        known = ~labels.isnan()
        away = student.logits[known, 0] - labels[known].to(student.logits.dtype)
        return away.abs().sum() / known.sum().clamp(1)


@pytest.mark.parametrize(
    "cls", [Cosine, Mixed, Relations, Several, Numbers], ids=lambda cls: cls.__name__
)
def test_other_ways_to_keep_the_contract_pass(cls: type[Objective]) -> None:
    assert failing(cls) == set()


# One defect each.


class Undocumented(CrossEntropy):
    def loss(self, *given: Any) -> Any:
        return super().loss(*given)


class Unwritten(Objective):
    """Has no loss of its own, and so fails whatever calls it."""


class Loose(CrossEntropy):
    """Takes unknown settings."""

    model_config = ConfigDict(extra="ignore")


class Lax(CrossEntropy):
    """Takes text for numbers."""

    model_config = ConfigDict(strict=False)


class Thawed(CrossEntropy):
    """Can be changed."""

    model_config = ConfigDict(frozen=False)


class Untyped(CrossEntropy):
    """Takes anything."""

    extra: Any = None


class Boundless(CrossEntropy):
    """Can be switched off by its weight."""

    weight: float = 1.0


class Named(CrossEntropy):
    """Its field can never be set: a recipe finds the objective by that key."""

    name: str = "x"


with warnings.catch_warnings(action="ignore"):  # pydantic sees it too, and only says so

    class Covering(CrossEntropy):
        """Its field takes the place of a method."""

        factor: float = 1.0  # type: ignore[assignment]


class Unreadable(CrossEntropy):
    """Is written as a list and read as a tuple."""

    scales: tuple[int, ...] = (1, 2)


class Greedy(KullbackLeibler):
    """Needs what nobody has."""

    needs: ClassVar[Any] = frozenset({"logits", "gradients"})


class Spelled(KullbackLeibler):
    """Names one signal as a string, which is a set of letters."""

    needs: ClassVar[Any] = "logits"


class Undeclared(Hidden):
    """Reads logits without a word."""

    def loss(self, student: Any, teacher: Any, *given: Any) -> Any:
        return super().loss(student, teacher, *given) + 0 * teacher.logits.sum()


class Peeking(KullbackLeibler):
    """Reads the student's hidden states, which nobody computed."""

    def loss(self, student: Any, *given: Any) -> Any:
        return super().loss(student, *given) + sum(state.sum() * 0 for state in student.hidden)


class Orphan(KullbackLeibler):
    """Needs a teacher and says it does not."""

    needs: ClassVar[Any] = frozenset()


class Double(CrossEntropy):
    """Computes in float64."""

    def loss(self, *given: Any) -> Any:
        return super().loss(*given).double()


class Vector(CrossEntropy):
    """Returns one number for each row."""

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        return cross_entropy(student.logits, labels, reduction="none")


class Constant(CrossEntropy):
    """Gives no gradient."""

    def loss(self, *given: Any) -> Any:
        return super().loss(*given).detach()


class Infinite(CrossEntropy):
    """Divides by zero."""

    def loss(self, *given: Any) -> Any:
        return super().loss(*given) / 0


class Steep(CrossEntropy):
    """Has a finite value and a gradient that is not."""

    def loss(self, student: Any, *given: Any) -> Any:
        own = student.logits
        return super().loss(student, *given) + (own - own.detach()).square().sum().sqrt()


class Listing(Hidden):
    """Returns its parts in a list, which no optimizer sees."""

    def parts(self, pair: Any) -> Any:
        parts = super().parts(pair)
        return parts and list(parts)  # type: ignore[call-overload]


class Crashing(Hidden):
    """Refuses other widths with an error that is not meant for people."""

    def parts(self, pair: Any) -> None:
        assert pair.student_width == pair.teacher_width
        super().parts(pair)


class Curt(Hidden):
    """Refuses other widths without a reason."""

    def parts(self, pair: Any) -> None:
        if pair.student_width != pair.teacher_width:
            raise DistillError("Widths!")
        super().parts(pair)


class Unwilling(CrossEntropy):
    """Refuses everything."""

    def parts(self, pair: Any) -> None:
        raise DistillError("This pair will not do, and no other will either, so leave it out.")


class Narrow(Hidden):
    """Overlooks that widths may differ."""

    def parts(self, pair: Any) -> None:
        if not pair.same_tokens:
            super().parts(pair)


class TwoLayers(Hidden):
    """Overlooks that depths may differ."""

    def loss(self, student: Any, teacher: Any, *given: Any) -> Any:
        _first, _second = student.hidden
        return super().loss(student, teacher, *given)


class Idle(CrossEntropy):
    """Never uses what it wants to learn."""

    def parts(self, pair: Any) -> nn.Module:
        return nn.Linear(1, 1)


class Wordy(Hidden):
    """Overlooks that tokens may differ."""

    def parts(self, pair: Any) -> Any:
        if pair.student_width != pair.teacher_width:
            return super().parts(pair)
        return None


class Counted(CrossEntropy):
    """Takes labels of a form that it knows nothing of."""

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        return cross_entropy(student.logits, labels, reduction="sum") / len(labels)


class Averaged(CrossEntropy):
    """Overlooks that no text of a batch may have a label."""

    takes: ClassVar[Any] = frozenset({"id"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        return cross_entropy(student.logits, labels)


class Clamped(CrossEntropy):
    """Takes texts without a label for texts of the first one."""

    takes: ClassVar[Any] = frozenset({"id"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        return cross_entropy(student.logits, labels.clamp(min=0))


class Partly(CrossEntropy):
    """Thinks of batches without a label, and of those in which all texts have one."""

    takes: ClassVar[Any] = frozenset({"number"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        if labels.isnan().all():
            return 0 * student.logits.sum()
        return (student.logits[:, 0] - labels).square().mean()


class Taking(CrossEntropy):
    """Takes what nobody gives."""

    takes: ClassVar[Any] = frozenset({"id", "ids"})


class Contrary(KullbackLeibler):
    """Rewards distance."""

    def loss(self, *given: Any) -> Any:
        return -super().loss(*given)


class Rooted(Relations):
    """Is steepest where there is nothing left to learn."""

    def loss(self, *given: Any) -> Any:
        return super().loss(*given).sqrt()


class Backwards(CrossEntropy):
    """Its gradient points the other way."""

    def loss(self, *given: Any) -> Any:
        value = super().loss(*given)
        return 2 * value.detach() - value


class Halved(KullbackLeibler):
    """Rounds what the student says to half precision, whose digits a small step does not move."""

    def loss(self, student: Any, *given: Any) -> Any:
        rounded = student.logits.half().to(student.logits.dtype)
        return super().loss(Outputs(rounded), *given)


class Cancelling(KullbackLeibler):
    """Loses most of its digits in a sum with a large number."""

    def loss(self, student: Any, *given: Any) -> Any:
        shifted = (student.logits + 1e4) - 1e4
        return super().loss(Outputs(shifted), *given)


class Single(CrossEntropy):
    """Falls back to single precision, whatever it is given."""

    def loss(self, *given: Any) -> Any:
        return super().loss(*given).float()


class Unmasked(Hidden):
    """Averages over padding too."""

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        return super().loss(student, teacher, labels, torch.ones_like(mask), parts)


class Longer(CrossEntropy):
    """Divides by the length of the batch."""

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        return super().loss(student, teacher, labels, mask, parts) / mask.shape[1]


class First(CrossEntropy):
    """Cares most for the first row."""

    takes: ClassVar[Any] = frozenset({"id"})

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        each = cross_entropy(student.logits, labels, reduction="none")
        return (each / torch.arange(1, len(each) + 1)).sum()


class Random(CrossEntropy):
    """Draws a little noise."""

    def loss(self, *given: Any) -> Any:
        return super().loss(*given) + 1e-3 * torch.rand(())


class Moody(CrossEntropy):
    """Remembers the batch before this one."""

    before: ClassVar[list[Tensor]] = []

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        value = super().loss(student, teacher, labels, mask, parts)
        last = self.before[-1] if self.before else value.detach()
        self.before[:] = [value.detach()]
        return value + 1e-3 * (last - value.detach())


class Careless(KullbackLeibler):
    """Softens the teacher's own tensor."""

    def loss(self, student: Any, teacher: Any, *given: Any) -> Any:
        teacher.logits.div_(2)
        return super().loss(student, teacher, *given)


class Clipping(CrossEntropy):
    """Clips the student's own tensor, which the run then takes for its answer."""

    def loss(self, student: Any, *given: Any) -> Any:
        student.logits.clamp_(-1, 1)
        return super().loss(student, *given)


class Teaching(KullbackLeibler):
    """Asks for gradients of the teacher."""

    def loss(self, student: Any, teacher: Any, *given: Any) -> Any:
        teacher.logits.requires_grad_()
        return super().loss(student, teacher, *given)


class ThreeClasses(CrossEntropy):
    """Knows how many classes there are."""

    def loss(self, student: Any, *given: Any) -> Any:
        return super().loss(student, *given) + (student.logits * torch.zeros(3)).sum()


class Digits(Hidden):
    """Depends on digits of the teacher's states that a cache in float16 does not keep."""

    def loss(self, student: Any, teacher: Any, labels: Any, mask: Any, parts: Any) -> Any:
        noise = (1e5 * teacher.hidden[0]).sin() * mask.unsqueeze(-1)
        value = super().loss(student, teacher, labels, mask, parts)
        return value * (1.5 + noise.sum() / mask.sum() / noise.shape[-1])


#: Whatever calls the loss.
CALLS = {*CHECKS} - {"class", "fields", "recipe", "parts"}


@pytest.mark.parametrize(
    ("cls", "check", "words", "follow"),
    [
        # What else has to fail with it stands at the end.
        (Undocumented, "class", "no docstring", ()),
        (Unwritten, "class", "does not implement loss", CALLS - {"imitation", "cache"}),
        (Loose, "fields", "takes no_such_field=1", ()),
        (Lax, "fields", "takes weight='1'", ()),
        (Thawed, "fields", "frozen=True", ()),
        (Untyped, "fields", "takes extra=Ellipsis", ()),
        (Boundless, "fields", "takes weight=0.0", ()),
        (Named, "fields", "a field name", ()),
        (Covering, "fields", "a field factor", ("learner",)),
        (Unreadable, "recipe", "needs Field(strict=False)", ()),
        (Greedy, "needs", "frozenset of attention, embeddings", ("learner",)),
        (Spelled, "needs", "`needs` is 'logits'", ("learner", "cache")),
        (Undeclared, "needs", "reads teacher.logits", ()),
        (Peeking, "needs", "reads student.hidden", ()),
        (Orphan, "needs", "there may be no teacher", ("labels", "learner")),
        (Double, "loss", "torch.float64", ()),
        (
            Vector,
            "loss",
            "instead of a scalar",
            CALLS - {"needs", "pairs", "imitation", "inputs", "cache"},
        ),
        (Constant, "loss", "no gradient reaches", ("descent", "learner")),
        (
            Infinite,
            "loss",
            "the loss is inf",
            ("labels", "tokens", "descent", "reference", "learner"),
        ),
        (Steep, "loss", "gradient is not finite", ("labels", "descent", "reference", "learner")),
        (Listing, "parts", "returned list", ("pairs",)),
        (Crashing, "parts", "stopped with AssertionError", ("pairs",)),
        (Curt, "parts", "'Widths!'", ()),
        (Unwilling, "parts", "Accept a student", CALLS - {"pairs", "tokens"}),
        (Narrow, "pairs", "teacher_width=36", ()),
        (TwoLayers, "pairs", "layer_map=(5,)", ()),
        (Idle, "pairs", "no gradient reaches weight", ()),
        (Wordy, "tokens", "with other tokens", ()),
        (Counted, "labels", "form 'number' it stopped with", ()),
        (Averaged, "labels", "'id' that all lack the loss is nan", ()),
        (Clamped, "labels", "it learns from those rows, too", ()),
        (Partly, "labels", "'number' that two rows lack the loss is nan", ()),
        (Taking, "labels", "frozenset of some of id, number, several", ()),
        (Contrary, "imitation", "Look for a sign", ()),
        (Rooted, "imitation", "gradient's norm", ()),
        (Backwards, "descent", "20 steps", ("reference", "learner")),
        (Halved, "reference", "half()", ()),
        (Cancelling, "reference", "in float32 is", ()),
        (Single, "reference", "from float64 it made torch.float32", ()),
        (Unmasked, "padding", "padded by 3", ("cache",)),
        (Longer, "padding", "padded by 3", ()),
        (First, "order", "in another order", ()),
        (Random, "repeat", "Draw nothing at random", ()),
        (Moody, "repeat", "keep nothing between calls", ()),
        (Careless, "inputs", "changed teacher.logits in place", ()),
        (Clipping, "inputs", "changed student.logits in place", ()),
        (Teaching, "inputs", "ask for gradients", ()),
        (ThreeClasses, "learner", "stopped with RuntimeError", ()),
        (Digits, "cache", "cached answers", ()),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_each_check_finds_its_defect(
    cls: type[Objective], check: str, words: str, follow: Any
) -> None:
    message = found(cls)
    assert message.startswith(f"The objective {cls.__qualname__} fails the check {check!r}: ")
    assert words in message
    assert failing(cls) == {check, *follow}


def test_what_is_no_objective_is_said_first() -> None:
    assert "fails the check 'class': it is not a class" in found(int)


def test_every_check_has_a_planted_defect() -> None:
    marks: Any = test_each_check_finds_its_defect
    assert {row[1] for row in marks.pytestmark[0].args[1]} == set(CHECKS)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(DistillError, match=r"Unknown check paddding; there are class, "):
        check_objective(CrossEntropy, only=["paddding"])


def test_the_kit_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    check_objective(CrossEntropy)
    assert torch.equal(before, torch.random.get_rng_state())


def test_importing_the_kit_loads_nothing_heavy() -> None:
    code = "import distill.testing, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
