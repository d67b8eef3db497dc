"""One ONNX file with the tokenizer inside: texts in, labels and probabilities out.

It is written only if the graph's tokens are shown to be the tokenizer's: on the texts that the
bundle carries, on those that the user gives, and on a hard set. The operators for strings come from
onnxruntime-extensions (the extra ``onefile``); the tokenizer is `export.graph_tokenizer`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from export import edge
from export.bundle import require_cut
from export.errors import ExportError
from export.folders import new_folder
from export.graph_tokenizer import add_tokenizer
from export.hard_texts import hard_texts
from export.nodes import CLASSICAL, EXTENSIONS, RUNTIME, Nodes

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto
    from tokenizers import Tokenizer

TEXT, LABEL, PROBABILITIES = "text", "label", "probabilities"
#: Texts that go through the graph at once while tokens are compared.
_BATCH = 64
_SHOWN = 5
#: The same float32 model gives the same numbers; they are rounded once more on the way out.
_ROUNDING = 1e-6
#: The oldest operators of ONNX that have sums by group.
_OPSET = 16
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-extensions")


class Difference(NamedTuple):
    """A text of which the graph and the tokenizer see other tokens."""

    text: str
    tokenizer: list[str]
    graph: list[str]

    def __str__(self) -> str:
        return f"  {self.text!r}\n    tokenizer: {self.tokenizer}\n    graph:     {self.graph}"


def write(model: edge.Model, target: Path, texts: Sequence[str] = ()) -> int:
    """Write a bundle as one ONNX file with its tokenizer inside, if that is shown to be equal.

    It takes a while, and says so on standard error.

    Args:
        model: The bundle.
        target: The new folder; it gets ``model.onnx``, ``requirements.txt`` and ``README.md``.
        texts: Of the user, to compare tokens on besides the recorded and the hard ones.

    Returns:
        On how many texts the tokens were compared.

    Raises:
        ExportError: onnxruntime-extensions is missing, the tokenizer is of another kind or gives
            other tokens, the bundle does not cut long texts, ``target`` is there already or cannot
            be written.
    """
    require_cut(model, "One ONNX file")
    _need_extensions()
    import onnx

    tokenizer = _tokenizer(model)
    print(
        "asking the tokenizer what it makes of each of a million characters: seconds, or minutes "
        "where the machine is slow",
        file=sys.stderr,
    )
    nodes = Nodes("text/")
    add_tokenizer(nodes, tokenizer, model.manifest["processing"], TEXT)
    compared = _texts(model, tokenizer, texts)
    if found := differences(model, nodes, compared):
        shown = "\n".join(map(str, found[:_SHOWN]))
        raise ExportError(
            f"The tokenizer cannot be put into the graph: {len(found)} of {len(compared)} texts "
            f"get other tokens there, and so other answers. The first ones:\n{shown}\nUse the "
            "bundle itself, or --to triton, where the tokenizer stays what it is."
        )
    whole = _joined(onnx.load(model.folder / edge.MODEL_FILE), nodes, model)
    with new_folder(target) as folder:
        onnx.save(whole, folder / edge.MODEL_FILE)
        _check_answers(model, folder / edge.MODEL_FILE)
        _write_notes(folder, model, len(compared))
    return len(compared)


def differences(model: edge.Model, nodes: Nodes, texts: Sequence[str]) -> list[Difference]:
    """Return those texts of which the nodes make other model inputs than the bundle does.

    Args:
        model: The bundle.
        nodes: From `export.graph_tokenizer.add_tokenizer`.
        texts: They go through the nodes in batches, so that padding is compared too.
    """
    import numpy as np
    from tqdm import trange

    processing, found = model.manifest["processing"], []
    inputs, tokenizer = processing["inputs"], _tokenizer(model)
    padding = [[processing["pad_token_id"] if name == "input_ids" else 0] for name in inputs]
    session = open_texts(_alone(nodes, inputs).SerializeToString(), model)
    # Nothing is drawn where no person looks on.
    for first in trange(0, len(texts), _BATCH, desc="comparing tokens", disable=None):
        batch = texts[first : first + _BATCH]
        made = np.stack(session.run(inputs, {TEXT: np.array(batch, dtype=object)}), axis=1)
        for text, seen in zip(batch, made, strict=True):  # seen is [I, L]
            expected = model.encode(text)
            length = expected.shape[1]
            same = np.array_equal(seen[:, :length], expected)
            if not same or (seen[:, length:] != padding).any():
                sides = (each[list(inputs).index("input_ids")] for each in (expected, seen))
                found.append(Difference(text, *(_names(tokenizer, side) for side in sides)))
    return found


def open_texts(source: str | bytes, model: edge.Model) -> Any:
    """Open an ONNX file, or the bytes of one, whose operators for strings are the extensions'."""
    import onnxruntime as rt
    from onnxruntime_extensions import get_library_path

    options = edge.session_options(model.manifest["session"])
    options.register_custom_ops_library(get_library_path())
    return rt.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _need_extensions() -> None:
    try:
        import onnxruntime_extensions  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"One file needs onnxruntime-extensions ({error}). Install it: "
            "pip install 'potstill[onefile]'."
        ) from error


def _tokenizer(model: edge.Model) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(model.folder / edge.TOKENIZER_FILE))


