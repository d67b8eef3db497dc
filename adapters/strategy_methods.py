"""A strategy's optional methods, called and held to what they promise.

Whatever one gives that it must not becomes one message that names the strategy.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters.errors import AdapterError
from adapters.strategy import Strategy, call, called

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

_OPTIONAL = ("parameter_groups", "callbacks", "penalty", "between_tasks", "recall", "rehearse")


def check_signatures(strategy: Strategy) -> None:
    """Check that the optional methods take what they will be given, before anything learns.

    Raises:
        AdapterError: One does not.
    """
    for name in _OPTIONAL:
        own, arguments = getattr(strategy, name), inspect.signature(getattr(Strategy, name))
        places = list(arguments.parameters)[1:]
        try:
            inspect.signature(own).bind(*places)
        except TypeError as error:
            raise AdapterError(
                f"{called(strategy)} cannot be called as {name}({', '.join(places)}): {error}. "
                "Give the method these arguments."
            ) from None


def callbacks_of(strategy: Strategy, model: nn.Module) -> list[TrainerCallback]:
    """Return what `Strategy.callbacks` gives.

    Raises:
        AdapterError: It is no list of callbacks.
    """
    from transformers import TrainerCallback

    found = call(strategy, "callbacks", model)
    if not isinstance(found, list | tuple) or not all(
        isinstance(callback, TrainerCallback) for callback in found
    ):
        raise _wrong(strategy, "callbacks", found, "a list of transformers' TrainerCallbacks")
    return list(found)


def groups_of(
    strategy: Strategy, model: nn.Module, learning_rate: float
) -> list[dict[str, Any]] | None:
    """Return what `Strategy.parameter_groups` gives.

    Raises:
        AdapterError: It is no list of groups, or they do not hold every parameter that learns once.
    """
    groups = call(strategy, "parameter_groups", model, learning_rate)
    if groups is None:
        return None
    if not isinstance(groups, list | tuple) or not all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups
    ):
        asked = "dicts with a list of parameters under 'params', and any of 'lr' and 'weight_decay'"
        raise _wrong(strategy, "parameter_groups", groups, asked)
    names = {id(weight): name for name, weight in model.named_parameters() if weight.requires_grad}
    times = Counter(id(weight) for group in groups for weight in group["params"])
    missing = [name for key, name in names.items() if not times[key]]
    twice = [name for key, name in names.items() if times[key] > 1]
    for fault, found in (("leave out", missing), ("repeat", twice)):
        if found:
            more = " and others" if len(found) > 3 else ""
            raise AdapterError(
                f"{called(strategy)}: its parameter_groups() {fault} {', '.join(found[:3])}{more}; "
                "put every parameter that learns into one group."
            )
    return list(groups)


def penalty_of(strategy: Strategy, model: nn.Module, memory: Mapping[str, Tensor]) -> Tensor | None:
    """Return what `Strategy.penalty` gives.

    Raises:
        AdapterError: It is no tensor of a single number.
    """
    from torch import Tensor

    found = call(strategy, "penalty", model, memory)
    if found is None:
        return None
    if not isinstance(found, Tensor) or found.numel() != 1:
        raise _wrong(strategy, "penalty", found, "a tensor of one number, or None")
    return found.reshape(())


def memory_after(
    strategy: Strategy, model: nn.Module, losses: Iterable[Tensor], memory: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what `Strategy.between_tasks` gives.

    Raises:
        AdapterError: It is no mapping of names to tensors.
    """
    from torch import Tensor

    found = call(strategy, "between_tasks", model, losses, memory)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise _wrong(strategy, "between_tasks", found, "a dict of names and tensors")
    return found


def rows_again(
    strategy: Strategy, past: Sequence[int], new: Sequence[int], total: int, seed: int
) -> list[int]:
    """Return what `Strategy.rehearse` gives.

    Raises:
        AdapterError: It is no list of positions in ``past``.
    """
    found = call(strategy, "rehearse", past, new, total, seed)
    try:
        places = [place.__index__() for place in found]
    except (TypeError, AttributeError):
        raise _wrong(strategy, "rehearse", found, "a list of positions in `past`") from None
    if strange := [place for place in places if not 0 <= place < len(past)]:
        raise AdapterError(
            f"{called(strategy)} gives {strange[0]} from rehearse(), of {len(past)} rows of "
            "earlier tasks; it has to return positions in `past`."
        )
    return places


def _wrong(strategy: Strategy, method: str, found: Any, asked: str) -> AdapterError:
    told = " ".join(repr(found).split())
    shown = told if len(told) <= 60 else f"{told[:59]}…"
    return AdapterError(
        f"{called(strategy)} returned {shown} from {method}(); it has to return {asked}."
    )
