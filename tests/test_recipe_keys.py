"""Every key of a recipe changes something: no key may be there that nothing reads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny_work import wordy

from adapters.backbone import load_backbone
from adapters.hardware import Hardware
from adapters.strategy import learned_state, prepare
from recipes import gate, several_students, training
from recipes.ledger import Row
from recipes.long_text import Drawn
from recipes.problems.single_label import SingleLabel
from recipes.reading import plain, read_recipe
from recipes.recipe import Recipe
from recipes.stages import STAGES
from recipes.tasks import Split, tasks
from recipes.tasks.text_classification import TextClassification
from recipes.training import Trained
from recipes.workspace import Workspace, machine

Make = Callable[[str], Path]
Probe = Callable[["Bench", Recipe], Any]


class Bench:
    """A place to try recipes: data files, backbones, and a run that has been fine-tuned."""

    def __init__(self, folder: Path, backbone: Path, other: Path) -> None:
        self.folder, self.backbone, self.other = folder, backbone, other
        rows = tiny.rows(120)
        broken = [*rows[:60], ("", "food"), *rows[60:], ("x" * 50, "food")]
        for name, content in {
            "rows": rows,
            "other": rows[:90],
            "broken": broken,
            "uneven": [*rows, *((f"{text} odd", "odd") for text, _ in rows[:8])],
        }.items():
            lines = [f"{text},{label},{label[0]},{text[::-1]}" for text, label in content]
            (folder / f"{name}.csv").write_text("\n".join(["text,label,initial,reversed", *lines]))
        later = "".join(f"later {text},{label},l,x\n" for text, label in rows[:90])
        (folder / "later.csv").write_text(f"text,label,initial,reversed\n{later}")
        (folder / "plugin.py").write_text("import sys\nsys.bench_plugin = True\n")
        self.base = [
            f"data.train={folder / 'rows.csv'}",
            f"backbone.model={backbone}",
            "data.text=text",
            "data.label=label",
            "train.epochs=1",
            "distill.train.epochs=1",
            "distill.student.layers=2",
            "threads=1",
        ]
        (folder / "plain.txt").write_text("".join(f"{text} plain\n" for text, _ in rows[:30]))
        (folder / "more.txt").write_text("".join(f"{text} more\n" for text, _ in rows[:40]))
        second = load_backbone(backbone, tiny.LABELS, seed=1)
        second.save_pretrained(folder / "second")
        tiny.tokenizer().save_pretrained(folder / "second")
        wordy(folder / "wordy", 9)
        self.seen: dict[tuple[Probe, tuple[str, ...]], Any] = {}
        self.trained = folder / "trained"
        work = self.work(self.recipe(), self.trained)
        for stage in STAGES[1:3]:
            stage.run(work)

    @cached_property
    def exported(self) -> Path:
        """The run that has been exported too."""
        exported = self.folder / "exported"
        shutil.copytree(self.trained, exported)
        for stage in STAGES[3:5]:
            stage.run(self.work(self.recipe(), exported))
        return exported

    def recipe(self, *overrides: str) -> Recipe:
        filled = [
            word.replace("DIR", str(self.folder)).replace("OTHER", str(self.other))
            for word in overrides
        ]
        return read_recipe("lora_cls", [*self.base, *filled])

    def work(self, recipe: Recipe, folder: Path) -> Workspace:
        folder.mkdir(exist_ok=True)
        return Workspace(recipe, folder, machine(recipe), offline=True)

    def untrained(self, recipe: Recipe, stage: str) -> None:
        """Run a stage in a folder where nothing has been done."""
        work = self.work(recipe, self.folder / "untrained")
        next(s for s in STAGES if s.name == stage).run(work)

    def after(self, recipe: Recipe, *stages: str, start: Path | None = None) -> Workspace:
        """Run some stages on a copy of the fine-tuned run, or of another one."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(start or self.trained, copy)
        work = self.work(recipe, copy)
        for stage in STAGES:
            if stage.name in stages:
                stage.run(work)
        return work


