#!/usr/bin/env python3
"""Answer with the model that lies beside this file, which every bundle carries as it is.

    python edge.py "How far is the moon?"    label and probabilities, for people
    python edge.py "A man eats.<TAB>He eats."  the same for a pair of texts, a tab between them
    python edge.py --json "One." "Two."      one JSON object per text
    cat lines.txt | python edge.py           one JSON object per line, answered as the lines come
    python edge.py --self-test               is every byte, and every answer, as it was packed?
    python edge.py --about                   name, labels, licenses, versions, ledger as JSON

or, from Python, ``Model("bundle").predict(["How far is the moon?"])[0].label``.

Exit status: 0, everything was answered; 1, the bundle was refused, the self-test failed, or a text
could not be answered; 2, the command line is wrong.

Every start checks the sha256 of every file in the bundle and refuses to answer after a changed
byte. That guards against damage (a broken copy, half an update, an edit), not against a forger,
who would change the sums too: where that matters, sign the bundle with potstill's ``export.sign``.
The fields of bundle.json are described in its ``export/bundle.py``.

Needs Python 3.11 and the packages of requirements.txt, which are imported only once the files are
known to be good: importing this module and refusing a bundle are quick.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Encoding

FORMATS = (1, 2)  # of bundle.json that this file understands; it is packed with the last
PROBLEMS = ("single_label", "multi_label", "ordinal", "regression")
PAIR = "\t"  # between the two texts of a pair
MANIFEST_FILE, MODEL_FILE, TOKENIZER_FILE = "bundle.json", "model.onnx", "tokenizer.json"
PACKAGES = ("numpy", "onnxruntime", "tokenizers")
# The names of a model's inputs, and the parts of an encoding that feed them.
INPUTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
ABOUT = ("name", "created_by", "labels", "phases", "licenses", "versions", "ledger")
REPAIR = "Copy the whole bundle again from where it was packed."
TOKENS = 1024  # that go through the model at once: what it makes of them stays in the caches


class BundleError(Exception):
    """The bundle cannot be used: the message says what is wrong, where, and what to do."""


class Prediction(NamedTuple):
    """The answer to one text.

    ``single_label``: the most probable label, or None if its probability is under its threshold.
    ``ordinal``: the median of the ordered labels, likewise. ``multi_label``: a list of the labels
    that reach their thresholds. ``regression``: a number, and no probabilities.
    """

    label: str | list[str] | float | None
    probabilities: dict[str, float]  # of every label, in the order of the model's outputs


Answer = Prediction | ValueError


class Check(NamedTuple):
    """One line of a self-test."""

    passed: bool
    message: str


LEAST = 0.5  # from which probability on one of several labels is given, unless bundle.json says


def probabilities(scored: npt.NDArray[Any], problem: str) -> npt.NDArray[np.float64]:
    """Return probabilities [N, C] of raw scores [N, C]: each label's own, or of all together."""
    import numpy as np

    logits = scored.astype(np.float64)
    if problem == "multi_label":
        own: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        return own
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    together: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return together


def choices(shares: npt.NDArray[np.float64], problem: str) -> npt.NDArray[np.int64]:
    """Return the place of one label a row [N] of probabilities [N, C].

    It is the likeliest, or the median of labels that have an order: its distance from the right
    one is the least on average.
    """
    found: npt.NDArray[np.int64] = shares.argmax(axis=1)
    if problem == "ordinal":
        found = (shares.cumsum(axis=1) < 0.5 - 1e-9).sum(axis=1).clip(max=shares.shape[1] - 1)
    return found


def numbers(scored: npt.NDArray[Any], mean: float, deviation: float) -> npt.NDArray[np.float64]:
    """Return what raw scores [N, 1] stand for [N]: models learn numbers in deviations."""
    import numpy as np

    found: npt.NDArray[np.float64] = scored[:, 0].astype(np.float64) * deviation + mean
    return found


