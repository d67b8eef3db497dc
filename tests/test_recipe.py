"""Reading recipes: overrides, extension, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adapters.errors import AdapterError
from adapters.registry import RegistryError
from recipes.errors import RecipeError
from recipes.reading import changes, check, differences, plain, read_recipe, shipped_recipes


def changed(*overrides: str) -> list[str]:
    return differences(plain(read_recipe("lora_cls")), plain(read_recipe("lora_cls", overrides)))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_reads_back_to_itself(name: str) -> None:
    recipe = read_recipe(name)
    again = yaml.safe_load(yaml.safe_dump(plain(recipe)))
    assert check(again, "again") == recipe


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the files that the recipes here name."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "t.csv", "v.csv"):
        (tmp_path / name).touch()
    (tmp_path / "my_classifier").mkdir()  # the shipped distill_only names it


def test_numbers_and_words_are_what_they_look_like() -> None:
    recipe = read_recipe(
        "lora_cls", ["train.learning_rate=1e-4", "data.train=a.csv", "data.label=no", "seed=7"]
    )
    assert recipe.train.learning_rate == 1e-4
    assert recipe.data.label == "no"
    assert recipe.seed == 7


def test_a_file_takes_the_place_of_the_source() -> None:
    recipe = read_recipe("lora_cls", ["data.train=a.csv", "data.text=t"])
    assert (recipe.data.source, recipe.data.text) == (None, "t")
    assert recipe.data.train == str(Path("a.csv").absolute())
    with pytest.raises(RecipeError, match="give either source"):
        read_recipe("lora_cls", ["data.train=a.csv", "data.source=trec"])


def test_overrides_mean_the_same_in_any_order() -> None:
    words = ["data.text=t", "data.validation=v.csv", "data.train=a.csv", "strategy.rank=4"]
    recipe = read_recipe("lora_cls", words)
    assert recipe == read_recipe("lora_cls", words[::-1])
    assert (recipe.data.text, recipe.data.validation) == ("t", str(Path("v.csv").absolute()))


@pytest.mark.parametrize(
    "words",
    [
        ["strategy=dora", "strategy.rank=4"],
        ["train.loss=focal", "train.loss.gamma=1.0"],
        ["strategy=replay", "strategy.base=dora", "strategy.base.rank=4", "phases.classes=3"],
    ],
)
def test_a_bare_name_leaves_the_fields_that_are_given_beside_it(words: list[str]) -> None:
    recipe = read_recipe("lora_cls", words)
    assert recipe == read_recipe("lora_cls", words[::-1])
    fields = [word for word in words if word.endswith(("rank=4", "gamma=1.0"))]
    assert recipe != read_recipe("lora_cls", [word for word in words if word not in fields])
    with pytest.raises(RegistryError, match="rnak"):
        read_recipe("lora_cls", ["strategy.rnak=4", "strategy=dora"])


def test_fields_of_a_strategy_inside_another_need_no_name() -> None:
    recipe = read_recipe("incremental_cls", ["strategy.base.rank=4"])
    base = plain(recipe)["strategy"]["base"]
    assert (base["name"], base["rank"]) == ("lora", 4)


def test_another_strategy_does_not_inherit_the_fields_of_the_old_one() -> None:
    recipe = read_recipe("lora_cls", ["strategy.name=head"])
    assert plain(recipe)["strategy"] == {"name": "head"}


def test_one_key_of_a_section_leaves_its_other_defaults(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {source: trec}\nstrategy: lora\n")
    plain = read_recipe(str(path), ["distill.imitate={}"]).distill
    given = read_recipe(
        str(path),
        [
            "distill.train.epochs=9", "distill.student.vocabulary=50",
            "distill.imitate.train.batch_size=64",
        ],
    ).distill  # fmt: skip
    assert given.train == plain.train.model_copy(update={"epochs": 9})
    assert given.student == plain.student.model_copy(update={"vocabulary": 50})
    assert plain.imitate is not None
    assert given.imitate is not None
    assert given.imitate.train == plain.imitate.train.model_copy(update={"batch_size": 64})
    assert (plain.train.epochs, plain.student.layers, plain.imitate.train.epochs) == (5, 3, 1)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["distill.combine=skill"], "distill.teachers names no further teacher"),
        (["distill.copies=9"], "distill.augment names no augmentation"),
        (["distill.objectives=[ce]", "distill.calibrate=true"], "no objective asks the teacher"),
        (["export={quantization: none, embeddings: int4}"], "embeddings has no effect"),
        (["distill.objectives=[ce]", "distill.folds=3"], "folds has no effect"),
        (["distill.objectives=[ce]", "distill.teacher=live"], "teacher has no effect"),
        (["distill.objectives=[kl, embeddings]"], "student.train_embeddings=true"),
        (["distill.imitate={objectives: [embeddings]}"], "in which only the layers learn"),
        (["distill.student={choose: importance, layers: [0, 2]}"], "nothing to choose"),
        (["strategy=null", "backbone.quantization=none"], "extend distill_only"),
    ],
)
def test_keys_without_effect_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match="wrong") as caught:
        read_recipe("lora_cls", overrides)
    assert told in str(caught.value)


def test_a_bare_name_stands_for_the_defaults() -> None:
    assert changed("strategy=lora", "strategy.rank=16") == []


def test_paths_of_texts_and_teachers_are_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "more.txt").touch()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    recipe = read_recipe(
        "lora_cls",
        ["distill.text=more.txt", "distill.imitate.text=more.txt", "distill.teachers=[runs/one]"],
    )
    assert recipe.distill.imitate is not None
    assert recipe.distill.text == recipe.distill.imitate.text == str(tmp_path / "more.txt")
    assert recipe.distill.teachers == (str(tmp_path / "runs" / "one"),)


def test_extends_lays_one_file_over_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: lora_cls\ntrain: {epochs: 9}\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\ntrain: {batch_size: 7}\n")
    recipe = read_recipe(str(child))
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.data.source) == (9, 7, "trec")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epoch=3", "did you mean 'epochs'"),
        ("trian.epochs=3", "did you mean 'train'"),
        ("train.epochs=x", "train.epochs='x' should be a valid integer"),
        ("train.epochs=1.5", "train.epochs=1.5 should be a valid integer"),
        ("train.epochs=0", "train.epochs=0 should be greater than or equal to 1"),
        ("train=3", "should be a section with the keys augment, augment_classes, batch_size"),
        ("strategy.rnk=3", "did you mean 'rank'"),
        ("strategy.rank=0", "rank=0 should be greater"),
        ("strategy.name=lorra", "Did you mean 'lora'"),
        ("distill.objectives=[{name: kl, temprature: 3}]", "did you mean 'temperature'"),
        ("distill.objectives=[{nme: kl}]", "needs a name"),
        ("distill.objectives=[]", "distill.objectives"),
        ("distill.objectives=[{name: kl, since: 0.5, until: 0.5}]", "has to be less than until"),
        ("distill.objectives=[{name: kl, schedule: faling}]", "schedule"),
        ("distill.objectives=[{name: hidden, map: []}]", "map"),
        ("distill.folds=1", "distill.folds=1 should be greater than or equal to 2"),
        ("distill.combine=best", "should be 'mean', 'skill' or 'choice'"),
        ("distill.student.vocabulary=-1", "should be greater than or equal to 0"),
        ("distill.student.choose=random", "should be 'spread' or 'importance'"),
        ("distill.text=missing.txt", "missing.txt"),
        ("distill.text=plain-txt", "Did you mean 'plain-text'"),
        ("distill.teachers=[trec]", "is a data set"),
        ("distill.augment=[swapp]", "Did you mean 'swap'"),
        ("distill.imitate={text: minilm-l6}", "is a model"),
        ("distill.imitate={objectives: [kl]}", "is about answers, and plain text has none"),
        ("distill.imitate={objectives: [ce]}", "is about answers, and plain text has none"),
        ("train.augment=[splice]", "move it to distill.augment"),
        ("strategy=null", "set backbone.quantization=none"),
        ("backbone.quantization=nf5", "should be 'nf4', 'int8' or 'none'"),
        ("strategy.name=full", "backbone.quantization=none"),
        ("data.test=t.csv", "go with train"),
        ("data.source=", "give either source"),
        ("name=x", "unknown key 'name'"),
        ("batch-size=3", "unknown key 'batch-size'"),
        ("data.max-length=5", "did you mean 'max_length'"),
        ("seed=-1", "seed=-1 should be greater"),
        ("task=text_clasification", "Did you mean 'text_classification'"),
        ("backbone.model=minilm-l7", "Did you mean 'minilm-l6'"),
        ("backbone.model=trec", "is a data set"),
        ("data.train=b.csv", "b.csv"),
        ("distill.imitate={train: {metric: macro_f1}}", "train.metric has no effect"),
        ("data.train=~nobody/b.csv", "b.csv"),
        ("epochs", "is not an override"),
        ("=3", "is not an override"),
        ("data.text=[", "not readable"),
        ("plugins=[no_such_module_here]", "no plug-in module"),
    ],
)
def test_what_is_wrong_is_said(override: str, told: str) -> None:
    with pytest.raises((RecipeError, AdapterError)) as caught:
        read_recipe("lora_cls", [override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: {epochs: 1}\ntrain: {epochs: 2}\n", "'train' is there twice"),
        ("a: [1\n", "not readable YAML"),
        ("- 1\n", "has to be a mapping"),
        ("extends: r.yaml\n", "extends itself"),
        ("extends: lora_clss\n", "Did you mean 'lora_cls'"),
        ("strategy: {name: lora}\n", "the key 'data' is missing"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(str(path))
    assert told in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'lora_cls'"):
        read_recipe("lora_cl")
    with pytest.raises(RecipeError, match="no recipe file"):
        read_recipe("missing.yaml")


def test_a_key_that_came_later_counts_as_its_default() -> None:
    recipe = read_recipe("lora_cls")
    before = plain(recipe)
    del before["data"]["min_rows"], before["distill"]["alone"]
    assert changes(before, recipe) == []
    assert changes(before, read_recipe("lora_cls", ["data.min_rows=5"])) == ["data.min_rows"]
    assert "data.gone" in changes({**before, "data": {**before["data"], "gone": 1}}, recipe)
