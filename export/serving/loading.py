"""A bundle becomes a model that may answer: everything of it is checked first."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from export import edge
from export.console import unusable
from export.errors import ExportError
from export.serving.folder import check_manifest
from export.serving.limits import RefusedError
from export.signature import verify

#: How a folder may turn out to be unusable; one that is broken stops no server.
BROKEN = (edge.BundleError, RefusedError, ExportError, OSError)


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
