"""The kit's checks of what an objective's loss does."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from distill.cache import CachedTeacher, check_cacheable
from distill.errors import DistillError
from distill.objective import LabelForm
from distill.signals import Outputs
from distill.testing_material import (
    LABELS,
    PLAIN,
    TEXTS,
    Batch,
    Case,
    Fault,
    batch_of,
    call,
    changed,
    gradients,
    hold,
    labeled,
    school,
    tensors,
    words,
)

if TYPE_CHECKING:
    from torch import Tensor

#: Which axes of a signal are positions; of all others it is the second.
TOKEN_AXES = {"logits": (), "pooled": (), "attention": (2, 3)}


def check_loss(case: Case) -> None:
    """The loss is one finite float32 number with a gradient to the student's answer."""
    import torch

    batch = case.batch()
    loss: Any = call(case.objective, batch, case.parts())
    hold(
        isinstance(loss, torch.Tensor) and loss.shape == (),
        f"loss() returned {getattr(loss, 'shape', type(loss).__name__)} instead of a scalar "
        "tensor. Take the mean over the batch.",
    )
    hold(loss.dtype == torch.float32, f"from float32 it made {loss.dtype}. Keep float32.")
    hold(math.isfinite(loss.item()), f"the loss is {loss.item()}. Look for log(0) or 0/0.")
    found = [g for g in gradients(loss, batch.leaves) if g is not None]
    hold(
        any(bool(gradient.any()) for gradient in found),
        "no gradient reaches what the student answers, so it would learn nothing. "
        "Look for detach(), no_grad(), argmax() or item().",
    )
    hold(
        all(bool(gradient.isfinite().all()) for gradient in found),
        "the gradient is not finite. Look for sqrt or norm at 0, and for divisions by 0.",
    )


def check_labels(case: Case) -> None:
    """Labels may come in any form that `takes` names, and be missing; no loss learns from those."""
    forms, known = case.cls.takes, {*get_args(LabelForm)}
    hold(
        isinstance(forms, frozenset) and bool(forms) and forms <= known,
        f"`takes` is {forms!r}. Make it a frozenset of some of {', '.join(sorted(known))}.",
    )
    plain, rows = batch_of(PLAIN, len(case.objective.layers(PLAIN))), range(len(LABELS))
    for form in sorted(forms):
        for missing, where in (((), ""), ((1, 3), " that two rows lack"), (rows, " that all lack")):
            batch, told = labeled(plain, form, missing), f"with labels of the form {form!r}{where}"
            try:
                loss = call(case.objective, batch, case.parts())
                slopes = dict(
                    zip(tensors(batch.student), gradients(loss, batch.leaves), strict=True)
                )
            except Exception as error:
                raise Fault(
                    f"{told} it stopped with {words(error)}. Leave the form out of `takes`, or "
                    "tell by labels.ndim and labels.is_floating_point() what the labels are."
                ) from error
            found = [slope for slope in slopes.values() if slope is not None]
            hold(
                all(bool(one.isfinite().all()) for one in (loss, *found)),
                f"{told} the loss is {loss.item()}, or its gradient is not finite. Texts without a "
                "label are -100, or not a number: leave them out, and divide by no less than 1.",
            )
            slope = slopes["logits"]
            hold(
                bool(case.objective.needs) or slope is None or not slope[list(missing)].any(),
                f"{told} it learns from those rows, too. Texts without a label are -100, or not a "
                "number: leave them out.",
            )


