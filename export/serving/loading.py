"""A bundle becomes a model that may answer: everything of it is checked first."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export import edge
from export.console import unusable
from export.errors import ExportError
from export.serving.folder import NAME
from export.serving.limits import RefusedError
from export.signature import verify

#: How a folder may turn out to be unusable; one that is broken stops no server.
BROKEN = (edge.BundleError, RefusedError, ExportError, OSError)
#: Entries of a bundle's session that name files or load providers' own: nothing that is pushed may.
_FORBIDDEN_ENTRY = re.compile(r"file|path|folder|^ep\.")
#: All are answered together; a bundle has a few of each label.
_GOLDEN_TEXTS = 256
#: Temperatures and offsets beyond this are no decision of any model.
_FARTHEST = 1000.0


def open_bundle(place: Path, threads: int | None, public_key: Path | None) -> edge.Model:
    """Read a bundle, check its signature, every byte of it and every recorded answer.

    Args:
        place: The bundle.
        threads: Within one batch; None for what the bundle says.
        public_key: If given, the file with the key that it has to be signed with.

    Raises:
        BundleError: It is not sound.
        SignatureError: It is not signed, or not what was signed.
    """
    if public_key:
        verify(place, public_key)
    try:
        check_manifest(edge.read_manifest(place))
        model = edge.Model(place, threads)
        failed = [each.message for each in model.check_golden() if not each.passed]
    except edge.BundleError:
        raise
    except Exception as error:  # its fields may be of any type, with a right sum over them
        raise edge.BundleError(f"bundle.json is malformed: {error!r}"[:300]) from error
    if failed:
        raise edge.BundleError(f"The self-test failed. {failed[0]}")
    _check_together(model)
    return model


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Refuse a bundle.json that would have unchecked files read, or lets onnxruntime open others.

    Raises:
        BundleError: It does.
    """
    labels, files = manifest["labels"], manifest["files"]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise edge.BundleError("bundle.json has labels that are no names, or the same twice.")
    if not 1 <= len(manifest["golden"]["texts"]) <= _GOLDEN_TEXTS:
        raise edge.BundleError(
            f"bundle.json has to have 1 to {_GOLDEN_TEXTS} recorded answers to test it with."
        )
    if missing := {edge.MODEL_FILE, edge.TOKENIZER_FILE} - files.keys():
        raise edge.BundleError(f"bundle.json has no sum of {', '.join(sorted(missing))}.")
    if wrong := sorted(name for name in files if not NAME.fullmatch(name)):
        raise edge.BundleError(f"bundle.json names the file {wrong[0][:64]!r}; a bundle is flat.")
    if wrong := sorted(filter(_FORBIDDEN_ENTRY.search, manifest["session"]["config"])):
        raise edge.BundleError(f"bundle.json sets {wrong[0][:64]!r}, which opens other files.")
    _check_by_label(manifest, "threshold", labels, 0, 1)
    _check_by_label(manifest, "offset", labels, -_FARTHEST, _FARTHEST)
    temperature = manifest.get("temperature", 1.0)
    if not _is_within(temperature, 1 / _FARTHEST, _FARTHEST):
        raise edge.BundleError("bundle.json has a temperature that is no usable number.")


def _check_by_label(
    manifest: Mapping[str, Any], what: str, labels: Sequence[str], low: float, high: float
) -> None:
    found = manifest.get(f"{what}s", {})
    if not isinstance(found, dict) or not found.keys() <= set(labels):
        raise edge.BundleError(f"bundle.json has {what}s that are not of its labels.")
    for label, number in found.items():
        if not _is_within(number, low, high):
            raise edge.BundleError(
                f"bundle.json has {'an' if what[0] == 'o' else 'a'} {what} of {label[:64]!r} that "
                f"is no number from {low:g} to {high:g}."
            )


def _is_within(number: Any, low: float, high: float) -> bool:
    # True is a number to Python, and NaN is in no range.
    return type(number) in (int, float) and low <= number <= high


def reason(error: Exception, hidden: Mapping[Path, str]) -> str:
    """Say to a client what is wrong with a bundle, and nothing of where this server keeps it.

    Args:
        error: One of `BROKEN`.
        hidden: Paths, and what to call them.
    """
    text = unusable(error) if isinstance(error, OSError) else str(error)
    for path, instead in {**hidden, Path(sys.executable): "python"}.items():
        text = text.replace(str(path), instead)
    return text


def _check_together(model: edge.Model) -> None:
    """Answer the recorded texts in one batch and with the thresholds, as requests will be.

    Raises:
        BundleError: That fails, or a text gets another label than was recorded.
    """
    golden = model.manifest["golden"]
    try:
        scored = model.logits(golden["texts"])
        model.decide(scored)
        found = model.best(scored)
    except Exception as error:  # onnxruntime raises many kinds
        raise edge.BundleError(
            f"The self-test failed. The model does not answer several texts at once: {error}"[:600]
        ) from error
    for text, label, best in zip(golden["texts"], golden["labels"], found, strict=True):
        if best != label and model.problem != "regression":
            raise edge.BundleError(
                f"The self-test failed. Golden text {text[:40]!r} is {best} in a batch with others "
                f"(was {label})."
            )