def seal(raw: bytes, digest: str) -> str:
    """Return the sha256 that bundle.json must carry in its own ``sha256`` field.

    The sum is taken over ``raw``, the bytes on disk, with the field's 64 digits (``digest``)
    replaced by zeros; a sum over the parsed content would miss changed white space.
    """
    return hashlib.sha256(raw.replace(digest.encode(), b"0" * 64, 1)).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check bundle.json; the other files are left to ``check_files``.

    Raises:
        BundleError: It is missing, damaged or of another format.
    """
    path = folder / MANIFEST_FILE
    try:
        raw = path.read_bytes()
        manifest: dict[str, Any] = json.loads(raw)
        kind, digest = (manifest["format"], manifest["problem_type"]), str(manifest["sha256"])
        known = kind[0] in FORMATS and kind[1] in PROBLEMS
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. {REPAIR}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path} is no bundle.json, or damaged: {error!r}. {REPAIR}") from error
    if not known:
        raise BundleError(
            f"{path} has format and problem type {kind}, and this edge.py reads formats {FORMATS} "
            f"of {', '.join(PROBLEMS)}. Use the edge.py that comes with "
            f"{manifest.get('created_by')}: it lies in the bundle itself."
        )
    if seal(raw, digest) != digest:
        raise BundleError(f"{path} has changed since it was packed. {REPAIR}")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> Iterator[Check]:
    """Compare the sha256 of every file that bundle.json names; one check per file."""
    for name, packed in manifest["files"].items():
        path, size = folder / name, packed["size_bytes"]
        try:
            with path.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").hexdigest() == packed["sha256"]
        except OSError as error:
            yield Check(False, f"{path} cannot be read: {error.strerror}. {REPAIR}")
            continue
        changed = f"{path} has changed since it was packed with {size} bytes. {REPAIR}"
        yield Check(same, f"{name} as packed, {size} bytes" if same else changed)


class Model:
    """A verified bundle, loaded and ready to answer.

    Args:
        folder: The bundle.
        threads: Threads within one operation of the model; None takes what the bundle says.

    Raises:
        BundleError: A file is missing or changed, a package is missing, or the model does not load.
    """

    def __init__(self, folder: str | Path, threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        for check in check_files(self.folder, self.manifest):
            if not check.passed:
                raise BundleError(check.message)
        self.labels: list[str] = self.manifest["labels"]
        self.problem: str = self.manifest["problem_type"]
        self.temperature: float = self.manifest.get("temperature", 1.0)  # not in older bundles
        offsets = self.manifest.get("offsets", {})
        self._offsets = [offsets.get(label, 0.0) for label in self.labels] if offsets else []
        self._processing = self.manifest["processing"]
        self.pairs: bool = self._processing.get("pairs", False)
        try:
            self._load(self.manifest["session"], threads)
        except Exception as error:  # a package is missing, or raises one of its many kinds
            raise BundleError(f"{self.folder} does not load: {error}. {self._hint()}") from error

    def _load(self, session: dict[str, Any], threads: int | None) -> None:
        import onnxruntime as rt
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(os.fspath(self.folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()  # the file may carry a fixed padding, from another use
        self._long = self._processing.get("long", {"way": "head"})
        if self._long["way"] == "head":
            self._tokenizer.enable_truncation(self._processing["max_length"])
        else:
            self._tokenizer.no_truncation()
        self._session = rt.InferenceSession(
            os.fspath(self.folder / MODEL_FILE),
            session_options(session, threads),
            providers=["CPUExecutionProvider"],
        )

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return raw scores [N, C] for N texts and C labels.

        A text longer than ``max_length`` tokens is read as the bundle says: its head, its head and
        tail, or windows. Texts or windows of ``TOKENS`` tokens together go through the model at
        once, padded on the right to the longest. An int8 model scales them alike, so neighbors
        change its scores a little.

        Raises:
            BundleError: The model's output does not fit the labels, or holds NaN or infinity.
        """
        return self.score([self.encode(text) for text in texts])

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Return what the model is to see of a text: [I, L] for its I inputs and L tokens.

        The windows of a long text follow one another; all but the last are of ``max_length``.
        """
        import numpy as np

        encoding = self._tokenize(text)
        inputs = self._processing["inputs"]
        found = np.array([getattr(encoding, INPUTS[name]) for name in inputs], dtype=np.int64)
        if self._long["way"] == "head":
            return found
        long = {name: value for name, value in self._long.items() if name != "pool"}
        limit = self._processing["max_length"]
        return found[:, seen(encoding.special_tokens_mask, limit, **long)]

    def score(self, encoded: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Return raw scores [N, C] for N encoded texts; batching and errors as in ``logits``."""
        import numpy as np

        if not encoded:
            return np.zeros((0, len(self.labels)), dtype=np.float32)
        rows, counts, size = encoded, [], self._processing["max_length"]
        if self._long["way"] == "windows":
            windows = [starts(row.shape[1], size) for row in encoded]
            counts = [len(each) for each in windows]
            pairs = zip(encoded, windows, strict=True)
            rows = [row[:, at : at + size] for row, each in pairs for at in each]
        step = max(1, TOKENS // max(row.shape[1] for row in rows))
        parts = [self._score(rows[at : at + step]) for at in range(0, len(rows), step)]
        scored = np.concatenate(parts)
        return pooled(scored, counts, self._long["pool"]) if counts else scored

    def _score(self, encoded: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """Return raw scores [N, C] of N rows that go through the model at once."""
        import numpy as np

        shape = len(encoded), max(values.shape[1] for values in encoded)
        feed = {}
        for place, name in enumerate(self._processing["inputs"]):
            padding = self._processing["pad_token_id"] if name == "input_ids" else 0
            feed[name] = np.full(shape, padding, dtype=np.int64)
            for row, values in zip(feed[name], encoded, strict=True):
                row[: values.shape[1]] = values[place]
        logits: npt.NDArray[np.float32] = self._session.run(None, feed)[0]
        if logits.shape != (len(encoded), len(self.labels)) or not np.isfinite(logits).all():
            raise BundleError(
                f"{self.folder / MODEL_FILE} gave NaN, or scores of shape {logits.shape} for "
                f"{len(encoded)} texts and {len(self.labels)} labels. Export and pack it again."
            )
        return logits

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Return one answer per text; batching and errors as in ``logits``."""
        return self.decide(self.logits(texts))

    def decide(self, scored: npt.NDArray[np.float32]) -> list[Prediction]:
        """Return one answer per row of raw scores [N, C]."""
        if self.problem == "regression":
            return [Prediction(value, {}) for value in self.best(scored)]
        shares = probabilities(scored.astype("float64") / self.temperature, self.problem)
        least = self.manifest["thresholds"]
        predictions = []
        for best, row in zip(self.best(scored), shares.tolist(), strict=True):
            each = dict(zip(self.labels, row, strict=True))
            sure = isinstance(best, list) or each[best] >= least.get(best, 0.0)
            predictions.append(Prediction(best if sure else None, each))
        return predictions

    def best(self, scored: npt.NDArray[np.float32]) -> list[Any]:
        """Return the best answer per row of raw scores [N, C], however improbable it is."""
        if self.problem == "regression":
            return list(numbers(scored, **self.manifest["scale"]).tolist())
        shares = probabilities(self.moved(scored), self.problem)
        if self.problem == "multi_label":
            least = [self.manifest["thresholds"].get(label, LEAST) for label in self.labels]
            return [
                [label for label, given in zip(self.labels, row, strict=True) if given]
                for row in (shares >= least).tolist()
            ]
        return [self.labels[place] for place in choices(shares, self.problem).tolist()]

    def moved(self, scored: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return what answers are chosen by [N, C]: calibrated scores, with the offsets added."""
        import numpy as np

        found: npt.NDArray[np.float64] = scored.astype(np.float64) / self.temperature
        return found + self._offsets if self._offsets else found

    def check_golden(self) -> Iterator[Check]:
        """Answer the recorded texts again, alone; one check per text and one that sums up."""
        import numpy as np

        golden, same = self.manifest["golden"], True
        rows = zip(golden["texts"], golden["labels"], golden["logits"], strict=True)
        for text, label, recorded in rows:
            logits = self.logits([text])
            shift = float(np.abs(logits[0] - np.array(recorded)).max())
            found = self.best(logits)[0]
            # A number may be as far off as its raw score.
            good = (found == label or self.problem == "regression") and shift <= golden["tolerance"]
            same &= good
            differ = f"logits differ by {shift:.2g} (allowed: {golden['tolerance']:.2g})"
            yield Check(good, f"golden text {text[:40]!r}: {found} (was {label}), {differ}")
        yield Check(same, f"{len(golden['texts'])} golden texts" if same else self._hint())

    def _tokenize(self, text: str) -> Encoding:
        """Tokenize one text, and of a huge text only the beginning if that is all the model sees.

        If the last visible token ends in the first half of the beginning, the cut at its end is too
        far away to have changed a visible token.
        """
        if self.pairs:
            first, _, second = text.partition(PAIR)
            return self._tokenizer.encode(first, second)
        limit = self._processing["max_length"]
        if self._long["way"] != "head":
            return self._tokenizer.encode(text)
        head = text[: 64 * limit]
        encoding = self._tokenizer.encode(head)
        if len(head) < len(text):
            seen = max((end for _, end in encoding.offsets), default=0)
            if len(encoding) < limit or seen > len(head) // 2:
                return self._tokenizer.encode(text)
        return encoding

    def _hint(self) -> str:
        proven = ", ".join(f"{name} {self.manifest['versions'][name]}" for name in PACKAGES)
        return (
            f"It was packed with {proven}. If you have others: {sys.executable} -m pip install -r "
            f"{self.folder / 'requirements.txt'}. If you have these, this processor computes "
            f"differently: pack a bundle for it that is not quantized, or is quantized otherwise."
        )


def seen(
    special: Sequence[int],
    max_length: int,
    *,
    way: str = "head",
    stride: int = 0,
    most: int | None = None,
) -> npt.NDArray[np.int64]:
    """Choose what a model that takes ``max_length`` tokens at once sees of a longer text.

    Args:
        special: 1 for each token that is not the text's own, as at its beginning and end, else 0.
        max_length: With these tokens, which every part that is seen keeps.
        way: ``head``; ``head_tail``, a quarter of the room for the beginning and the rest for the
            end (nearest to what Sun et al., 2019, arXiv:1905.05583, found best); or ``windows``.
        stride: How many tokens neighboring windows share.
        most: With more windows than this, so many are seen, spread evenly from first to last.

    Returns:
        Places of tokens, window after window; all windows but the last are full.
    """
    import numpy as np

    own = np.flatnonzero(np.asarray(special) == 0)
    begin, end = (int(own[0]), int(own[-1]) + 1) if len(own) else (0, 0)
    room = max_length - begin - (len(special) - end)
    if len(special) <= max_length:
        return np.arange(len(special))
    before, text, after = np.split(np.arange(len(special)), [begin, end])
    if way == "windows":
        first = np.arange(0, len(text) - room + (step := room - stride), step)
        if most is not None and len(first) > most:
            first = first[np.linspace(0, len(first) - 1, most).round().astype(int)]
        bodies = [text[at : at + room] for at in first]
    else:
        head = room if way == "head" else max(1, room // 4)
        bodies = [np.concatenate([text[:head], text[len(text) - room + head :]])]
    return np.concatenate([np.concatenate([before, body, after]) for body in bodies])


def starts(length: int, size: int) -> range:
    """Return where the windows of an encoded text begin, each ``size`` tokens after the other."""
    return range(0, max(1, length), size)


def pooled(
    logits: npt.NDArray[np.float32], counts: Sequence[int], pool: str
) -> npt.NDArray[np.float32]:
    """Make one row of scores [N, C] for each text of the rows [W, C] of its windows.

    Args:
        logits: Window after window.
        counts: Windows of each text, at least 1.
        pool: ``mean``, ``max``, or ``attention``: the mean weighted by the softmax, over a text's
            windows, of the mean of a window's scores. A softmax over labels does not see that
            mean, so training is free to say with it how much a window counts.
    """
    import numpy as np

    first = np.cumsum([0, *counts[:-1]])
    if pool == "max":
        return np.maximum.reduceat(logits, first, axis=0)
    scores = logits.mean(axis=1, keepdims=True) * (pool == "attention")
    highest = np.maximum.reduceat(scores, first, axis=0)
    shares = np.exp(scores - np.repeat(highest, counts, axis=0))
    sums = np.add.reduceat(shares * logits, first, axis=0)
    return (sums / np.add.reduceat(shares, first, axis=0)).astype(np.float32)


def session_options(session: Mapping[str, Any], threads: int | None = None) -> Any:
    """Turn the ``session`` section of bundle.json into onnxruntime's options."""
    import onnxruntime as rt

    options = rt.SessionOptions()
    options.intra_op_num_threads = threads or session["intra_op_num_threads"]
    level = session["graph_optimization_level"]
    options.graph_optimization_level = rt.GraphOptimizationLevel.__members__[level]
    for key, value in session["config"].items():
        options.add_session_config_entry(key, value)
    return options


def checks(folder: Path, threads: int | None = None) -> Iterator[Check]:
    """Check everything: bundle.json, every file, and if those are good every golden text."""
    try:
        manifest = read_manifest(folder)
        files = [Check(True, f"{MANIFEST_FILE} as packed"), *check_files(folder, manifest)]
        yield from files
        if all(check.passed for check in files):
            yield from Model(folder, threads).check_golden()
    except BundleError as error:
        yield Check(False, str(error))


def answers(model: Model, lines: Iterable[bytes], batch_size: int) -> Iterator[Answer]:
    """Answer lines of UTF-8, in their order; a line that cannot be answered gives its error."""
    texts = (_decode(line, model.pairs) for line in lines)
    while batch := list(itertools.islice(texts, batch_size)):
        found = iter(model.predict([text for text in batch if isinstance(text, str)]))
        yield from (next(found) if isinstance(text, str) else text for text in batch)


def problem_with(text: str, pairs: bool) -> str:
    """Say why a text cannot be answered; empty if it can."""
    if not text.strip():
        return "empty: there is nothing to classify"
    if pairs and not all(part.strip() for part in (*text.split(PAIR, 1), "")[:2]):
        return "no pair: this model compares two texts, with a tab between them"
    return ""


def _decode(line: bytes, pairs: bool) -> str | ValueError:
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        where = f"byte 0x{line[error.start]:02x} at offset {error.start}"
        return ValueError(f"not UTF-8 ({where}): convert the text, for example with iconv")
    wrong = problem_with(text, pairs)
    return ValueError(wrong) if wrong else text


def _show(answer: Answer, as_json: bool) -> str:
    if isinstance(answer, ValueError):
        return json.dumps({"error": str(answer)}) if as_json else f"error: {answer}"
    label, probabilities = answer
    if as_json:
        rounded = {name: round(value, 6) for name, value in probabilities.items()}
        told = {"label": label, "probabilities": rounded}
        return json.dumps(told if rounded else {"value": label}, ensure_ascii=False)
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    rows = [f"  {value:.4f}  {name}" for name, value in ranked]
    if isinstance(label, list):
        label = ", ".join(label) or "(no label)"
    return "\n".join(["(undecided)" if label is None else str(label), *rows])


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify text with the bundle in this folder.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="none: lines of standard input")
    parser.add_argument("--json", action="store_true", help="JSON lines, as for standard input")
    parser.add_argument("--self-test", action="store_true", help="check all files and answers")
    parser.add_argument("--about", action="store_true", help="print what this model is, as JSON")
    parser.add_argument("--threads", type=int, help="default: what bundle.json says")
    parser.add_argument("--batch-size", type=int, default=1, help="more waits for so many lines")
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.threads or 1) < 1:
        parser.error("--threads and --batch-size are whole numbers from 1 up")
    asked = bool(options.texts) + options.self_test + options.about
    if asked > 1:
        parser.error("texts, --self-test and --about exclude each other")
    if not asked and (sys.stdin is None or sys.stdin.isatty()):
        parser.error('nothing to classify: give a "text", or pipe lines into standard input')
    return options


def _classify(options: argparse.Namespace, folder: Path) -> int:
    given = (text.encode("utf-8", "surrogateescape") for text in options.texts)
    as_json = options.json or not options.texts
    model, failed = Model(folder, options.threads), False
    for answer in answers(model, given if options.texts else sys.stdin.buffer, options.batch_size):
        print(_show(answer, as_json), flush=True)
        failed |= isinstance(answer, ValueError)
    return int(failed)


def _self_test(folder: Path, threads: int | None) -> int:
    failed = False
    for check in checks(folder, threads):
        print("ok  " if check.passed else "FAIL", check.message, flush=True)
        failed |= not check.passed
    print("Self-test FAILED: do not use this bundle." if failed else "Self-test passed.")
    return int(failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on the bundle that this file lies in; return the exit status."""
    options, folder = _options(arguments), Path(__file__).resolve().parent
    try:
        if options.self_test:
            return _self_test(folder, options.threads)
        if options.about:
            about = {key: value for key, value in read_manifest(folder).items() if key in ABOUT}
            print(json.dumps(about, indent=2, ensure_ascii=False))
            return 0
        return _classify(options, folder)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, say) has enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    # numpy does no linear algebra here, and starting its threads for that costs 50 ms.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    sys.exit(main())
