"""The checks of the conformance kit, in the order in which they are made."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from adapters.backbone import Quantization, head_modules, load_backbone, unwrapped
from adapters.errors import NeedsFloatWeightsError, UnsuitableBackboneError
from adapters.files import continue_adapter, load_adapter, save_adapter
from adapters.merge import merge_adapter
from adapters.strategy import Strategy, call, prepare
from adapters.tiny import save_tiny_backbone
from adapters.training import PartTrainer, last_checkpoint

LABELS = ("first", "second", "third")
#: Token ids of six texts of unequal length, and their labels; 0 is padding.
_TEXTS = (
    ([2, 11, 21, 12, 3], 0),
    ([2, 13, 22, 3], 1),
    ([2, 23, 14, 15, 16, 17, 3], 2),
    ([2, 18, 11, 21, 19, 3], 0),
    ([2, 22, 12, 14, 3], 1),
    ([2, 15, 13, 12, 11, 19, 18, 23, 3], 2),
)
_STEPS = 40
_EXACT, _CLOSE = 1e-6, 1e-4


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers and the exporter say nothing, and torch use one thread, for a while."""
    from transformers.utils import logging

    threads, level = torch.get_num_threads(), logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    torch.set_num_threads(1)  # a tiny model is slower on several
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class FaultError(Exception):
    """What a check has found."""


