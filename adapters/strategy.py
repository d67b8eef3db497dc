"""The contract of a strategy: how a backbone learns, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from adapters.errors import AdapterError
from adapters.outline import Outline
from adapters.registry import Registry, by_name

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, TrainerCallback


class Strategy(BaseModel):
    """One way to adapt a backbone; its fields are its hyper-parameters.

    Subclass it, give the fields types and defaults, write the two methods and register the class::

        @strategies.register("scale")
        class Scale(Strategy):
            \"\"\"One line that `python -m recipes.list strategies` shows.\"\"\"

            start: float = 1.0

            def prepare(self, model): ...
            def finish(self, model): ...

    Fields are checked strictly when the recipe is read: an unknown one or a wrong type is refused
    before anything is loaded. An instance is frozen; whatever learns lives in the model. All other
    methods are optional. `adapters.testing.check_strategy` tries a class against this contract.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    #: Where the method comes from, for lists and reports: authors, year, arXiv number.
    paper: ClassVar[str] = ""
    #: Whether `prepare` needs weights that can take gradients, and so a backbone that is not
    #: quantized. A recipe that asks for both is refused before anything is loaded.
    needs_float_weights: ClassVar[bool] = False
    #: Whether nothing but the head learns, on purpose.
    trains_head_only: ClassVar[bool] = False
    #: Whether `finish` leaves layers in the model that no plain weights can express. They are put
    #: back by `prepare` whenever the finished model is loaded, or a student that has only some of
    #: its layers, and exported inside the graph. A student is a copy, and copying goes through
    #: modules and not into closures: a hook has to reach its layer through its first argument, as
    #: in ``lambda layer, inputs, output: output + layer.extra(output)``.
    adds_layers: ClassVar[bool] = False
    #: Whether each task of several starts with fresh weights beside what `recall` brings back,
    #: rather than with the last task's weights. The head always goes on.
    fresh_for_each_task: ClassVar[bool] = False
    #: Whether classes that no row of a task has are left out of its loss, so that learning new
    #: ones does not push the old ones down (Caccia et al., 2022, arXiv:2104.05025).
    isolates_tasks: ClassVar[bool] = False

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Make the model ready to learn.

        Args:
            model: The backbone with its head, every parameter frozen. Linear layers may be
                bitsandbytes' quantized ones.

        Returns:
            The model, or a wrapper with the same call signature and ``config``, in which only what
            should learn has ``requires_grad``. The head need not be switched on: it always learns.

        Raises:
            UnsuitableBackboneError: The method makes no sense on this architecture.
            NeedsFloatWeightsError: The method cannot work on weights that are quantized.
        """
        raise NotImplementedError

    def finish(self, model: nn.Module) -> PreTrainedModel:
        """Fold what was learnt into plain weights.

        Args:
            model: What `prepare` returned, trained, on float weights.

        Returns:
            A plain transformers model with equal logits, in which nothing of the strategy is left,
            not even in its configuration. A class with `adds_layers` leaves just these layers.
        """
        raise NotImplementedError

    def parameter_groups(
        self, model: nn.Module, learning_rate: float
    ) -> list[dict[str, Any]] | None:
        """Return groups of parameters with learning rates of their own; None for one rate for all.

        Args:
            model: What `prepare` returned.
            learning_rate: The recipe's.

        Returns:
            Dicts as torch's optimizers take them: ``params``, a list, and any of ``lr`` and
            ``weight_decay``. Together they hold every parameter that learns.
        """
        return None

    def callbacks(self, model: nn.Module) -> Sequence[TrainerCallback]:
        """Return what should be called during training, as transformers' Trainer does.

        A callback may switch ``requires_grad`` of parameters that `prepare` has declared to learn.
        One whose state has to survive a restart has ``state_dict()`` and ``load_state_dict()``, of
        tensors and plain values; they travel in the checkpoints.

        Args:
            model: What `prepare` returned.
        """
        return ()

    def penalty(self, model: nn.Module, memory: Mapping[str, Tensor]) -> Tensor | None:
        """Return a scalar that is added to the loss of a step; None for nothing.

        Args:
            model: What `prepare` returned.
            memory: What `between_tasks` returned after the last task; empty in the first.
        """
        return None

    def between_tasks(
        self, model: nn.Module, losses: Iterable[Tensor], memory: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what the next tasks should remember of one that has been learnt.

        Args:
            model: What `prepare` returned, trained, in evaluation mode.
            losses: Losses of single training rows, in a random order, computed as they are asked
                for, with gradients.
            memory: What this method returned after the task before; empty after the first.

        Returns:
            Name to tensor, kept on disk beside the adapter.
        """
        return {}

    def recall(self, model: nn.Module, memory: Mapping[str, Tensor]) -> None:
        """Put what is remembered of earlier tasks into a model that was just prepared.

        Args:
            model: What `prepare` returned; changed in place.
            memory: What `between_tasks` returned after the last task.
        """

    def rehearse(
        self, past: Sequence[int], new: Sequence[int], total: int, seed: int
    ) -> Sequence[int]:
        """Choose rows of earlier tasks to learn again beside the rows of a new one.

        Args:
            past: Label ids of all rows of earlier tasks, in their order.
            new: Label ids of the new task's rows.
            total: How many training rows all tasks have together.
            seed: Seed of whatever is drawn.

        Returns:
            Positions in `past`; one may come several times.
        """
        return ()


