"""The command, end to end on a tiny random backbone: what it makes, refuses, and takes up again."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from apart import exit_code

from recipes import pipeline, workspace
from recipes.ledger import TIMINGS
from recipes.pipeline import PROGRESS
from recipes.reading import read_recipe
from recipes.run import main
from recipes.stages import STAGES

Make = Callable[[str], Path]
ROWS = [
    "majority", "tfidf-logreg", "frozen-logreg", "teacher", "merged",
    "student", "student-alone", "student-onnx", "student-int8", "bundle",
]  # fmt: skip
#: What makes a tiny random model learn, and its gate open.
QUICK = [
    "train.epochs=5", "train.learning_rate=5e-3", "train.batch_size=16",
    "distill.student.layers=2", "distill.train.epochs=3", "distill.train.learning_rate=5e-3",
    "distill.train.batch_size=16", "distill.student.train_embeddings=true",
    "gate={max_drop: 0.2, min_label_agreement: 0.6}", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def arguments(
    tiny_backbone: Make, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[str]]:
    data = tiny.table(tmp_path_factory.mktemp("data") / "rows.csv")
    common = ["lora_cls", f"data.train={data}", f"backbone.model={tiny_backbone('bert')}", *QUICK]
    return lambda out, *more: [*common, "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(arguments: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an unbroken run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(arguments(out)) == 0
    return out


def ledger(out: Path) -> list[dict[str, Any]]:
    """Return the rows, timings aside."""
    rows = json.loads((out / "ledger.json").read_text())
    for row in rows:
        for key in TIMINGS:
            del row[key]
    return rows  # type: ignore[no-any-return]


def command(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recipes.run", *arguments], capture_output=True, text=True, **options
    )


def test_a_run_leaves_every_artefact_and_row(whole: Path) -> None:
    rows = {row["name"]: row for row in ledger(whole)}
    assert list(rows) == ROWS
    for name in (
        "recipe.yaml", "environment.json", "report.html", "README.md",
        "teacher/adapter_model.safetensors", "merged/model.safetensors",
        "student/model.safetensors", "onnx/model.onnx",
        "onnx/model.int8.onnx", "bundle/model.onnx", "bundle/edge.py", "bundle/tokenizer.json",
    ):  # fmt: skip
        assert (whole / name).is_file(), name
    assert rows["teacher"]["metrics"]["accuracy"] > 0.5
    assert rows["student-onnx"]["agreement"]["max_logit_difference"] < 1e-4
    assert rows["student-onnx"]["agreement"]["labels"] == 1
    # The file was judged as the bundle answers: a text at a time.
    shipped = rows["bundle"]["agreement"]
    assert (shipped["with"], shipped["labels"]) == ("student-int8", 1)
    assert shipped["max_logit_difference"] < 1e-5
    timed = json.loads((whole / "ledger.json").read_text())
    assert all(row["latency_ms"]["batch_1"]["p50"] > 0 for row in timed)
    assert not list(whole.rglob("checkpoint-*"))
    assert not list(whole.rglob("*.partial"))


def test_the_bundle_answers(whole: Path) -> None:
    edge = [sys.executable, str(whole / "bundle" / "edge.py")]
    assert subprocess.run([*edge, "--self-test"], capture_output=True).returncode == 0
    done = subprocess.run(
        [*edge], input="the old cat\nbig city\n", capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 2
    assert all(set(answer["probabilities"]) == set(tiny.LABELS) for answer in answers)


def test_the_resolved_recipe_gives_the_same_run_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "another name"
    assert main([str(whole / "recipe.yaml"), "--out", str(out), "--to", "distill"]) == 0
    rows = ledger(out)
    assert [row["name"] for row in rows] == ROWS[: len(rows)]
    assert rows[-1]["name"] == "student-alone"
    assert rows == ledger(whole)[: len(rows)]


def run_and_die(stage: str, given: list[str]) -> None:
    """Run and be killed when a stage is done, before it is marked as finished."""
    finish = pipeline._finish

    def killer(work: Any, done: Any) -> None:
        if done.name == stage:
            os.kill(os.getpid(), signal.SIGKILL)
        finish(work, done)

    pipeline._finish = killer
    main(given)


def test_a_run_killed_in_stage_after_stage_goes_on_to_the_same_ledger(
    whole: Path, arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Die in one stage after the other, after its work and before it is marked as finished."""
    out = tmp_path / "another name"
    shutil.copytree(whole, out)
    how = ["--from", "quantize"]
    for number, stage in enumerate(STAGES):
        if stage.name not in ("quantize", "bundle"):
            continue  # what ends a stage is the same for all; each start costs seconds
        assert exit_code(run_and_die, stage.name, arguments(out, *how)) == -signal.SIGKILL
        how = ["--resume"]
        finished = json.loads((out / PROGRESS).read_text())["finished"]
        assert finished == [before.name for before in STAGES[:number]]
    assert main(arguments(out, *how)) == 0
    assert ledger(out) == ledger(whole)


