"""Prove the CUDA paths on a machine that has a card: weights, strategies, the real command.

    python -m tests.gpu.prove                  # all of it, some minutes
    python -m tests.gpu.prove kit weights      # parts
    python -m tests.gpu.prove chain speed --model minilm-l6 --data trec

Every part prints what it found; the exit status is 1 if something does not hold, and 3 where there
is no card. No test: the suite has to pass where no card is.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NO_CARD = 3
_FAILED: list[str] = []


def expect(holds: bool, what: str) -> None:
    """Print what was looked at, and remember it if it does not hold."""
    print(f"  {'ok    ' if holds else 'FAILED'} {what}", flush=True)
    if not holds:
        _FAILED.append(what)


def weights(options: argparse.Namespace) -> None:
    """4- and 8-bit weights on the card, held against float and against the processor."""
    import torch

    from adapters.backbone import float_weight, head_modules, linear_layers, load_backbone
    from recipes import assets

    path = assets.resolve(options.model, "model", offline=options.offline).path
    labels, ids = ("a", "b", "c"), torch.randint(1000, 20000, (8, 24))

    def answer(quantization: Any, device: str, bf16: bool = False) -> tuple[Any, torch.Tensor]:
        model = load_backbone(path, labels, quantization=quantization, device=device, bf16=bf16)
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device))
        return model, logits.logits.float().cpu()

    plain, expected = answer("none", "cuda")
    plain.requires_grad_(False)
    expect(torch.allclose(expected, answer("none", "cpu")[1], atol=2e-3), "float: card = processor")
    for quantization, most in (("nf4", 0.15), ("int8", 0.03)):
        model, logits = answer(quantization, "cuda")
        _, there = answer(quantization, "cpu")
        apart = float((logits - there).abs().max())
        expect(apart < 0.05, f"{quantization}: card and processor differ by {apart:.2g} in logits")
        worst = max(
            float(
                (float_weight(model.get_submodule(name)) - plain.get_submodule(name).weight).norm()
                / plain.get_submodule(name).weight.norm()
            )
            for name in linear_layers(plain)
        )
        expect(worst < most, f"{quantization}: weights rounded by at most {worst:.3f}")
        head = [p for name in head_modules(model) for p in model.get_submodule(name).parameters()]
        expect(all(p.is_floating_point() for p in head), f"{quantization}: the head is float")
    _, half = answer("nf4", "cuda", bf16=True)
    apart = float((half - logits).abs().max())
    expect(apart < 0.2, f"nf4 computing in bf16: logits move by {apart:.2g}")


def kit(options: argparse.Namespace) -> None:
    """Every strategy passes the conformance kit with its models on the card."""
    from adapters.errors import AdapterError
    from adapters.strategy import strategies
    from adapters.testing import EXAMPLES, check_strategy

    for name in options.strategies or strategies.names():
        begin = time.perf_counter()
        try:
            check_strategy(
                strategies.get(name),
                architectures=options.architectures,
                device="cuda",
                **EXAMPLES.get(name, {}),
            )
        except AdapterError as error:
            expect(False, f"{name}: {error}")
        else:
            expect(True, f"{name}, {time.perf_counter() - begin:.1f} s")


def chain(options: argparse.Namespace) -> None:
    """The main job on the card, twice; the second one is killed while it trains, and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder, "whole"), Path(folder, "broken")
        expect(_job(options, whole) == 0, "the main job ships")
        begun = _start(options, broken)
        _wait_for_checkpoint(begun, broken)
        begun.send_signal(signal.SIGKILL)
        begun.wait()
        expect(_job(options, broken, "--resume") == 0, "the killed one ships after --resume")
        first, second = (
            {row["name"]: row for row in json.loads((run / "ledger.json").read_text())}
            for run in (whole, broken)
        )
        for name, row in first.items():
            print(f"    {name:<15} {row.get('validation', {})} {row['metrics']}")
        for name in ("teacher", "merged", "student", "student-int8", "bundle"):
            same = first[name]["metrics"] == second[name]["metrics"]
            expect(same, f"{name}: resumed = unbroken")


def speed(options: argparse.Namespace) -> None:
    """Training tokens a second: held in 4 bits, in 8, in float; in bfloat16 and in float32."""
    with tempfile.TemporaryDirectory() as folder:
        for device in ("cuda", "cpu"):
            for quantization in ("none", "nf4", "int8"):
                for precision in ("float32", "bf16"):
                    if device == "cpu" and (quantization, precision) != ("nf4", "float32"):
                        continue
                    run = Path(folder, f"{device}-{quantization}-{precision}")
                    words = [
                        f"backbone.quantization={quantization}",
                        f"train.precision={precision}",
                    ]
                    status = _job(options, run, "--to", "finetune", *words, device=device)
                    expect(status == 0, f"{run.name} trains")
                    rows = json.loads((run / "ledger.json").read_text())
                    row = next(row for row in rows if row["name"] == "teacher")
                    print(
                        f"    {row['tokens_per_second']:8.0f} tokens/s, "
                        f"{row['peak_memory_bytes'] / 1e6:6.0f} MB, "
                        f"test {100 * row['metrics']['accuracy']:.2f}",
                        flush=True,
                    )


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    part.__name__: part for part in (weights, kit, chain, speed)
}


def _command(
    options: argparse.Namespace, run: Path, *words: str, device: str = "cuda"
) -> list[str]:
    command = [sys.executable, "-m", "recipes.run", "lora_cls", f"device={device}"]
    command += [f"backbone.model={options.model}", f"data.source={options.data}"]
    return [*command, *words, *(["--offline"] if options.offline else []), "--out", str(run)]


def _job(options: argparse.Namespace, run: Path, *words: str, device: str = "cuda") -> int:
    with Path(f"{run}.log").open("ab") as log:
        command = _command(options, run, *words, device=device)
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    if status:
        print(Path(f"{run}.log").read_text()[-2000:])
    return status


def _start(options: argparse.Namespace, run: Path) -> subprocess.Popen[bytes]:
    with Path(f"{run}.log").open("ab") as log:
        return subprocess.Popen(_command(options, run), stdout=log, stderr=log)


def _wait_for_checkpoint(begun: subprocess.Popen[bytes], run: Path) -> None:
    """Wait until the first epoch's checkpoint is whole, and a little of the second has passed."""
    while begun.poll() is None and not list(run.glob("teacher/checkpoints/*/trainer_state.json")):
        time.sleep(0.05)
    time.sleep(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.prove",
        description="Prove the CUDA paths on a machine with a card.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--model", default="minilm-l6", help="a backbone (default: minilm-l6)")
    parser.add_argument("--data", default="trec", help="a data set by name (default: trec)")
    parser.add_argument("--strategies", nargs="+", help="for kit (default: all)")
    parser.add_argument("--architectures", nargs="+", default=["bert"], help="for kit")
    parser.add_argument("--offline", action="store_true", help="use what is cached, fetch nothing")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    import torch

    from recipes.console import hush

    hush()
    if not torch.cuda.is_available():
        print("error: PyTorch sees no CUDA device here.", file=sys.stderr)
        return NO_CARD
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores")
    for name in options.parts or PARTS:
        print(f"{name}: {PARTS[name].__doc__}", flush=True)
        begin = time.perf_counter()
        PARTS[name](options)
        print(f"  {time.perf_counter() - begin:.0f} s", flush=True)
    for what in _FAILED:
        print(f"FAILED: {what}")
    return 1 if _FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
