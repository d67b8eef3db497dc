"""An adapter on disk: what was learnt, the strategy that learnt it, the labels it speaks of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.errors import AdapterError
from adapters.strategy import Strategy, learned_state, load_learned_state, prepare, strategies

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

WEIGHTS = "adapter.safetensors"
FACTS = "adapter.json"


def save_adapter(folder: Path, model: nn.Module, strategy: Strategy, labels: Sequence[str]) -> None:
    """Write what the model has learnt, the head included, with the strategy and the labels.

    Args:
        folder: Where ``adapter.safetensors`` and ``adapter.json`` go; made if it is not there.
        model: A model from `adapters.strategy.prepare`, trained.
        strategy: The strategy that prepared it.
        labels: Label names in the order of their ids.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in learned_state(model).items()}
    save_file(state, folder / WEIGHTS)
    name = strategies.name_of(type(strategy))
    facts = {"strategy": {"name": name, **strategy.model_dump(mode="json")}, "labels": list(labels)}
    (folder / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False), encoding="utf-8")


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
    from safetensors.torch import load_file

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["labels"] != list(labels):
        raise AdapterError(
            f"The adapter in {folder} was trained for the labels {facts['labels']}, the data now "
            f"have {list(labels)}. Train it anew, or bring back the data it was trained on."
        )
    name = strategies.name_of(type(strategy))
    if facts["strategy"] != {"name": name, **strategy.model_dump(mode="json")}:
        raise AdapterError(
            f"The adapter in {folder} was trained with {facts['strategy']}, the recipe now says "
            f"{name} {strategy!r}. Train it anew, or bring back the old strategy."
        )
    prepared = prepare(model, strategy)
    load_learned_state(prepared, load_file(folder / WEIGHTS))
    return prepared.eval()
