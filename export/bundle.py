"""Pack a proven model into a folder that runs without PyTorch, and verify such folders.

A bundle holds ``model.onnx``, ``tokenizer.json``, ``edge.py`` (a copy of ``export/edge.py``),
``requirements.txt``, ``README.md`` and ``bundle.json``, whose fields are:

==============  ====================================================================================
sha256          of bundle.json itself, with these 64 digits as zeros (``export.edge.seal``)
format          2; an edge.py refuses formats that it does not know, and reads 1, in which
                ``problem_type`` is always ``single_label``
problem_type    ``single_label``: softmax over the labels, the likeliest is given; ``ordinal``: the
                same over labels from low to high, their median is given; ``multi_label``: each
                label's own sigmoid, all that reach their thresholds are given; ``regression``: a
                number
name            what the model is called
created_by      the version of potstill that packed it
labels          names in the order of the model's outputs; of a regression, what the number is
scale           of a regression, ``mean`` and ``deviation``: a raw score times the deviation, plus
                the mean, is the number
processing      ``max_length`` in tokens (longer texts are cut on the right), ``pad_token_id``, and
                ``inputs``, the names of the model's inputs (int64 [N, L]); ``pairs``, true if a
                text is two with a tab between them, each cut so that the longer loses first. If
                longer texts are not cut, ``long`` says how they are read: ``way`` (``head_tail``
                or ``windows``), and with windows ``stride``, ``most`` and ``pool``: see edge.py,
                ``seen`` and ``pooled``
phases          ``name`` and ``labels`` of each phase in which the model learnt, in their order; the
                labels are those that were new in it. Empty if it learnt everything at once
temperature     logits are divided by it before they become probabilities; 1 changes nothing
offsets         label -> number added to its log-probability (of ``multi_label``: its log-odds)
                before labels are chosen; the probabilities that are given stay without it
thresholds      label -> probability (of ``multi_label``: with the offset) under which that label is
                not given; the answer is null then, unless there are several. Default 0, and 0.5 of
                ``multi_label``
session         ``intra_op_num_threads``, ``graph_optimization_level`` and further ``config``
                entries of onnxruntime's session
golden          ``texts`` with their answers (``labels``) and ``logits``, recorded by the packed
                edge code at batch size 1, and the ``tolerance``: the largest difference of a logit
                allowed
files           name -> ``sha256`` and ``size_bytes`` of every other file
ledger          the rows of the run, from baseline to shipped model
versions        of the packages that the bundle was made and proven with
licenses        of the weights and of the data
==============  ====================================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from export import edge
from export.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

# Tolerances as a share of the range of the golden logits. A float model differs between processors
# by rounding, far less than 1e-3. In a dynamic int8 model a rounding difference can tip an
# activation into the next of 256 steps: on a MiniLM-L6 (seven-bit weights) and 303 questions at
# most 2.1 % of the range with graph optimization on and off, and 1.4 % between AVX2 kernels and
# exact integers; with eight signed bits, which saturate without VNNI, up to 7 %. A broken model
# (wrong tokenizer, padding or label order, collapsed weights) is off by the order of the range
# itself. 5 % keeps the two apart; labels must agree exactly besides.
FLOAT_TOLERANCE = 1e-3
INT8_TOLERANCE = 0.05

# Golden logits are recorded to six decimals; no tolerance is finer than the float noise above that.
LEAST_TOLERANCE = 1e-5
#: Lies beside the files of a bundle and is none of them: it covers bundle.json and so all of them.
SIGNATURE_FILE = "bundle.sig"

GOLDEN_COUNT = 16
GOLDEN_CHARACTERS = 1000
#: Where windows are pooled, some golden texts need several: so many characters for a token of one.
_CHARACTERS_A_TOKEN = 10

REQUIREMENTS = """\
# Exactly what this bundle was packed and proven with. Other versions usually answer the same:
# `python edge.py --self-test` tells.
"""


class Processing(TypedDict):
    """What has to be done to a text before the model sees it; see the table above."""

    max_length: int
    pad_token_id: int
    inputs: Sequence[str]
    pairs: NotRequired[bool]
    long: NotRequired[Mapping[str, Any]]


class Phase(TypedDict):
    """What a model learnt on top of what it knew; see the table above."""

    name: str
    labels: Sequence[str]


class Session(TypedDict):
    """How onnxruntime runs the model; level and entries by onnxruntime's own names.

    For example 1, ``"ORT_ENABLE_ALL"`` and ``{"session.force_spinning_stop": "1"}``.
    """

    intra_op_num_threads: int
    graph_optimization_level: str
    config: Mapping[str, str]


def pack(
    folder: Path,
    *,
    name: str,
    model: Path,
    tokenizer: Tokenizer | Path,
    labels: Sequence[str],
    processing: Processing,
    session: Session,
    golden_texts: Sequence[str],
    tolerance: float,
    ledger: Sequence[Mapping[str, Any]],
    versions: Mapping[str, str],
    licenses: Mapping[str, str],
    card: str,
    temperature: float = 1.0,
    offsets: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
    phases: Sequence[Phase] = (),
    problem: str = "single_label",
    scale: Mapping[str, float] | None = None,
) -> Path:
    """Pack a bundle and prove it; ``folder`` appears complete or not at all.

    The bundle is built in a hidden folder beside ``folder``, answers the golden texts there through
    its own edge code, passes its own self-test and is then moved into place.

    Args:
        folder: Where to; nothing, an empty folder, or an older bundle that is replaced.
        name: What the model is called.
        model: ONNX file with all its weights inside; copied as it is.
        tokenizer: The one the model was trained with (of a transformers tokenizer, its
            ``backend_tokenizer``), or its tokenizer.json. Truncation and padding are taken out.
        labels: Names in the order of the model's outputs.
        processing: See the table above.
        session: See the table above.
        golden_texts: Candidates, best real ones of every label (they are in the bundle to be read:
            nothing confidential); at most ``GOLDEN_COUNT`` are kept, cut to ``GOLDEN_CHARACTERS``,
            or to some more than a window where long texts are not simply cut.
        tolerance: How far a golden logit may be off on the target, as a share of the range of all
            golden logits: ``FLOAT_TOLERANCE`` or ``INT8_TOLERANCE``.
        ledger: Rows of the run.
        versions: Packages of the run; those that edge.py needs are added.
        licenses: For example of ``weights`` and ``data``.
        card: Text of README.md (Markdown).
        temperature: What logits are divided by.
        offsets: Label to what is added to its log-probability; None and {} for nothing.
        thresholds: Label to least probability; None and {} mean that every text gets a label.
        phases: In which the model learnt, if it did; see the table above.
        problem: The problem type; see the table above.
        scale: Of a regression, its mean and deviation; see the table above.

    Returns:
        ``folder``.

    Raises:
        ExportError: ``folder`` holds something else or cannot be written, labels do not fit the
            model or the phases, the model takes no text of ``max_length`` tokens or keeps weights
            in other files, or the packed bundle fails its self-test.
    """
    _check_labels(labels, thresholds or {}, problem)
    _check_decision(labels, temperature, offsets or {})
    _check_phases(labels, phases)
    _check_model(model, processing)
    _check_target(folder)
    proven = {package: version(package) for package in edge.PACKAGES}
    manifest: dict[str, Any] = {
        "created_by": _creator(),
        "problem_type": problem,
        "name": name,
        "labels": list(labels),
        **({} if scale is None else {"scale": dict(scale)}),
        "processing": dict(processing),
        "phases": [{"name": phase["name"], "labels": list(phase["labels"])} for phase in phases],
        "temperature": float(temperature),
        "offsets": dict(offsets or {}),
        "thresholds": dict(thresholds or {}),
        "session": dict(session),
        "golden": {},
        "ledger": [dict(row) for row in ledger],
        "versions": {**versions, **proven},
        "licenses": dict(licenses),
    }
    building = folder.parent / f".{folder.name}.part"
    try:
        shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
        building.mkdir(parents=True)
        shutil.copyfile(model, building / edge.MODEL_FILE)
        shutil.copyfile(edge.__file__, building / "edge.py")
        _write_texts(building, tokenizer, proven, card)
        write_manifest(building, manifest)
        packed = edge.Model(building)
        _check_length(packed, processing)
        manifest["golden"] = _golden(packed, golden_texts, tolerance)
        write_manifest(building, manifest)
        if problems := verify(building):
            raise ExportError("The new bundle fails its own self-test: " + " ".join(problems))
        _replace(folder, building)
    except edge.BundleError as error:
        raise ExportError(f"The model cannot be packed. {error}") from error
    except OSError as error:
        raise ExportError(f"The bundle cannot be written to {folder}: {error}.") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def verify(folder: Path) -> list[str]:
    """Run a bundle's self-test on this machine; return what is wrong, nothing if it is sound."""
    return [check.message for check in edge.checks(folder) if not check.passed]


