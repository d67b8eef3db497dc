"""Adapters as files: read by plain peft, kept side by side, merged, and the command for it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from torch import nn

from adapters import AdapterError, Strategy, strategies
from adapters.backbone import load_backbone
from adapters.combine import HOWS, combine_adapters
from adapters.files import WEIGHTS, load_adapter, read_facts, save_adapter, saved_strategy
from adapters.merge import merge_adapter
from adapters.shelf import Shelf, label_rows
from adapters.strategy import prepare
from adapters.tiny import save_tiny_backbone
from recipes.adapters import main
from recipes.ledger import Ledger
from recipes.run import main as run

Make = Callable[[str], Path]
BATCH = tiny.batch(["the cat is here", "a big old red house ? was there and", "soup"])
PEFT: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"rank": 4}),
    ("dora", {"rank": 4}),
    ("rslora", {"rank": 4}),
    ("token_lora", {"rank": 4, "token_rank": 2}),
    ("pissa", {"rank": 4}),
    ("adalora", {"initial_rank": 4, "rank": 2}),
    ("vera", {"rank": 32}),
    ("ia3", {}),
    ("peft", {"method": "LOHA", "r": 4}),
    ("peft", {"method": "IA3"}),
    ("peft", {"method": "IA3", "target_modules": ["key", "output.dense"]}),
    ("replay", {}),
]
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("bottleneck", {}),
    ("bitfit", {}),
    ("norms", {}),
    ("last_layers", {"count": 1}),
    ("full", {}),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random backbone of two layers."""
    return save_tiny_backbone(tmp_path_factory.mktemp("small"), vocabulary=len(tiny.VOCABULARY))


def load(folder: Path, quantization: str = "none", labels: Sequence[str] = tiny.LABELS) -> Any:
    return load_backbone(folder, labels, quantization=quantization, seed=9)  # type: ignore[arg-type]


def logits(model: nn.Module) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        return model(**BATCH).logits.clone()  # type: ignore[no-any-return]


def saved(
    folder: Path,
    backbone: Path,
    name: str,
    *,
    quantization: str = "none",
    labels: Sequence[str] = tiny.LABELS,
    seed: int = 0,
    **fields: Any,
) -> torch.Tensor:
    """Save an adapter in which everything has learnt something; return what it answers."""
    strategy = strategies.get(name)(**fields)
    torch.manual_seed(seed)
    model = prepare(load(backbone, quantization, labels), strategy)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)
    save_adapter(folder, model, strategy, labels)
    return logits(model)


def reloaded(folder: Path, backbone: Path, quantization: str = "none") -> nn.Module:
    labels = read_facts(folder)["labels"]
    plain = load(backbone, quantization, labels)
    return load_adapter(folder, plain, saved_strategy(folder), labels)