def test_from_does_a_stage_anew_and_all_after_it(
    whole: Path, arguments: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    before = ledger(whole)
    stamp = (whole / "student" / "model.safetensors").stat().st_mtime_ns
    assert main(arguments(whole, "--from", "export")) == 0
    said = capfd.readouterr().err
    assert "[4/7] distill: done before" in said
    assert "[5/7] export: done before" not in said
    assert ledger(whole) == before
    assert (whole / "student" / "model.safetensors").stat().st_mtime_ns == stamp


def refusal(capfd: pytest.CaptureFixture[str], arguments: Sequence[str], status: int = 3) -> str:
    """Run a command that has to be refused, and return its one line."""
    capfd.readouterr()
    assert main(arguments) == status
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    return said[0]


def test_an_existing_run_is_never_written_over(
    whole: Path, arguments: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert "Nothing was changed" in refusal(capfd, arguments(whole))
    told = refusal(capfd, arguments(whole, "--resume", "train.epochs=6"))
    assert "train.epochs differ" in told
    assert f"the run's are in {whole / 'recipe.yaml'}" in told
    assert "--from finetune" in told
    told = refusal(capfd, arguments(whole, "--from", "export", "distill.teacher=live"))
    assert "--from distill" in told
    told = refusal(capfd, arguments(whole, "--from", "finetune", "train.precision=float32"))
    assert "--from baseline" in told
    told = refusal(capfd, arguments(whole, "--from", "distill", "distill.student.layers=9"))
    assert "choose 1 to 4" in told
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--resume"], "no run in"),
        (["--from", "export"], "no run in"),
        (["--from", "exprot"], "invalid choice"),
        (["--resume", "--from", "export"], "exclude each other"),
        (["--epochs", "3"], "Unrecognized arguments"),
        (["train.epoch=3"], "did you mean 'epochs'"),
        (["distill.student.layers=9"], "choose 1 to 4"),
        (["data.max_length=99"], "at most 32"),
        (["device=cuda"], "no CUDA device"),
        (["strategy.targets=[nothing]"], "No linear layer"),
        (["backbone.model=trec"], "is a data set"),
    ],
)
def test_a_wrong_command_or_recipe_is_refused(
    arguments: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    more: list[str],
    told: str,
) -> None:
    assert told in refusal(capfd, arguments(tmp_path / "out", *more))


BAD_DATA = {
    "missing": (None, "rows.csv"),
    "wrong column": ("text,label\na cat,x\n", "no column"),
    "empty rows": ("text,label\n,x\na dog,y\n", "data.invalid_rows=drop"),
    "no label": ("text,label\na cat,\na dog,y\n", "data.invalid_rows=drop"),
    "one class": ("text,label\na cat,x\na dog,x\n", "at least two classes"),
    "long": (f"text,label\n{'a' * 1_000_000},x\na dog,y\n", "data.max_characters"),
    "broken": (b"text,label\na c\xe9t,x\n", "UTF-8"),
}