@pytest.fixture(scope="module")
def bench(tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield Bench(tmp_path_factory.mktemp("bench"), tiny_backbone("bert"), tiny_backbone("electra"))
    torch.set_num_threads(2)


def rows(bench: Bench, recipe: Recipe) -> Any:
    read = bench.work(recipe, bench.folder / "rows").rows
    return read.fingerprint, len(read.train), len(read.validation), read.labels


def max_length(bench: Bench, recipe: Recipe) -> Any:
    return bench.work(recipe, bench.folder / "rows").max_length


def read(bench: Bench, recipe: Recipe) -> Any:
    """Return what a training and an evaluation are given of a long text."""
    work = bench.work(recipe, bench.folder / "rows")
    split = Split(["the cat was here " * 30], [0])
    examples = work.task.features(split, work.tokenizer, work.max_length)
    collate = work.task.collator(work.tokenizer)
    batches = [collate(rows) for rows in (examples, list(Drawn(examples, 0)))]
    return [(batch["input_ids"].tolist(), batch.get("windows")) for batch in batches]


def model(bench: Bench, recipe: Recipe) -> Any:
    work = bench.work(recipe, bench.folder / "model")
    prepared = prepare(work.load(recipe.backbone.quantization), recipe.strategy).eval()
    state = learned_state(prepared)
    torch.manual_seed(0)
    for tensor in state.values():
        tensor.add_(torch.randn_like(tensor) * 0.1)
    answer = prepared.train()(**tiny.batch(["the cat", "a big house"])).logits
    return sorted((name, tuple(t.shape)) for name, t in state.items()), answer.tolist()


class StopError(Exception):
    pass


def trainer(section: Callable[[Recipe], Any]) -> Probe:
    """Return what the Trainer is told, by way of a section of the recipe."""

    def probe(bench: Bench, recipe: Recipe) -> Any:
        told: dict[str, Any] = {}

        def record(**given: Any) -> None:
            told.update(given["args"].to_dict(), logging_dir=None)
            told["patience"] = [vars(c).get("early_stopping_patience") for c in given["callbacks"]]
            raise StopError

        able = Hardware("cpu", "able", 1, bf16=True, vnni=True, flags=())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "_Trainer", record)
            patch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)
            with pytest.raises(StopError):
                training.fit(
                    torch.nn.Linear(1, 1), [{"input_ids": [], "labels": 0}], [{}], title="",
                    folder=bench.folder / "fit",
                    settings=section(recipe), problem=SingleLabel(["a", "b"]), collate=dict,
                    hardware=able, allow_fallback=True, seed=recipe.seed,
                )  # fmt: skip
        return told

    return probe


def read_and_lost(bench: Bench, recipe: Recipe) -> Any:
    """Return which rows the teacher's first epoch reads, and what some answers lose."""
    told: list[Any] = []

    def record(self: Any, **_: Any) -> None:
        torch.manual_seed(0)
        told.append(list(self._get_train_sampler()))
        told.append(float(self.model._loss(torch.randn(9, 3), torch.arange(9) % 3)))
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Trainer, "train", record)
        with pytest.raises(StopError):
            bench.untrained(recipe, "finetune")
    return told


def dropout(bench: Bench, recipe: Recipe) -> Any:
    """Return what the fine-tuned or distilled model answers in training mode."""
    seen: list[Any] = []
    for name, module in (("finetune", "recipes.training"), ("distill", "recipes.stages.distill")):
        with pytest.MonkeyPatch.context() as patch:

            def record(learner: Any, *_: Any, **__: Any) -> None:
                seen.append(sorted({m.p for m in learner.modules() if hasattr(m, "p")}))
                raise StopError

            patch.setattr(f"{module}.fit", record)
            start = bench.untrained if name == "finetune" else bench.after
            with pytest.raises(StopError):
                start(recipe, name)
    return seen


def merged(bench: Bench, recipe: Recipe) -> Any:
    return bench.after(recipe, "merge").logits("merged")["test"].tolist()


def given(bench: Bench, recipe: Recipe, module: str) -> Any:
    """Return what a training of the stage ``distill`` is given, and train nothing."""
    told: list[Any] = []

    def record(learner: Any, train: Any, validation: Any, **given: Any) -> None:
        texts = [row["texts"] for row in train]
        batch = given["collate"](sorted(train, key=lambda row: row["texts"])[:16])
        learner.train()
        losses = []
        for learner.progress in (0.25, 0.75):
            torch.manual_seed(0)
            losses.append(float(learner(**batch)["loss"]))
        shapes = [(n, tuple(p.shape), p.requires_grad) for n, p in learner.named_parameters()]
        rates = sorted({m.p for m in learner.modules() if isinstance(m, torch.nn.Dropout)})
        told.extend((shapes, texts, losses, rates, given["settings"]))
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POTSTILL_CACHE", str(bench.folder / "cache"))
        patch.setattr("recipes.folds.fit_adapter", lambda *_, **__: None)
        patch.setattr(f"recipes.{module}.fit", record)
        with pytest.raises(StopError):
            bench.after(recipe, "distill")
    return told