def plain_peft(folder: Path, backbone: Path, **arguments: Any) -> torch.Tensor:
    """Return the answers of a model that peft and transformers have loaded without our help."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    count = len(read_facts(folder)["labels"])
    torch.manual_seed(123)  # for a head that is not the adapter's
    plain = AutoModelForSequenceClassification.from_pretrained(
        backbone, num_labels=count, **arguments
    )
    for module in plain.modules():  # tiny layers cannot be packed, which bitsandbytes overlooks
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return logits(PeftModel.from_pretrained(plain, str(folder)))


@pytest.mark.parametrize(
    ("name", "fields"), PEFT, ids=[f"{name} {fields}" for name, fields in PEFT]
)
def test_plain_peft_reads_what_it_has_a_method_for(
    name: str, fields: dict[str, Any], small: Path, tmp_path: Path
) -> None:
    expected = saved(tmp_path, small, name, **fields)
    torch.testing.assert_close(plain_peft(tmp_path, small), expected, atol=1e-5, rtol=0)


def test_plain_peft_reads_an_adapter_on_four_bits(small: Path, tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    expected = saved(tmp_path, small, "lora", quantization="nf4", rank=4)
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=["classifier", "bert.pooler"],
    )
    found = plain_peft(tmp_path, small, quantization_config=four_bits, dtype=torch.float32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_weights_that_plain_peft_cannot_split_again_are_not_offered_to_it(
    quantization: str, small: Path, tmp_path: Path
) -> None:
    expected = saved(tmp_path, small, "pissa", quantization=quantization, rank=4)
    assert (tmp_path / "adapter_config.json").exists() == (quantization == "none")
    assert torch.equal(logits(reloaded(tmp_path, small, quantization)), expected)


@pytest.mark.parametrize(("name", "fields"), OTHERS, ids=[name for name, _ in OTHERS])
def test_what_peft_has_no_method_for_reloads(
    name: str, fields: dict[str, Any], small: Path, tmp_path: Path
) -> None:
    expected = saved(tmp_path, small, name, **fields)
    assert not (tmp_path / "adapter_config.json").exists()
    assert torch.equal(logits(reloaded(tmp_path, small)), expected)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_switching_there_and_back_is_loading_each_alone(
    quantization: str, small: Path, tmp_path: Path
) -> None:
    """Adapters of any strategies and labels, with some that change the backbone's weights."""
    chosen: list[tuple[str, dict[str, Any]]] = [
        ("lora", {"rank": 4}), ("pissa", {"rank": 4}), ("vera", {"rank": 32}), ("bitfit", {}),
        ("bottleneck", {}), ("last_layers", {"count": 1}), ("lora", {"rank": 2}),
    ]  # fmt: skip
    if quantization == "none":
        chosen.append(("full", {}))
    backbone = load(small, quantization)
    shelf, alone = Shelf(backbone), {}
    for place, (name, fields) in enumerate(chosen):
        labels = [*tiny.LABELS, "other"] if place % 2 else tiny.LABELS
        key, folder = f"{place} {name}", tmp_path / str(place)
        saved(folder, small, name, quantization=quantization, labels=labels, **fields)
        alone[key] = logits(reloaded(folder, small, quantization))
        shelf.add(key, folder)
    assert shelf.names == list(alone)
    for key in (*alone, *reversed(alone)):
        assert torch.equal(logits(shelf.use(key)), alone[key]), key
        assert len(shelf.labels) == alone[key].shape[1]
    assert torch.equal(logits(backbone), logits(load(small, quantization)))


def test_the_backbone_is_held_once(small: Path, tmp_path: Path) -> None:
    shelf, places = Shelf(load(small)), []
    for name in ("one", "two"):
        saved(tmp_path / name, small, "lora", rank=4)
        shelf.add(name, tmp_path / name)
        frozen = [p for p in shelf.use(name).parameters() if not p.requires_grad]
        places.append([weight.data_ptr() for weight in frozen])
    assert places[0] == places[1]


def test_a_shelf_refuses_what_does_not_belong_there(small: Path, tmp_path: Path) -> None:
    saved(tmp_path / "lora", small, "lora", rank=4)
    saved(tmp_path / "full", small, "full")
    wide = save_tiny_backbone(tmp_path / "wide", vocabulary=len(tiny.VOCABULARY), width=64)
    shelf = Shelf(load(small, "nf4"))
    shelf.add("a", tmp_path / "lora")
    with pytest.raises(AdapterError, match="on the shelf; choose"):
        shelf.add("a", tmp_path / "lora")
    with pytest.raises(AdapterError, match="no adapter 'b'"):
        shelf.use("b")
    with pytest.raises(AdapterError, match="quantization none"):
        shelf.add("full", tmp_path / "full")
    with pytest.raises(AdapterError, match="does not fit"):
        Shelf(load(wide)).add("a", tmp_path / "lora")
    (tmp_path / "lora" / WEIGHTS).write_bytes(b"no")
    with pytest.raises(AdapterError, match="missing or damaged"):
        shelf.add("b", tmp_path / "lora")