def test_what_talks_while_it_is_imported_is_hushed_before(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A strategy of peft's brings bitsandbytes in as the recipe is read."""
    logger = logging.getLogger("bitsandbytes")
    logger.setLevel(logging.NOTSET)
    assert "unknown" in refusal(capfd, arguments(tmp_path, "train.epoch=3")).lower()
    assert not logger.isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_refused_with_one_line(
    arguments: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    content, told = BAD_DATA[kind]
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    more = ["data.text=review"] if kind == "wrong column" else []
    out = tmp_path / "out"
    assert told.lower() in refusal(capfd, arguments(out, f"data.train={path}", *more)).lower()
    # Once the data are mended, the same command may use the same folder.
    assert not list(out.glob("*"))


def test_a_label_only_in_the_test_file_is_refused(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    test = tmp_path / "test.csv"
    test.write_text("text,label\na new thing,mineral\nthe cat,animal\n")
    assert "mineral" in refusal(capfd, arguments(tmp_path / "out", f"data.test={test}"))


def test_a_folder_that_cannot_be_made_is_named(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(capfd, arguments(tmp_path / "file" / "out"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "holds no run" in refusal(capfd, arguments(tmp_path / "full"))


def test_a_run_that_died_while_it_began_may_begin_again(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "begun"
    out.mkdir()
    (out / PROGRESS).write_text('{"finished": []}')
    (out / ".recipe.yaml.partial").write_text("half")
    told = refusal(capfd, arguments(out, "--resume", "data.max_length=99"))
    assert "at most 32" in told  # it got as far as looking at the backbone


def test_a_damaged_run_is_named(
    whole: Path, arguments: Callable[..., list[str]], tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "damaged"
    shutil.copytree(whole, out)
    (out / "recipe.yaml").write_text("")
    assert "is damaged" in refusal(capfd, arguments(out, "--resume"))
    shutil.copy(whole / "recipe.yaml", out)
    (out / "ledger.json").write_text("[{")
    assert "is not a ledger" in refusal(capfd, arguments(out, "--from", "export"))
    shutil.copy(whole / "ledger.json", out)
    shutil.rmtree(out / "student")
    assert "--from STAGE" in refusal(capfd, arguments(out, "--from", "export"))


def test_a_full_disk_is_said(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: Any, monkeypatch: Any
) -> None:
    import errno

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recipes.stages.baseline._embed", full)
    assert "The disk is full" in refusal(capfd, arguments(tmp_path / "out"), status=1)


def test_a_dry_run_looks_at_the_folder_too(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: Any
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    for out in (tmp_path / "rows.csv", tmp_path / "rows.csv" / "run"):
        assert "rows.csv is a file" in refusal(capfd, arguments(out, "--dry-run"))
    assert main(arguments(tmp_path / "new" / "run", "--dry-run")) == 0
    assert not (tmp_path / "new").exists()


def test_changed_data_stop_a_resumption(
    whole: Path, arguments: Callable[..., list[str]], tmp_path: Path, capfd: Any
) -> None:
    """The data of a run are remembered by their content, not by the name of their file."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    given = arguments(out)
    data = Path(next(word for word in given if word.startswith("data.train=")).partition("=")[2])
    before = data.read_text()
    try:
        data.write_text(before + "one more cat,animal\n")
        assert "data changed since" in refusal(capfd, [*given, "--resume"])
        data.write_text(before)
        assert main([*given, "--resume"]) == 0
    finally:
        data.write_text(before)


def test_the_gate_says_no(
    whole: Path, arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    from export import ladder

    out = tmp_path / "gated"
    shutil.copytree(whole, out)
    for name in ("quantize_int8", "quantize_static_int8"):
        monkeypatch.setattr(ladder, name, _spoiled(getattr(ladder, name)))
    assert main(arguments(out, "--from", "quantize", "gate.min_label_agreement=1.0")) == 2
    assert "gate.min_label_agreement asks for at least 1" in capfd.readouterr().out
    assert [row["name"] for row in ledger(out)] == ROWS[:-1]
    assert not (out / "bundle").exists()
    assert (out / "report.html").is_file()


def _spoiled(quantize: Any) -> Any:
    """Return a quantization that collapses the head, as a silent failure would."""

    def spoil(source: Path, target: Path, *rest: Any, **options: Any) -> None:
        import numpy as np
        import onnx
        from onnx import numpy_helper

        quantize(source, target, *rest, **options)
        graph = onnx.load(target)
        for tensor in graph.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.int8:
                tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))
        onnx.save(graph, target)

    return spoil


def test_the_smallest_of_several_students_leaves(
    whole: Path, arguments: Callable[..., list[str]], tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "several"
    shutil.copytree(whole, out)
    wider = "gate={max_drop: 1.0, min_label_agreement: 0.6}"
    smaller = "distill.others=[{layers: 1, train_embeddings: true}]"
    given = arguments(out, "--from", "distill", wider, smaller, "export.choose=pareto")
    assert main(given) == 0
    rows = {row["name"]: row for row in ledger(out)}
    assert {"student-2", "student-2-onnx"} < rows.keys()
    chosen = rows["student-int8"]
    assert chosen["agreement"]["with"] == "student-2-onnx"
    assert {entry["student"] for entry in chosen["ladder"]} == {"student", "student-2"}
    assert chosen["parameters"] == rows["student-2"]["parameters"] < rows["student"]["parameters"]
    assert (out / "bundle/model.onnx").read_bytes() == (out / chosen["path"]).read_bytes()
    said = capfd.readouterr().out
    assert "student: dynamic, per channel" in said
    assert "student-2: dynamic, per channel" in said
    assert "1 layers of the teacher" in (out / "README.md").read_text()
    # The next run without the other student leaves nothing of it.
    assert main(arguments(out, "--from", "distill", "--to", "distill")) == 0
    assert [row for row in ledger(whole) if row in ledger(out)] == ledger(out)
    assert not (out / "student-2").exists()


def test_a_strategy_from_outside_runs_through_plugin(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    plugin = tmp_path / "scale_plugin.py"
    plugin.write_text(
        "from adapters import Strategy, strategies\n"
        "@strategies.register('norms_only')\n"
        "class NormsOnly(Strategy):\n"
        "    def prepare(self, model):\n"
        "        for name, weight in model.named_parameters():\n"
        "            weight.requires_grad_('LayerNorm' in name)\n"
        "        return model\n"
        "    def finish(self, model):\n"
        "        return model\n"
    )
    out = tmp_path / "out"
    given = arguments(out, "strategy=norms_only", "--plugin", str(plugin), "--to", "merge")
    assert main(given) == 0
    teacher = next(row for row in ledger(out) if row["name"] == "teacher")
    norms, head = 2 * 32 * (1 + 2 * 4), 32 * 32 + 32 + 32 * 3 + 3
    assert teacher["trainable_parameters"] == norms + head


@pytest.mark.parametrize(
    "more",
    [
        ["distill.student.model=BACKBONE", "distill.objectives=[ce, kl]"],
        ["distill.teacher=live", "export.quantization=none"],
    ],
    ids=["student by name", "live teacher, float32"],
)
def test_other_ways_through_the_chain(
    whole: Path, arguments: Callable[..., list[str]], tmp_path: Path, more: list[str]
) -> None:
    # Another architecture with other tokens, so that tokens differ between teacher and student.
    other = tiny.backbone(tmp_path / "other", "distilbert", layers=1, width=16, extra=3)
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    changed = (word.replace("BACKBONE", str(other)) for word in more)
    given = arguments(out, "--from", "distill", *changed)
    if "BACKBONE" in more[0]:
        given[given.index("distill.student.layers=2")] = "distill.student.layers=null"
    assert main(given) in (0, 2)
    rows = {row["name"]: row for row in ledger(out)}
    assert ("student-int8" in rows) == ("export.quantization=none" not in more)
    assert rows["student-onnx"]["agreement"]["labels"] == 1


def test_an_int8_backbone_is_adapted_and_merged(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ["backbone.quantization=int8", "merge.into=dequantized", "--to", "merge"]
    assert main(arguments(out, *given)) == 0
    rows = {row["name"]: row for row in ledger(out)}
    assert rows["merged"]["agreement"]["labels"] > 0.9


@pytest.mark.chain
def test_two_processes_end_with_one_ledger(
    arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    out, short = tmp_path / "two", ["train.epochs=2", "distill.train.epochs=1", "--to", "distill"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "--master-port", "29611", "-m", "recipes.run", *arguments(out, *short)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # One of the two does the stages that train nothing; those after these are no others.
    assert [row["name"] for row in ledger(out)] == ROWS[: ROWS.index("student-onnx")]
    assert done.stdout.count("Stopped after distill") == 1
    assert "LOAD REPORT" not in done.stderr, "what transformers says of a model"


def test_a_dry_run_changes_nothing(
    arguments: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "out", "--dry-run")) == 0
    told = capfd.readouterr().out
    assert '"animal", "food" and "place"' in told
    assert "baseline → finetune" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("said", "threads"), [(None, 3), ("2", 1)])
def test_a_run_takes_what_it_may_of_the_cores(
    said: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS")
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(workspace, "cores", lambda: 3)  # a share of a container, say
    torch.set_num_threads(1)
    found = workspace.machine(read_recipe("lora_cls")).threads
    torch.set_num_threads(1)
    assert found == threads, "the environment's number is PyTorch's own affair"


def test_help_and_lists_answer() -> None:
    for arguments, told in (
        (["recipes.run", "--help"], "key=value"),
        (["recipes.run", "--list"], "lora_cls  Fine-tune a quantized MiniLM"),
        (["recipes.list", "strategies"], "lora  Low-rank updates"),
        (["recipes.list", "objectives"], "hidden  Squared distance"),
        (["recipes.list", "tasks"], "text_classification  Labels, or a number"),
        (["recipes.list", "assets"], "minilm-l6"),
        (["recipes.list", "recipes"], "lora_cls"),
    ):
        done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
        assert done.returncode == 0
        assert told in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "recipes.list", "strategies", "--json"],
        capture_output=True,
        text=True,
    )
    lora = {entry["name"]: entry for entry in json.loads(done.stdout)}["lora"]
    assert lora["fields"]["rank"].items() >= {"type": "int", "default": 16}.items()


def test_the_resolved_recipe_is_plain_yaml(whole: Path) -> None:
    recipe = yaml.safe_load((whole / "recipe.yaml").read_text())
    assert recipe["train"]["epochs"] == 5
    assert Path(recipe["data"]["train"]).is_absolute()
