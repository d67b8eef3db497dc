"""Saved adapters on disk, and the runs that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapters.errors import AdapterError
from adapters.files import FACTS, WEIGHTS, read_facts
from adapters.plugins import load_plugins
from recipes.console import say
from recipes.errors import RecipeError
from recipes.ledger import Ledger, Row
from recipes.pipeline import RECIPE
from recipes.predictions import problem_of
from recipes.reading import check

if TYPE_CHECKING:
    from recipes.workspace import Workspace

#: What fine-tuning calls the adapter of a run.
_USUAL = "teacher"
#: How far above an adapter the recipe of its run may lie: a phase's is two folders up.
_LEVELS = 3


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter on disk.

    Attributes:
        folder: Where ``adapter.json`` is.
    """

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The ``strategy`` and the ``labels``, as plain data."""
        return read_facts(self.folder)

    @property
    def size_bytes(self) -> int:
        """Size of its weights."""
        file = self.folder / WEIGHTS
        return file.stat().st_size if file.exists() else 0

    @property
    def strategy(self) -> str:
        """The strategy in a few words, such as ``replay of lora rank 4``."""
        return _told(self.facts["strategy"])

    @cached_property
    def run(self) -> Path | None:
        """The folder with the recipe of the run that made it; None if there is none."""
        for folder in [self.folder, *self.folder.absolute().parents][:_LEVELS]:
            if (folder / RECIPE).is_file():
                return folder
        return None

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """That recipe, as plain data; empty if there is none.

        Raises:
            RecipeError: It is damaged.
        """
        if self.run is None:
            return {}
        try:
            return dict(yaml.safe_load((self.run / RECIPE).read_text(encoding="utf-8")))
        except (yaml.YAMLError, OSError, TypeError, ValueError) as error:
            raise RecipeError(
                f"{self.run / RECIPE} is damaged ({' '.join(str(error).split())}). Put it back."
            ) from error

    @property
    def backbone(self) -> str:
        """What the recipe calls the backbone; empty if there is no recipe."""
        return str(self.recipe.get("backbone", {}).get("model", ""))

    @property
    def quantization(self) -> str:
        """How the backbone was to be held in training; empty if there is no recipe."""
        return str(self.recipe.get("backbone", {}).get("quantization", ""))

    @property
    def row(self) -> Row | None:
        """What the run's ledger says of it; None if it says nothing."""
        if self.run is None:
            return None
        path = str(self.folder.absolute().relative_to(self.run.absolute()))
        return next((row for row in Ledger(self.run / "ledger.json") if row.path == path), None)

    @property
    def problem(self) -> str:
        """What kind of answer its texts have, by its run's ledger, else by the recipe.

        One of several labels, where both say nothing.
        """
        if self.row is not None:
            return problem_of(self.row)
        said = str(self.recipe.get("data", {}).get("problem", "auto"))
        return "single_label" if said == "auto" else said


def saved_adapter(name: str) -> SavedAdapter:
    """Return the adapter in a folder, or the teacher of the run in it.

    Raises:
        AdapterError: There is none, or it is damaged.
    """
    folder = Path(name).expanduser()
    if not (folder / FACTS).exists() and (folder / _USUAL / FACTS).exists():
        folder = folder / _USUAL
    found = SavedAdapter(folder)
    _ = found.facts
    return found


def saved_adapters(folders: Sequence[str]) -> Iterator[SavedAdapter]:
    """Yield every adapter in some folders, however deep; damaged ones are named and left out.

    Raises:
        RecipeError: A folder is not there.
    """
    for name in folders:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise RecipeError(f"There is no folder {name}. Name one in which runs lie.")
        for file in sorted(folder.rglob(FACTS)):
            found = SavedAdapter(file.parent)
            try:
                _ = found.facts, found.recipe, found.row
            except (AdapterError, RecipeError) as error:
                say(f"left out: {error}")
                continue
            yield found


def short_names(found: Sequence[SavedAdapter]) -> list[str]:
    """Return a name for each, as short as keeps them apart."""
    parts = [adapter.folder.absolute().parts for adapter in found]
    parts = [path[:-1] if path[-1] == _USUAL else path for path in parts]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    raise RecipeError("An adapter is named twice; name each once.")


def open_workspace(
    adapter: SavedAdapter,
    *,
    backbone: str | None = None,
    quantization: str | None = None,
    offline: bool = False,
    plugins: Sequence[str] = (),
) -> Workspace:
    """Return the run of an adapter, with the adapter's strategy.

    Args:
        adapter: The adapter.
        backbone: Another backbone than the recipe's, or that of an adapter without a recipe.
        quantization: How the backbone is held, if not as the recipe says.
        offline: Never touch the network.
        plugins: Modules or files to import instead of the recipe's, which may have moved.

    Raises:
        RecipeError: There is no recipe and no backbone, or the recipe does not hold.
    """
    from recipes.console import hush
    from recipes.workspace import Workspace, machine

    hush()
    if adapter.run is None and backbone is None:
        raise RecipeError(
            f"Beside {adapter.folder} there is no {RECIPE} that says which backbone it belongs to. "
            "Name it with --backbone."
        )
    # An adapter from elsewhere comes without data; nothing asks for its rows.
    tree = adapter.recipe or {"data": {"source": "none"}, "backbone": {"quantization": "none"}}
    if plugins:
        tree = {**tree, "plugins": list(plugins)}
    load_plugins(tree.get("plugins") or ())
    said = {"model": backbone, "quantization": quantization}
    changed = {key: value for key, value in said.items() if value is not None}
    tree = {**tree, "strategy": adapter.facts["strategy"]}
    tree["backbone"] = {**tree["backbone"], **changed}
    recipe = check(tree, where=str((adapter.run or adapter.folder) / RECIPE))
    return Workspace(recipe, adapter.run or adapter.folder, machine(recipe), offline)


def check_one_backbone(found: Sequence[SavedAdapter], offline: bool) -> None:
    """Check that adapters were trained on the same backbone, as far as their recipes say.

    Raises:
        RecipeError: They were not.
    """
    from recipes import assets

    known = {adapter.backbone: adapter for adapter in found if adapter.backbone}
    prints = {
        name: assets.resolve(name, "model", offline=offline).fingerprint
        for name in (known if len(known) > 1 else ())
    }
    if len(set(prints.values())) > 1:
        told = "; ".join(f"{known[name].folder}: {name}" for name in prints)
        raise RecipeError(
            f"The adapters belong to different backbones ({told}). Only adapters of one backbone "
            "go together."
        )


def _told(strategy: dict[str, Any]) -> str:
    words = [str(strategy["name"]), str(strategy.get("method", ""))]
    if isinstance(strategy.get("base"), dict):
        words.append(f"of {_told(strategy['base'])}")
    if rank := strategy.get("rank", strategy.get("r")):
        words.append(f"rank {rank}")
    return " ".join(word for word in words if word)
