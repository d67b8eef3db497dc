"""Every built-in strategy passes the conformance kit.

`python -m adapters.testing --architectures …` makes every check of each on every architecture,
which takes the better part of an hour; here all take turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from adapters import strategies
from adapters.testing import check_strategy
from adapters.testing_checks import CHECKS
from adapters.tiny import ARCHITECTURES

ONCE = ("learns", "reloads", "finishes", "pads")
TWICE = (*ONCE, "repeats")
BROKEN = (*ONCE, "resumes")
FOUR_BITS = (*ONCE, "works_quantized")
NEXT = (*ONCE, "continues")
FOLDS = ("learns", "finishes")
#: The slowest by far. What is finished without added layers is the same graph for every strategy.
EXPORTED = ("finishes", "copies", "exports")

TURNS: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
    ("adalora", "gpt2", NEXT, {}),
    ("adalora", "roberta", BROKEN, {}),
    ("bitfit", "roberta", FOUR_BITS, {}),
    ("bottleneck", "distilbert", EXPORTED, {"placement": "parallel"}),
    ("bottleneck", "electra", FOUR_BITS, {"placement": "pfeiffer"}),
    ("bottleneck", "gpt2", EXPORTED, {"placement": "houlsby"}),
    ("dora", "modernbert", FOUR_BITS, {}),
    ("ewc", "bert", NEXT, {"base": {"name": "bitfit"}}),
    ("ewc", "mpnet", NEXT, {}),
    ("full", "deberta-v2", TWICE, {}),
    ("gradual_unfreezing", "roberta", BROKEN, {}),
    ("head", "llama", NEXT, {}),
    ("ia3", "distilbert", FOUR_BITS, {}),
    ("last_layers", "electra", FOUR_BITS, {"count": 1}),
    ("layerwise_rates", "llama", ONCE, {"base": {"name": "lora"}}),
    ("layerwise_rates", "mpnet", ONCE, {}),
    ("lora", "bert", EXPORTED, {}),
    ("lora", "llama", FOUR_BITS, {"rank": 4, "dropout": 0.1}),
    ("naive", "deberta-v2", NEXT, {}),
    ("norms", "gpt2", ONCE, {}),
    ("olora", "llama", NEXT, {}),
    ("peft", "bert", FOLDS, {"method": "HRA", "r": 4}),
    ("peft", "deberta-v2", FOLDS, {"method": "BOFT", "boft_block_size": 8}),
    ("peft", "distilbert", FOLDS, {"method": "OFT", "oft_block_size": 8}),
    ("peft", "electra", FOLDS, {"method": "LOHA", "r": 4}),
    ("peft", "gpt2", FOLDS, {"method": "LN_TUNING"}),
    ("peft", "modernbert", FOLDS, {"method": "LOKR", "r": 4}),
    ("peft", "mpnet", FOLDS, {"method": "MISS", "r": 4}),
    ("pissa", "distilbert", FOUR_BITS, {}),
    ("probe_then_full", "modernbert", BROKEN, {}),
    ("replay", "roberta", NEXT, {"base": {"name": "bottleneck"}}),
    ("rslora", "mpnet", ONCE, {}),
    ("token_lora", "roberta", FOLDS, {"token_rank": 2}),
    ("vera", "electra", NEXT, {"rank": 32}),
]


@pytest.mark.parametrize(
    ("name", "architecture", "checks", "fields"),
    TURNS,
    ids=[f"{name}-{architecture}" for name, architecture, _, _ in TURNS],
)
def test_built_in_strategies_pass(
    name: str, architecture: str, checks: Sequence[str], fields: dict[str, Any]
) -> None:
    check_strategy(strategies.get(name), architectures=[architecture], checks=checks, **fields)


def test_all_built_in_strategies_and_architectures_have_their_turn() -> None:
    own = {name for name, cls in strategies if cls.__module__.startswith("adapters.")}
    assert {name for name, *_ in TURNS} == own
    for architecture in ARCHITECTURES:
        assert len({name for name, there, *_ in TURNS if there == architecture}) >= 3
    assert {check for *_, checks, _ in TURNS for check in checks} == set(CHECKS)