def lesson(bench: Bench, recipe: Recipe) -> Any:
    return given(bench, recipe, "stages.distill")


def imitation(bench: Bench, recipe: Recipe) -> Any:
    return given(bench, recipe, "imitation")


def alone(bench: Bench, recipe: Recipe) -> Any:
    """Return what the student without a teacher is given, once the other has read so much."""
    row = SimpleNamespace(tokens_read=50_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.ledger.Ledger.__contains__", lambda _, name: name == "student")
        patch.setattr("recipes.ledger.Ledger.__getitem__", lambda *_: row)
        return lesson(bench, recipe)


def refined(bench: Bench, recipe: Recipe) -> Any:
    """Return what the student's second training is given."""
    seen: list[Any] = []

    def record(learner: Any, train: Any, *_: Any, **given: Any) -> Trained:
        seen.append(([row["texts"] for row in train], given["settings"]))
        if len(seen) == 2:
            raise StopError
        return Trained([{"epoch": 1.0, "eval_accuracy": 1.0}], 1.0, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.stages.distill.fit", record)
        with pytest.raises(StopError):
            bench.after(recipe, "distill")
    return seen[1]


def taught_rows(bench: Bench, recipe: Recipe) -> Any:
    """Return the rows that the teacher learns from."""
    told: list[Any] = []

    def record(work: Workspace, model: Any, train: Any, *_: Any, **__: Any) -> None:
        told.extend(row["texts"] for row in train)
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.stages.finetune.fit_adapter", record)
        with pytest.raises(StopError):
            bench.untrained(recipe, "finetune")
    return told


def contrast(bench: Bench, recipe: Recipe) -> Any:
    """Return what the stage before fine-tuning is given, and train nothing."""
    told: list[Any] = []

    def record(module: Any, train: Any, *_: Any, **given: Any) -> None:
        torch.manual_seed(0)
        batch = given["collate"](train[:8])
        told.extend((module(**batch)["loss"].item(), given["settings"]))
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.training.fit", record)
        patch.setattr("recipes.contrast.fit", record)
        with pytest.raises(StopError):
            bench.untrained(recipe, "finetune")
    return told


def cached(bench: Bench, recipe: Recipe) -> Any:
    from recipes import teachers

    used: list[str] = []

    class Recorded(teachers.CachedTeacher):
        def __init__(self, *arguments: Any) -> None:
            used.append("cache")
            super().__init__(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.teachers.CachedTeacher", Recorded)
        lesson(bench, recipe)
    return used


def graph(bench: Bench, recipe: Recipe) -> Any:
    # Exporting takes long: only a recipe that exports otherwise does it anew.
    stages = ("export", "quantize") if recipe.export.optimize == "none" else ("quantize",)
    work = bench.after(recipe, *stages, start=bench.exported)
    return sorted((file.name, file.stat().st_size) for file in (work.folder / "onnx").iterdir())


def students(bench: Bench, recipe: Recipe) -> Any:
    found = several_students.students(bench.work(recipe, bench.folder / "rows"))
    return {name: one.recipe.distill.student.layers for name, one in found.items()}


def ladder(bench: Bench, recipe: Recipe) -> Any:
    work = bench.after(recipe, "quantize", start=bench.exported)
    return [entry["step"] for entry in work.ledger["student-int8"].ladder]


def verdict(bench: Bench, recipe: Recipe) -> Any:
    work = bench.work(recipe, bench.folder / "verdict")
    for name, score in (("student-onnx", 0.9), ("student-int8", 0.85)):
        work.ledger.put(
            Row(
                "x",
                name,
                size_bytes=20_000_000,
                validation={"accuracy": score},
                latency_ms={"gate": {"p50": 2.0}},
                agreement={"validation_labels": 0.9, "batches_labels": 0.9, "batches_worst": ""},
            )
        )
    return gate.verdict(work)


def decided(bench: Bench, recipe: Recipe) -> Any:
    """Return the decision that would be packed, for logits of a rare class and of rash answers."""
    from recipes.problems.single_label import SingleLabel

    chance = np.random.default_rng(0)
    labels = chance.choice(3, 1_000, p=[0.9, 0.07, 0.03])
    logits = chance.normal(size=(1_000, 3)) + 1.2 * np.eye(3)[labels] + np.log([0.9, 0.07, 0.03])
    decision, _ = SingleLabel(["a", "b", "c"]).decided(2 * logits, labels.tolist(), recipe.decide)
    return decision.plain()


def slices(bench: Bench, recipe: Recipe) -> Any:
    return bench.work(recipe, bench.folder / "rows").rows.test.slices


def environment(bench: Bench, recipe: Recipe) -> Any:
    return machine(recipe)


def fallback(bench: Bench, recipe: Recipe) -> Any:
    return Hardware("cpu", "old", 1, bf16=False, vnni=True, flags=()).bf16_for(
        "bf16", recipe.allow_fallback
    )


def plugin(bench: Bench, recipe: Recipe) -> Any:
    import sys

    return sys.__dict__.pop("bench_plugin", False)


def task(bench: Bench, recipe: Recipe) -> Any:
    return type(bench.work(recipe, bench.folder / "rows").task)


@tasks.register("other_task")
class OtherTask(TextClassification):
    """Another task."""


def chosen(bench: Bench, recipe: Recipe) -> Any:
    """Return which layers the student keeps, where any but the last one count little."""
    from recipes.students import make

    work = bench.work(recipe, bench.folder / "chosen")
    teacher = work.load()
    weight: torch.Tensor
    for name, weight in teacher.named_parameters():
        if ".layer.3." in name and name.endswith("dense.weight"):
            weight.data.zero_()
    return make(work, teacher).kept


KL = "distill.objectives=[kl]"
IMITATE = ["distill.imitate.text=DIR/plain.txt"]
REFINE = ["distill.augment=[swap]", "distill.refine={}"]

#: Key to an override that has to change something, and to where the change is seen.
WINDOWS = ["data.long={way: windows, stride: 4}"]
KEYS: dict[str, tuple[list[str], Probe]] = {
    "task": (["task=other_task"], task),
    "data.source": (["data.source=DIR/other.csv"], rows),
    "data.train": (["data.train=DIR/other.csv"], rows),
    "data.validation": (["data.validation=DIR/other.csv"], rows),
    "data.test": (["data.test=DIR/other.csv"], rows),
    "data.text": (["data.text=reversed"], rows),
    "data.label": (["data.label=initial"], rows),
    "data.pair": (["data.pair=initial"], rows),
    "data.problem": (["data.problem=multi_label"], rows),
    "data.separator": (["data.separator=e"], rows),
    "data.order": (["data.order=[place,food,animal]"], rows),
    "data.min_rows": (["data.train=DIR/uneven.csv", "data.min_rows=9"], rows),
    "data.rare": (["data.train=DIR/uneven.csv", "data.min_rows=9", "data.rare=merge"], rows),
    "data.test_fraction": (["data.test_fraction=0.3"], rows),
    "data.validation_fraction": (["data.validation_fraction=0.2"], rows),
    "data.fraction": (["data.fraction=0.3"], rows),
    "data.per_class": (["data.per_class=8"], rows),
    "data.draw_seed": (["data.fraction=0.3", "data.draw_seed=7"], rows),
    "data.split_seed": (["data.split_seed=1"], rows),
    "data.overlap": (["data.test=DIR/other.csv", "data.overlap=refuse"], rows),
    "data.invalid_rows": (["data.train=DIR/broken.csv", "data.invalid_rows=drop"], rows),
    "data.max_characters": (["data.max_characters=10"], rows),
    "data.max_length": (["data.max_length=8"], max_length),
    "data.long.way": (["data.long.way=head_tail"], read),
    "data.long.stride": ([*WINDOWS, "data.long.stride=5"], read),
    "data.long.pool": ([*WINDOWS, "data.long.pool=attention"], read),
    "data.long.most": ([*WINDOWS, "data.long.most=3"], read),
    "data.long.train_windows": ([*WINDOWS, "data.long.train_windows=1"], read),
    "phases.classes": (["phases.classes=2"], rows),
    "phases.column": (["phases.column=initial"], rows),
    "phases.files": (["phases.files=[DIR/later.csv]"], rows),
    "backbone.model": (["backbone.model=OTHER"], model),
    "backbone.quantization": (["backbone.quantization=none"], model),
    "backbone.double_quantization": (["backbone.double_quantization=false"], model),
    "strategy.name": (["strategy.name=head"], model),
    "strategy.rank": (["strategy.rank=3"], model),
    "strategy.alpha": (["strategy.alpha=3"], model),
    "strategy.dropout": (["strategy.dropout=0.5"], model),
    "strategy.targets": (["strategy.targets=[query]"], model),
    "contrast.epochs": (["contrast.epochs=3"], contrast),
    "contrast.learning_rate": (["contrast={}", "contrast.learning_rate=1e-5"], contrast),
    "contrast.batch_size": (["contrast={}", "contrast.batch_size=5"], contrast),
    "contrast.temperature": (["contrast={}", "contrast.temperature=0.5"], contrast),
    "train.dropout": (["train.dropout=0.3"], dropout),
    "distill.train.dropout": (["distill.train.dropout=0.3"], dropout),
    "merge.into": (["merge.into=dequantized"], merged),
    "train.loss": (["train.loss=focal"], read_and_lost),
    "train.class_weights": (["train.class_weights={food: 3}"], read_and_lost),
    "train.resample": (["train.resample=sqrt"], read_and_lost),
    "train.augment_classes": (
        ["train.augment=[swap]", "train.augment_classes=rare"], taught_rows,
    ),
    "distill.train.loss": (["distill.train.loss=focal"], lesson),
    "distill.train.class_weights": (["distill.train.class_weights={food: 3}"], lesson),
    "distill.train.resample": (["distill.train.resample=sqrt"], lesson),
    "distill.train.augment_classes": (
        ["distill.train.augment=[swap]", "distill.train.augment_classes=rare"], lesson,
    ),
    "distill.objectives.smoothing": (
        ["distill.objectives=[ce]", "distill.objectives=[{name: ce, smoothing: 0.2}]"], lesson,
    ),
    "train.augment": (["train.augment=[swap]"], taught_rows),
    "train.copies": (["train.augment=[swap]", "train.copies=3"], taught_rows),
    "distill.student.layers": (["distill.student.layers=[1, 3]"], lesson),
    "distill.student.model": (["distill.objectives=[ce]", "distill.student.model=OTHER"], lesson),
    "distill.student.choose": (
        ["distill.student.layers=1", "distill.student.choose=importance"], chosen,
    ),
    "distill.student.feed_forward": (["distill.student.feed_forward=8"], lesson),
    "distill.student.heads": (["distill.student.heads=2"], lesson),
    "distill.student.vocabulary": (
        ["distill.objectives=[ce]", "distill.student.model=DIR/wordy",
         "distill.student.vocabulary=0"], lesson,
    ),
    "distill.student.train_embeddings": (["distill.student.train_embeddings=true"], lesson),
    "distill.teacher": (["distill.teacher=live"], cached),
    "distill.teachers": ([KL, "distill.teachers=[DIR/second]"], lesson),
    "distill.combine": (
        [KL, "distill.teachers=[DIR/second]", "distill.combine=choice"], lesson,
    ),
    "distill.folds": ([KL, "distill.folds=2"], lesson),
    "distill.calibrate": (["distill.calibrate=true"], lesson),
    "distill.text": (["distill.text=DIR/plain.txt"], lesson),
    "distill.augment": (["distill.augment=[swap]"], lesson),
    "distill.copies": (["distill.augment=[swap]", "distill.copies=1"], lesson),
    "distill.train.augment": (["distill.train.augment=[swap]"], lesson),
    "distill.train.copies": (["distill.train.augment=[swap]", "distill.train.copies=3"], lesson),
    "distill.refine.epochs": ([*REFINE, "distill.refine.epochs=3"], refined),
    "distill.refine.learning_rate": ([*REFINE, "distill.refine.learning_rate=9e-9"], refined),
    "distill.refine.batch_size": ([*REFINE, "distill.refine.batch_size=3"], refined),
    "distill.alone": (["distill.augment=[swap]", "distill.alone=reading"], alone),
    "distill.objectives.name": (["distill.objectives=[ce]"], lesson),
    "distill.imitate.parent": ([*IMITATE, "distill.imitate.parent=teacher"], imitation),
    "distill.imitate.text": ([*IMITATE, "distill.imitate.text=DIR/more.txt"], imitation),
    "distill.imitate.rows": ([*IMITATE, "distill.imitate.rows=7"], imitation),
    "distill.imitate.own": ([*IMITATE, "distill.imitate.own=0"], imitation),
    "distill.imitate.objectives.name": (
        [*IMITATE, "distill.imitate.objectives=[cosine]"], imitation,
    ),
    "export.quantization": (["export.quantization=none"], graph),
    "distill.others": (
        ["export.choose=pareto", "distill.others=[{layers: 1}]"], students,
    ),
    "export.choose": (["export.choose=pareto"], ladder),
    "export.embeddings": (["export.embeddings=int4"], graph),
    "export.optimize": (["export.optimize=none"], graph),
    "gate.max_drop": (["gate.max_drop=0.06"], verdict),
    "gate.min_label_agreement": (["gate.min_label_agreement=0.5"], verdict),
    "gate.max_latency_ms": (["gate.max_latency_ms=1"], verdict),
    "gate.max_size_mb": (["gate.max_size_mb=10"], verdict),
    "decide.calibrate": (["decide.calibrate=false"], decided),
    "decide.offsets": (["decide.offsets=macro_f1"], decided),
    "decide.precision": (["decide.precision=0.95"], decided),
    "decide.confidence": (["decide.precision=0.95", "decide.confidence=0.9"], decided),
    "data.slices": (["data.slices=[initial]"], slices),
    "seed": (["seed=1"], model),
    "device": (["device=cuda"], environment),
    "threads": (["threads=2"], environment),
    "allow_fallback": (["allow_fallback=false"], fallback),
    "plugins": (["plugins=[DIR/plugin.py]"], plugin),
}  # fmt: skip
for where, probe in (("distill.objectives", lesson), ("distill.imitate.objectives", imitation)):
    for field, value in {
        "weight": "9", "since": "0.5", "until": "0.5", "schedule": "rising", "map": "last",
    }.items():  # fmt: skip
        terms = f"{where}=[{{name: hidden, {field}: {value}}}]"
        before = IMITATE if probe is imitation else []
        KEYS[f"{where}.{field}"] = ([*before, f"{where}=[hidden]", terms], probe)
KEYS["distill.objectives.temperature"] = (
    [KL, "distill.objectives=[{name: kl, temperature: 9}]"], lesson,
)  # fmt: skip
for name, value in {
    "epochs": "7", "learning_rate": "1e-5", "batch_size": "5", "warmup": "0.5",
    "weight_decay": "0.5", "max_grad_norm": "9", "precision": "float32", "metric": "macro_f1",
    "patience": "9",
}.items():  # fmt: skip
    KEYS[f"train.{name}"] = ([f"train.{name}={value}"], trainer(lambda recipe: recipe.train))
    KEYS[f"distill.train.{name}"] = (
        [f"distill.train.{name}={value}"],
        trainer(lambda recipe: recipe.distill.train),
    )
    # That each of them reaches the Trainer is shown above; here, that imitation hands them on.
    KEYS[f"distill.imitate.train.{name}"] = (
        [*IMITATE, f"distill.imitate.train.{name}={value}"], imitation,
    )  # fmt: skip
for name, value in {
    "dropout": "0.3", "augment": "[swap]", "copies": "2", "loss": "ce",
    "class_weights": "balanced", "resample": "sqrt", "augment_classes": "rare",
}.items():  # fmt: skip
    KEYS[f"distill.imitate.train.{name}"] = (
        [*IMITATE, f"distill.imitate.train.{name}={value}"], imitation,
    )  # fmt: skip


def leaves(tree: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, list) and tree and isinstance(tree[0], Mapping):
        for entry in tree:
            yield from leaves(entry, prefix)
    else:
        yield prefix


def test_no_key_is_left_out() -> None:
    sections = ["distill.imitate={}", "distill.text=trec", "distill.refine={}"]
    everything = read_recipe("lora_cls", ["phases.classes=2", *sections])
    more = read_recipe("lora_cls", ["contrast={}"])  # which goes without phases
    further = {key for key in leaves(plain(more)) if key.startswith("contrast.")}
    assert set(KEYS) | {"contrast"} == {*leaves(plain(everything)), *further}


@pytest.mark.parametrize("key", KEYS)
def test_the_key_changes_something(bench: Bench, key: str) -> None:
    overrides, probe = KEYS[key]
    # A key that only matters beside another one is compared with that other one alone.
    before = outcome(probe, bench, overrides[:-1] if len(overrides) > 1 else [])
    assert outcome(probe, bench, overrides) != before


def outcome(probe: Probe, bench: Bench, overrides: list[str]) -> Any:
    known = (probe, tuple(overrides))
    if known not in bench.seen:
        bench.seen[known] = _outcome(probe, bench, overrides)
    return bench.seen[known]


def _outcome(probe: Probe, bench: Bench, overrides: list[str]) -> Any:
    try:
        return probe(bench, bench.recipe(*overrides))
    except Exception as error:
        if isinstance(error, (TypeError, KeyError, AttributeError, AssertionError)):
            raise
        return str(error)
