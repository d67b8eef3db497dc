from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recipes.console import hush

# Several workers share the processor, and a tiny model is slower on two threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: A package with tests of its own, to be run where it is installed.
collect_ignore = ["plugin_package"]

#: Files that take a minute or so without the mark of those that run a whole chain.
_LONG = ("test_export.py", "test_strategy_kit.py", "test_strategy_turns.py")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from an architecture's name to a folder with a tiny random backbone."""
    import tiny

    made: dict[str, Path] = {}

    def make(architecture: str = "bert") -> Path:
        if architecture not in made:
            made[architecture] = tiny.backbone(tmp_path_factory.mktemp(architecture), architecture)
        return made[architecture]

    hush()
    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: a worker that gets one last would end alone."""
    chains = {item.path for item in items if item.get_closest_marker("chain")}
    items.sort(key=lambda item: item.path not in chains and item.path.name not in _LONG)
