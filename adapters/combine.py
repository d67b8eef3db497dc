"""Merging of several adapters into one, by peft's own methods.

What can be merged is a low-rank update of linear layers, ``lora`` and what is saved like it, on the
plain weights of one backbone. The head is no update: heads are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from adapters.backbone import in_head, linear_layers
from adapters.errors import AdapterError
from adapters.files import (
    HARMLESS_STARTS,
    MEMORY,
    adapter_state,
    read_facts,
    read_state,
    save_adapter,
)
from adapters.shelf import label_rows
from adapters.strategy import Strategy, copy_state, prepare

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

#: peft's names for its ways to merge.
How = Literal[
    "linear", "ties", "dare_linear", "dare_ties",
    "cat", "svd", "ties_svd", "dare_linear_svd", "dare_ties_svd",
]  # fmt: skip
HOWS: tuple[How, ...] = get_args(How)
#: Those that work on the two factors of an update by themselves, which need an equal shape.
_OF_FACTORS: Mapping[str, str] = {
    "linear": "cat or svd",
    "ties": "ties_svd",
    "dare_linear": "dare_linear_svd",
    "dare_ties": "dare_ties_svd",
}
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class _Source:
    """A saved adapter, as merging needs it.

    Attributes:
        folder: Where it lies.
        config: peft's configuration of it, without the head.
        update: peft's name to tensor: the two factors of every adapted layer.
        head: Name in the plain model to tensor, rows in the order of the merged labels.
    """

    folder: Path
    config: Any
    update: Mapping[str, Tensor]
    head: Mapping[str, Tensor]

    @property
    def ranks(self) -> set[int]:
        """The ranks of its layers."""
        return {len(tensor) for name, tensor in self.update.items() if "lora_A" in name}


def combine_adapters(
    folders: Sequence[Path],
    load: Callable[[Sequence[str]], PreTrainedModel],
    out: Path,
    *,
    how: How,
    weights: Sequence[float] | None = None,
    density: float = 0.5,
    seed: int = 0,
) -> Strategy:
    """Merge low-rank adapters of one backbone into one and save it like any other.

    ``cat`` gives exactly the weighted sum of the updates, at the sum of their ranks; ``svd`` brings
    that sum to the largest of their ranks. The others work on the two factors of the updates apart
    or, with ``_svd`` at the end, on the updates themselves. ``linear`` adds the factors up, which
    is rough: a factor of one adapter meets the other factor of another. ``ties`` (Yadav et al.,
    2023, arXiv:2306.01708) keeps the largest values and drops those against the majority's sign,
    ``dare`` (Yu et al., 2023, arXiv:2311.03099) drops values at random.

    Args:
        folders: At least two, from `adapters.files.save_adapter`. The labels are matched by name;
            the result has the order of the first.
        load: Loads the backbone in float with a head for the given labels.
        out: Folder of the merged adapter.
        how: peft's name of the method.
        weights: One for each adapter; by default 1 for ``ties``, which takes a mean by itself, and
            equal shares of 1 for all others. Heads are averaged with the same weights, over their
            sum.
        density: Share of values that ``ties`` and ``dare`` keep.
        seed: Seed of what ``dare`` drops.

    Returns:
        The strategy of the merged adapter: plain ``lora``, with ``alpha`` equal to the rank.

    Raises:
        AdapterError: An adapter cannot be merged, or they do not go together.
    """
    shares = _checked_weights(weights, len(folders), how, density)
    labels = _common_labels(folders)
    model = load(labels)
    sources = [_read(folder, model, labels) for folder in folders]
    _check_ranks(sources, how)
    update = _merged_update(sources, load(labels), shares, how, density, seed)
    strategy = _strategy(model, update)
    prepared = prepare(model, strategy)
    head = {
        f"{_PREFIX}{name}": sum(
            share / sum(shares) * source.head[name]
            for share, source in zip(shares, sources, strict=True)
        )
        for name in sources[0].head
    }
    copy_state(adapter_state(prepared), {**update, **head})  # type: ignore[dict-item]
    save_adapter(out, prepared, strategy, labels)
    return strategy


def _checked_weights(
    weights: Sequence[float] | None, count: int, how: str, density: float
) -> Sequence[float]:
    if count < 2:
        raise AdapterError("Merging takes at least two adapters; name some more.")
    if not 0 < density <= 1:
        raise AdapterError(f"density={density:g} is a share of values to keep: above 0, at most 1.")
    if weights is None:
        return [1.0 if "ties" in how else 1 / count] * count
    if len(weights) != count:
        raise AdapterError(f"There are {count} adapters and {len(weights)} weights; give one each.")
    if not all(0 < weight < math.inf for weight in weights):
        raise AdapterError(
            f"The weights {list(weights)} have to be numbers above 0. An adapter that should not "
            "count is left out."
        )
    return weights


def _common_labels(folders: Sequence[Path]) -> list[str]:
    first: list[str] = read_facts(folders[0])["labels"]
    for folder in folders[1:]:
        other = read_facts(folder)["labels"]
        if sorted(other) != sorted(first):
            odd = ", ".join(sorted(set(first) ^ set(other))[:5])
            raise AdapterError(
                f"{folders[0]} and {folder} do not have the same labels ({odd} on one side only), "
                "and one head cannot answer both. Merge adapters of the same labels."
            )
    return first


def _read(folder: Path, model: PreTrainedModel, labels: Sequence[str]) -> _Source:
    """Read an adapter and check that it is a plain low-rank update and a head."""
    from peft import PeftConfig

    facts = read_facts(folder)
    name = facts["strategy"]["name"]

    def refusal(reason: str) -> AdapterError:
        return AdapterError(
            f"The adapter in {folder} ({name}) cannot be merged with others: {reason}. Low-rank "
            "updates of plain weights can: lora, rslora, and strategies around them."
        )

    if not (folder / "adapter_config.json").exists():
        reason = "it is not one of peft's"
        if any(".lora_A." in key for key in read_state(folder)):
            reason = "it stands on changed weights of the backbone"
        if (folder / MEMORY).exists():
            reason = "the updates of earlier tasks lie beside it"
        raise refusal(reason)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise refusal(f"its adapter_config.json is damaged ({error})") from error
    if config.peft_type != "LORA":
        raise refusal(f"peft merges LoRA only, not {config.peft_type.value}")
    if config.init_lora_weights not in HARMLESS_STARTS:
        raise refusal(
            f"it stands on changed weights of the backbone ({config.init_lora_weights} moves a "
            "part of them into the update)"
        )
    state = read_state(folder)
    head = {name: state.pop(name) for name in list(state) if in_head(model, _plain(name))}
    strange = [key for key in state if not key.endswith((".lora_A.weight", ".lora_B.weight"))]
    if strange:
        raise refusal(f"it has more than the two factors of an update ({_plain(strange[0])})")
    config.modules_to_save, config.init_lora_weights = None, True
    order = [facts["labels"].index(label) for label in labels]
    by_label = label_rows(model)
    named = {_plain(key): tensor for key, tensor in head.items()}
    return _Source(
        folder,
        config,
        state,
        {key: tensor[order] if key in by_label else tensor for key, tensor in named.items()},
    )


def _plain(name: str) -> str:
    """Return the name that a parameter has in the plain model."""
    return name.removeprefix(_PREFIX)


def _check_ranks(sources: Sequence[_Source], how: str) -> None:
    ranks = [sorted(source.ranks) for source in sources]
    if how in _OF_FACTORS and len({rank for some in ranks for rank in some}) > 1:
        told = ", ".join("/".join(map(str, some)) for some in ranks)
        raise AdapterError(
            f"The adapters have the ranks {told}, and {how} needs equal ones. Merge them with "
            f"{_OF_FACTORS[how]}."
        )


def _merged_update(
    sources: Sequence[_Source],
    model: PreTrainedModel,
    weights: Sequence[float],
    how: How,
    density: float,
    seed: int,
) -> dict[str, Tensor]:
    """Let peft merge; return the factors of the result, by the names that an adapter's file has."""
    import torch
    from peft import get_peft_model

    names = [f"source{number}" for number in range(len(sources))]
    wrapped: Any = get_peft_model(model, sources[0].config, adapter_name=names[0])
    for name, source in zip(names, sources, strict=True):
        if name != names[0]:
            wrapped.add_adapter(name, source.config)
        try:
            copy_state(_factors(wrapped, name), source.update)
        except AdapterError as error:
            raise AdapterError(f"{source.folder}: {error}") from error
    torch.manual_seed(seed)
    try:
        wrapped.add_weighted_adapter(
            names, list(weights), "merged", how, density=density, svd_full_matrices=False
        )
    except (ValueError, RuntimeError) as error:
        raise AdapterError(f"peft does not merge these adapters by {how}: {error}.") from error
    return _factors(wrapped, "merged")


def _factors(model: Any, adapter: str) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(
        model, adapter_name=adapter, save_embedding_layers=False
    )
    return state


def _strategy(model: PreTrainedModel, update: Mapping[str, Tensor]) -> Strategy:
    """Return the plain LoRA that has such factors; the weights and scales are inside them."""
    from adapters.builtin.low_rank import Lora

    layers = [_plain(name).removesuffix(".lora_A.weight") for name in update if "lora_A" in name]
    rank = max(len(tensor) for name, tensor in update.items() if "lora_A" in name)
    endings = tuple(sorted({layer.rpartition(".")[2] for layer in layers}))
    for targets in ((), endings):
        if set(linear_layers(model, targets)) == set(layers):
            return Lora(rank=rank, alpha=float(rank), targets=targets)
    return Lora(rank=rank, alpha=float(rank), targets=tuple(layers))
