"""The checks of the conformance kit, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from adapters.backbone import head_modules, unwrapped
from adapters.errors import NeedsFloatWeightsError
from adapters.files import continue_adapter, load_adapter, save_adapter
from adapters.strategy import Strategy
from adapters.strategy_methods import memory_after, penalty_of, rows_again
from adapters.testing_bench import (
    CLOSE,
    EXACT,
    LABELS,
    STEPS,
    TEXTS,
    Bench,
    FaultError,
    Model,
    Run,
    collate,
    same,
)
from adapters.testing_layers import copies
from adapters.validation_messages import explain


def constructs(cls: type[Strategy], fields: Mapping[str, Any]) -> Strategy:
    """Return an instance, once wrong fields have been refused."""
    if not issubclass(cls, Strategy):
        raise FaultError("it does not derive from adapters.Strategy")
    if not (cls.__doc__ or "").strip() or cls.__doc__ == Strategy.__doc__:
        raise FaultError("it has no docstring; its first line is what lists show")
    try:
        strategy = cls(**fields)
    except ValidationError as error:
        raise FaultError(
            f"it cannot be made with the fields {dict(fields)}: {explain(error, cls)}; pass the "
            "right ones to the kit"
        ) from error
    _refuses(cls, {**fields, "no_such_field_anywhere": 1}, "an unknown field")
    for name, field in cls.model_fields.items():
        if field.annotation in (int, float, bool):
            text = str(getattr(strategy, name))
            _refuses(cls, {**fields, name: text}, f"the text {text!r} as {name}")
    try:
        again = cls.model_validate(strategy.model_dump(mode="json"))
    except ValueError as error:
        raise FaultError(
            f"its fields do not come back from a file: {' '.join(str(error).split())}. Declare a "
            "field that is no plain number, text or list as Field(…, strict=False)"
        ) from error
    if again != strategy:
        raise FaultError(f"its fields come back from a file as {again!r}, but were {strategy!r}")
    return strategy


def _refuses(cls: type[Strategy], fields: Mapping[str, Any], what: str) -> None:
    try:
        cls(**fields)
    except (ValidationError, TypeError):
        return
    raise FaultError(
        f"it takes {what}; leave Strategy.model_config (strict, extra='forbid') as it is"
    )


def learns(bench: Bench) -> None:
    """What is declared learns, the head too, nothing else changes, and the loss falls."""
    _has_learnt(bench, bench.run)


def _has_learnt(bench: Bench, run: Run) -> None:
    plain = unwrapped(run.model)
    head = {id(p) for n in head_modules(plain) for p in plain.get_submodule(n).parameters()}
    inner = {n for n, p in run.model.named_parameters() if n in run.declared and id(p) not in head}
    idle = set()
    for name, weight in run.model.named_parameters():
        if name not in run.before:
            raise FaultError(f"{name} came in during training; add it in prepare()")
        same = torch.equal(weight.data, run.before[name])
        if not same and name not in run.declared:
            raise FaultError(f"{name} changed in training without requires_grad after prepare()")
        if same and id(weight) in head:
            raise FaultError(f"the head's {name} did not learn")
        if same and name in inner:
            idle.add(name)
    if len(idle) > 0.5 * len(inner):
        some = ", ".join(sorted(idle)[:3])
        raise FaultError(f"most of what it declares to learn never changed, such as {some}")
    if inner and bench.strategy.trains_head_only:
        raise FaultError(f"it says trains_head_only, but {', '.join(sorted(inner)[:3])} learns too")
    if {n for n, p in run.model.named_parameters() if p.requires_grad} != run.declared:
        raise FaultError("after training other parameters have requires_grad than after prepare()")
    if not (last := bench.loss(run.model)) < 0.9 * run.loss:
        raise FaultError(
            f"the loss went from {run.loss:.3f} to {last:.3f} in {STEPS} steps; it should fall"
        )


def reloads(bench: Bench) -> None:
    """An adapter that was saved and loaded on a fresh backbone gives equal logits."""
    # Another seed for the fresh head: what comes back must come from the file.
    torch.manual_seed(1)
    again = load_adapter(bench.adapter, bench.load(seed=9), bench.strategy, LABELS)
    same(
        bench.logits(again),
        bench.logits(bench.learnt),
        EXACT,
        "the adapter after a reload",
        "make everything that matters a parameter or a persistent buffer in prepare(), and draw "
        "what is random from a seed of its own",
    )


def finishes(bench: Bench) -> None:
    """`finish` gives a plain model with equal logits, and nothing of the strategy is left."""
    expected = bench.logits(bench.learnt)
    # What is left in it `adapters.strategy.finish` refuses at any time.
    merged = bench.finished()
    same(bench.logits(merged), expected, CLOSE, "the finished model", "fold all of it in finish()")
    merged.save_pretrained(bench.folder / "merged")
    again = bench.load(seed=9, path=bench.folder / "merged")
    same(
        bench.logits(again),
        bench.logits(merged),
        EXACT,
        "the finished model after a reload",
        "keep to weights that the plain model has",
    )


def pads(bench: Bench) -> None:
    """A text's logits do not depend on the texts beside it."""
    together = bench.logits(bench.learnt)
    for row in range(len(TEXTS)):
        same(
            bench.logits(bench.learnt, slice(row, row + 1))[0],
            together[row],
            CLOSE,
            "a text alone and in a padded batch",
            "work on each token by itself, or heed the attention mask",
        )


