"""A bundle as a model repository of Triton Inference Server.

Triton's ONNX Runtime backend runs the model as it lies in the bundle. Texts have to be tokenized
before, and logits turned into a label after, so an ensemble of three steps takes texts::

    NAME            ensemble: TEXT -> LABEL, PROBABILITIES
    NAME_tokenize   Python backend, `export.triton_tokenize`
    NAME_model      ONNX Runtime backend, the bundle's model.onnx
    NAME_answer     Python backend, `export.triton_answer`

Configurations are protocol buffers in text form, of Triton's ``model_config.proto``. Triton has no
place for the bundle's entries of onnxruntime's session (``config`` in bundle.json): they are left
out.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from export import edge
from export.bundle import require_cut
from export.errors import ExportError
from export.folders import new_folder

#: Texts of one request, and of requests that share a run of the model.
MAX_BATCH = 64
#: Triton's names for onnxruntime's levels; all optimizations are its default.
_LEVELS = {"ORT_DISABLE_ALL": 2, "ORT_ENABLE_BASIC": -1, "ORT_ENABLE_EXTENDED": 1}
_STRING, _FLOAT, _INT = "TYPE_STRING", "TYPE_FP32", "TYPE_INT64"
_LABELS_FILE = "labels.txt"
#: name -> type and sizes without the batch
_Tensors = Mapping[str, tuple[str, int]]


def write(model: edge.Model, target: Path, name: str | None = None) -> str:
    """Write a model repository.

    Args:
        model: The bundle.
        target: The new folder.
        name: Of the ensemble, in letters, digits, ``_``, ``-`` and ``.``; None takes the bundle's,
            with other characters replaced.

    Returns:
        The name of the ensemble.

    Raises:
        ExportError: The name is wrong, a label has a line break, the bundle does not cut long
            texts, ``target`` is there already or cannot be written.
    """
    require_cut(model, "A Triton ensemble")
    if name is None:
        name = re.sub(r"[^\w.-]+", "-", model.manifest["name"], flags=re.ASCII).strip(".-")
    if not re.fullmatch(r"\w[\w.-]*", name, flags=re.ASCII):
        raise ExportError(
            f"{name!r} cannot name a model: begin with a letter or digit, and use letters, digits, "
            "'_', '-' and '.' only. Give another: --name NAME."
        )
    if broken := [label for label in model.labels if len(label.splitlines()) != 1]:
        raise ExportError(
            f"The label {broken[0]!r} is empty or has a line break, and Triton's {_LABELS_FILE} "
            "has one label a line."
        )
    steps = f"{name}_tokenize", f"{name}_model", f"{name}_answer"
    with new_folder(target) as folder:
        _write_ensemble(folder / name, model, steps)
        _write_tokenize(folder / steps[0], model)
        _write_model(folder / steps[1], model)
        _write_answer(folder / steps[2], model)
        (folder / "README.md").write_text(_notes(model, name), "utf-8")
    return name


def _write_ensemble(folder: Path, model: edge.Model, steps: Sequence[str]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / ".keep").touch()  # a version's folder has to be there, even after git
    inputs, logits = model.manifest["processing"]["inputs"], _output_name(model)
    answer = ("LABEL", "PROBABILITIES")
    maps = [
        ({"TEXT": "TEXT"}, {each: each for each in inputs}),
        ({each: each for each in inputs}, {logits: "LOGITS"}),
        ({"LOGITS": "LOGITS"}, {each: each for each in answer}),
    ]
    shown = "".join(
        f"  step [{{\n    model_name: {_quoted(step)}\n    model_version: -1\n"
        f"{_map('input_map', given)}{_map('output_map', made)}  }}]\n"
        for step, (given, made) in zip(steps, maps, strict=True)
    )
    config = _config(folder.name, {"TEXT": (_STRING, 1)}, _answers(model), platform="ensemble")
    _save(folder, f"{config}ensemble_scheduling {{\n{shown}}}\n")
    _write_labels(folder, model)


def _write_tokenize(folder: Path, model: edge.Model) -> None:
    version = _python_step(folder, "triton_tokenize.py")
    shutil.copyfile(model.folder / edge.TOKENIZER_FILE, version / edge.TOKENIZER_FILE)
    processing = model.manifest["processing"]
    config = _config(folder.name, {"TEXT": (_STRING, 1)}, _inputs(model), backend="python")
    settings = {key: str(processing[key]) for key in ("max_length", "pad_token_id")}
    _save(folder, f"{config}{_CPU}{_parameters(settings)}")


def _write_model(folder: Path, model: edge.Model) -> None:
    (folder / "1").mkdir(parents=True)
    shutil.copyfile(model.folder / edge.MODEL_FILE, folder / "1" / edge.MODEL_FILE)
    session = model.manifest["session"]
    outputs = {_output_name(model): (_FLOAT, len(model.labels))}
    config = _config(folder.name, _inputs(model), outputs, backend="onnxruntime")
    level = _LEVELS.get(session["graph_optimization_level"])
    optimization = "" if level is None else f"optimization {{ graph {{ level: {level} }} }}\n"
    threads = _parameters({"intra_op_thread_count": str(session["intra_op_num_threads"])})
    batching = (
        "# Requests of the same length in tokens may share a run. Neighbors change the scores of\n"
        "# an int8 model a little: without this line they do not.\ndynamic_batching { }\n"
    )
    _save(folder, f"{config}{_CPU}{batching}{optimization}{threads}")


def _write_answer(folder: Path, model: edge.Model) -> None:
    _python_step(folder, "triton_answer.py")
    _write_labels(folder, model)
    given = {"LOGITS": (_FLOAT, len(model.labels))}
    config = _config(folder.name, given, _answers(model), backend="python")
    manifest = model.manifest
    settings = {
        "labels": model.labels,
        "temperature": manifest.get("temperature", 1.0),
        "offsets": manifest.get("offsets", {}),
        "thresholds": manifest["thresholds"],
    }
    encoded = {key: json.dumps(value, ensure_ascii=False) for key, value in settings.items()}
    _save(folder, f"{config}{_CPU}{_parameters(encoded)}")


def _python_step(folder: Path, source: str) -> Path:
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name(source), version / "model.py")
    return version


def _write_labels(folder: Path, model: edge.Model) -> None:
    (folder / _LABELS_FILE).write_text("".join(f"{x}\n" for x in model.labels), "utf-8")


def _output_name(model: edge.Model) -> str:
    import onnx

    name: str = onnx.load(model.folder / edge.MODEL_FILE).graph.output[0].name
    return name


def _inputs(model: edge.Model) -> _Tensors:
    return dict.fromkeys(model.manifest["processing"]["inputs"], (_INT, -1))


def _answers(model: edge.Model) -> _Tensors:
    return {"LABEL": (_STRING, 1), "PROBABILITIES": (_FLOAT, len(model.labels))}


# --- Text form of model_config.proto -----------------------------------------------------------

_CPU = "instance_group [{ kind: KIND_CPU count: 1 }]\n"


def _config(name: str, inputs: _Tensors, outputs: _Tensors, **kind: str) -> str:
    """Return what all configurations have: name, ``backend`` or ``platform``, batch, tensors."""
    how = "".join(f"{key}: {_quoted(value)}\n" for key, value in kind.items())
    tensors = "".join(
        f"{side} [{{\n  name: {_quoted(tensor)}\n  data_type: {type_}\n  dims: [ {size} ]\n"
        + (f"  label_filename: {_quoted(_LABELS_FILE)}\n" if tensor == "PROBABILITIES" else "")
        + "}]\n"
        for side, group in (("input", inputs), ("output", outputs))
        for tensor, (type_, size) in group.items()
    )
    return f"name: {_quoted(name)}\n{how}max_batch_size: {MAX_BATCH}\n{tensors}"


def _map(field: str, names: Mapping[str, str]) -> str:
    return "".join(
        f"    {field} {{ key: {_quoted(key)} value: {_quoted(value)} }}\n"
        for key, value in names.items()
    )


def _parameters(values: Mapping[str, str]) -> str:
    return "".join(
        f"parameters {{\n  key: {_quoted(key)}\n  value {{ string_value: {_quoted(value)} }}\n}}\n"
        for key, value in values.items()
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _save(folder: Path, config: str) -> None:
    (folder / "config.pbtxt").write_text(config, "utf-8")


def _notes(model: edge.Model, name: str) -> str:
    versions = model.manifest["versions"]
    return f"""# {model.manifest["name"]}

A model repository for Triton Inference Server. `{name}` takes texts; probabilities are in the order
of `{name}/{_LABELS_FILE}`, and a label is empty where its probability is under its threshold.

The model was proven with onnxruntime {versions["onnxruntime"]}; the server's own ONNX Runtime
backend may have another. The Python backend needs tokenizers besides its own numpy:

```sh
pip install tokenizers=={versions["tokenizers"]}
tritonserver --model-repository .
```

```python
import numpy as np
import tritonclient.http as client

text = client.InferInput("TEXT", [2, 1], "BYTES")
text.set_data_from_numpy(np.array([["some text"], ["another one"]], dtype=object))
answer = client.InferenceServerClient("localhost:8000").infer("{name}", [text])
print(answer.as_numpy("LABEL"), answer.as_numpy("PROBABILITIES"))
```
"""
