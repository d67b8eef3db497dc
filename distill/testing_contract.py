"""The kit's checks of what an objective says about itself: its class, settings, needs and parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, get_args

from pydantic import ValidationError

from distill.errors import DistillError
from distill.objective import Objective
from distill.signals import Need
from distill.testing_material import PLAIN, Case, Fault, call, gradients, hold, words

#: What else may come: other widths, heads and depths.
PAIRS = (
    PLAIN,
    replace(PLAIN, teacher_width=36, teacher_heads=3),
    replace(PLAIN, layer_map=(5,)),
    replace(PLAIN, student_width=12, layer_map=(1, 3, 5)),
)


def check_class(case: Case) -> None:
    """It is a documented class that derives from `Objective` and implements `loss`."""
    hold(
        isinstance(case.cls, type) and issubclass(case.cls, Objective),
        "it is not a class that derives from distill.Objective. Derive it from there.",
    )
    hold(
        case.cls.loss is not Objective.loss,
        "it does not implement loss(). Write it; distill.Objective.loss says what it gets.",
    )
    hold(
        bool((case.cls.__dict__.get("__doc__") or "").strip()),
        "it has no docstring. Write one; its first line is what "
        "`python -m recipes.list objectives` shows.",
    )


def check_fields(case: Case) -> None:
    """Settings are typed, checked strictly, and frozen."""
    reserved = {
        name
        for name in case.cls.model_fields
        if name in ("name", "only") or callable(getattr(Objective, name, None))
    }
    hold(
        not reserved,
        f"it has a field {', '.join(sorted(reserved))}, a word that is taken: `name` by the "
        "recipe, `only` by this kit, others by the methods of distill.Objective. Rename it.",
    )
    try:
        objective = case.objective
    except ValidationError as error:
        raise Fault(f"it refuses the fields that the check was given. {words(error)}.") from None
    hold(objective.weight > 0, f"its weight is {objective.weight}; it has to be above 0.")
    wrong: list[tuple[str, Any]] = [("no_such_field", 1), ("weight", "1"), ("weight", 0.0)]
    for name, value in [*wrong, *((name, ...) for name in case.cls.model_fields)]:
        try:
            case.cls(**{**case.fields, name: value})
        except ValidationError:
            continue
        raise Fault(
            f"it takes {name}={value!r}. Give every field a type, keep the bounds of `weight`, "
            'and keep model_config: strict=True and extra="forbid".'
        )
    try:
        objective.model_copy().weight = 2.0  # type: ignore[misc]
    except ValidationError:
        pass
    else:
        raise Fault("its fields can be changed. Keep frozen=True in model_config.")


def check_recipe(case: Case) -> None:
    """Settings are the same after a recipe was written with them and read back."""
    objective = case.objective
    plain = objective.model_dump(mode="json")
    try:
        again = case.cls.model_validate(plain)
    except ValidationError as error:
        raise Fault(
            f"a recipe that was written with it cannot be read back. {words(error)}. A tuple, for "
            "example, is written as a list and needs Field(strict=False)."
        ) from None
    hold(again == objective, f"it is not the same after it was written as {plain} and read back.")


def check_needs(case: Case) -> None:
    """`needs` names known signals, and `loss` reads no others."""
    import torch

    known, needs = set(get_args(Need)), case.cls.needs
    hold(
        isinstance(needs, frozenset) and needs <= known,
        f"`needs` is {needs!r}. Make it a frozenset of {', '.join(sorted(known))}.",
    )
    batch = case.batch().map(torch.clone)
    teacher = _declared("teacher", batch.teacher, needs) if needs else None
    student = _declared("student", batch.student, needs | {"logits"})
    try:
        case.objective.loss(student, teacher, batch.labels, batch.mask, case.parts())
    except Fault:
        raise
    except Exception as error:
        hold(
            teacher is not None,
            "`needs` is empty, so there may be no teacher, and without one loss() stopped with "
            f"{words(error)}. Name in `needs` what loss() reads of the teacher.",
        )
        raise


def _declared(whose: str, answer: Any, allowed: frozenset[str]) -> Any:
    """Return an answer that raises when a signal is read that is not allowed."""

    def refuse(name: str) -> property:
        def read(self: Any) -> None:
            raise Fault(
                f"loss() reads {whose}.{name}, and `needs` does not name {name!r}. Add it to "
                "`needs`; what is not named there is not computed."
            )

        return property(read)

    missing = {name: refuse(name) for name in get_args(Need) if name not in allowed}
    kind = type(answer)
    guarded: Any = object.__new__(type(kind.__name__, (kind,), missing))
    for field in fields(answer):
        if field.name not in missing:
            object.__setattr__(guarded, field.name, getattr(answer, field.name))
    return guarded


@contextmanager
def _refusal() -> Iterator[None]:
    """Let the objective refuse, as long as it says why and what to do."""
    try:
        yield
    except DistillError as error:
        hold(
            len(str(error).split()) > 5,
            f"it refuses a pair with the words {str(error)!r}. Say what does not fit and what to "
            "change in the recipe.",
        )


def check_parts(case: Case) -> None:
    """`parts` returns a module or None, or refuses the pair with a `DistillError` that helps."""
    from torch import nn

    for pair in PAIRS:
        with _refusal():
            parts: Any = case.objective.parts(pair)
            hold(
                parts is None or isinstance(parts, nn.Module),
                f"parts({pair}) returned {type(parts).__name__}. Return a torch.nn.Module "
                "(ModuleList for several) or None.",
            )
    try:
        case.objective.parts(PLAIN)
    except DistillError as error:
        raise Fault(
            f"it refuses {PLAIN}: {error} Accept a student of the teacher's width and tokens."
        ) from None


def check_pairs(case: Case) -> None:
    """Other widths and depths work unless `parts` refuses them, and what `parts` made learns."""
    for pair in PAIRS:
        try:
            parts = case.parts(pair)
        except DistillError:
            continue
        try:
            loss = call(case.objective, case.batch(pair), parts)
        except Exception as error:
            raise Fault(
                f"parts() accepts {pair}, and then loss() stopped with "
                f"{words(error)}. Project in parts(), or refuse there with a DistillError."
            ) from error
        names = dict(parts.named_parameters()) if parts is not None else {}
        names = {name: weight for name, weight in names.items() if weight.requires_grad}
        for name, gradient in zip(names, gradients(loss, list(names.values())), strict=True):
            hold(
                gradient is not None,
                f"for {pair} no gradient reaches {name} of what parts() returned, so it would "
                "never learn. Use it in loss(), or leave it out.",
            )


def check_tokens(case: Case) -> None:
    """Where the tokens differ, `parts` refuses or the loss does without matching positions."""
    pair = replace(PLAIN, same_tokens=False)
    with _refusal():
        parts = case.parts(pair)
        try:
            loss = call(case.objective, case.batch(pair, longer=3), parts).item()
        except Exception as error:
            raise Fault(
                "parts() accepts a teacher with other tokens, and then loss() stopped with "
                f"{words(error)}. Refuse in parts() with a DistillError if not "
                "pair.same_tokens, or pool over the tokens."
            ) from error
        hold(math.isfinite(loss), f"with a teacher of other tokens the loss is {loss}.")