def _texts(model: edge.Model, tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Return all that is compared: the user's texts, the recorded ones, the hard ones."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    hard = hard_texts(sorted(tokenizer.get_vocab()), added)
    return list(dict.fromkeys([*texts, *model.manifest["golden"]["texts"], *hard]))


def _names(tokenizer: Tokenizer, ids: np.ndarray) -> list[str]:
    return [tokenizer.id_to_token(int(number)) or f"<{number}>" for number in ids]


# --- The graph ---------------------------------------------------------------------------------


def _alone(nodes: Nodes, inputs: Sequence[str]) -> ModelProto:
    """Return a model of the tokenizer alone, from texts to the inputs of the classifier."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes.nodes,
        "tokenizer",
        [helper.make_tensor_value_info(TEXT, TensorProto.STRING, ["batch"])],
        [helper.make_tensor_value_info(x, TensorProto.INT64, ["batch", "length"]) for x in inputs],
        nodes.constants,
    )
    versions = {"": 18, CLASSICAL: 3, RUNTIME: 1, EXTENSIONS: 1}
    opsets = [helper.make_opsetid(*each) for each in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _joined(model: ModelProto, tokenizer: Nodes, bundle: edge.Model) -> ModelProto:
    """Return the classifier with the tokenizer before it and the decision behind it."""
    from onnx import TensorProto, helper

    graph = model.graph
    versions = {opset.domain: opset.version for opset in model.opset_import}
    if versions[""] < _OPSET:
        raise ExportError(
            f"The model has operators of ONNX's set {versions['']}, and the tokenizer needs "
            f"{_OPSET} or newer. Export the model again."
        )
    for domain, number in {CLASSICAL: 3, RUNTIME: 1, EXTENSIONS: 1}.items():
        if domain not in versions:
            model.opset_import.append(helper.make_opsetid(domain, number))
    decision = Nodes("answer/")
    labels = bundle.labels
    _decide(decision, graph.output[0].name, labels, bundle.manifest)

    middle = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*tokenizer.nodes, *middle, *decision.nodes])
    graph.initializer.extend([*tokenizer.constants, *decision.constants])
    shape: list[str | int | None] = ["batch", len(labels)]
    graph.input.append(helper.make_tensor_value_info(TEXT, TensorProto.STRING, ["batch"]))
    graph.output.extend([
        helper.make_tensor_value_info(LABEL, TensorProto.STRING, ["batch"]),
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape),
    ])  # fmt: skip
    about = {"name": bundle.manifest["name"], "labels": json.dumps(labels, ensure_ascii=False)}
    helper.set_model_props(model, about | {"bundle_sha256": bundle.manifest["sha256"]})
    return model


def _decide(nodes: Nodes, logits: str, labels: Sequence[str], manifest: dict[str, Any]) -> None:
    """Add what makes a label, "" where its probability is under its threshold, and probabilities.

    In double precision, as edge.py does it: a probability at its threshold falls on the same side.
    """
    import numpy as np
    from onnx import TensorProto

    def each(field: str) -> np.ndarray:
        return np.array([manifest.get(field, {}).get(label, 0.0) for label in labels])

    temperature = nodes.hold(np.array(float(manifest.get("temperature", 1.0))))
    cooled = nodes.add("Div", nodes.add("Cast", logits, to=TensorProto.DOUBLE), temperature)
    wide = nodes.add("Softmax", cooled, axis=1)
    nodes.add("Cast", wide, to=TensorProto.FLOAT, output=PROBABILITIES)
    moved = nodes.add("Add", cooled, nodes.hold(each("offsets")))
    best = nodes.add("ArgMax", moved, axis=1, keepdims=0)
    label = nodes.add("Gather", nodes.words(*labels), best)
    least = nodes.hold(each("thresholds"))
    column = nodes.add("Unsqueeze", best, nodes.number(1))
    highest = nodes.add(
        "Squeeze", nodes.add("GatherElements", wide, column, axis=1), nodes.number(1)
    )
    unsure = nodes.add("Less", highest, nodes.add("Gather", least, best))
    nodes.add("Where", unsure, nodes.words(""), label, output=LABEL)


def _check_answers(model: edge.Model, path: Path) -> None:
    """Compare the file's answers with the bundle's, text by text and all at once."""
    import numpy as np

    session = open_texts(str(path), model)
    golden = model.manifest["golden"]["texts"]
    for texts in [*([text] for text in golden), golden]:
        labels, rows = session.run([LABEL, PROBABILITIES], {TEXT: np.array(texts, dtype=object)})
        for text, label, row, answer in zip(texts, labels, rows, model.predict(texts), strict=True):
            shift = float(np.abs(row - list(answer.probabilities.values())).max())
            if label != (answer.label or "") or shift > _ROUNDING:
                raise ExportError(
                    f"The file answers {text!r} with {label!r}, the bundle with {answer.label!r}; "
                    f"probabilities differ by {shift:.2g}. Use the bundle itself, and report this."
                )


# --- What lies beside it -----------------------------------------------------------------------


def _write_notes(folder: Path, model: edge.Model, compared: int) -> None:
    pins = "".join(f"{package}=={version(package)}\n" for package in _PACKAGES)
    (folder / "requirements.txt").write_text(pins, "utf-8")
    (folder / "README.md").write_text(
        f"""# {model.manifest["name"]}

One ONNX file with its tokenizer inside. Its tokens were compared with the tokenizer's on
{compared:,} texts, and are the same. Probabilities are in the order {", ".join(model.labels)};
the label is empty where its probability is under its threshold.

```python
import numpy as np
import onnxruntime
from onnxruntime_extensions import get_library_path

options = onnxruntime.SessionOptions()
options.register_custom_ops_library(get_library_path())
session = onnxruntime.InferenceSession("model.onnx", options)
texts = np.array(["some text", "another one"], dtype=object)
label, probabilities = session.run(["{LABEL}", "{PROBABILITIES}"], {{"{TEXT}": texts}})
```

Needs the packages of requirements.txt. The texts of a call go through the model as one batch.
""",
        "utf-8",
    )