def require_cut(model: edge.Model, target: str) -> None:
    """Refuse a bundle that reads long texts in another way than cutting them on the right.

    Args:
        model: The bundle.
        target: What it would be turned into, for the message.

    Raises:
        ExportError: It does.
    """
    if "long" in model.manifest["processing"]:
        way = model.manifest["processing"]["long"]["way"]
        raise ExportError(
            f"{target} can only cut long texts on the right, and this bundle reads them otherwise "
            f"(data.long.way={way}): its answers would be others. Use the bundle itself, or train "
            "with data.long.way=head."
        )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write bundle.json with the sums of all other files in ``folder`` and its own seal.

    Args:
        folder: The bundle, complete but for bundle.json.
        manifest: Its fields; those that follow from the files and the format are put in.

    Raises:
        ExportError: A field holds NaN or infinity, which JSON cannot say.
    """
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (edge.MANIFEST_FILE, SIGNATURE_FILE)
    }
    blank = "0" * 64
    content = {"sha256": blank, "format": edge.FORMATS[-1]}
    content |= {key: value for key, value in manifest.items() if key not in content}
    content["files"] = files
    try:
        raw = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise ExportError(
            f"bundle.json cannot hold NaN or infinity: {error}. Look for it in the ledger's rows."
        ) from error
    digest = edge.seal(raw, blank)
    (folder / edge.MANIFEST_FILE).write_bytes(raw.replace(blank.encode(), digest.encode(), 1))


def _golden(model: edge.Model, texts: Sequence[str], tolerance: float) -> dict[str, Any]:
    """Record the model's answers to those texts that it decides clearly."""
    import numpy as np

    processing, most = model.manifest["processing"], GOLDEN_CHARACTERS
    if "long" in processing:
        most = max(most, _CHARACTERS_A_TOKEN * processing["max_length"])
    cut = (edge.PAIR.join(part[:most] for part in text.split(edge.PAIR, 1)) for text in texts)
    whole = cut if model.pairs else (text[:most] for text in texts)
    texts = [t for t in dict.fromkeys(whole) if not edge.problem_with(t, model.pairs)]
    if not texts:
        raise ExportError("There is no golden text to pack: give some real ones, of every label.")
    logits = np.concatenate([model.logits([text]) for text in texts]).astype(np.float64)
    allowed = tolerance * float(np.ptp(logits))
    answers = model.best(logits.astype(np.float32))
    margins = _margins(model.moved(logits), model) * model.temperature
    kept, allowed = _select(margins, list(map(str, answers)), allowed)
    return {
        "tolerance": allowed,
        "texts": [texts[row] for row in kept],
        "labels": [answers[row] for row in kept],
        "logits": [[round(float(value), 6) for value in logits[row]] for row in kept],
    }


