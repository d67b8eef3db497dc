"""Plug-ins: a package that is really installed, lists that show it, and all that can be wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import tiny

from adapters import strategies
from adapters.plugins import load_plugins
from adapters.registry import RegistryError
from distill import objectives
from recipes import list as lists
from recipes import run
from recipes.reading import read_recipe

Make = Callable[[str], Path]
Install = Callable[..., None]
ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "tests" / "plugin_package"
STRATEGY = TEMPLATE / "src" / "potstill_scale" / "strategy.py"


@pytest.fixture(autouse=True)
def _registries_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget after a test what it registered."""
    for registry in (strategies, objectives):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_origins", dict(registry._origins))
    for name in [name for name in sys.modules if name.startswith("potstill_plugin_")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that puts a package with one strategy where Python finds it."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    made: list[str] = []

    def make(package: str, name: str, code: str, entry: str = "Plug") -> None:
        (folder / f"{package}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        facts = folder / f"{package}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        offered = f"[potstill.strategies]\n{name} = {package}:{entry}\n"
        (facts / "entry_points.txt").write_text(offered, encoding="utf-8")
        made.append(package)

    yield make
    for package in made:
        sys.modules.pop(package, None)


#: A strategy that is right, if a little dull.
GOOD = """
from adapters import Strategy

class Plug(Strategy):
    '''Trains the biases.'''

    def prepare(self, model):
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.endswith("bias"))
        return model

    def finish(self, model):
        return model
"""


@pytest.fixture(scope="module")
def recipe(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    data = tiny.table(tmp_path_factory.mktemp("data") / "rows.csv", count=120)
    return ["lora_cls", f"data.train={data}", f"backbone.model={tiny_backbone('bert')}",
            "distill.student.layers=2", "threads=1"]  # fmt: skip


def told(capfd: pytest.CaptureFixture[str]) -> str:
    """Return what was said on standard error, which has to be one line."""
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# ---- the template -------------------------------------------------------------------------------


def test_the_template_is_short_and_the_one_that_the_readme_shows() -> None:
    code = STRATEGY.read_text(encoding="utf-8").strip()
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    [mark] = re.findall(r"^@strategies\.register\(.*\)$", code, re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if mark in block]
    assert [block.strip() for block in shown] == [code], f"README.md has to show {STRATEGY.name}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the template with pip and install it into a fresh environment; return its Python."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    [packages] = (folder / "venv").glob("lib/python*/site-packages")
    # What the running environment has is visible there, and the project as it lies here.
    seen = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    (packages / "running.pth").write_text("\n".join(seen), encoding="utf-8")
    # A copy: building leaves its traces beside the sources.
    shutil.copytree(TEMPLATE, folder / "template", ignore=shutil.ignore_patterns("__pycache__"))
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "install", *options, folder / "template"], check=True)
    assert (packages / "potstill_scale" / "strategy.py").is_file()
    return python


@pytest.mark.chain
def test_the_template_installs_is_listed_and_runs(
    environment: Path, recipe: Sequence[str], tmp_path: Path
) -> None:
    def say(*arguments: object) -> str:
        done = subprocess.run(
            [environment, "-m", *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = {
        entry["name"]: entry for entry in json.loads(say("recipes.list", "strategies", "--json"))
    }
    assert listed["scale"]["module"] == "potstill_scale.strategy"
    assert listed["scale"]["summary"].startswith("A learnt diagonal scaling")
    assert "lora" in listed
    short = ["train.epochs=1", "train.batch_size=16", "train.learning_rate=5e-3"]
    say("recipes.run", *recipe, *short, "strategy.name=scale", "--to", "merge", "--out", "run")
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / "ledger.json").read_text())}
    # Four layers with two vectors of 32 each, and the head.
    assert rows["teacher"]["trainable_parameters"] > 4 * 2 * 32
    assert (tmp_path / "run" / "merged" / "model.safetensors").is_file()
    assert "potstill_scale" not in (tmp_path / "run" / "merged" / "config.json").read_text()


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_the_template_keeps_its_contract(architecture: str) -> None:
    from adapters.testing import check_strategy

    load_plugins([str(STRATEGY)])
    # The package's own tests make all checks; these are the ones that an architecture can break.
    checks = ["learns", "reloads", "finishes", "works_quantized"]
    check_strategy(strategies.get("scale"), architectures=[architecture], checks=checks)