def check_imitation(case: Case) -> None:
    """A student that answers as its teacher does better than one that does not.

    Asked only of objectives that need a teacher and, for equal widths, learn nothing of their own:
    a random projection of the right answer is not yet right.
    """
    objective, parts, other = case.objective, case.parts(), case.batch()
    if not objective.needs or (parts is not None and any(True for _ in parts.parameters())):
        return
    told = changed(other.teacher, lambda _, tensor: tensor.clone().requires_grad_())
    equal = Outputs(**{field.name: getattr(told, field.name) for field in fields(told)})
    losses, slopes = [], []
    for batch in (replace(other, student=equal), other):
        loss = call(objective, batch, parts)
        found = [g for g in gradients(loss, batch.leaves) if g is not None]
        losses.append(loss.item())
        slopes.append(math.sqrt(sum(float((gradient**2).sum()) for gradient in found)))
    hold(
        losses[0] <= losses[1],
        f"for a student that equals its teacher the loss is {losses[0]:.6g}, for a random one "
        f"{losses[1]:.6g}. Look for a sign, or for student and teacher exchanged.",
    )
    hold(
        slopes[0] < slopes[1],
        f"for a student that equals its teacher the gradient's norm is {slopes[0]:.6g}, for a "
        f"random one {slopes[1]:.6g}. The loss should be flat where there is nothing to learn; "
        "look for sqrt or norm at 0.",
    )


def check_descent(case: Case) -> None:
    """Steps of the student's answer against the gradient lower the loss."""
    import torch

    objective, parts, batch = case.objective, case.parts(), case.batch()
    weights = [] if parts is None else [*parts.parameters()]
    optimizer = torch.optim.Adam([*batch.leaves, *weights], lr=0.05)
    first = call(objective, batch, parts).item()
    for _ in range(20):
        optimizer.zero_grad()
        call(objective, batch, parts).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    last = call(objective, batch, parts).item()
    hold(
        last < first,
        f"20 steps took the loss from {first:.6g} to {last:.6g}. Its gradient does not belong to "
        "its value; look for detach() and own autograd functions.",
    )


def check_reference(case: Case) -> None:
    """The gradient in float32 is that in float64, and the slope of the loss there."""
    import torch

    objective, parts, batch = case.objective, case.parts(), case.batch()
    exact = batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    exact_parts = None if parts is None else copy.deepcopy(parts).double()
    loss = call(objective, exact, exact_parts)
    hold(
        loss.dtype == torch.float64,
        f"from float64 it made {loss.dtype}. Compute in the precision of what is given.",
    )
    wanted = _flat(gradients(loss, exact.leaves), exact.leaves)
    found = _flat(gradients(call(objective, batch, parts), batch.leaves), batch.leaves)
    length, error = wanted.norm().item(), (found - wanted).norm().item()
    hold(
        error <= 1e-4 * length,
        f"the gradient in float32 is {error:.3g} away from that in float64, whose length is "
        f"{length:.3g}. Look for differences of large numbers, and for exp without log_softmax.",
    )
    step = 1e-5
    direction = wanted / max(length, 1e-30)
    ends = [
        call(objective, _moved(exact, way * direction), exact_parts).item() for way in (step, -step)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    hold(
        abs(slope - length) <= 1e-2 * length,
        f"along its gradient the loss rises by {slope:.6g} a step in float64, and the gradient "
        f"says {length:.6g}. Look for half(), bfloat16() and round(), for detach() and for own "
        "autograd functions.",
    )


def _flat(slopes: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Tensor:
    """Return gradients as one vector in float64; where none arrives it is 0."""
    import torch

    pairs = zip(slopes, leaves, strict=True)
    return torch.cat(
        [(torch.zeros_like(leaf) if s is None else s).flatten().double() for s, leaf in pairs]
    )


def _moved(batch: Batch, by: Tensor) -> Batch:
    """Return the batch with the student's answer moved."""
    import torch

    pieces = iter(torch.split(by, [leaf.numel() for leaf in batch.leaves]))
    student = changed(batch.student, lambda _, tensor: tensor + next(pieces).view_as(tensor))
    return replace(batch, student=student)


def check_padding(case: Case) -> None:
    """What stands at padded positions, and how many there are, changes nothing."""
    import torch

    objective, parts, batch = case.objective, case.parts(), case.batch()
    chance = torch.Generator().manual_seed(1)
    mask = torch.cat([batch.mask, torch.zeros(len(LABELS), 3, dtype=torch.long)], dim=1)

    def pad(name: str, tensor: Tensor) -> Tensor:
        for axis in TOKEN_AXES.get(name, (1,)):
            room = [3 if at == axis else size for at, size in enumerate(tensor.shape)]
            longer = torch.cat([tensor, torch.zeros(room)], dim=axis)
            junk = 9 * torch.randn(longer.shape, generator=chance)
            seen = mask.view(
                [size if at in (0, axis) else 1 for at, size in enumerate(longer.shape)]
            )
            tensor = torch.where(seen.bool(), longer, junk)
        return tensor

    padded = Batch(changed(batch.student, pad), changed(batch.teacher, pad), batch.labels, mask)
    one, other = (call(objective, given, parts).item() for given in (batch, padded))
    hold(
        math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6),
        f"the loss is {one:.6g}, and {other:.6g} after the same batch was padded by 3 more "
        "positions. Multiply by `mask`, both axes of attention maps, and divide by its sum "
        "instead of by the length.",
    )


def check_order(case: Case) -> None:
    """The order of the rows changes nothing."""
    objective, parts, batch = case.objective, case.parts(), case.batch()
    turned = batch.map(lambda tensor: tensor[[3, 0, 5, 1, 4, 2]])
    one, other = (call(objective, given, parts).item() for given in (batch, turned))
    hold(
        math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6),
        f"the loss is {one:.6g}, and {other:.6g} for the same rows in another order. Treat every "
        "row alike; batches are shuffled.",
    )


