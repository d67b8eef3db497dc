from __future__ import annotations

import json
import stat
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tiny_bundle import GOLDEN, LABELS, make_bundle, make_tokenizer, save_model, table
from tokenizers import Tokenizer

from export import edge
from export.bundle import GOLDEN_COUNT, INT8_TOLERANCE, verify, write_manifest
from export.errors import ExportError


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))


def leftovers(parent: Path) -> list[str]:
    return sorted(path.name for path in parent.iterdir() if path.name.startswith("."))


def test_a_bundle_is_complete_and_sound(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "runs" / "bundle")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "bundle.json",
        "edge.py",
        "model.onnx",
        "requirements.txt",
        "tokenizer.json",
    }
    assert manifest(folder)["files"].keys() == names - {"bundle.json"}
    assert (folder / "edge.py").read_bytes() == Path(edge.__file__).read_bytes()
    assert (folder / "model.onnx").read_bytes() == (tmp_path / "runs/tiny.onnx").read_bytes()
    assert "moon" in (folder / "README.md").read_text()
    assert verify(folder) == []
    assert leftovers(folder.parent) == []


def test_a_bundle_says_which_phases_it_knows(tmp_path: Path) -> None:
    phases = [{"name": "may", "labels": LABELS[:2]}, {"name": "june", "labels": []},
              {"name": "july", "labels": LABELS[2:]}]  # fmt: skip
    folder = make_bundle(tmp_path / "bundle", phases=phases)
    assert manifest(folder)["phases"] == phases
    assert verify(folder) == []
    assert manifest(make_bundle(tmp_path / "plain"))["phases"] == []


def test_phases_have_the_labels_of_the_model_in_its_order(tmp_path: Path) -> None:
    for wrong in (LABELS[:2], [LABELS[1], LABELS[0], LABELS[2]], [*LABELS, LABELS[0]]):
        with pytest.raises(ExportError, match="A label is new in one phase"):
            make_bundle(tmp_path / "bundle", phases=[{"name": "may", "labels": wrong}])