def test_a_strategy_may_not_write_into_shared_weights(small: Path, tmp_path: Path) -> None:
    class Doubles(Strategy):
        """Doubles a weight where it lies."""

        def prepare(self, model: Any) -> Any:
            model.bert.encoder.layer[0].output.dense.weight.data.mul_(2)
            model.bert.encoder.layer[0].output.dense.bias.requires_grad_(True)
            return model

    with strategies.known(Doubles):
        saved(tmp_path, small, Doubles.__qualname__)
        with pytest.raises(AdapterError, match="other adapters share"):
            Shelf(load(small)).add("a", tmp_path)


def merged_weights(folder: Path, backbone: Path) -> dict[str, torch.Tensor]:
    """Return all weights of the plain model that an adapter becomes."""
    labels = read_facts(folder)["labels"]
    model = merge_adapter(
        folder,
        lambda quantization: load(backbone, quantization, labels),
        saved_strategy(folder),
        labels,
        into="original",
        quantization="none",
    )
    return dict(model.named_parameters())


def combine(backbone: Path, out: Path, folders: Sequence[Path], how: Any, **options: Any) -> Path:
    def plain(labels: Sequence[str]) -> Any:
        return load(backbone, "none", labels)

    combine_adapters(folders, plain, out, how=how, **options)
    return out


