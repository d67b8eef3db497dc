"""What a strategy's optional methods may give, and what is said of anything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapters import AdapterError, Strategy
from adapters.strategy_methods import memory_after, penalty_of, rows_again

NOTHING = torch.nn.Linear(2, 2)


def strategy(**methods: Any) -> Strategy:
    """Return a strategy whose methods give these values."""
    made = {name: lambda *_, given=given: given for name, given in methods.items()}
    return type("Odd", (Strategy,), {"__doc__": "Is odd.", **made})()


@pytest.mark.parametrize("given", [None, 7, ["a"], [0.5], [3], [-1]])
def test_rehearse_gives_positions(given: Any) -> None:
    with pytest.raises(AdapterError, match=r"The strategy Odd.* from rehearse\(\).*positions"):
        rows_again(strategy(rehearse=given), [0, 1, 2], [3], 4, 0)


def test_positions_may_come_from_numpy_and_repeat() -> None:
    assert rows_again(strategy(rehearse=np.array([2, 0, 2])), [0, 1, 2], [3], 4, 0) == [2, 0, 2]


@pytest.mark.parametrize("given", [None, [torch.ones(1)], {"a": 1.0}, {1: torch.ones(1)}])
def test_between_tasks_gives_named_tensors(given: Any) -> None:
    with pytest.raises(AdapterError, match=r"from between_tasks\(\); it has to return a dict"):
        memory_after(strategy(between_tasks=given), NOTHING, [], {})


@pytest.mark.parametrize("given", ["x", 0.5, torch.ones(3)])
def test_penalty_is_one_number(given: Any) -> None:
    with pytest.raises(AdapterError, match=r"from penalty\(\); it has to return a tensor of one"):
        penalty_of(strategy(penalty=given), NOTHING, {})


def test_a_penalty_of_one_number_is_a_scalar() -> None:
    found = penalty_of(strategy(penalty=torch.ones(1)), NOTHING, {})
    assert found is not None
    assert found.shape == ()
    assert penalty_of(strategy(penalty=None), NOTHING, {}) is None
