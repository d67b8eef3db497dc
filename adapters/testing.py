"""A conformance kit: whether a strategy keeps its contract, tried on tiny random models.

For an author's own tests::

    from adapters.testing import check_strategy

    def test_my_strategy_keeps_the_contract():
        check_strategy(MyStrategy, rank=4)

From the command line, for the strategies that are registered::

    python -m adapters.testing lora dora --architectures bert modernbert
    python -m adapters.testing --plugin my_strategies.py
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from adapters.plugins import load_plugins
from adapters.registry import RegistryError
from adapters.strategy import Strategy, strategies
from adapters.tiny import ARCHITECTURES

#: What is tried unless told otherwise: the plainest encoder, one with fused projections and
#: normalization first, and a decoder.
USUAL = ("bert", "modernbert", "llama")

DEVICES = ("cpu", "cuda")


class ConformanceError(AdapterError, AssertionError):
    """A strategy breaks its contract.

    Attributes:
        check: Name of the check that failed; ``fields`` for the class itself, ``fits`` if it fits
            no architecture.
        architecture: Where it failed.
    """

    def __init__(self, strategy: str, check: str, architecture: str, fault: str) -> None:
        super().__init__(f"{strategy} fails the check {check!r} on {architecture}: {fault}")
        self.check = check
        self.architecture = architecture


def check_strategy(
    cls: type[Strategy],
    /,
    *,
    architectures: Sequence[str] = USUAL,
    checks: Sequence[str] | None = None,
    device: str = "cpu",
    **fields: Any,
) -> dict[str, str]:
    """Hold a strategy against its contract.

    Args:
        cls: The class, registered or not; by position, so that a field may be called that.
        architectures: On which tiny random models; any of `adapters.tiny.ARCHITECTURES`.
        checks: Which checks; all of `adapters.testing_checks.CHECKS` if left out.
        device: Where the models are, ``"cpu"`` or ``"cuda"``.
        **fields: Values of the strategy's fields; defaults for the others.

    Returns:
        The architectures that the strategy refuses with an
        `adapters.errors.UnsuitableBackboneError`, each with the reason; usually none.

    Raises:
        ConformanceError: The first check that fails, with what was found and what to do. Where the
            strategy itself raised something, that is its cause. A strategy that refuses all the
            architectures fails too.
        AdapterError: What is asked of the kit is not there, such as a check of another name.
    """
    from adapters.testing_bench import FaultError
    from adapters.testing_checks import CHECKS, constructs

    if not isinstance(cls, type):
        raise AdapterError(_not_a_class(cls))
    name, wanted = cls.__qualname__, list(CHECKS) if checks is None else checks
    _are_there("checks", wanted, CHECKS)
    _are_there("architectures", architectures, ARCHITECTURES)
    _has_device(device)
    try:
        strategy = constructs(cls, fields)
    except FaultError as fault:
        raise ConformanceError(name, "fields", "any architecture", str(fault)) from fault.__cause__
    told = {
        architecture: _check(strategy, architecture, wanted, device)
        for architecture in architectures
    }
    if told and all(told.values()):
        reason = next(iter(told.values()))
        raise ConformanceError(name, "fits", ", ".join(told), f"it refuses all of them: {reason}")
    return {architecture: reason for architecture, reason in told.items() if reason}


def _not_a_class(given: Any) -> str:
    """Say what to pass where something else than a class has come."""
    if isinstance(given, Strategy):
        set_ones = ((name, value) for name, value in given if name in given.model_fields_set)
        shown = "".join(f", {name}={value!r}" for name, value in set_ones)
        return f"Pass the class and its fields: check_strategy({type(given).__qualname__}{shown})."
    shown = f": check_strategy(strategies.get({given!r}))" if isinstance(given, str) else ""
    return f"{given!r} is no strategy's class. Pass the class and its fields{shown}."


def _are_there(what: str, wanted: Sequence[str], known: Iterable[str]) -> None:
    if isinstance(wanted, str):
        raise AdapterError(f"{what}={wanted!r} is no list; pass {what}=[{wanted!r}].")
    if unknown := sorted(set(wanted) - set(known)):
        raise AdapterError(f"There are no {what} {unknown}; there are {', '.join(known)}.")


def _has_device(device: str) -> None:
    from torch import cuda

    if device not in DEVICES:
        raise AdapterError(f"There is no device {device!r}; there are {', '.join(DEVICES)}.")
    if device == "cuda" and not cuda.is_available():
        raise AdapterError("torch finds no device 'cuda' on this machine. Leave it out.")


def _check(strategy: Strategy, architecture: str, checks: Sequence[str], device: str) -> str:
    """Make the checks on one architecture; return why the strategy refuses it, if it does."""
    from adapters.testing_bench import Bench, FaultError, quiet
    from adapters.testing_checks import CHECKS

    cls = type(strategy)
    with tempfile.TemporaryDirectory() as folder, strategies.known(cls), quiet():
        bench = Bench(Path(folder), architecture, strategy, device)
        for check in checks:
            try:
                if reason := bench.refusal:
                    return reason
                CHECKS[check](bench)
            except FaultError as fault:
                told, cause = str(fault), None
            except AdapterError as error:
                told, cause = str(error), error.__cause__ or error
            except Exception as error:
                told, cause = f"{type(error).__name__}: {' '.join(str(error).split())}", error
            else:
                continue
            raise ConformanceError(cls.__qualname__, check, architecture, told) from cause
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check registered strategies; print a line each.

    Returns:
        0 if all pass or refuse, 1 if any fails, 3 if a plug-in does not load or registers nothing,
        or a name is unknown.
    """
    parser = argparse.ArgumentParser(
        prog="python -m adapters.testing", description="Hold strategies against their contract."
    )
    parser.add_argument(
        "names", nargs="*", help="registered names (default: all, or those that --plugin registers)"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE",
        help="import a module or .py file that registers strategies; repeatable",
    )  # fmt: skip
    parser.add_argument("--architectures", nargs="+", default=USUAL, choices=ARCHITECTURES)
    parser.add_argument("--checks", nargs="+", help="names of checks (default: all)")
    parser.add_argument("--device", default="cpu", choices=DEVICES, help="(default: cpu)")
    options = parser.parse_args(arguments)
    for library in ("bitsandbytes", "onnxscript"):  # they talk over the lines
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        registered = _registered_by(options.plugin)
        for name in options.names:
            strategies.get(name)
        if options.checks:
            from adapters.testing_checks import CHECKS

            _are_there("checks", options.checks, CHECKS)
        if not (options.names or registered):
            raise RegistryError(
                f"{' and '.join(options.plugin)} registers no strategy, so there is nothing to "
                'check. Decorate the class with @strategies.register("name").'
            )
    except AdapterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    failed = 0
    for name in options.names or registered:
        for architecture in options.architectures:
            start = time.perf_counter()
            try:
                said = _outcome(name, architecture, options.checks, options.device)
            except AdapterError as error:
                failed += 1
                said = str(error)
            print(f"{name:<20}{architecture:<12}{time.perf_counter() - start:5.1f} s  {said}")
            sys.stdout.flush()
    return 1 if failed else 0


def _registered_by(plugins: Sequence[str]) -> list[str]:
    """Load plug-ins and return the names that they add; without any, all names."""
    if not plugins:
        return strategies.names()
    before = strategies.registered()
    load_plugins(plugins)
    # A module need not register what its package's entry points offer.
    offered = {
        point.name
        for point in entry_points(group=strategies.group)
        if any(f"{point.module}.".startswith(f"{plugin}.") for plugin in plugins)
    }
    return sorted((strategies.registered() | offered) - before)


def _outcome(name: str, architecture: str, checks: Sequence[str] | None, device: str) -> str:
    from adapters.testing_checks import CHECKS

    cls, fields = strategies.get(name), EXAMPLES.get(name, {})
    check_strategy(cls, architectures=(), checks=checks, **fields)
    reason = _check(cls(**fields), architecture, checks or list(CHECKS), device)
    return f"refused: {reason}" if reason else "passes"


#: Fields of built-in strategies that need some, or whose defaults do not suit a tiny model.
EXAMPLES: dict[str, dict[str, Any]] = {
    "last_layers": {"count": 1},
    "peft": {"method": "LOHA", "r": 4},
    "vera": {"rank": 32},
}

if __name__ == "__main__":
    sys.exit(main())
