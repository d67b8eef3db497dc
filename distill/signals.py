"""What a teacher has to say about a batch, from wherever it is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from distill.errors import DistillError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: What an objective may ask a teacher for.
Need = Literal["logits", "hidden"]


@dataclass(frozen=True)
class Signals:
    """A teacher's answer to one batch.

    Attributes:
        logits: ``[batch, classes]``, columns in the order of the data's labels.
        hidden: One tensor ``[batch, length, width]`` for each teacher layer that was asked for, in
            that order; empty if none was. Positions are the batch's own, padding included.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...] = ()


class TeacherSignals(Protocol):
    """Anything that answers a batch of texts: a live teacher, a cache, several teachers."""

    def __call__(self, texts: Sequence[str], inputs: Mapping[str, Tensor]) -> Signals:
        """Answer a batch.

        Args:
            texts: The batch's texts.
            inputs: The student's own inputs for them, ``input_ids`` and ``attention_mask``
                ``[batch, length]``.
        """
        ...


class LiveTeacher:
    """Asks the teacher itself, at every step.

    Args:
        model: The teacher, a plain classifier.
        tokenizer: The teacher's tokenizer.
        labels: The data's labels; the teacher's columns are put into this order by name.
        max_length: Length in tokens at which a text is cut.
        layers: Teacher layers whose hidden states are wanted, counted from 0. They make sense only
            for a student with the same tokenizer.
        same_tokens: Whether the student's inputs are the teacher's too; if not, the texts are
            tokenized again.

    Raises:
        DistillError: The teacher's labels are not the data's labels.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        *,
        max_length: int,
        layers: Sequence[int] = (),
        same_tokens: bool = True,
    ) -> None:
        own = [model.config.id2label[index] for index in range(model.config.num_labels)]
        if set(own) != set(labels):
            odd = sorted(set(own) ^ set(labels))
            raise DistillError(
                f"Teacher and data disagree about the labels: {', '.join(odd)} "
                "is known to one of them only. Use a teacher that was trained for these labels."
            )
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.columns = [own.index(label) for label in labels]
        self.max_length = max_length
        self.layers = tuple(layers)
        self.same_tokens = same_tokens

    def __call__(self, texts: Sequence[str], inputs: Mapping[str, Tensor]) -> Signals:
        """Run the teacher on the batch, without gradients."""
        import torch

        device = self.model.device
        if not self.same_tokens:
            inputs = self.tokenizer(
                list(texts),
                truncation=True,
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            )
        moved = {name: tensor.to(device) for name, tensor in inputs.items()}
        with torch.no_grad():
            answer = self.model(**moved, output_hidden_states=bool(self.layers))
        # hidden_states starts with the embeddings, so the output of layer i is entry i + 1.
        hidden = tuple(answer.hidden_states[layer + 1] for layer in self.layers)
        return Signals(answer.logits[:, self.columns], hidden)

    def fingerprint(self) -> str:
        """Return a hash of everything that the answers depend on."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        facts = [self.columns, self.max_length, self.layers, self.tokenizer.get_vocab()]
        digest.update(json.dumps(facts, sort_keys=True).encode())
        return digest.hexdigest()


class CachedTeacher:
    """Asks the teacher once for each distinct text and reads the answers from disk afterwards.

    An answer is found by the content of its text, never by its place, so shuffled, repeated and
    reordered rows get their own answers. Logits are kept in float32, hidden states in float16,
    both memory-mapped.

    Args:
        folder: Where the cache lives. A cache of another teacher, or one that does not hold all of
            the texts, is made anew.
        teacher: Who is asked for what the cache does not hold.
        texts: Every text that will be asked for.
        batch_size: Texts a teacher batch.
    """

    def __init__(
        self, folder: Path, teacher: LiveTeacher, texts: Sequence[str], *, batch_size: int = 64
    ) -> None:
        wanted = sorted({_key(text): text for text in texts}.items())
        facts = {
            "teacher": teacher.fingerprint(),
            "texts": hashlib.sha256("".join(key for key, _ in wanted).encode()).hexdigest(),
        }
        marker = folder / "cache.json"
        if not marker.exists() or json.loads(marker.read_text(encoding="utf-8")) != facts:
            _fill(folder, teacher, [text for _, text in wanted], batch_size, facts)
        self.layers = teacher.layers
        self._rows = {key: row for row, (key, _) in enumerate(wanted)}
        self._arrays = _open(folder, bool(teacher.layers))

    def __call__(self, texts: Sequence[str], inputs: Mapping[str, Tensor]) -> Signals:
        """Look the batch up.

        Raises:
            DistillError: A text was not announced when the cache was made.
        """
        import numpy as np
        import torch

        try:
            rows = [self._rows[_key(text)] for text in texts]
        except KeyError:
            raise DistillError(
                "The teacher's cache does not hold one of the texts of this batch; "
                "announce every text when the cache is made."
            ) from None
        device = inputs["input_ids"].device
        logits = torch.from_numpy(self._arrays["logits"][rows]).to(device)
        if not self.layers:
            return Signals(logits)
        starts, flat = self._arrays["starts"], self._arrays["hidden"]
        length = inputs["input_ids"].shape[1]
        padded = np.zeros((len(self.layers), len(rows), length, flat.shape[-1]), np.float32)
        for place, row in enumerate(rows):
            piece = flat[starts[row] : starts[row + 1]]
            padded[:, place, : len(piece)] = piece.swapaxes(0, 1)
        return Signals(logits, tuple(torch.from_numpy(padded).to(device)))


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _open(folder: Path, hidden: bool) -> dict[str, np.ndarray]:
    import numpy as np

    names = ["logits", *(["starts", "hidden"] if hidden else [])]
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}


def _reserved(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Return a new memory-mapped array whose room on the disk is taken at once.

    A mapped file has holes until it is written, and writing to a hole of a full disk kills the
    process without a word.

    Raises:
        OSError: There is not enough room.
    """
    from numpy.lib.format import open_memmap

    array = open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _fill(
    folder: Path, teacher: LiveTeacher, texts: list[str], batch_size: int, facts: dict[str, str]
) -> None:
    """Ask for every text, longest batches first, and put the finished cache in place at once."""
    import numpy as np
    from tqdm.auto import tqdm

    temporary = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    rows = teacher.tokenizer(texts, truncation=True, max_length=teacher.max_length)["input_ids"]
    lengths = np.array([len(row) for row in rows])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    shape: tuple[int, ...] = (len(texts), len(teacher.columns))
    logits = _reserved(temporary / "logits.npy", np.dtype(np.float32), shape)
    hidden: Any = None
    if teacher.layers:
        np.save(temporary / "starts.npy", starts)
        shape = (int(starts[-1]), len(teacher.layers), teacher.model.config.hidden_size)
        hidden = _reserved(temporary / "hidden.npy", np.dtype(np.float16), shape)
    order = np.argsort(-lengths, kind="stable")
    for first in tqdm(range(0, len(order), batch_size), desc="teacher signals", disable=None):
        batch = order[first : first + batch_size]
        inputs = teacher.tokenizer.pad(
            {"input_ids": [rows[i] for i in batch]}, padding_side="right", return_tensors="pt"
        )
        answer = teacher([texts[i] for i in batch], inputs)
        logits[batch] = answer.logits.float().cpu().numpy()
        for depth, states in enumerate(answer.hidden):
            values = states.cpu().numpy()
            for place, row in enumerate(batch):
                hidden[starts[row] : starts[row + 1], depth] = values[place, : lengths[row]]
    logits.flush()
    if hidden is not None:
        hidden.flush()
    (temporary / "cache.json").write_text(json.dumps(facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
