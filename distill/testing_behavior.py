"""The kit's checks of what an objective's loss does."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from distill.objectives import Outputs
from distill.signals import CachedTeacher, Signals
from distill.testing_material import (
    LABELS,
    TEXTS,
    Batch,
    Case,
    batch_of,
    call,
    gradients,
    hold,
    school,
)

if TYPE_CHECKING:
    from torch import Tensor


def check_loss(case: Case) -> None:
    """The loss is one finite float32 number with a gradient to the student's answer."""
    import torch

    batch = batch_of()
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
        "no gradient reaches the student's logits or hidden states, so it would learn nothing. "
        "Look for detach(), no_grad(), argmax() or item().",
    )
    hold(
        all(bool(gradient.isfinite().all()) for gradient in found),
        "the gradient is not finite. Look for sqrt or norm at 0, and for divisions by 0.",
    )


def check_imitation(case: Case) -> None:
    """A student that answers as its teacher does better than one that does not.

    Asked only of objectives that need a teacher and, for equal widths, learn nothing of their own:
    a random projection of the right answer is not yet right.
    """
    objective, parts, other = case.objective, case.parts(), batch_of()
    if not objective.needs or (parts is not None and any(True for _ in parts.parameters())):
        return
    told = other.teacher.logits.clone(), *(states.clone() for states in other.teacher.hidden)
    logits, *hidden = (tensor.requires_grad_() for tensor in told)
    losses, slopes = [], []
    for batch in (replace(other, student=Outputs(logits, tuple(hidden))), other):
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

    objective, parts, batch = case.objective, case.parts(), batch_of()
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


def check_padding(case: Case) -> None:
    """What stands at padded positions, and how many there are, changes nothing."""
    import torch

    objective, parts, batch = case.objective, case.parts(), batch_of()
    chance = torch.Generator().manual_seed(1)
    mask = torch.cat([batch.mask, torch.zeros(len(LABELS), 3, dtype=torch.long)], dim=1)

    def pad(states: Tensor) -> Tensor:
        junk = 9 * torch.randn(len(LABELS), mask.shape[1], states.shape[-1], generator=chance)
        seen = mask.unsqueeze(-1).bool()
        return torch.where(seen, torch.cat([states, junk[:, :3]], dim=1), junk)

    padded = Batch(
        Outputs(batch.student.logits, tuple(map(pad, batch.student.hidden))),
        Signals(batch.teacher.logits, tuple(map(pad, batch.teacher.hidden))),
        batch.labels,
        mask,
    )
    one, other = (call(objective, given, parts).item() for given in (batch, padded))
    hold(
        math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6),
        f"the loss is {one:.6g}, and {other:.6g} after the same batch was padded by 3 more "
        "positions. Multiply by `mask`, and divide by its sum instead of by the length.",
    )


def check_order(case: Case) -> None:
    """The order of the rows changes nothing."""
    objective, parts, batch = case.objective, case.parts(), batch_of()
    turned = batch.map(lambda tensor: tensor[[3, 0, 5, 1, 4, 2]])
    one, other = (call(objective, given, parts).item() for given in (batch, turned))
    hold(
        math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6),
        f"the loss is {one:.6g}, and {other:.6g} for the same rows in another order. Treat every "
        "row alike; batches are shuffled.",
    )


def check_repeat(case: Case) -> None:
    """The same batch gives the same loss, whatever came before it."""
    objective, parts, batch = case.objective, case.parts(), batch_of()
    one = call(objective, batch, parts).item()
    call(objective, batch_of(seed=1), parts)
    other = call(objective, batch, parts, seed=1).item()
    hold(
        one == other,
        f"the same batch gave {one:.9g} and later {other:.9g}. Draw nothing at random and keep "
        "nothing between calls; what learns belongs into parts().",
    )


def check_inputs(case: Case) -> None:
    """`loss` leaves what it is given as it was, and the teacher without gradients."""
    import torch

    batch = batch_of()
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
    optimizer = torch.optim.AdamW(learner.parameters(), lr=5e-3)
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
        "Try it with 4 classes and a width of 16; the other checks had 3 and 8.",
    )


def check_cache(case: Case) -> None:
    """A teacher's answers from the disk give the loss of the live teacher.

    Hidden states are kept in float16 there, so the losses of objectives that need them may differ
    by a thousandth; the others by 1e-5 of the loss.
    """
    import torch

    learner, inputs, live = school(case)
    if live is None:
        return
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        losses = []
        for teacher in (live, CachedTeacher(Path(folder) / "signals", live, TEXTS)):
            learner.teacher = teacher
            torch.default_generator.manual_seed(0)
            losses.append(learner(**inputs)["loss"].item())
    hold(
        math.isclose(*losses, rel_tol=1e-3 if live.layers else 1e-5, abs_tol=1e-6),
        f"with the live teacher the loss is {losses[0]:.6g}, with its cached answers "
        f"{losses[1]:.6g}. Read no padded positions, and do not depend on the last digits.",
    )