def test_everyone_may_read_a_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    plain = tmp_path / "plain"
    plain.mkdir()
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_requirements_pin_the_three_packages_that_proved_it(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    lines = (folder / "requirements.txt").read_text().splitlines()
    packages = ["numpy", "onnxruntime", "tokenizers"]
    pins = [f"{name}=={version(name)}" for name in packages]
    assert [line for line in lines if not line.startswith("#")] == pins
    versions = {name: version(name) for name in packages} | {"torch": "2.13.0"}
    assert manifest(folder)["versions"] == versions


def test_the_packed_tokenizer_carries_no_settings_of_its_own(tmp_path: Path) -> None:
    packed = json.loads((make_bundle(tmp_path / "bundle") / "tokenizer.json").read_text())
    assert packed["truncation"] is None
    assert packed["padding"] is None


def test_a_tokenizer_file_packs_like_the_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    given = make_tokenizer()
    given.save(str(path))
    one = make_bundle(tmp_path / "one", tokenizer=path)
    two = make_bundle(tmp_path / "two", tokenizer=given)
    assert (one / "tokenizer.json").read_bytes() == (two / "tokenizer.json").read_bytes()
    assert given.truncation == Tokenizer.from_file(str(path)).truncation, "the caller's is changed"


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = make_bundle(tmp_path / "one"), make_bundle(tmp_path / "two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_golden_texts_are_few_clear_and_of_every_label(tmp_path: Path) -> None:
    texts = [" ", *[f"Where is the moon {number}?" for number in range(40)], "Who?", "How?", "Who?"]
    golden = manifest(make_bundle(tmp_path / "bundle", golden_texts=texts))["golden"]
    assert len(golden["texts"]) == GOLDEN_COUNT == len(set(golden["texts"]))
    assert golden["labels"].count("person") == golden["labels"].count("größe") == 1
    assert "\n".join(golden["texts"]).count("Who?") == 1
    for label, logits in zip(golden["labels"], golden["logits"], strict=True):
        low, high = sorted(logits)[-2:]
        assert high - low > 2 * golden["tolerance"]
        assert LABELS[int(np.argmax(logits))] == label


def test_the_tolerance_is_a_share_of_the_range(tmp_path: Path) -> None:
    golden = manifest(make_bundle(tmp_path / "bundle", tolerance=INT8_TOLERANCE))["golden"]
    spread = np.ptp(golden["logits"])
    assert golden["tolerance"] == pytest.approx(INT8_TOLERANCE * spread, rel=1e-3)


def test_texts_that_are_nearly_a_tie_are_left_out(tmp_path: Path) -> None:
    # "It was" decides nothing: its logits are of the order of 0.1, those of the others of 4.
    folder = make_bundle(tmp_path / "bundle", golden_texts=["It was", *GOLDEN], tolerance=0.1)
    assert set(manifest(folder)["golden"]["texts"]) == set(GOLDEN)


def test_a_model_that_decides_nothing_is_packed_with_a_tolerance_to_fit(tmp_path: Path) -> None:
    flat = np.ones_like(table()) + np.array([0, 1e-3, 1.1e-3], dtype=np.float32)
    model = save_model(tmp_path / "flat.onnx", flat)
    folder = make_bundle(tmp_path / "bundle", model=model, tolerance=0.5)
    golden = manifest(folder)["golden"]
    low, high = sorted(golden["logits"][0])[-2:]
    assert len(golden["texts"]) == 1
    assert golden["tolerance"] <= (high - low) / 2 + 1e-5
    assert verify(folder) == []


def test_long_golden_texts_are_cut(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", golden_texts=["where " * 100_000])
    assert len(manifest(folder)["golden"]["texts"][0]) == 1000


def test_a_bundle_is_replaced_and_nothing_of_the_old_one_stays(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", card="old")
    (tmp_path / "bundle" / "__pycache__").mkdir()
    (tmp_path / ".bundle.part").mkdir()
    (tmp_path / ".bundle.part" / "junk").write_text("a run was killed here")
    folder = make_bundle(tmp_path / "bundle", card="new")
    assert (folder / "README.md").read_text() == "new"
    assert not (folder / "__pycache__").exists()
    assert leftovers(tmp_path) == []


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    assert verify(make_bundle(tmp_path / "bundle")) == []


def test_another_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("three years of work")
    with pytest.raises(ExportError, match=r"thesis is there and is not a bundle"):
        make_bundle(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "three years of work"


def test_a_bundle_with_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"notes\.txt"):
        make_bundle(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_failed_packing_leaves_the_old_bundle_as_it_was(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExportError, match="labels"):
        make_bundle(folder, labels=["too", "few"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert leftovers(tmp_path) == []


def test_an_unwritable_place_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = save_model(tmp_path / "tiny.onnx", table())
    with pytest.raises(ExportError, match="cannot be written"):
        make_bundle(tmp_path / "file" / "bundle", model=model)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model.onnx", table())
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(ExportError, match="weights in other files"):
        make_bundle(tmp_path / "bundle", model=path)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("content", [None, b"this is no model"])
def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    if content:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.onnx cannot be read"):
        make_bundle(tmp_path / "bundle", model=path)


@pytest.mark.parametrize(
    ("inputs", "second"),
    [
        (["input_ids"], "attention_mask"),
        (["input_ids", "attention_mask", "token_type_ids"], "attention_mask"),
        (["input_ids", "mask"], "mask"),
    ],
)
def test_inputs_must_be_those_of_the_model_and_known(
    tmp_path: Path, inputs: list[str], second: str
) -> None:
    model = save_model(tmp_path / "model.onnx", table(), second_input=second)
    processing = {"max_length": 8, "pad_token_id": 0, "inputs": inputs}
    with pytest.raises(ExportError, match="takes the inputs"):
        make_bundle(tmp_path / "bundle", model=model, processing=processing)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["one", "one", "two"]}, "different labels"),
        ({"labels": ["one"]}, "2 or more"),
        ({"labels": ["a", "b", "c", "d"]}, r"shape \(1, 3\) for 1 texts and 4 labels"),
        ({"thresholds": {"nowhere": 0.5}}, "'nowhere'"),
        ({"thresholds": {"place": 1.5}}, "from 0 to 1"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"offsets": {"nowhere": 0.5}}, "'nowhere'"),
        ({"offsets": {"place": float("nan")}}, "nan"),
        ({"golden_texts": ["", " "]}, "no golden text"),
        ({"ledger": [{"accuracy": float("nan")}]}, "ledger"),
        (
            {
                "session": {
                    "intra_op_num_threads": 1,
                    "graph_optimization_level": "max",
                    "config": {},
                }
            },
            "max",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        make_bundle(tmp_path / "bundle", **changes)
    assert not (tmp_path / "bundle").exists()
    assert leftovers(tmp_path) == []


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model.onnx", table() * np.float32("nan"))
    with pytest.raises(ExportError, match="NaN"):
        make_bundle(tmp_path / "bundle", model=model)


def test_a_model_with_too_few_positions_for_its_longest_text_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model.onnx", table())
    model = onnx.load(path)
    places = np.zeros((7, len(LABELS)), np.float32)  # of 8 tokens
    model.graph.initializer.append(numpy_helper.from_array(places, "places"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1), "last"))
    for node in model.graph.node:
        if node.op_type == "Mul":
            node.output[0] = "unplaced"
    at = next(n for n, node in enumerate(model.graph.node) if node.op_type == "ReduceSum")
    more = [
        ("Shape", ["input_ids"], "shape"),
        ("Gather", ["shape", "one"], "length"),
        ("Add", ["length", "last"], "at"), ("Gather", ["places", "at"], "row"),
        ("Add", ["unplaced", "row"], "parts"),
    ]  # fmt: skip
    for offset, (kind, inputs, output) in enumerate(more):
        model.graph.node.insert(at + offset, helper.make_node(kind, inputs, [output]))
    onnx.save(model, path)
    with pytest.raises(ExportError, match=r"text of max_length=8 tokens.*out of data bounds"):
        make_bundle(tmp_path / "bundle", model=path)
    assert not (tmp_path / "bundle").exists()
    seven = {"max_length": 7, "pad_token_id": 0, "inputs": ["input_ids", "attention_mask"]}
    assert verify(make_bundle(tmp_path / "bundle", model=path, processing=seven)) == []


def test_verify_finds_a_changed_model_even_if_the_sums_were_renewed(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    save_model(folder / "model.onnx", table(seed=1))
    write_manifest(folder, manifest(folder))
    problems = verify(folder)
    assert problems
    assert all("golden" in problem for problem in problems[:-1])
