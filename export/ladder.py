"""From the fastest form of a file to the most faithful one, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

from export.embedding_tables import Embeddings
from export.float16 import store_float16
from export.quantize import quantizable, quantize_int8
from export.sensitivity import most_sensitive
from export.static_int8 import quantize_static_int8

#: What the weights of a file are held in, tables of embeddings aside.
Form = Literal["int8", "float16", "float32"]


@dataclass(frozen=True)
class Step:
    """One way to write a file.

    Attributes:
        name: What it is called.
        form: What its weights are held in.
        write: Writes it, and returns the names of the nodes that stay in float on purpose.
        rescue: Whether it is only worth trying where nothing before it has held.
    """

    name: str
    form: Form
    write: Callable[[Path], Sequence[str]]
    rescue: bool = False


def steps(
    source: Path,
    *,
    floats: bool,
    embeddings: Embeddings,
    calibration: Callable[[], Sequence[Mapping[str, Any]]],
    validation: Callable[[], Sequence[Mapping[str, Any]]],
    threads: int,
) -> Iterator[Step]:
    """Yield the steps, the fastest one first; what a step needs is made when it is reached.

    Measured on three layers of MiniLM (onnxruntime 1.32 on an AMD EPYC with VNNI, one thread, in
    turn, milliseconds for 1 × 16, 1 × 128 and 16 × 32 tokens): dynamic per tensor 0.60, 4.4, 15.1;
    dynamic per channel 0.64, 4.4, 15.3; static 0.71, 4.6, 16.2; one node in float 0.85, 5.5, 19.3;
    two 0.94, 6.3, 22.9; four 1.29, 8.4, 30.7; float16 and float32 1.9 to 2.2, 11 to 12, 41. The
    order is fixed, so that two equal runs choose alike.

    Args:
        source: The float32 file.
        floats: Whether float16 and float32 are steps too, or only what has 8-bit integers.
        embeddings: How tables of embeddings are held in all but float32.
        calibration: Gives inputs of training rows, ``[batch, length]`` each.
        validation: Gives inputs of validation rows, on which the sensitivity is measured.
        threads: Threads within one operation.
    """
    ranking: list[str] = []

    def most(count: int) -> Sequence[str]:
        if count and not ranking:  # the scan takes long: only where it is needed
            found = most_sensitive(source, validation(), embeddings=embeddings, threads=threads)
            ranking.extend(found)
        return ranking[:count]

    def dynamic(target: Path, *, per_channel: bool = True, kept: int = 0) -> Sequence[str]:
        names = most(kept)
        quantize_int8(
            source, target, per_channel=per_channel, keep_float=names, embeddings=embeddings
        )
        return names

    def static(target: Path) -> Sequence[str]:
        quantize_static_int8(source, target, calibration(), embeddings=embeddings)
        return ()

    def float16(target: Path) -> Sequence[str]:
        store_float16(source, target, embeddings=embeddings)
        return ()

    def float32(target: Path) -> Sequence[str]:
        copyfile(source, target)
        return ()

    yield Step("dynamic, per tensor", "int8", partial(dynamic, per_channel=False))
    yield Step("dynamic, per channel", "int8", dynamic)
    yield Step("static, per channel", "int8", static)
    count = 1
    while 2 * count <= len(quantizable(source)):
        name = f"dynamic, per channel, {count} in float"
        yield Step(name, "int8", partial(dynamic, kept=count), rescue=True)
        count *= 2
    if floats:
        yield Step("float16", "float16", float16)
        yield Step("float32", "float32", float32)
