"""A conformance kit: whether a strategy keeps its contract, tried on tiny random models.

For an author's own tests::

    from adapters.testing import check_strategy

    def test_my_strategy_keeps_the_contract():
        check_strategy(MyStrategy, rank=4)

From the command line, for the strategies that are registered::

    python -m adapters.testing lora dora --architectures bert modernbert
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from adapters.strategy import Strategy, strategies
from adapters.tiny import ARCHITECTURES

#: What is tried unless told otherwise: the plainest encoder, one with fused projections and
#: normalization first, and a decoder.
USUAL = ("bert", "modernbert", "llama")


class ConformanceError(AdapterError, AssertionError):
    """A strategy breaks its contract.

    Attributes:
        check: Name of the check that failed.
        architecture: Where it failed.
    """

    def __init__(self, strategy: str, check: str, architecture: str, fault: str) -> None:
        super().__init__(f"{strategy} fails the check {check!r} on {architecture}: {fault}")
        self.check = check
        self.architecture = architecture


def check_strategy(
    cls: type[Strategy],
    *,
    architectures: Sequence[str] = USUAL,
    checks: Sequence[str] | None = None,
    **fields: Any,
) -> None:
    """Hold a strategy against its contract.

    Args:
        cls: The class, registered or not.
        architectures: On which tiny random models; any of `adapters.tiny.ARCHITECTURES`.
        checks: Which checks; all of `adapters.testing_checks.CHECKS` if left out.
        **fields: Values of the strategy's fields; defaults for the others.

    Raises:
        ConformanceError: The first check that fails, with what was found and what to do. Where the
            strategy itself raised something, that is its cause.
    """
    from adapters.testing_checks import CHECKS, Bench, FaultError, constructs, quiet

    name = cls.__qualname__
    wanted = list(CHECKS) if checks is None else list(checks)
    if unknown := set(wanted) - set(CHECKS):
        raise AdapterError(f"There are no checks {sorted(unknown)}; there are {list(CHECKS)}.")
    try:
        strategy = constructs(cls, fields)
    except FaultError as fault:
        raise ConformanceError(name, "fields", "any architecture", str(fault)) from fault.__cause__
    for architecture in architectures:
        with tempfile.TemporaryDirectory() as folder, strategies.known(cls), quiet():
            bench = Bench(Path(folder), architecture, strategy)
            for check in wanted:
                try:
                    CHECKS[check](bench)
                except FaultError as fault:
                    raise ConformanceError(name, check, architecture, str(fault)) from None
                except AdapterError as error:
                    cause = error.__cause__ or error
                    raise ConformanceError(name, check, architecture, str(error)) from cause
                except Exception as error:
                    told = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    raise ConformanceError(name, check, architecture, told) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Check registered strategies; print a line each; return 1 if any fails."""
    parser = argparse.ArgumentParser(
        prog="python -m adapters.testing", description="Hold strategies against their contract."
    )
    parser.add_argument("names", nargs="*", help="registered names (default: all)")
    parser.add_argument("--architectures", nargs="+", default=USUAL, choices=ARCHITECTURES)
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.names or strategies.names():
        for architecture in options.architectures:
            start = time.perf_counter()
            try:
                check_strategy(
                    strategies.get(name), architectures=[architecture], **EXAMPLES.get(name, {})
                )
                said = "passes"
            except AdapterError as error:
                failed += 1
                said = str(error)
            print(f"{name:<20}{architecture:<12}{time.perf_counter() - start:5.1f} s  {said}")
            sys.stdout.flush()
    return 1 if failed else 0


#: Fields of built-in strategies that need some, or whose defaults do not suit a tiny model.
EXAMPLES: dict[str, dict[str, Any]] = {
    "last_layers": {"count": 1},
    "peft": {"method": "LOHA", "r": 4},
    "vera": {"rank": 32},
}

if __name__ == "__main__":
    sys.exit(main())
