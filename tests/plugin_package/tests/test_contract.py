"""What Potstill asks of every strategy and every objective."""

from __future__ import annotations

import pytest
from potstill_scale.objective import Angle
from potstill_scale.strategy import Scale

from adapters.testing import check_strategy
from distill.testing import check_objective


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "llama", "deberta-v2"])
def test_the_strategy_keeps_its_contract(architecture: str) -> None:
    check_strategy(Scale, architectures=[architecture])


def test_the_objective_keeps_its_contract() -> None:
    check_objective(Angle)