def check_repeat(case: Case) -> None:
    """The same batch gives the same loss, whatever came before it."""
    objective, parts, batch = case.objective, case.parts(), case.batch()
    one = call(objective, batch, parts).item()
    call(objective, case.batch(seed=1), parts)
    other = call(objective, batch, parts, seed=1).item()
    hold(
        one == other,
        f"the same batch gave {one:.9g} and later {other:.9g}. Draw nothing at random and keep "
        "nothing between calls; what learns belongs into parts().",
    )


def check_inputs(case: Case) -> None:
    """`loss` leaves what it is given as it was, and the teacher without gradients."""
    import torch

    batch = case.batch()
    given, before = batch.map(torch.clone), batch.map(lambda tensor: tensor.detach().clone())
    case.objective.loss(given.student, given.teacher, given.labels, given.mask, case.parts())
    for name, then in before.named.items():
        now = given.named[name]
        hold(
            torch.equal(now, then),
            f"loss() changed {name} in place, where other objectives read it too. Leave out "
            "functions whose names end in _.",
        )
        hold(
            name.startswith("student") or not now.requires_grad,
            f"loss() made {name} ask for gradients. The teacher does not learn; leave it alone.",
        )


def check_learner(case: Case) -> None:
    """A tiny student learns through `distill.learner.Learner`: the loss falls."""
    import torch

    learner, inputs, _ = school(case)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=5e-3, weight_decay=0.0)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = learner(**inputs)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    hold(
        losses[-1] < losses[0],
        f"5 steps of AdamW took the loss of a tiny BERT from {losses[0]:.6g} to {losses[-1]:.6g}. "
        "Try it with 4 classes; the other checks had 3.",
    )


def check_cache(case: Case) -> None:
    """A teacher's answers from the disk give the loss of the live teacher.

    Asked only of objectives that a cache can serve (`distill.cache.check_cacheable`). States are
    kept in float16 there, so the losses of objectives that need them may differ by a thousandth;
    the others by 1e-5 of the loss.
    """
    import torch

    learner, inputs, live = school(case)
    if live is None:
        return
    try:
        check_cacheable(live.wants)
    except DistillError:
        return
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        losses = []
        for teacher in (live, CachedTeacher(Path(folder) / "signals", live, TEXTS)):
            learner.teacher = teacher
            torch.default_generator.manual_seed(0)
            losses.append(learner(**inputs)["loss"].item())
    hold(
        math.isclose(*losses, rel_tol=1e-3 if live.wants else 1e-5, abs_tol=1e-6),
        f"with the live teacher the loss is {losses[0]:.6g}, with its cached answers "
        f"{losses[1]:.6g}. Read no padded positions, and do not depend on the last digits.",
    )