strategies: Registry[type[Strategy]] = Registry(
    "strategy", group="potstill.strategies", base=Strategy
)

#: The type of a field that holds another strategy, such as ``{name: lora, rank: 8}``.
AnyStrategy = Annotated[Strategy, *by_name(strategies)]


def prepare(
    model: PreTrainedModel, strategy: Strategy, memory: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Freeze the model, let the strategy switch on what should learn, and switch on the head.

    Args:
        model: From `adapters.backbone.load_backbone`.
        strategy: The strategy to apply.
        memory: What the strategy remembers of earlier tasks; nothing in a first one.

    Returns:
        The model to train.

    Raises:
        AdapterError: The strategy fails, or breaks its contract: it returned something that is not
            a module, replaced or copied the head, changed the labels, or left nothing to learn.
    """
    from torch import nn

    from adapters.backbone import head_modules

    labels, outline = dict(model.config.id2label), Outline.of(model)
    head = [model.get_submodule(name) for name in head_modules(model)]
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    model.requires_grad_(False)
    prepared: Any = call(strategy, "prepare", model)
    who = called(strategy)
    if not isinstance(prepared, nn.Module):
        raise AdapterError(
            f"{who} returned {type(prepared).__name__} from prepare(); it has to return the model."
        )
    _check_head(prepared, head, who)
    _check_labels(prepared, labels, f"{who} changed the labels in prepare()")
    if "default" not in getattr(prepared, "peft_config", {"default": None}):
        raise AdapterError(
            f"{who} wraps the model by peft with an adapter_name of its own; leave that out, so "
            "that the adapter is called 'default'."
        )
    for module in head:
        module.requires_grad_(False)
    if not strategy.trains_head_only and not any(p.requires_grad for p in prepared.parameters()):
        raise AdapterError(
            f"{who} leaves nothing to learn but the head: switch requires_grad on in prepare() for "
            "what should learn. To train only the head, use the strategy 'head'."
        )
    if memory:
        call(strategy, "recall", prepared, memory)
    for module in head:
        module.requires_grad_(True)
    # Tensors that the strategy brought along and that do not learn: an adapter needs them too.
    kept = prepared.state_dict().keys()
    tensors = (*prepared.named_parameters(), *prepared.named_buffers())
    added = [n for n, t in tensors if n in kept and id(t) not in own and not t.requires_grad]
    prepared.potstill_added = added  # type: ignore[assignment]
    prepared.potstill_outline = outline  # type: ignore[assignment]
    return prepared


def finish(model: nn.Module, strategy: Strategy) -> PreTrainedModel:
    """Let the strategy fold what was learnt into plain weights.

    Args:
        model: From `prepare`, trained, on float weights.
        strategy: The strategy that prepared it.

    Returns:
        The plain model, in evaluation mode.

    Raises:
        AdapterError: The strategy fails, or breaks its contract: it returned something that is not
            a transformers model, changed the labels, or left something of its own in the model.
    """
    from transformers import PreTrainedModel

    config: Any = model.config
    labels, outline = dict(config.id2label), getattr(model, "potstill_outline", None)
    plain: Any = call(strategy, "finish", model)
    who = called(strategy)
    if not isinstance(plain, PreTrainedModel):
        raise AdapterError(
            f"{who} returned {type(plain).__name__} from finish(); it has to return the plain "
            "transformers model."
        )
    _check_labels(plain, labels, f"{who} changed the labels in finish()")
    fault = outline and outline.fault(Outline.of(plain), may_add=strategy.adds_layers)
    if fault:
        raise AdapterError(
            f"{who} does not give the plain model back: finish() {fault}. "
            "adapters.testing.check_strategy tries it in seconds."
        )
    if strategy.adds_layers:
        plain.config.potstill_strategy = strategies.plain(strategy)
    return plain.eval()


def learned_state(model: nn.Module) -> dict[str, Any]:
    """Return what training changes: name to tensor, for every parameter that learns."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def copy_state(
    targets: Mapping[str, Tensor], state: Mapping[str, Tensor], *, extend: bool = False
) -> None:
    """Copy tensors by name, after a check that names and shapes are the same.

    Args:
        targets: Where to; changed in place.
        state: What to copy.
        extend: Let a target have more rows than its tensor: the first ones are copied, the others
            stay as they are.

    Raises:
        AdapterError: A name or a shape is on one side only.
    """
    if set(targets) != set(state):
        odd = sorted(set(targets) ^ set(state))[:3]
        raise AdapterError(
            f"The saved adapter does not fit this backbone and strategy: {', '.join(odd)} "
            "is on one side only. Use the recipe that it was trained with."
        )
    for name, tensor in state.items():
        target = targets[name]
        if (
            extend
            and target.ndim
            and target.shape[1:] == tensor.shape[1:]
            and len(target) >= len(tensor)
        ):
            target = target[: len(tensor)]
        if target.shape != tensor.shape:
            raise AdapterError(
                f"The saved adapter does not fit: {name} is {tuple(tensor.shape)} in the file and "
                f"{tuple(target.shape)} in the model. Use the recipe that it was trained with."
            )
        target.data.copy_(tensor)