def repeats(bench: Bench) -> None:
    """The same seed gives the same weights."""
    same(
        bench.logits(bench.train(folder="again").model),
        bench.logits(bench.learnt),
        0.0,
        "a second training with the same seed",
        "draw everything from torch's generator or from a seed of your own",
    )


def resumes(bench: Bench) -> None:
    """A training that was stopped and resumed ends where an unbroken one ends."""
    # Some steps after the last checkpoint: these are lost.
    bench.train(folder="broken", stop_after=STEPS // 2)
    same(
        bench.logits(bench.train(folder="broken").model),
        bench.logits(bench.learnt),
        0.0,
        "a training that was resumed",
        "let what changes be parameters that learn, and give callbacks that keep anything a "
        "state_dict() and a load_state_dict()",
    )


def works_quantized(bench: Bench) -> None:
    """On 4-bit weights it learns, and an adapter reloads; or it says that it needs float."""
    if bench.strategy.needs_float_weights:
        return
    try:
        run = bench.train("nf4", folder="nf4")
    except NeedsFloatWeightsError:
        return
    plain = unwrapped(run.model)
    for name in head_modules(plain):
        if not all(p.is_floating_point() for p in plain.get_submodule(name).parameters()):
            raise FaultError(f"the head's {name} is quantized")
    _has_learnt(bench, run)
    save_adapter(bench.folder / "nf4-adapter", run.model, bench.strategy, LABELS)
    again = load_adapter(bench.folder / "nf4-adapter", bench.load("nf4", 9), bench.strategy, LABELS)
    same(
        bench.logits(again),
        bench.logits(run.model),
        EXACT,
        "the adapter on 4-bit weights, reloaded",
        "make everything that matters a parameter or a persistent buffer in prepare()",
    )


def continues(bench: Bench) -> None:
    """Next tasks with new labels begin with equal logits for the old labels, and reload."""
    _rehearses(bench.strategy)
    model, adapter = bench.learnt, bench.adapter
    memory: dict[str, Tensor] = {}
    for task, labels in (("second", (*LABELS, "fourth")), ("third", (*LABELS, "fourth", "fifth"))):
        strategy = bench.strategy
        memory = memory_after(strategy, model, _losses(bench, model), memory)
        before = bench.logits(model)
        grown = bench.load(seed=9, labels=labels)
        model = continue_adapter(adapter, grown, strategy, memory)
        same(
            bench.logits(model)[:, : before.shape[1]],
            before,
            CLOSE,
            f"the {task} task's start",
            "let recall() bring back what between_tasks() has kept, and nothing else",
        )
        penalty = penalty_of(strategy, model, memory)
        if penalty is not None and not torch.isfinite(penalty):
            raise FaultError(f"penalty() is {float(penalty)} at the start of the {task} task")
        adapter = bench.folder / task
        save_adapter(adapter, model, strategy, labels, memory)
        fresh = bench.load(seed=8, labels=labels)
        same(
            bench.logits(load_adapter(adapter, fresh, bench.strategy, labels)),
            bench.logits(model),
            EXACT,
            f"the {task} task's adapter after a reload",
            "keep all that recall() needs in what between_tasks() returns",
        )


def _rehearses(strategy: Strategy) -> None:
    past, new = [0, 1, 2] * 100, [3] * 100
    rows, again = (rows_again(strategy, past, new, 400, 0) for _ in range(2))
    if rows != again:
        raise FaultError("rehearse() gives other rows for the same seed; draw them from its seed")


def _losses(bench: Bench, model: nn.Module) -> Iterator[Tensor]:
    for ids, label in TEXTS:
        batch = collate([{"input_ids": ids, "labels": label}])
        batch = {name: tensor.to(bench.device) for name, tensor in batch.items()}
        yield Model(model, bench.strategy).eval()(**batch)["loss"]


def exports(bench: Bench) -> None:
    """The finished model becomes an ONNX graph with equal logits, at other shapes too."""
    from export.graph import export_onnx
    from export.session import open_model

    merged = bench.finished().to("cpu")
    inputs = {name: bench.batch[name] for name in ("input_ids", "attention_mask")}
    path = bench.folder / "model.onnx"
    export_onnx(merged, inputs, path, optimize="none", metadata={})
    run = open_model(path, 1)
    for part in (slice(0, 6), slice(1, 2)):
        length = int(inputs["attention_mask"][part].sum(1).max())
        piece = {name: tensor[part, :length] for name, tensor in inputs.items()}
        with torch.inference_mode():
            expected = merged(**piece).logits
        same(
            torch.from_numpy(run(piece)),
            expected,
            CLOSE,
            "the ONNX graph",
            "use operations of torch in forward(), and no shapes of the traced batch",
        )


CHECKS: dict[str, Callable[[Bench], None]] = {
    check.__name__: check
    for check in (
        learns,
        reloads,
        finishes,
        copies,
        pads,
        repeats,
        resumes,
        works_quantized,
        continues,
        exports,
    )
}
