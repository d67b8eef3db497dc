"""Processes of their own for what a test kills, or has to see from outside."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

#: They are forked from a process that has imported what takes seconds, and has computed nothing:
#: the threads of a forked process that has used PyTorch wait for each other forever.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["recipes.stages.finetune", "recipes.stages.export", "peft"])


def exit_code(function: Callable[..., Any], *arguments: Any, seconds: float = 250) -> int | None:
    """Call a function of a test file in a process of its own.

    Returns:
        Its exit status, or minus the signal that ended it; None if it was not done in time.
    """
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join(seconds)
    return process.exitcode