def _check_head(prepared: nn.Module, head: Sequence[nn.Module], who: str) -> None:
    modules = list(prepared.modules())
    if not set(map(id, head)) <= set(map(id, modules)):
        raise AdapterError(
            f"{who} replaced the model's head in prepare(); leave the head in place, it is trained "
            "in any case."
        )
    # Where peft is to save a module it trains a copy of it, and keeps the original one beside it.
    parts = {id(part) for module in head for part in module.modules()}
    if any(id(getattr(module, "original_module", None)) in parts for module in modules):
        raise AdapterError(
            f"{who} lets peft train a copy of the model's head. Leave the head to Potstill, which "
            "trains and saves it in any case: no task_type, and no part of it in modules_to_save."
        )


def _check_labels(model: Any, labels: Mapping[int, str], fault: str) -> None:
    found = dict(getattr(getattr(model, "config", None), "id2label", {}))
    if found != dict(labels):
        raise AdapterError(
            f"{fault}: the model had {list(labels.values())}, now it has {list(found.values())}. "
            "Leave model.config.id2label and the head's size alone; a wrapper needs the model's "
            "config as its own."
        )


def call(strategy: Strategy, method: str, *arguments: Any) -> Any:
    """Call a strategy's method; whatever it trips over becomes one message that names it.

    Args:
        strategy: Whose method.
        method: Its name.
        *arguments: What it is given.

    Raises:
        AdapterError: The method raised something else than an `AdapterError`.
    """
    return strategies.call(
        strategy, method, *arguments,
        passes=(AdapterError,),
        advice="Mend it (adapters.testing.check_strategy shows the whole story), or choose another "
        "strategy or backbone.",
    )  # fmt: skip


def called(strategy: Strategy) -> str:
    """Return how messages call a strategy: by its name, and its file if that is an outsider's."""
    return strategies.called(strategy)
