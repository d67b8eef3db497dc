"""A teacher's answers on disk, found by what a text says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DistillError
from distill.signals import Need, Signals, Teacher, Wants, text_key

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from distill.windows import Windows

#: What can be kept besides the logits: what a text has once for each token and layer, or once for
#: each layer.
_KEPT: frozenset[Need] = frozenset({"hidden", "embeddings", "pooled"})
#: Tokens that a teacher is asked about at once, whatever the number of texts.
_BATCH_TOKENS = 2**15


def check_cacheable(wants: Wants) -> None:
    """Check that what is wanted of a teacher can be kept on disk.

    Raises:
        DistillError: It cannot; the message names what and the way out.
    """
    if odd := sorted(set(wants) - _KEPT):
        raise DistillError(
            f"The objectives want the teacher's {', '.join(odd)}, which the cache does not keep. "
            "Ask the teacher at every step: distill.teacher=live."
        )


class CachedTeacher:
    """Asks the teacher once for each distinct text and reads the answers from disk afterwards.

    An answer is found by the content of its text, never by its place, so shuffled, repeated and
    reordered rows get their own answers. Logits and pooled states are kept in float32, hidden
    states and embeddings in float16, all memory-mapped; any number of processes may read them at
    once.

    A cache of another teacher is thrown away. One of the same teacher is kept and asked for what
    it holds: only texts that are new to it go to the teacher. After a cut-off the teacher goes on
    behind the last batch that was finished, and the files end as if nothing had happened.

    Args:
        folder: Where the cache lives; ``<folder>.partial`` beside it while it is being made.
        teacher: Who is asked for what the cache does not hold.
        texts: Every text that will be asked for.
        batch_size: Texts per batch given to the teacher.

    Attributes:
        wants: What the answers hold besides the logits.
        reused: Whether all answers were on disk, so that the teacher was not asked.
        seconds: How long the teacher took for the answers that the cache holds, cut-offs and
            earlier caches included; what every later use saves.

    Raises:
        DistillError: What is wanted cannot be kept, the disk has too little room, or the teacher's
            states do not fit into float16.
    """

    def __init__(
        self, folder: Path, teacher: Teacher, texts: Sequence[str], *, batch_size: int = 64
    ) -> None:
        check_cacheable(teacher.wants)
        wanted = _distinct(texts)
        fingerprint = teacher.fingerprint()
        store = _Store.open(folder, fingerprint)
        self.reused = store is not None and wanted.keys() <= store.rows.keys()
        if store is None or not self.reused:
            _fill(folder, teacher, wanted, store, fingerprint, batch_size)
            store = _Store.open(folder, fingerprint)
            assert store is not None
        self.wants = teacher.wants
        self.seconds = float(store.seconds.sum())
        self._store = store

    @staticmethod
    def estimate(teacher: Teacher, texts: Sequence[str]) -> int:
        """Return how many bytes a cache of these texts will take, before the teacher is asked."""
        return _bytes(teacher, _lengths(teacher, list(_distinct(texts).values())))

    def __call__(
        self,
        texts: Sequence[str],
        inputs: Mapping[str, Tensor],
        windows: Windows | None = None,
    ) -> Signals:
        """Look the batch up; its padding is on the right.

        What is said about a text is about all windows that the teacher has read of it; states are
        those of the windows that are there.

        Raises:
            DistillError: A text was not announced when the cache was made.
        """
        import numpy as np
        import torch

        store, tokens = self._store, inputs["input_ids"]
        try:
            rows = np.array([store.rows[text_key(text)] for text in texts], np.int64)
        except KeyError:
            raise DistillError(
                "The teacher's cache does not hold one of the texts of this batch; "
                "announce every text when the cache is made."
            ) from None
        logits = torch.from_numpy(store.logits[rows]).to(tokens.device)
        pooled = torch.from_numpy(store.pooled[:, rows]).to(tokens.device).unbind()
        if store.states is None:
            return Signals(logits, pooled=pooled)
        first, end = store.starts[rows], store.starts[rows + 1]
        if windows is not None:
            first, end = (np.repeat(each, windows.counts) for each in (first, end))
            first = first + windows.size * np.array(windows.numbers)
            end = np.minimum(end, first + windows.size)
        index = first[:, None] + np.arange(tokens.shape[1])
        # Padding is read from the last row, which holds zeros.
        index[index >= end[:, None]] = len(store.states) - 1
        found = torch.from_numpy(store.states.take(index, axis=0)).to(tokens.device)
        states = [found[:, :, depth].float() for depth in range(found.shape[2])]
        embeddings = states.pop(0) if "embeddings" in self.wants else None
        return Signals(logits, tuple(states), embeddings, pooled=pooled)


@dataclass
class _Store:
    """The files of a cache: a row for each text, in the order of their keys.

    Attributes:
        rows: The row of each key.
        starts: The first token of each row among all tokens, and at last their number,
            ``[texts + 1]``.
        seconds: How long the teacher took for each row, ``[texts]``; 0 until it has answered.
        logits: ``[texts, classes]``.
        pooled: ``[depth, texts, width]``; the depth is 0 if they are not wanted.
        states: Embeddings, if they are wanted, and then the layers, ``[tokens + 1, depth,
            width]``; None if nothing is wanted. The last row stays zero.
    """

    rows: dict[str, int]
    starts: np.ndarray
    seconds: np.ndarray
    logits: np.ndarray
    pooled: np.ndarray
    states: np.ndarray | None

    @classmethod
    def open(
        cls, folder: Path, teacher: str, texts: str | None = None, *, write: bool = False
    ) -> _Store | None:
        """Return the cache in a folder; None if there is none of this teacher (and these texts)."""
        import numpy as np

        def load(name: str) -> np.ndarray:
            array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r+" if write else "r")
            return array

        try:
            facts = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
            if facts["teacher"] != teacher or texts not in (None, facts["texts"]):
                return None
            keys = np.load(folder / "keys.npy").astype(str).tolist()
            return cls(
                rows={key: row for row, key in enumerate(keys)},
                starts=np.load(folder / "starts.npy"),
                seconds=load("seconds"),
                logits=load("logits"),
                pooled=load("pooled"),
                states=load("states") if (folder / "states.npy").exists() else None,
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError):
            return None  # nothing, or what a power cut has left: the teacher is asked anew

    def tokens(self, row: int) -> slice:
        """Return where the tokens of a row are."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))

    def take_over(self, other: _Store) -> np.ndarray:
        """Copy what another store of the same teacher holds, and return the rows that it lacks."""
        import numpy as np

        missing = []
        for key, row in self.rows.items():
            old = other.rows.get(key)
            if old is None:
                missing.append(row)
                continue
            self.logits[row], self.seconds[row] = other.logits[old], other.seconds[old]
            self.pooled[:, row] = other.pooled[:, old]
            if self.states is not None and other.states is not None:
                self.states[self.tokens(row)] = other.states[other.tokens(old)]
        return np.array(missing, np.int64)

    def put(self, batch: np.ndarray, answer: Signals, started: float) -> None:
        """Keep what the teacher says about some rows.

        Raises:
            DistillError: A state does not fit into float16.
        """
        import torch

        self.logits[batch] = answer.logits.float().cpu().numpy()
        for depth, state in enumerate(answer.pooled):
            self.pooled[depth, batch] = state.float().cpu().numpy()
        states = answer.hidden if answer.embeddings is None else (answer.embeddings, *answer.hidden)
        for depth, state in enumerate(states):
            assert self.states is not None
            half = state.to(torch.float16)
            if not half.isfinite().all():
                raise DistillError(
                    "The teacher has hidden states that do not fit into the 16 bits that the cache "
                    "keeps of a number. Ask the teacher at every step: distill.teacher=live."
                )
            values, place = half.cpu().numpy(), 0
            for row in batch:
                tokens = self.tokens(row)
                count = tokens.stop - tokens.start
                # A text longer than a row of the batch is several rows, all full but the last.
                rows = values[place : place + max(1, -(-count // max(1, values.shape[1])))]
                self.states[tokens, depth] = rows.reshape(-1, values.shape[2])[:count]
                place += len(rows)
        seconds = (time.perf_counter() - started) / len(batch)
        # A row counts as answered only when its answer is on the disk, whatever happens then.
        _flush(self.logits, self.pooled, self.states)
        self.seconds[batch] = max(seconds, 1e-9)
        _flush(self.seconds)


def _fill(
    folder: Path,
    teacher: Teacher,
    wanted: Mapping[str, str],
    known: _Store | None,
    fingerprint: str,
    batch_size: int,
) -> None:
    """Ask for every text, longest batches first, and put the finished cache in place at once."""
    import numpy as np
    from tqdm.auto import tqdm

    texts = list(wanted.values())
    partial = folder.with_name(f"{folder.name}.partial")
    if known is None:
        shutil.rmtree(folder, ignore_errors=True)
    whole = hashlib.sha256("".join(wanted).encode()).hexdigest()
    store = _Store.open(partial, fingerprint, whole, write=True)
    if store is None:
        _reserve(partial, teacher, wanted, {"teacher": fingerprint, "texts": whole})
        store = _Store.open(partial, fingerprint, whole, write=True)
        assert store is not None
    rows = np.arange(len(texts)) if known is None else store.take_over(known)
    order = rows[np.argsort(-np.diff(store.starts)[rows], kind="stable")]
    batches = _batches(order, np.diff(store.starts), batch_size)
    for batch in tqdm(batches, desc="teacher signals", disable=None):
        if not store.seconds[batch].all():
            started = time.perf_counter()
            store.put(batch, teacher.ask([texts[row] for row in batch]), started)
    _flush(store.logits, store.pooled, store.states, store.seconds)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _batches(order: np.ndarray, lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Part rows of falling length into batches that texts in many windows do not make too large."""
    batches, first = [], 0
    while first < len(order):
        count = min(batch_size, max(1, _BATCH_TOKENS // max(1, int(lengths[order[first]]))))
        batches.append(order[first : first + count])
        first += count
    return batches


def _reserve(
    folder: Path, teacher: Teacher, wanted: Mapping[str, str], facts: Mapping[str, str]
) -> None:
    """Make the files of a cache that holds no answer yet.

    Raises:
        DistillError: The disk has too little room.
        OSError: Its room went to somebody else meanwhile.
    """
    import numpy as np

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lengths = _lengths(teacher, list(wanted.values()))
    needed, free = _bytes(teacher, lengths), shutil.disk_usage(folder).free
    if needed > free:
        shutil.rmtree(folder)
        raise DistillError(
            f"The teacher's answers take {needed / 1e9:.1f} GB in {folder.parent}, and the disk "
            f"has {free / 1e9:.1f} GB left. Free some space, or ask the teacher at every step: "
            "distill.teacher=live."
        )
    np.save(folder / "keys.npy", np.array(list(wanted), "S32"))
    np.save(folder / "starts.npy", np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
    _reserved(folder / "seconds.npy", np.float32, (len(lengths),))
    _reserved(folder / "logits.npy", np.float32, (len(lengths), teacher.classes))
    _reserved(folder / "pooled.npy", np.float32, (_pooled(teacher), len(lengths), teacher.width))
    if depth := _depth(teacher):
        shape = (int(lengths.sum()) + 1, depth, teacher.width)
        _reserved(folder / "states.npy", np.float16, shape)
    (folder / "cache.json").write_text(json.dumps(facts), encoding="utf-8")


def _reserved(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Save an array of zeros whose room on the disk is taken at once.

    A mapped file has holes until it is written, and writing to a hole of a full disk kills the
    process without a word.

    Raises:
        OSError: There is not enough room.
    """
    from numpy.lib.format import open_memmap

    open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _flush(*arrays: Any) -> None:
    """Write mapped arrays to the disk; None is passed over."""
    for array in arrays:
        if array is not None:
            array.flush()


def _distinct(texts: Sequence[str]) -> dict[str, str]:
    """Return each text once by its key, in the order of the keys."""
    return dict(sorted({text_key(text): text for text in texts}.items()))


def _lengths(teacher: Teacher, texts: Sequence[str]) -> np.ndarray:
    import numpy as np

    return np.array(teacher.lengths(texts), np.int64)


def _depth(teacher: Teacher) -> int:
    """Return how many states are kept of a token."""
    return len(teacher.wants.get("hidden", ())) + ("embeddings" in teacher.wants)


def _pooled(teacher: Teacher) -> int:
    """Return how many pooled states are kept of a text."""
    return len(teacher.wants.get("pooled", ()))


def _bytes(teacher: Teacher, lengths: np.ndarray) -> int:
    """Return a cache's size: key, start, seconds, logits, pooled a text; states a token."""
    pooled = 4 * _pooled(teacher) * teacher.width
    texts = len(lengths) * (32 + 8 + 4 + 4 * teacher.classes + pooled)
    return texts + (int(lengths.sum()) + 1) * _depth(teacher) * teacher.width * 2