@pytest.fixture(scope="module")
def sources(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    saved(folder / "a", small, "lora", seed=1, rank=4)
    saved(folder / "b", small, "lora", seed=2, rank=4, alpha=8.0)
    saved(folder / "rs", small, "rslora", seed=3, rank=4, targets=["query", "value"])
    saved(folder / "wide", small, "lora", seed=4, rank=8)
    saved(folder / "dora", small, "dora", rank=4)
    saved(folder / "pissa", small, "pissa", rank=4)
    split = {"name": "pissa", "rank": 4}
    saved(folder / "split", small, "replay", quantization="nf4", base=split)
    saved(folder / "ia3", small, "ia3")
    saved(folder / "bitfit", small, "bitfit")
    saved(folder / "four", small, "lora", rank=4, labels=[*tiny.LABELS, "other"])
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("how", HOWS)
def test_merged_adapters_are_adapters(
    how: Any, small: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    out = combine(small, tmp_path, [sources["a"], sources["b"]], how)
    found = logits(reloaded(out, small))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(plain_peft(out, small), found, atol=1e-5, rtol=0)
    assert (found - logits(load(small))).abs().max() > 1e-3
    rank = read_facts(out)["strategy"]["rank"]
    assert (read_facts(out)["strategy"]["name"], rank) == ("lora", 8 if how == "cat" else 4)


def test_cat_is_the_weighted_sum(small: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    """Of updates with other ranks, scales and layers; heads are averaged."""
    chosen, weights = [sources["wide"], sources["rs"], sources["b"]], [0.5, 1.0, 0.5]
    out = combine(small, tmp_path, chosen, "cat", weights=weights)
    found, parts = merged_weights(out, small), [merged_weights(f, small) for f in chosen]
    plain = dict(load(small).named_parameters())
    for name, weight in found.items():
        pairs = list(zip(weights, parts, strict=True))
        if name.startswith(("classifier", "bert.pooler")):
            expected = sum(w / 2 * part[name] for w, part in pairs)
        else:
            expected = plain[name] + sum(w * (part[name] - plain[name]) for w, part in pairs)
        torch.testing.assert_close(weight, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_only_the_adapted_layers_are_in_the_result(
    small: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    combine(small, tmp_path, [sources["rs"], sources["rs"]], "ties")
    assert read_facts(tmp_path)["strategy"]["targets"] == ["query", "value"]


def test_labels_are_matched_by_name(small: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    turned = tmp_path / "turned"
    shutil.copytree(sources["b"], turned)
    facts = read_facts(turned)
    facts["labels"] = [tiny.LABELS[place] for place in (2, 0, 1)]
    (turned / "adapter.json").write_text(json.dumps(facts))
    state = load_file(turned / WEIGHTS)
    for name in state:
        if "classifier" in name:
            state[name] = state[name][[2, 0, 1]].contiguous()
    save_file(state, turned / WEIGHTS)
    one = combine(small, tmp_path / "1", [sources["a"], sources["b"]], "linear")
    other = combine(small, tmp_path / "2", [sources["a"], turned], "linear")
    assert read_facts(other)["labels"] == tiny.LABELS
    assert (one / WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()


def test_rows_of_labels_are_told_from_other_rows(tiny_backbone: Make) -> None:
    """Where a head has as many labels as the model is wide."""
    model = load(tiny_backbone("roberta"), labels=[f"label {i}" for i in range(32)])
    assert label_rows(model) == {"classifier.out_proj.weight", "classifier.out_proj.bias"}


def test_dare_drops_by_its_seed(small: Path, sources: dict[str, Path], tmp_path: Path) -> None:
    both = [sources["a"], sources["b"]]
    made = [
        combine(small, tmp_path / str(place), both, "dare_linear", seed=seed, density=0.3)
        for place, seed in enumerate((0, 0, 1))
    ]
    states = [(out / WEIGHTS).read_bytes() for out in made]
    assert states[0] == states[1] != states[2]


@pytest.mark.parametrize(
    ("names", "how", "options", "told"),
    [
        (["a", "wide"], "linear", {}, r"ranks 4, 8, and linear needs equal ones.*cat or svd"),
        (["a", "wide"], "dare_ties", {}, "dare_ties_svd"),
        (["a", "four"], "ties", {}, r"same labels \(other on one side"),
        (["a", "dora"], "linear", {}, "more than the two factors"),
        (["a", "pissa"], "linear", {}, "changed weights of the backbone"),
        (["a", "split"], "linear", {}, "changed weights of the backbone"),
        (["a", "ia3"], "linear", {}, "LoRA only, not IA3"),
        (["a", "bitfit"], "linear", {}, "not one of peft's"),
        (["a"], "linear", {}, "at least two"),
        (["a", "b"], "linear", {"weights": [1.0]}, "2 adapters and 1 weights"),
        (["a", "b"], "linear", {"weights": [1.0, -1.0]}, "above 0"),
        (["a", "b"], "cat", {"weights": [float("nan"), 1.0]}, "above 0"),
        (["a", "b"], "cat", {"weights": [1.0, float("inf")]}, "above 0"),
        (["a", "b"], "ties", {"density": 0.0}, "density=0"),
    ],
)
def test_what_cannot_be_merged_is_refused(
    names: list[str], how: str, options: dict[str, Any], told: str,
    small: Path, sources: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(AdapterError, match=told):
        combine(small, tmp_path / "out", [sources[name] for name in names], how, **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def runs(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of three runs that have fine-tuned one backbone."""
    folder = tmp_path_factory.mktemp("adapter-runs")
    data = tiny.table(folder / "rows.csv", count=120)
    common = [
        "lora_cls", f"data.train={data}", f"backbone.model={tiny_backbone('bert')}",
        "train.epochs=3", "train.learning_rate=3e-2", "train.batch_size=8", "threads=1",
        "train.patience=null", "distill.student.layers=2", "--to", "finetune",
        "train.precision=float32",  # in bfloat16, merging dequantized weights is exact to 1e-3
    ]  # fmt: skip
    for name, own in {
        "one": ["strategy.rank=4"],
        "two": ["strategy.rank=4", "seed=1"],
        "biases": ["strategy=bitfit"],
    }.items():
        assert run([*common, *own, "--out", str(folder / name)]) == 0
    return folder


def asked(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    capfd.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    return capfd.readouterr().out


def test_list_shows_every_adapter(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entries = {
        Path(e["folder"]).parent.name: e for e in json.loads(asked(capfd, "list", runs, "--json"))
    }
    assert set(entries) == {"one", "two", "biases"}
    row = Ledger(runs / "one" / "ledger.json")["teacher"]
    assert entries["one"]["validation"] == row.validation
    assert entries["one"]["labels"] == tiny.LABELS
    assert (entries["one"]["problem"], entries["one"]["headline"]) == ("single_label", "accuracy")
    table = asked(capfd, "list", runs)
    assert "lora rank 4" in table
    assert "bitfit" in table


def test_adapters_answer_together_as_alone(
    runs: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the old cat", "a soup here"]
    names = ["one", "biases", "two"]
    folders = [runs / name for name in names]
    words = [word for text in texts for word in ("--text", text)]
    together = [
        json.loads(line) for line in asked(capfd, "answer", *folders, *words, "--json").splitlines()
    ]
    assert [answer["text"] for answer in together] == texts
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    for name, folder in zip(names, folders, strict=True):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n\n".join(texts)))
        alone = [
            json.loads(line)
            for line in asked(capfd, "answer", folder / "teacher", "--json").splitlines()
        ]
        for one, all_of_them in zip(alone, together, strict=True):
            assert one["answers"][name] == all_of_them["answers"][name]
    assert len({answer["probability"] for answer in together[0]["answers"].values()}) == 3
    assert "one" in asked(capfd, "answer", *folders, *words)


def test_merging_leaves_an_adapter_that_is_found_and_asked(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    told = asked(capfd, "merge", runs / "one", runs / "two", "--how", "cat", "--out", out)
    assert "heads were averaged" in told
    scores = {
        line.split()[0]: line.split()[1] for line in told.splitlines() if len(line.split()) == 2
    }
    for name in ("one", "two"):
        accuracy = Ledger(runs / name / "ledger.json")["teacher"].validation["accuracy"]
        assert scores[name] == f"{100 * accuracy:.2f}"
    assert "merged" in scores
    assert "lora rank 8" in asked(capfd, "list", tmp_path)
    assert "merged" in asked(capfd, "answer", runs / "one", out, "--text", "the cat")
    bare = tmp_path / "bare"
    shutil.copytree(runs / "two" / "teacher", bare)
    assert main(["answer", str(bare), "--text", "x"]) == 3
    assert main(["drift", str(bare)]) == 3
    backbone = json.loads(asked(capfd, "list", runs, "--json"))[0]["backbone"]
    assert "bare" in asked(capfd, "answer", bare, "--text", "cat", "--backbone", backbone)


def torn(folder: Path, like: Path, problem: str) -> Path:
    """Make a run whose adapter gives three labels these probabilities, whatever the text says."""
    folder.mkdir()
    recipe = yaml.safe_load((like / "recipe.yaml").read_text())
    model = prepare(load(Path(recipe["backbone"]["model"])), strategies.get("lora")(rank=4))
    for name, tensor in model.named_parameters():
        if "classifier" in name and tensor.requires_grad:
            values = torch.tensor([0.45, 0.2, 0.35]).log() if "bias" in name else 0.0
            tensor.data[:] = values
    save_adapter(folder / "teacher", model, strategies.get("lora")(rank=4), tiny.LABELS)
    shutil.copy(like / "recipe.yaml", folder / "recipe.yaml")
    row = Ledger(like / "ledger.json")["teacher"]
    Ledger(folder / "ledger.json").put(replace(row, problem=problem))
    return folder


def test_labels_with_an_order_are_answered_by_the_median(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the bundle does, and so does an adapter that was merged of such."""
    plain = torn(tmp_path / "plain", runs / "one", "single_label")
    ordered = [torn(tmp_path / name, runs / "one", "ordinal") for name in ("a", "b")]
    merged = tmp_path / "merged"
    asked(capfd, "merge", *ordered, "--how", "cat", "--no-score", "--out", merged)
    told = asked(capfd, "answer", plain, ordered[0], merged, "--text", "a cat", "--json")
    found = json.loads(told)["answers"]
    assert {name: answer["label"] for name, answer in found.items()} == {
        "plain": tiny.LABELS[0], "a": tiny.LABELS[1], "merged": tiny.LABELS[1],
    }  # fmt: skip
    assert found["plain"]["probability"] == pytest.approx(0.45, abs=1e-3)
    assert found["a"]["probability"] == pytest.approx(0.2, abs=1e-3)


def test_adapters_for_other_answers_are_not_asked_and_told_by_their_headline(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shutil.copytree(runs / "one", out)
    scores = {"r2": 0.625, "mae": 3.0}
    ledger = Ledger(out / "ledger.json")
    row = replace(
        ledger["teacher"], headline="r2", problem="regression", metrics=scores, validation=scores
    )
    ledger.put(row)
    table = asked(capfd, "list", tmp_path)
    assert "explained variance" in table
    assert "62.50" in table
    assert main(["answer", str(out), "--text", "x"]) == 3
    assert "it is for regression data" in capfd.readouterr().err


def test_drift_is_told_for_every_way_to_merge(
    runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(asked(capfd, "drift", runs / "one", "--json"))
    ways = [(entry["merged_into"], entry["held_in"]) for entry in found]
    assert ways == [
        ("", "nf4"),
        *(("original", held) for held in ("none", "nf4", "int8")),
        *(("dequantized", held) for held in ("none", "nf4", "int8")),
    ]
    by_way = dict(zip(ways, found, strict=True))
    row = Ledger(runs / "one" / "ledger.json")["teacher"]
    assert found[0]["score"] == row.validation["accuracy"]
    assert by_way["dequantized", "none"]["max_logit_difference"] < 1e-4
    assert by_way["original", "nf4"]["max_logit_difference"] > 1e-3
    assert "largest logit difference" in asked(capfd, "drift", runs / "one")
    out = tmp_path / "run"
    shutil.copytree(runs / "one", out)
    assert run([str(out / "recipe.yaml"), "--out", str(out), "--resume", "--to", "merge"]) == 0
    notes = Ledger(out / "ledger.json")["merged"].notes
    assert [note.partition(":")[0] for note in notes] == [
        "merged into original weights",
        "merged into dequantized weights",
        "merged into original weights and held in nf4",
        "merged into original weights and held in int8",
    ]
    expected = f"{by_way['original', 'nf4']['max_logit_difference']:.3g}"
    assert f"at most {expected}," in notes[2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "required: COMMAND"),
        (["list", "nowhere"], "no folder nowhere"),
        (["answer", "nowhere", "--text", "x"], "no adapter in nowhere"),
        (["answer", "one", "one", "--text", "x"], "named twice"),
        (["answer", "one", "other", "--text", "x"], "different backbones"),
        (["merge", "one", "two", "--how", "best", "--out", "x"], "invalid choice"),
        (["merge", "one", "two", "--how", "cat", "--out", "one"], "not empty"),
        (["merge", "one", "biases", "--how", "cat", "--out", "x"], "not one of peft's"),
        (["drift", "broken"], "damaged"),
    ],
)
def test_mistakes_get_one_message(
    arguments: list[str], told: str, runs: Path, tiny_backbone: Make, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("one", "two", "biases", "other", "broken"):
        shutil.copytree(runs / (name if (runs / name).exists() else "one"), tmp_path / name)
    recipe = tmp_path / "other" / "recipe.yaml"
    away = str(tiny_backbone("electra"))
    recipe.write_text(recipe.read_text().replace(str(tiny_backbone("bert")), away))
    (tmp_path / "broken" / "teacher" / WEIGHTS).write_bytes(b"no")
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    assert main(arguments) == 3
    error = capfd.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "x").exists()
