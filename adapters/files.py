"""An adapter on disk: what was learnt, the strategy that learnt it, the labels it speaks of.

Where peft implements the strategy the folder is one of peft's own, head included, and plain peft
loads it: ``PeftModel.from_pretrained(model, folder)``. An adapter that stands on frozen ones of
earlier tasks, or on the rest of quantized weights whose principal part has moved into it, is none
that peft knows; its folder has no ``adapter_config.json``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from adapters.backbone import head_modules
from adapters.errors import AdapterError
from adapters.strategy import (
    AnyStrategy,
    Strategy,
    copy_state,
    learned_state,
    prepare,
    strategies,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
FACTS = "adapter.json"
MEMORY = "memory.safetensors"
#: Beginnings of a low-rank update that leave the backbone's own weights as they are.
HARMLESS_STARTS = (True, False, "gaussian", "orthogonal", "eva")


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return all that an adapter consists of, by the names that its file has.

    These are the parameters that learn, the head's among them, and whatever the strategy brought
    along that does not learn, such as random projections. The tensors share their memory with the
    model's.

    Args:
        model: From `adapters.strategy.prepare`.
    """
    from peft import PeftModel, get_peft_model_state_dict

    learned = learned_state(model)
    if not isinstance(model, PeftModel):
        added: Any = model.potstill_added
        return {**learned, **{name: _tensor(model, name) for name in added}}
    state: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    covered = {tensor.data_ptr() for tensor in state.values()}
    return {**state, **{n: t for n, t in learned.items() if t.data_ptr() not in covered}}


def save_adapter(
    folder: Path,
    model: nn.Module,
    strategy: Strategy,
    labels: Sequence[str],
    memory: Mapping[str, Tensor] | None = None,
) -> None:
    """Write what the model has learnt, the head included, with the strategy and the labels.

    Args:
        folder: Where ``adapter_model.safetensors`` and ``adapter.json`` go, and peft's
            ``adapter_config.json`` where peft has the method; made if it is not there.
        model: A model from `adapters.strategy.prepare`, trained.
        strategy: The strategy that prepared it.
        labels: Label names in the order of their ids.
        memory: What the strategy remembers of earlier tasks, as `prepare` was given it.
    """
    from peft import PeftModel
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_on_disk(adapter_state(model)), folder / WEIGHTS)
    if memory:
        save_file(_on_disk(memory), folder / MEMORY)
    beside = bool(memory) and strategy.fresh_for_each_task
    if isinstance(model, PeftModel) and not beside and not _moved_by_us(model):
        _peft_config(model).save_pretrained(str(folder))
    facts = {"strategy": strategies.plain(strategy), "labels": list(labels)}
    # Last, and at once: where it is, the adapter is whole.
    partial = folder / f".{FACTS}.partial"
    partial.write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")
    partial.replace(folder / FACTS)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the ``strategy`` and the ``labels`` of a saved adapter, as plain data.

    Raises:
        AdapterError: There is no adapter, or its file is broken.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return {"strategy": dict(facts["strategy"]), "labels": list(facts["labels"])}
    except FileNotFoundError as error:
        raise AdapterError(
            f"There is no adapter in {folder}: {FACTS} is missing. Name the folder that "
            "fine-tuning wrote, such as runs/lora_cls/teacher."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{folder / FACTS} is damaged ({error}). Train the adapter anew."
        ) from error


def read_state(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of a saved adapter, by the names that its file has.

    Raises:
        AdapterError: The file is not there, or broken.
    """
    return _read(folder / WEIGHTS)


def saved_strategy(folder: Path) -> Strategy:
    """Return the strategy that a saved adapter was trained with.

    Raises:
        AdapterError: There is no adapter, its file is broken, or the strategy is not known here.
    """
    plain = read_facts(folder)["strategy"]
    strategy: Strategy = TypeAdapter(AnyStrategy).validate_python(plain)
    return strategy


def read_memory(folder: Path) -> dict[str, Tensor]:
    """Return what the strategy of a saved adapter remembers of earlier tasks; empty for nothing."""
    return _read(folder / MEMORY) if (folder / MEMORY).exists() else {}


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            f"{file} is missing or damaged ({error}). Put it back, or train the adapter anew."
        ) from error


def load_adapter(
    folder: Path, model: PreTrainedModel, strategy: Strategy, labels: Sequence[str]
) -> nn.Module:
    """Put a saved adapter on a freshly loaded backbone.

    Args:
        folder: What `save_adapter` wrote.
        model: The backbone, quantized or not; it need not be the one that was trained on.
        strategy: The strategy of the recipe.
        labels: The labels of the data, in the order of their ids.

    Returns:
        The prepared model with the learnt weights, in evaluation mode.

    Raises:
        AdapterError: The adapter belongs to another strategy, other labels or another backbone.
    """
    facts = read_facts(folder)
    if facts["labels"] != list(labels):
        raise AdapterError(
            f"The adapter in {folder} was trained for the labels {facts['labels']}, the data now "
            f"have {list(labels)}. Train it anew, or bring back the data it was trained on."
        )
    if saved_strategy(folder) != strategy:
        raise AdapterError(
            f"The adapter in {folder} was trained with {facts['strategy']}, the recipe now says "
            f"{strategies.plain(strategy)}. Train it anew, or bring back the old strategy."
        )
    prepared = prepare(model, strategy, read_memory(folder))
    copy_state(adapter_state(prepared), read_state(folder))
    return prepared.eval()


def continue_adapter(
    folder: Path, model: PreTrainedModel, strategy: Strategy, memory: Mapping[str, Tensor]
) -> nn.Module:
    """Prepare a backbone for the task after the one that a saved adapter has learnt.

    Args:
        folder: What `save_adapter` wrote after the last task.
        model: The backbone, with a head for the labels of that task and any new ones after them.
        strategy: The strategy of both tasks.
        memory: What the strategy remembers of all tasks so far.

    Returns:
        The prepared model, with the head of the last task, and with its other learnt weights too
        unless the strategy starts afresh.

    Raises:
        AdapterError: The adapter belongs to another backbone or strategy.
    """
    head = {id(p) for n in head_modules(model) for p in model.get_submodule(n).parameters()}
    prepared = prepare(model, strategy, memory)
    targets, state = adapter_state(prepared), read_state(folder)
    if strategy.fresh_for_each_task:
        kept = {name for name, p in prepared.named_parameters() if id(p) in head}
        targets = {name: tensor for name, tensor in targets.items() if name in kept}
        state = {name: tensor for name, tensor in state.items() if name in kept}
    copy_state(targets, state, extend=True)
    return prepared


def _on_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Cloned: safetensors refuses tensors that share their memory.
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def _tensor(model: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    return getattr(model.get_submodule(owner), last).detach()  # type: ignore[no-any-return]


def _moved_by_us(model: Any) -> bool:
    """Tell whether the updates stand on a rest of the weights that plain peft cannot make again.

    It splits float weights into an update's start and a rest, and refuses quantized ones.
    """
    start = getattr(model.peft_config["default"], "init_lora_weights", True)
    quantized = any(not weight.is_floating_point() for weight in model.parameters())
    return quantized and start not in HARMLESS_STARTS


def _peft_config(model: Any) -> Any:
    """Return peft's configuration as plain peft needs it to load adapter and head."""
    config = copy.copy(model.peft_config["default"])
    config.inference_mode = True
    config.modules_to_save = head_modules(model.get_base_model())
    # The path on this machine would mean nothing elsewhere.
    config.base_model_name_or_path = None
    return config