def _margins(logits: npt.NDArray[np.float64], model: edge.Model) -> npt.NDArray[np.float64]:
    """Return for each row of moved logits [N, C] twice the shift that could flip its answer [N]."""
    import numpy as np

    if model.problem == "regression":
        return np.full(len(logits), np.inf)
    if model.problem == "multi_label":
        least = [model.manifest["thresholds"].get(label, edge.LEAST) for label in model.labels]
        shares = np.clip(least, 1e-9, 1 - 1e-9)
        nearest: npt.NDArray[np.float64] = np.abs(logits - np.log(shares / (1 - shares))).min(1)
        return 2 * nearest
    if model.problem == "ordinal":
        below = edge.probabilities(logits, model.problem).cumsum(axis=1)[:, :-1].clip(1e-12, 1)
        # The odds that the label is no higher; all logits together move them by twice a shift.
        odds: npt.NDArray[np.float64] = np.abs(np.log(below / (1 - below).clip(1e-12))).min(1)
        return odds
    ordered = np.sort(logits, axis=1)
    apart: npt.NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return apart


def _select(
    margins: npt.NDArray[np.float64], answers: Sequence[str], allowed: float
) -> tuple[list[int], float]:
    """Choose golden rows, and bound the tolerance by what they can bear.

    An answer can only flip within the tolerance if its margin is less than twice that. Rows with
    more qualify, the answers taking turns. A model that decides nothing so clearly is still packed,
    with its clearest row and a tolerance to fit.
    """
    import numpy as np

    clear = np.flatnonzero(margins > 2 * allowed).tolist() or [int(margins.argmax())]
    turns: Counter[str] = Counter()
    queue = []
    for row in clear:
        queue.append((turns[answers[row]], row))
        turns[answers[row]] += 1
    kept = [row for _, row in sorted(queue)[:GOLDEN_COUNT]]
    return kept, max(LEAST_TOLERANCE, min(allowed, float(margins[kept].min()) / 2))