class Model(nn.Module):
    """A prepared model with loss and penalty, as the Trainer wants it."""

    accepts_loss_kwargs = False

    def __init__(self, model: nn.Module, strategy: Strategy) -> None:
        super().__init__()
        self.model = model
        self._strategy = strategy

    def forward(self, labels: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` and ``logits``."""
        logits = self.model(**inputs).logits
        loss = nn.functional.cross_entropy(logits, labels)
        penalty = call(self._strategy, "penalty", self.model, {}) if self.training else None
        return {"loss": loss if penalty is None else loss + penalty, "logits": logits}


class Run(NamedTuple):
    """A training.

    Attributes:
        model: The model after it.
        before: All parameters before it, by name.
        declared: Names of those that `prepare` has declared to learn.
        loss: The loss before it.
    """

    model: nn.Module
    before: dict[str, Tensor]
    declared: set[str]
    loss: float


class Bench:
    """One strategy on one tiny random architecture.

    Args:
        folder: A place for files.
        architecture: One of `adapters.tiny.ARCHITECTURES`.
        strategy: The strategy.
    """

    def __init__(self, folder: Path, architecture: str, strategy: Strategy) -> None:
        self.folder = folder
        self.architecture = architecture
        self._strategy = strategy
        self.backbone = save_tiny_backbone(folder / "backbone", architecture)
        self.batch = collate([{"input_ids": ids, "labels": label} for ids, label in _TEXTS])

    @property
    def strategy(self) -> Strategy:
        """The strategy, made anew each time, as every process makes it: it carries nothing over."""
        return type(self._strategy).model_validate(self._strategy.model_dump(mode="json"))

    def load(self, quantization: Quantization = "none", seed: int = 0) -> PreTrainedModel:
        """Return the backbone with a fresh head."""
        return load_backbone(self.backbone, LABELS, quantization=quantization, seed=seed)

    def logits(self, model: nn.Module) -> Tensor:
        """Return the answers to the texts, ``[6, 3]``."""
        inputs = {name: self.batch[name] for name in ("input_ids", "attention_mask")}
        model.eval()
        with torch.inference_mode():
            return model(**inputs).logits.clone()  # type: ignore[no-any-return]

    @cached_property
    def refusal(self) -> str:
        """Why the method makes no sense on this architecture; nothing if it does."""
        try:
            self.prepared(self.strategy)
        except UnsuitableBackboneError as error:
            return str(error)
        return ""

    def prepared(self, strategy: Strategy, quantization: Quantization = "none") -> nn.Module:
        """Return a freshly prepared model."""
        torch.manual_seed(0)
        return prepare(self.load(quantization), strategy)

    def train(
        self,
        quantization: Quantization = "none",
        folder: str = "training",
        stop_after: int | None = None,
    ) -> Run:
        """Train a model with the real Trainer; one batch is an epoch."""
        strategy = self.strategy
        model = self.prepared(strategy, quantization)
        before = {name: p.data.clone() for name, p in model.named_parameters()}
        declared = {name for name, p in model.named_parameters() if p.requires_grad}
        loss = _loss(self, model)
        place = self.folder / folder
        arguments = TrainingArguments(
            output_dir=str(place),
            num_train_epochs=_STEPS,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            per_device_train_batch_size=len(_TEXTS),
            use_cpu=True,
            seed=0,
            save_strategy="steps",
            save_steps=10,
            logging_strategy="no",
            label_names=["labels"],
            max_grad_norm=1.0,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to=[],
            dataloader_pin_memory=False,
            weight_decay=0.01,
        )
        trainer = PartTrainer(
            Model(model, strategy),
            args=arguments,
            train_dataset=[{"input_ids": ids, "labels": label} for ids, label in _TEXTS],
            data_collator=collate,
            groups=partial(call, strategy, "parameter_groups", model),
            strategy_callbacks=call(strategy, "callbacks", model),
            callbacks=[] if stop_after is None else [_StopAfter(stop_after)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=last_checkpoint(place))
        return Run(model.eval(), before, declared, loss)

    @cached_property
    def run(self) -> Run:
        """A training in float."""
        return self.train()

    @property
    def learnt(self) -> nn.Module:
        """The model that it gave; checks leave it as it is."""
        return self.run.model

    @cached_property
    def adapter(self) -> Path:
        """The folder in which that model's adapter is saved."""
        save_adapter(self.folder / "adapter", self.learnt, self.strategy, LABELS)
        return self.folder / "adapter"

    def finished(self) -> PreTrainedModel:
        """Return that model merged, by way of the disk."""
        return merge_adapter(
            self.adapter, self.load, self.strategy, LABELS, into="original", quantization="none"
        )


class _StopAfter(TrainerCallback):  # type: ignore[misc, unused-ignore]
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self._steps


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return a batch padded to its longest row."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    labels = torch.tensor([row["labels"] for row in rows])
    return {"input_ids": padded, "attention_mask": (padded != 0).long(), "labels": labels}


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
            f"it cannot be made with {dict(fields)}; pass its fields to the kit"
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
    if not (last := _loss(bench, run.model)) < 0.9 * run.loss:
        raise FaultError(
            f"the loss went from {run.loss:.3f} to {last:.3f} in {_STEPS} steps; it should fall"
        )


def reloads(bench: Bench) -> None:
    """An adapter that was saved and loaded on a fresh backbone gives equal logits."""
    # Another seed for the fresh head: what comes back must come from the file.
    torch.manual_seed(1)
    again = load_adapter(bench.adapter, bench.load(seed=9), bench.strategy, LABELS)
    _same(
        bench.logits(again),
        bench.logits(bench.learnt),
        _EXACT,
        "the adapter after a reload",
        "make everything that matters a parameter or a persistent buffer in prepare(), and draw "
        "what is random from a seed of its own",
    )


def finishes(bench: Bench) -> None:
    """`finish` gives a plain model with equal logits, and nothing of the strategy is left."""
    expected = bench.logits(bench.learnt)
    plain, merged = bench.load(), bench.finished()
    _same(
        bench.logits(merged), expected, _CLOSE, "the finished model", "fold all of it in finish()"
    )
    # What else may be left, `adapters.strategy.finish` refuses at any time.
    buffers = {name for name, _ in merged.named_buffers()} - {n for n, _ in plain.named_buffers()}
    if buffers and not bench.strategy.adds_layers:
        raise FaultError(f"finish() leaves {', '.join(sorted(buffers)[:3])}; remove it")
    merged.save_pretrained(bench.folder / "merged")
    again = load_backbone(bench.folder / "merged", LABELS, seed=9)
    _same(
        bench.logits(again),
        bench.logits(merged),
        _EXACT,
        "the finished model after a reload",
        "keep to weights that the plain model has",
    )


def pads(bench: Bench) -> None:
    """A text's logits do not depend on the texts beside it."""
    together = bench.logits(bench.learnt)
    for row, (ids, _) in enumerate(_TEXTS):
        alone = torch.tensor([ids])
        with torch.inference_mode():
            answer = bench.learnt(input_ids=alone, attention_mask=torch.ones_like(alone)).logits[0]
        _same(
            answer,
            together[row],
            _CLOSE,
            "a text alone and in a padded batch",
            "work on each token by itself, or heed the attention mask",
        )


def repeats(bench: Bench) -> None:
    """The same seed gives the same weights."""
    _same(
        bench.logits(bench.train(folder="again").model),
        bench.logits(bench.learnt),
        0.0,
        "a second training with the same seed",
        "draw everything from torch's generator or from a seed of your own",
    )


def resumes(bench: Bench) -> None:
    """A training that was stopped and resumed ends where an unbroken one ends."""
    # Some steps after the last checkpoint: these are lost.
    bench.train(folder="broken", stop_after=25)
    _same(
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
    _same(
        bench.logits(again),
        bench.logits(run.model),
        _EXACT,
        "the adapter on 4-bit weights, reloaded",
        "make everything that matters a parameter or a persistent buffer in prepare()",
    )


def continues(bench: Bench) -> None:
    """Next tasks with new labels begin with equal logits for the old labels, and reload."""
    _rehearses(bench.strategy)
    model, adapter, memory = bench.learnt, bench.adapter, {}
    for task, labels in (("second", (*LABELS, "fourth")), ("third", (*LABELS, "fourth", "fifth"))):
        strategy = bench.strategy
        memory = call(strategy, "between_tasks", model, _losses(bench, model), memory)
        before = bench.logits(model)
        grown = load_backbone(bench.backbone, labels, seed=9)
        model = continue_adapter(adapter, grown, strategy, memory)
        _same(
            bench.logits(model)[:, : before.shape[1]],
            before,
            _CLOSE,
            f"the {task} task's start",
            "let recall() bring back what between_tasks() has kept, and nothing else",
        )
        penalty = call(strategy, "penalty", model, memory)
        if penalty is not None and not torch.isfinite(penalty):
            raise FaultError(f"penalty() is {float(penalty)} at the start of the {task} task")
        adapter = bench.folder / task
        save_adapter(adapter, model, strategy, labels, memory)
        fresh = load_backbone(bench.backbone, labels, seed=8)
        _same(
            bench.logits(load_adapter(adapter, fresh, bench.strategy, labels)),
            bench.logits(model),
            _EXACT,
            f"the {task} task's adapter after a reload",
            "keep all that recall() needs in what between_tasks() returns",
        )


def _rehearses(strategy: Strategy) -> None:
    rows, again = (call(strategy, "rehearse", [0, 1, 2] * 4, [3] * 4, 16, 0) for _ in range(2))
    if any(row not in range(12) for row in rows):
        raise FaultError(f"rehearse() gives positions {list(rows)} for 12 earlier rows")
    if list(rows) != list(again):
        raise FaultError("rehearse() gives other rows for the same seed; draw them from its seed")


def _losses(bench: Bench, model: nn.Module) -> Iterator[Tensor]:
    for ids, label in _TEXTS:
        batch = collate([{"input_ids": ids, "labels": label}])
        yield Model(model, bench.strategy).eval()(**batch)["loss"]


def exports(bench: Bench) -> None:
    """The finished model becomes an ONNX graph with equal logits, at other shapes too."""
    from export.graph import export_onnx
    from export.session import open_model

    merged = bench.finished()
    inputs = {name: bench.batch[name] for name in ("input_ids", "attention_mask")}
    path = bench.folder / "model.onnx"
    export_onnx(merged, inputs, path, optimize="none", metadata={})
    run = open_model(path, 1)
    for part in (slice(0, 6), slice(1, 2)):
        length = int(inputs["attention_mask"][part].sum(1).max())
        piece = {name: tensor[part, :length] for name, tensor in inputs.items()}
        with torch.inference_mode():
            expected = merged(**piece).logits
        _same(
            torch.from_numpy(run(piece)),
            expected,
            _CLOSE,
            "the ONNX graph",
            "use operations of torch in forward(), and no shapes of the traced batch",
        )


CHECKS: dict[str, Callable[[Bench], None]] = {
    check.__name__: check
    for check in (
        learns,
        reloads,
        finishes,
        pads,
        repeats,
        resumes,
        works_quantized,
        continues,
        exports,
    )
}


def _loss(bench: Bench, model: nn.Module) -> float:
    return float(nn.functional.cross_entropy(bench.logits(model), bench.batch["labels"]))


def _same(found: Tensor, expected: Tensor, tolerance: float, what: str, remedy: str) -> None:
    largest = float((found - expected).abs().max())
    if not largest <= tolerance:
        raise FaultError(f"{what}: logits differ by {largest:.3g}; {remedy}")