# ---- when a plug-in is loaded -------------------------------------------------------------------


def test_a_package_is_loaded_only_when_it_is_named_or_listed(
    install: Install, recipe: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install("far_away", "far", GOOD)
    short = ["train.epochs=1", "distill.train.epochs=1", "--to", "finetune"]
    for main, arguments in (
        (run.main, ["--list"]),
        (lists.main, ["recipes"]),
        (lists.main, ["tasks"]),
        (lists.main, ["objectives"]),
        (lists.main, ["strategies", "lora"]),
        (run.main, [*recipe, "strategy.name=lora", *short, "--out", str(tmp_path / "run")]),
        (run.main, [*recipe, "strategy.name=lorra", "--out", str(tmp_path / "none")]),
    ):
        main(arguments)
        assert "far_away" not in sys.modules, arguments
    assert "far" in capfd.readouterr().err  # among the known names, all the same
    assert (tmp_path / "run" / "teacher" / "adapter.json").is_file()
    assert lists.main(["strategies"]) == 0
    assert "far_away" in sys.modules
    assert "far  Trains the biases." in capfd.readouterr().out


# ---- lists --------------------------------------------------------------------------------------

FIELDS = """
from typing import ClassVar, Literal
from pydantic import Field
from adapters import AnyStrategy, Strategy
from adapters.builtin.low_rank import Lora

class Base(Strategy):
    '''A base.

    Attributes:
        depth: How deep,
            and how far.
    '''

    depth: int | None = None

class Plug(Base):
    '''Does it all.

    In a way of its own.

    Attributes:
        kind: Which of them.
        inner: What is inside.
    '''

    paper: ClassVar[str] = "Someone, 2020"
    kind: Literal["one", "two"] = "two"
    inner: AnyStrategy = Lora(rank=8)
    rate: float = Field(default=1e-5, gt=0, le=1)
    names: tuple[str, ...]
"""


def test_lists_show_fields_types_defaults_and_paper(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    install("all_fields", "all_fields", FIELDS)
    assert lists.main(["strategies"]) == 0
    lines = capfd.readouterr().out.splitlines()
    place = lines.index("all_fields  Does it all.")
    assert [line.strip() for line in lines[place + 1 : place + 3]] == [
        "kind: one | two = two, inner: strategy = {name: lora, rank: 8}, rate: float = 1.0e-05, "
        "names: list of str, depth: int | null = null",
        "Someone, 2020",
    ]
    place = next(number for number, line in enumerate(lines) if line.startswith("lora  "))
    assert "rank: int = 16, alpha: float = 32.0" in lines[place + 1]
    assert "Hu et al., 2021, arXiv:2106.09685" in lines[place + 2]


def test_one_entry_is_shown_in_full(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    install("all_fields", "all_fields", FIELDS)
    assert lists.main(["strategies", "all_fields"]) == 0
    out = capfd.readouterr().out
    for text in ("In a way of its own.", "rate: float = 1.0e-05  (> 0, ≤ 1)", "How deep, and how"):
        assert text in out
    assert "adalora" not in out
    assert lists.main(["strategies", "all_fields", "--json"]) == 0
    [entry] = json.loads(capfd.readouterr().out)
    assert entry["fields"]["depth"]["description"] == "How deep, and how far."
    assert entry["fields"]["depth"]["default"] is None
    assert "default" not in entry["fields"]["names"]
    assert lists.main(["strategies", "all_fild"]) == 3
    assert "Did you mean 'all_fields'?" in told(capfd)


def test_every_field_of_a_builtin_is_described(capfd: pytest.CaptureFixture[str]) -> None:
    for what in ("strategies", "objectives"):
        assert lists.main([what, "--json"]) == 0
        for entry in json.loads(capfd.readouterr().out):
            assert entry["summary"], entry["name"]
            assert entry["paper"] or what != "strategies", entry["name"]
            for name, field in entry["fields"].items():
                assert field["description"], f"{entry['name']}.{name}"


def test_a_plugin_file_can_be_listed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert lists.main(["strategies", "scale", "--plugin", str(STRATEGY)]) == 0
    assert "diagonal scaling" in capfd.readouterr().out


# ---- what can be wrong --------------------------------------------------------------------------


def test_a_broken_package_is_named_and_hides_nothing(
    install: Install, recipe: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install("broken_one", "broken", "import there_is_no_such_module")
    install("quitter", "quits", "import sys; sys.exit('goodbye')")
    install("halfway", "halfway", GOOD + "1 / 0\n")
    install("no_strategy", "number", "Plug = 7")
    install("sound", "sound", GOOD)
    assert lists.main(["strategies"]) == 0
    lines = capfd.readouterr().out.splitlines()
    for start, fault in (
        ("broken  ", "broken_one (broken_one:Plug), which does not load: ModuleNotFoundError: No"),
        ("quits  ", "quitter (quitter:Plug), which does not load: SystemExit: goodbye"),
        ("halfway  ", "which does not load: ZeroDivisionError"),
        ("number  ", "has to be a class that derives from adapters.strategy.Strategy"),
        ("sound  ", "Trains the biases."),
        ("lora  ", "Low-rank"),
    ):
        [line] = [line for line in lines if line.startswith(start)]
        assert fault in line
    assert run.main([*recipe, "strategy.name=broken", "--out", str(tmp_path / "run")]) == 3
    line = told(capfd)
    assert "'broken' comes from broken_one" in line
    assert not (tmp_path / "run").exists()
    for _ in range(2):  # half of a module is not trusted the second time either
        with pytest.raises(RegistryError, match="does not load: ZeroDivisionError"):
            strategies.get("halfway")


def test_a_taken_name_stays_with_the_builtin(
    install: Install, recipe: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install("rival", "lora", GOOD)
    assert run.main([*recipe, "strategy.name=lora", "--dry-run", "--out", str(tmp_path / "a")]) == 0
    captured = capfd.readouterr()
    assert re.search(r"strategy .*lora.*rank=16", captured.out)
    [line] = [line for line in captured.err.splitlines() if "rival" in line]
    assert re.search(r"'lora' is taken by .*low_rank\.py \(Lora\); what rival \(rival:Plug\)", line)
    assert lists.main(["strategies"]) == 0
    assert line.removeprefix("note: ") in capfd.readouterr().out
    assert "rival" not in sys.modules


def test_two_packages_with_one_name_are_refused(install: Install) -> None:
    install("first_one", "twice", GOOD)
    install("second_one", "twice", GOOD)
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"twice: by .*first_one.* and by .*second_one"):
            strategies.get("twice")


def plug(prepare: str = "return model", finish: str = "return model", name: str = "wrong") -> str:
    return (
        "from adapters import Strategy, strategies\n"
        f"@strategies.register({name!r})\n"
        "class Wrong(Strategy):\n"
        "    '''Is wrong.'''\n"
        f"    def prepare(self, model):\n        {prepare}\n"
        f"    def finish(self, model):\n        {finish}\n"
    )


def method(head: str, answer: str) -> str:
    return f"    def {head}:\n        import torch\n        return {answer}\n"


LEARN = "model.base_model.embeddings.requires_grad_(True); "
RELABEL = "model.config.id2label = {0: 'a', 1: 'b', 2: 'c'}; return model"
FAULTS = {
    "import error": ("import not_there\n", r"does not load: ModuleNotFoundError: No module"),
    "syntax error": ("def x(:\n", r"does not load: SyntaxError: invalid syntax"),
    "bad field": (
        "from adapters import Strategy\nclass Wrong(Strategy):\n    rank = 4\n",
        r"does not load: PydanticUserError: .*rank",
    ),
    "taken name": (plug(name="lora"), r"'lora' is registered twice: by .*low_rank\.py .*Wrong"),
    "wrong signature": (
        plug().replace("prepare(self, model)", "prepare(self)"),
        r"failed in prepare\(\): TypeError: .*takes 1 positional argument but 2 were given",
    ),
    "prepare returns nothing": (plug(LEARN), r"returned NoneType from prepare\(\)"),
    "nothing learns": (plug(), r"leaves nothing to learn but the head"),
    "labels change at first": (plug(LEARN + RELABEL), r"changed the labels in prepare\(\)"),
    "labels change at last": (plug(LEARN + "return model", RELABEL), r"the labels in finish\(\)"),
    "finish returns nothing": (
        plug(LEARN + "return model", "pass"), r"returned NoneType from finish\(\)",
    ),
    "finish fails": (
        plug(LEARN + "return model", "return model.nothing"), r"failed in finish\(\): Attribute",
    ),
    "a wrapper stays": (
        plug(
            LEARN + "from torch import nn; layer = model.base_model.encoder.layer[0].output; "
            "layer.dense = nn.Sequential(layer.dense); return model"
        ),
        r"finish\(\) lost .*output\.dense\.",
    ),
    "a hook stays": (
        plug(LEARN + "model.base_model.register_forward_hook(lambda *_: None); return model"),
        r"finish\(\) leaves hooks on bert",
    ),
    "the model fails": (
        plug(
            LEARN + "model.base_model.register_forward_hook(lambda m, a, out: out.nothing); "
            "return model"
        ),
        r"leaves a model that does not answer: AttributeError",
    ),
    "a wrapper without config": (
        plug(LEARN + "from torch import nn; return nn.Sequential(model)"),
        r"changed the labels in prepare\(\).* a wrapper needs the model's config",
    ),
    "a weight stays": (
        plug("from torch import nn, ones; model.more = nn.Parameter(ones(3)); return model"),
        r"finish\(\) leaves more; fold it",
    ),
    "the penalty is no number": (
        plug(LEARN + "return model") + method("penalty(self, model, memory)", "torch.ones(3)"),
        r"returned tensor\(\[1\., 1\., 1\.\]\) from penalty\(\); it has to return a tensor of one",
    ),
    "groups leave weights out": (
        plug(LEARN + "return model") + method("parameter_groups(self, model, rate)", "[]"),
        r"its parameter_groups\(\) leave out bert\.embeddings",
    ),
    "groups repeat a weight": (
        plug(LEARN + "return model")
        + method(
            "parameter_groups(self, model, rate)",
            "2 * [{'params': [w for w in model.parameters() if w.requires_grad]}]",
        ),
        r"its parameter_groups\(\) repeat bert\.embeddings",
    ),
    "a hook of the wrong signature": (
        plug(LEARN + "return model") + method("between_tasks(self, model)", "{}"),
        r"cannot be called as between_tasks\(model, losses, memory\): too many positional",
    ),
    "an adapter of another name": (
        plug(
            "from peft import LoraConfig, get_peft_model as wrap; "
            "return wrap(model, LoraConfig(target_modules=['query']), adapter_name='mine')"
        ),
        r"wraps the model by peft with an adapter_name of its own",
    ),
    "the fold is wrong": (
        plug(LEARN + "return model", "model.classifier.weight.data *= 2; return model"),
        r"finish\(\) changes the logits by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_plugin_file_is_refused_in_one_line_before_training(
    fault: str, recipe: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, expected = FAULTS[fault]
    file = tmp_path / "bad_plugin.py"
    file.write_text(code, encoding="utf-8")
    out = tmp_path / "run"
    arguments = [*recipe, "strategy.name=wrong", "--plugin", str(file), "--out", str(out)]
    assert run.main(arguments) == 3
    line = told(capfd)
    assert str(file) in line
    assert re.search(expected, line), line
    assert "does not load" in line or "'wrong'" in line
    assert not list(out.glob("*"))
    assert strategies.get("lora").__name__ == "Lora"


def aim(loss: str, needs: str = "logits", parts: str = "return None", head: str = "") -> str:
    return (
        "from distill import Objective, objectives\n"
        "@objectives.register('wrong')\n"
        "class Wrong(Objective):\n"
        "    'Is wrong.'\n"
        f"    needs = frozenset({{{needs!r}}})\n"
        f"    def parts(self, pair):\n        {parts}\n"
        f"    def loss(self, {head or 'student, teacher, labels, mask, parts'}):\n"
        f"        return {loss}\n"
    )


OBJECTIVES = {
    "loss fails": (aim("student.logitss.mean()"), r"failed in loss\(\): AttributeError: .*logitss"),
    "wrong signature": (
        aim("student.logits.mean()", head="student, teacher, labels"),
        r"failed in loss\(\): TypeError: .*takes 4 positional arguments but 6 were given",
    ),
    "loss is no scalar": (aim("student.logits"), r"something of shape \[2, 3\] from loss\(\)"),
    "loss is a number": (aim("0.5"), r"returned something 0\.5 from loss\(\)"),
    "parts fail": (aim("1", parts="1 / 0"), r"failed in parts\(\): ZeroDivisionError"),
    "a file is missing": (
        aim("1", parts="open('table.txt')"), r"failed in parts\(\): FileNotFoundError: .*table"
    ),
    "needs what there is not": (aim("1", needs="hiden"), r"has 'hiden' in needs; it can be: "),
}  # fmt: skip


@pytest.mark.parametrize("fault", OBJECTIVES)
def test_a_bad_objective_is_refused_in_one_line_before_training(
    fault: str, recipe: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, expected = OBJECTIVES[fault]
    file = tmp_path / "bad_objective.py"
    file.write_text(code, encoding="utf-8")
    out = tmp_path / "run"
    given = [*recipe, "distill.objectives=[wrong]", "--plugin", str(file), "--out", str(out)]
    assert run.main([*given, "--dry-run"]) == 3
    line = told(capfd)
    assert f"The objective 'wrong' ({file})" in line
    assert re.search(expected, line), line
    assert not list(out.glob("*"))


#: What a plug-in registers, and what is said of it.
REGISTERED = {
    "no brackets": (plug().replace("('wrong')", ""), r"Wrong needs a name to be registered"),
    "an empty name": (plug(name=""), r"'' needs a name to be registered as a strategy"),
    "a field called name": (
        plug() + "    name: str = 'x'\n", r"'wrong' \(Wrong\) has a field 'name', by which recipes"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", REGISTERED)
def test_what_cannot_be_registered_is_told(fault: str, tmp_path: Path) -> None:
    code, expected = REGISTERED[fault]
    file = tmp_path / "bad_plugin.py"
    file.write_text(code, encoding="utf-8")
    with pytest.raises(RegistryError, match=rf"bad_plugin\.py does not load: .*{expected}"):
        load_plugins([str(file)])
    assert "wrong" not in strategies


def test_a_plugin_that_cannot_be_described_hides_no_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "odd.py"
    file.write_text(plug() + "    thing: object = object()\n", encoding="utf-8")
    assert lists.main(["strategies", "--plugin", str(file)]) == 0
    lines = capfd.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("wrong  ")]
    assert "'wrong' cannot be described: PydanticSerializationError" in line
    assert any(line.startswith("lora  ") for line in lines)


def test_a_list_that_a_class_does_not_take_is_its_authors_affair(tmp_path: Path) -> None:
    file = tmp_path / "listed.py"
    file.write_text(plug() + "    layers: tuple[int, ...] = (0,)\n", encoding="utf-8")
    load_plugins([str(file)])
    with pytest.raises(RegistryError, match=r"layers=\[0, 1\] is a list, .* Field\(strict=False\)"):
        read_recipe("lora_cls", ["strategy={name: wrong, layers: [0, 1]}"])


def test_a_folder_is_no_plugin(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="A folder with a package has to be installed"):
        load_plugins([str(tmp_path)])


@pytest.mark.chain
def test_a_run_does_not_go_on_with_a_plugin_that_has_changed(
    recipe: Sequence[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "plug.py", tmp_path / "run"
    file.write_text(plug(LEARN + "return model"), encoding="utf-8")
    given = [*recipe, "strategy.name=wrong", "--plugin", str(file), "--out", str(out)]
    given += ["--to", "baseline"]
    assert run.main(given) == 0
    assert run.main([*given, "--resume"]) == 0
    file.write_text(f"{file.read_text()}\n# another\n", encoding="utf-8")
    capfd.readouterr()
    assert run.main([*given, "--resume"]) == 3
    assert f"plug.py has changed since the run in {out} began" in capfd.readouterr().err
    assert run.main([*given, "--from", "baseline"]) == 0
    assert run.main([*given, "--resume"]) == 0


def test_two_plugin_files_of_one_name_are_two_plugins(tmp_path: Path) -> None:
    files = [tmp_path / part / "plug.py" for part in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(plug(name="same"))
    with pytest.raises(Exception, match=r"registered twice: by .*one.plug\.py .*two.plug\.py"):
        load_plugins(list(map(str, files)))


def test_a_plugin_file_finds_modules_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shared_by_mine.py").write_text("NAME = 'beside'\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "from shared_by_mine import NAME\n"
        "from adapters import strategies\n"
        "from adapters.builtin.low_rank import Lora\n"
        "strategies.register(NAME)(type('Mine', (Lora,), {'__module__': __name__}))\n",
        encoding="utf-8",
    )
    load_plugins([str(tmp_path / "mine.py")])
    assert "beside" in strategies