def _write_texts(
    folder: Path, tokenizer: Tokenizer | Path, proven: Mapping[str, str], card: str
) -> None:
    from tokenizers import Tokenizer

    given = tokenizer.read_text("utf-8") if isinstance(tokenizer, Path) else tokenizer.to_str()
    clean = Tokenizer.from_str(given)
    clean.no_truncation()
    clean.no_padding()
    pins = "".join(f"{package}=={number}\n" for package, number in sorted(proven.items()))
    (folder / edge.TOKENIZER_FILE).write_text(clean.to_str(), "utf-8")
    (folder / "requirements.txt").write_text(REQUIREMENTS + pins, "utf-8")
    (folder / "README.md").write_text(card, "utf-8")


def _check_labels(labels: Sequence[str], thresholds: Mapping[str, float], problem: str) -> None:
    if problem not in edge.PROBLEMS:
        raise ExportError(
            f"Problems of the type {problem} cannot be answered without PyTorch yet, only "
            f"{', '.join(edge.PROBLEMS)}."
        )
    fewest = {"regression": 1, "multi_label": 1}.get(problem, 2)
    if len(labels) < fewest or len(set(labels)) < len(labels):
        raise ExportError(
            f"A bundle needs {fewest} or more different labels; these are {list(labels)}."
        )
    for label, least in thresholds.items():
        if label not in labels or not 0 <= least <= 1:
            raise ExportError(
                f"The threshold {label!r}: {least} is wrong: it takes one of the labels "
                f"{list(labels)} and a probability from 0 to 1."
            )


def _check_decision(
    labels: Sequence[str], temperature: float, offsets: Mapping[str, float]
) -> None:
    if not 0 < temperature < math.inf:
        raise ExportError(f"The temperature {temperature} is wrong: it takes a number above 0.")
    for label, offset in offsets.items():
        if label not in labels or not math.isfinite(offset):
            raise ExportError(
                f"The offset {label!r}: {offset} is wrong: it takes one of the labels "
                f"{list(labels)} and a number."
            )


def _check_phases(labels: Sequence[str], phases: Sequence[Phase]) -> None:
    brought = [label for phase in phases for label in phase["labels"]]
    if phases and brought != list(labels):
        raise ExportError(
            f"The phases bring the labels {brought}, the model has {list(labels)}. A label is new "
            "in one phase, and has its place after all that were known before."
        )


def _check_model(path: Path, processing: Processing) -> None:
    import onnx
    from onnx.external_data_helper import uses_external_data

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # not there, or one of protobuf's many ways to say "not ONNX"
        raise ExportError(f"{path} cannot be read as an ONNX model: {error}.") from error
    if any(uses_external_data(tensor) for tensor in graph.initializer):
        raise ExportError(
            f"{path} keeps weights in other files, and a bundle takes one file. Save it as one: "
            f"onnx.save(onnx.load(path), path)."
        )
    names = {node.name for node in graph.input}
    if names != set(processing["inputs"]) or not names <= edge.INPUTS.keys():
        raise ExportError(
            f"{path} takes the inputs {sorted(names)}, processing names "
            f"{sorted(processing['inputs'])}, and edge.py can make {sorted(edge.INPUTS)}. Export "
            f"the model with inputs of these names."
        )


def _check_length(model: edge.Model, processing: Processing) -> None:
    """Let the model answer the longest text: exported for shorter ones, it lacks positions."""
    import numpy as np

    length, padding = processing["max_length"], processing["pad_token_id"]
    usual = {"input_ids": int(padding == 0), "attention_mask": 1}
    row = np.array([[usual.get(name, 0)] * length for name in processing["inputs"]])
    try:
        model.score([row])
    except edge.BundleError:
        raise
    except Exception as error:  # onnxruntime raises many kinds
        raise ExportError(
            f"The model does not answer a text of max_length={length} tokens. Export it with this "
            f"max_length, or pack it with a smaller one. ({error})"
        ) from error


def _check_target(folder: Path) -> None:
    """Refuse to replace anything but a bundle: nothing that is not ours is ever deleted."""
    if not folder.exists():
        return
    known = {edge.MANIFEST_FILE, SIGNATURE_FILE, "__pycache__"}
    try:
        found = {path.name for path in folder.iterdir()}
        if found:
            known |= edge.read_manifest(folder)["files"].keys()
    except (OSError, edge.BundleError) as error:
        raise ExportError(
            f"{folder} is there and is not a bundle, so it is not replaced. Give another folder, "
            f"or move it away. ({error})"
        ) from error
    if strangers := sorted(found - known):
        raise ExportError(
            f"{folder} holds files that are not the bundle's: {', '.join(strangers)}. Move them "
            f"away before the bundle is replaced."
        )


def _replace(folder: Path, building: Path) -> None:
    """Move the finished bundle into place; an old one steps aside first and goes last."""
    old = folder.parent / f".{folder.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    building.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _creator() -> str:
    try:
        return f"potstill {version('potstill')}"
    except PackageNotFoundError:
        return "potstill (not installed)"
