"""How fast each strategy learns, beside plain LoRA in the same minutes.

python tests/benchmarks/strategies.py [NAME …] [--quantization nf4] [--threads 2]

Real MiniLM-L6, real TREC questions. The strategies take turns in short blocks of training steps
(forward, backward, AdamW), because a machine's speed drifts; what counts is the ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters import strategies
from adapters.hardware import inspect_hardware
from adapters.strategy import prepare
from adapters.strategy_methods import penalty_of
from recipes.console import hush
from recipes.proof import count, learning
from recipes.reading import read_recipe
from recipes.training import Classifier
from recipes.workspace import Workspace

USUAL = (
    "lora", "rslora", "dora", "pissa", "adalora", "vera", "ia3", "bottleneck", "bitfit", "norms",
    "last_layers", "head", "full",
)  # fmt: skip
BATCH, STEPS, ROUNDS = 32, 4, 6


def main() -> None:
    """Time the strategies and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=USUAL)
    parser.add_argument("--quantization", default="nf4", choices=["nf4", "int8", "none"])
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    hush()
    names = list(dict.fromkeys(["lora", *options.names]))
    recipe = read_recipe("lora_cls", [f"backbone.quantization={options.quantization}"])
    work = Workspace(recipe, Path(), inspect_hardware("auto", options.threads), offline=False)
    examples = work.examples("train", work.tokenizer)
    rows = sorted(examples, key=lambda row: len(row["input_ids"]))
    middle = len(rows) // 2
    batch = work.task.collator(work.tokenizer)(rows[middle : middle + BATCH])
    batch = {k: v.to(work.hardware.device) for k, v in batch.items() if hasattr(v, "to")}
    tokens = int(batch["attention_mask"].sum())
    steps, shares = {}, {}
    for name in names:
        steps[name], shares[name] = _stepper(work, name, batch)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:  # the first round warms up
                taken[name].append((time.perf_counter() - start) / STEPS)
    print(f"{work.hardware.name}, {work.hardware.threads} threads, {tokens} tokens a step")
    print(f"{'strategy':<12}{'learns %':>9}{'ms a step':>11}{'tokens/s':>10}{'time ÷ lora':>13}")
    base = statistics.median(taken["lora"])
    for name, times in taken.items():
        middle_time = statistics.median(times)
        print(
            f"{name:<12}{100 * shares[name]:9.2f}{1000 * middle_time:11.1f}"
            f"{tokens / middle_time:10.0f}{middle_time / base:13.2f}"
        )


def _stepper(work: Workspace, name: str, batch: dict[str, Any]) -> tuple[Callable[[], None], float]:
    strategy = strategies.get(name)()
    quantization = "none" if strategy.needs_float_weights else work.quantization
    model = prepare(work.load(quantization), strategy)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    module = Classifier(model, work.problem, lambda inner: penalty_of(strategy, inner, {}))
    module.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        module(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, learning(model) / count(model)


if __name__ == "__main__":
    main()
