"""What a cached teacher costs a training step, beside the same student without a teacher.

python tests/benchmarks/distillation.py [--threads 2]

Real MiniLM-L6 as teacher, three of its layers as student, real TREC questions. The sets of
objectives take turns in short blocks of training steps (forward, backward, AdamW), because a
machine's speed drifts; what counts is the median ratio of a turn. The teacher's own pass is timed
apart: it happens once, before the first epoch.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from adapters.hardware import inspect_hardware
from distill import CachedTeacher, LiveTeacher, Objective, objectives
from distill.learner import Learner
from distill.objective import asked
from distill.students import cut
from recipes.console import hush
from recipes.reading import read_recipe
from recipes.students import pair_of
from recipes.workspace import Workspace

SETS = {
    "ce": ["ce"],
    "ce, kl": ["ce", "kl"],
    "ce, kl, hidden": ["ce", "kl", "hidden"],
    "ce, kl, hidden, live": ["ce", "kl", "hidden"],
}
BATCH, STEPS, ROUNDS, LAYERS, ROWS = 32, 4, 30, (0, 2, 5), 2000


def main() -> None:
    """Time the sets of objectives and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    hush()
    recipe = read_recipe("lora_cls", [])
    work = Workspace(recipe, Path(), inspect_hardware("auto", options.threads), offline=False)
    examples = work.examples("train", work.tokenizer)[:ROWS]
    collate = work.task.collator(work.tokenizer)
    rows = sorted(examples, key=lambda row: len(row["input_ids"]))
    batches = [collate(rows[first : first + BATCH]) for first in range(0, len(rows), BATCH)]
    with tempfile.TemporaryDirectory() as folder:
        steps = {name: _stepper(work, name, batches, Path(folder)) for name in SETS}
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(ROUNDS + 1):
            for name, step in steps.items():
                start = time.perf_counter()
                for _ in range(STEPS):
                    step()
                if turn:  # the first round warms up
                    taken[name].append((time.perf_counter() - start) / STEPS)
    print(f"{work.hardware.name}, {work.hardware.threads} threads, {BATCH} rows a step")
    print(f"{'objectives':<24}{'ms a step':>11}{'time ÷ ce':>11}")
    for name, times in taken.items():
        # Both of a turn saw the same batches, and about the same machine.
        ratio = statistics.median(own / base for own, base in zip(times, taken["ce"], strict=True))
        print(f"{name:<24}{1000 * statistics.median(times):11.1f}{ratio:11.3f}")


def _stepper(
    work: Workspace, name: str, batches: Sequence[dict[str, Any]], folder: Path
) -> Callable[[], None]:
    """Return a function that takes one step, over the same batches in the same order for all."""
    teacher = work.load()
    student = cut(copy.deepcopy(teacher), LAYERS)
    student.get_input_embeddings().requires_grad_(False)
    pair = pair_of(student, teacher, LAYERS, same_tokens=True)
    terms: list[Objective] = [objectives.get(one)() for one in SETS[name]]
    source: Any = None
    if any(term.needs for term in terms):
        source = LiveTeacher(
            teacher,
            work.tokenizer,
            work.rows.labels,
            max_length=work.max_length,
            wants=asked(terms, pair)[1],
        )
        if "live" not in name:
            texts = [text for batch in batches for text in batch["texts"]]
            source = CachedTeacher(folder / name, source, texts)
            print(f"{name}: the teacher's pass over {len(texts):,} texts, {source.seconds:.1f} s")
    learner = Learner(student, terms, source, pair).train()
    # The teacher is no part of the learner's parameters.
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-5)
    turns: Iterator[dict[str, Any]] = cycle(batches)

    def step() -> None:
        learner(**next(turns))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
