"""A conformance kit: what every objective has to hold to, for authors to run in their own tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapters.registry import RegistryError
from distill import testing_behavior as behavior
from distill import testing_contract as contract
from distill.errors import DistillError
from distill.objective import Objective
from distill.testing_material import Case, Fault, words

#: Every check by its name, in the order in which they are made: the plainest fault is found first.
CHECKS: Mapping[str, Callable[[Case], None]] = {
    "class": contract.check_class,
    "fields": contract.check_fields,
    "recipe": contract.check_recipe,
    "parts": contract.check_parts,
    "needs": contract.check_needs,
    "loss": behavior.check_loss,
    "labels": behavior.check_labels,
    "pairs": contract.check_pairs,
    "tokens": contract.check_tokens,
    "imitation": behavior.check_imitation,
    "descent": behavior.check_descent,
    "reference": behavior.check_reference,
    "repeat": behavior.check_repeat,
    "padding": behavior.check_padding,
    "order": behavior.check_order,
    "inputs": behavior.check_inputs,
    "learner": behavior.check_learner,
    "cache": behavior.check_cache,
}


class ConformanceError(DistillError):
    """An objective breaks its contract; the message names the check, what was found, what to do."""


def check_objective(
    cls: type[Objective], /, *, only: Sequence[str] | None = None, **fields: Any
) -> None:
    """Check that an objective keeps its contract; seconds, on the CPU, no network.

    For the tests of whoever writes one::

        from distill.testing import check_objective

        def test_objective() -> None:
            check_objective(MyObjective, temperature=3.0)

    Args:
        cls: The objective's class.
        only: Names of the checks to make, of those in `CHECKS`; None makes all, in that order.
        **fields: Its settings.

    Raises:
        ConformanceError: The first check that fails.
        DistillError: `only` names a check that does not exist.
    """
    import torch

    unknown = sorted(set(only or ()) - set(CHECKS))
    if unknown:
        raise DistillError(f"Unknown check {', '.join(unknown)}; there are {', '.join(CHECKS)}.")
    case = Case(cls, fields)
    for name in CHECKS if only is None else only:
        check = CHECKS[name]
        failed = f"The objective {getattr(cls, '__qualname__', cls)} fails the check {name!r}: "
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            try:
                check(case)
            except Fault as fault:
                raise ConformanceError(f"{failed}{fault}") from None
            except Exception as error:
                # A message that a user reads is made of what the author wants to see.
                cause = error.__cause__ if isinstance(error, RegistryError) else error
                asked = (check.__doc__ or "").partition("\n")[0]
                raise ConformanceError(
                    f"{failed}it stopped with {words(cause or error)}. What is asked: {asked}"
                ) from error
