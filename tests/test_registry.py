"""The registry, plug-ins, and the arrows between the packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import adapters.registry
from adapters.plugins import load_plugins
from adapters.registry import Registry, RegistryError

ROOT = Path(__file__).parent.parent


def registry() -> Registry[type[Any]]:
    return Registry("thing", group="potstill.things")


def test_register_returns_the_class_unchanged() -> None:
    things = registry()

    class One: ...

    assert things.register("one")(One) is One
    assert things.get("one") is One
    assert things.name_of(One) == "one"
    assert list(things) == [("one", One)]


def test_a_taken_name_names_both_places() -> None:
    things = registry()

    class One: ...

    class Two: ...

    things.register("it")(One)
    with pytest.raises(RegistryError) as caught:
        things.register("it")(Two)
    assert "One" in str(caught.value)
    assert "Two" in str(caught.value)
    assert things.get("it") is One


def test_what_is_of_another_kind_is_refused() -> None:
    with pytest.raises(RegistryError, match=r"derives from adapters\.strategy\.Strategy"):
        adapters.strategies.register("not_one")(type("NotOne", (), {}))  # type: ignore[type-var]
    assert "not_one" not in adapters.strategies


def test_a_class_may_be_known_for_a_while_beside_one_of_its_name() -> None:
    things = registry()
    one, two = type("one", (), {}), type("one", (), {})
    things.register("one")(one)
    with things.known(two):
        assert things.get("one") is one
        assert things.get(things.name_of(two)) is two
    assert list(things) == [("one", one)]


def test_an_unknown_name_says_the_nearest() -> None:
    things = registry()
    things.register("lora")(type("One", (), {}))
    with pytest.raises(RegistryError, match=r"Did you mean 'lora'\? Known: lora"):
        things.get("lorra")


def test_an_entry_point_is_loaded_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "far_away.py").write_text("class Far: ...\n")
    (tmp_path / "far_broken.py").write_text("import nothing_like_it\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("far", "far_away:Far", "potstill.things"),
        EntryPoint("bad", "far_broken:Far", "potstill.things"),
    ]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [p for p in points if p.group == group and name in (None, p.name)]

    monkeypatch.setattr(adapters.registry, "entry_points", entry_points)
    things = registry()
    assert things.names() == ["bad", "far"]
    assert "far_away" not in sys.modules
    assert things.get("far").__name__ == "Far"
    with pytest.raises(RegistryError, match="does not load: ModuleNotFoundError"):
        things.get("bad")
    assert things.get("far").__name__ == "Far"


def test_a_plugin_file_registers_and_a_broken_one_is_named(tmp_path: Path) -> None:
    good = tmp_path / "good_plugin.py"
    good.write_text(
        "from adapters import Strategy, strategies\n"
        "@strategies.register('good_plugin_strategy')\n"
        "class Good(Strategy):\n"
        "    def prepare(self, model): return model\n"
        "    def finish(self, model): return model\n"
    )
    load_plugins([str(good), str(good)])
    assert adapters.strategies.get("good_plugin_strategy").__name__ == "Good"
    bad = tmp_path / "bad_plugin.py"
    bad.write_text("1 / 0\n")
    with pytest.raises(RegistryError, match=r"bad_plugin\.py does not load: ZeroDivisionError"):
        load_plugins([str(bad)])
    with pytest.raises(RegistryError, match="no plug-in file"):
        load_plugins([str(tmp_path / "missing.py")])


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it, type checking aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


FORBIDDEN = {
    "adapters": ("distill", "recipes"),
    "distill": ("export", "recipes"),
    "export": ("adapters", "distill", "recipes"),
}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_only_run_downwards(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for module in imports(path):
            assert module.split(".")[0] not in FORBIDDEN[package], f"{path} imports {module}"


def test_of_adapters_only_the_conformance_kit_exports() -> None:
    for path in (ROOT / "adapters").rglob("*.py"):
        used = {module for module in imports(path) if module.split(".")[0] == "export"}
        assert not used or path.name == "testing_checks.py", f"{path} imports {used}"


def test_distill_uses_nothing_of_adapters_but_the_registry() -> None:
    for path in (ROOT / "distill").rglob("*.py"):
        used = {module for module in imports(path) if module.split(".")[0] == "adapters"}
        assert used <= {"adapters.registry"}, f"{path} imports {used}"


def test_edge_imports_only_what_a_bundle_has() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy", "onnxruntime", "tokenizers"}
    roots = {module.split(".")[0] for module in imports(ROOT / "export" / "edge.py")}
    assert roots <= allowed


@pytest.mark.parametrize(
    "module",
    [
        "adapters",
        "distill",
        "export",
        "recipes",
        "recipes.run",
        "recipes.list",
        "recipes.reading",
        "recipes.compare",
        "recipes.adapters",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = ("torch", "transformers", "datasets", "onnxruntime", "sklearn", "pandas", "matplotlib")
    code = f"import {module}, sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
