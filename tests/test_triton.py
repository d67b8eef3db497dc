"""The bundle as a Triton model repository: what Triton would read and run."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as rt
import pytest
from google.protobuf import json_format, text_format
from tiny_bundle import GOLDEN, LABELS, make_bundle

from export import convert, edge
from export.hard_texts import HARD

STEPS = ("tokenize", "model", "answer")
TEXTS = [*GOLDEN, *(text for kind in HARD.values() for text in kind)]


#: Each part of it decides about some of the texts below.
DECISION: dict[str, Any] = {
    "temperature": 2.5,
    "offsets": {"größe": 0.8, "person": -0.3},
    "thresholds": {"place": 0.9},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "bundle"
    return make_bundle(folder, name="Tiny: the moon", **DECISION)


@pytest.fixture(scope="module")
def repository(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    assert convert.main([str(bundle), "--to", "triton", "--out", str(folder)]) == 0
    return folder


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def configs(repository: Path) -> dict[str, Any]:
    """Every configuration, read by Triton's own message."""
    found = importlib.util.find_spec("tritonclient")
    assert found is not None
    assert found.submodule_search_locations is not None
    # Beside it in tritonclient.grpc lies what needs grpcio.
    path = Path(found.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    message = _load(path, "model_config_pb2").ModelConfig
    return {
        path.parent.name: text_format.Parse(path.read_text(encoding="utf-8"), message())
        for path in repository.glob("*/config.pbtxt")
    }


class FakeUtils(ModuleType):
    """As much of Triton's module as the steps use."""

    def __init__(self) -> None:
        super().__init__("triton_python_backend_utils")

    class Tensor:
        def __init__(self, name: str, values: np.ndarray) -> None:
            self.name, self.values = name, values

        def as_numpy(self) -> np.ndarray:
            return self.values

    class TritonError(Exception):
        pass

    class InferenceResponse:
        def __init__(self, output_tensors: Sequence[Any] = (), error: Any = None) -> None:
            self.tensors = {tensor.name: tensor.as_numpy() for tensor in output_tensors}
            self.error = error

    @staticmethod
    def get_input_tensor_by_name(request: SimpleNamespace, name: str) -> Any:
        return FakeUtils.Tensor(name, request.given[name])


@pytest.fixture
def steps(
    repository: Path, configs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """The two Python steps, initialized as Triton does it."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", FakeUtils())
    made = {}
    for step in ("tokenize", "answer"):
        name = f"Tiny-the-moon_{step}"
        model = _load(repository / name / "1" / "model.py", f"triton_{step}").TritonPythonModel()
        config = json_format.MessageToDict(configs[name], preserving_proto_field_name=True)
        model.initialize({"model_config": json.dumps(config)})
        made[step] = model
    return made


def _run(step: Any, **given: np.ndarray) -> dict[str, np.ndarray]:
    (response,) = step.execute([SimpleNamespace(given=given)])
    assert response.error is None
    found: dict[str, np.ndarray] = response.tensors
    return found


def _column(texts: Sequence[str]) -> np.ndarray:
    return np.array([[text.encode()] for text in texts], dtype=object)


def test_every_model_has_a_version_and_a_configuration(
    repository: Path, configs: dict[str, Any]
) -> None:
    names = {"Tiny-the-moon", *(f"Tiny-the-moon_{step}" for step in STEPS)}
    assert configs.keys() == names
    for name, config in configs.items():
        assert config.name == name
        assert (repository / name / "1").is_dir()
        assert config.max_batch_size > 1
        for output in config.output:
            if output.label_filename:
                labels = (repository / name / output.label_filename).read_text(encoding="utf-8")
                assert labels.splitlines() == LABELS


def test_the_steps_fit_each_other(configs: dict[str, Any]) -> None:
    whole = configs["Tiny-the-moon"]
    known = {tensor.name for tensor in whole.input}
    for step in whole.ensemble_scheduling.step:
        config = configs[step.model_name]
        assert {tensor.name for tensor in config.input} == set(step.input_map)
        assert set(step.output_map) <= {tensor.name for tensor in config.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {tensor.name for tensor in whole.output} <= known


def test_the_model_is_the_bundles_and_its_tensors_are_described(
    bundle: Path, repository: Path, configs: dict[str, Any]
) -> None:
    path = repository / "Tiny-the-moon_model" / "1" / "model.onnx"
    assert path.read_bytes() == (bundle / "model.onnx").read_bytes()
    config, session = configs["Tiny-the-moon_model"], rt.InferenceSession(path)
    assert config.backend == "onnxruntime"
    for described, there in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert {tensor.name for tensor in described} == {tensor.name for tensor in there}
    assert list(config.output[0].dims) == [len(LABELS)]
    assert config.parameters["intra_op_thread_count"].string_value == "1"


def test_the_steps_answer_as_the_bundle_does(
    bundle: Path, repository: Path, steps: dict[str, Any]
) -> None:
    session = rt.InferenceSession(repository / "Tiny-the-moon_model" / "1" / "model.onnx")
    model = edge.Model(bundle)
    for texts in [*([text] for text in TEXTS), TEXTS]:
        seen = _run(steps["tokenize"], TEXT=_column(texts))
        logits = session.run(None, dict(seen))[0]
        answers = _run(steps["answer"], LOGITS=logits)
        expected = model.predict(texts)
        assert answers["LABEL"].tolist() == [[(each.label or "").encode()] for each in expected]
        rows = [list(each.probabilities.values()) for each in expected]
        np.testing.assert_allclose(answers["PROBABILITIES"], rows, atol=1e-7)
        assert answers["PROBABILITIES"].dtype == np.float32
    assert b"" in {label for (label,) in answers["LABEL"].tolist()}  # a threshold was at work


def test_a_request_that_is_no_text_fails_alone(steps: dict[str, Any]) -> None:
    wrong = np.array([[b"\xff\xfe"]], dtype=object)
    requests = [SimpleNamespace(given={"TEXT": each}) for each in (wrong, _column(["Who?"]))]
    bad, good = steps["tokenize"].execute(requests)
    assert "not UTF-8" in str(bad.error)
    assert good.error is None


def test_levels_of_onnxruntime_have_tritons_numbers(tmp_path: Path) -> None:
    session = {"intra_op_num_threads": 2, "config": {}}
    session["graph_optimization_level"] = "ORT_ENABLE_BASIC"
    model = edge.Model(make_bundle(tmp_path / "bundle", session=session))
    from export import triton

    triton.write(model, tmp_path / "models", "basic")
    config = (tmp_path / "models" / "basic_model" / "config.pbtxt").read_text(encoding="utf-8")
    assert "graph { level: -1 }" in config


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        ({}, ["--name", "a/b"], "'a/b' cannot name a model"),
        ({"name": "…"}, [], "'' cannot name a model"),
        ({"labels": ["a\nb", "c", "d"]}, [], "The label 'a\\nb' is empty or has a line break"),
        ({}, ["--texts", "x"], "--texts goes with --to onefile only"),
    ],
)
def test_what_cannot_be_a_repository_is_one_line(
    tmp_path: Path,
    changes: dict[str, Any],
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = make_bundle(tmp_path / "bundle", **changes)
    out = tmp_path / "models"
    assert convert.main([str(bundle), "--to", "triton", "--out", str(out), *arguments]) == 3
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_what_is_there_stays(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "models"
    out.mkdir()
    (out / "mine").write_text("x")
    assert convert.main([str(bundle), "--to", "triton", "--out", str(out)]) == 3
    assert f"{out} is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_a_failure_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from export import triton

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(triton, "_write_answer", full)
    out = tmp_path / "models"
    assert convert.main([str(bundle), "--to", "triton", "--out", str(out)]) == 3
    assert "No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_changed_bundle_is_refused(tmp_path: Path, capsys: Any) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "tokenizer.json").write_text("{}")
    out = tmp_path / "models"
    assert convert.main([str(bundle), "--to", "triton", "--out", str(out)]) == 1
    assert "has changed since it was packed" in capsys.readouterr().err
    assert not out.exists()
