"""Is a bundle what was packed, does it answer as it did, and how fast is it on this machine?

python -m export.check BUNDLE
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from export import edge
from export.console import DONE, REFUSED, Parser, add_public_key, bundle_folder, guarded
from export.latency import interleaved
from export.machine import cores

#: The larger of the two batches that are timed, in texts.
BATCH = 32
#: Blocks of ten calls for each thread count. A batch takes longer, and says more a call.
_ROUNDS, _BATCH_ROUNDS = 8, 2
#: Extensions that decide how fast int8 is, and the names that Linux has for them: sums of 8-bit
#: products in one step, which x86 calls VNNI and ARM dotprod and i8mm, and wide registers.
_FLAGS = {
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm",
    "sve",
}  # fmt: skip
_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}
_EPILOG = """\
Texts are the bundle's own golden ones; a call takes them from text to answer. The recorded times
are those of the machine that packed the bundle, on its own test rows.

exit status: 0 sound; 1 a file has changed, or an answer differs from the recorded one; 3 the
command is wrong, or the folder is not a bundle
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _run(_parser().parse_args(arguments)))


def check(folder: Path) -> dict[str, Any]:
    """Check a bundle and time it.

    Args:
        folder: The bundle.

    Returns:
        ``bundle``, its ``name`` and ``created_by``; ``passed``; ``checks``, each with ``passed``
        and ``message``; ``processor`` (see `processor`); ``versions``, by package ``packed`` and
        ``here``; ``recorded``, the ``threads`` and ``batch_1`` of the machine that packed it, None
        if it was not timed there; ``latency``, for each number of ``threads`` the ``batch_1`` and
        ``batch_32`` on this machine, with ``p50`` and ``p95`` in milliseconds a call. It is empty
        for a bundle that did not pass.
    """
    checks = list(edge.checks(folder))
    passed = all(each.passed for each in checks)
    report = {
        "bundle": str(folder),
        "passed": passed,
        "checks": [each._asdict() for each in checks],
        "processor": processor(),
    }
    if not passed:
        return report | {"latency": []}
    manifest = edge.read_manifest(folder)
    return report | {
        "name": manifest["name"],
        "created_by": manifest["created_by"],
        "versions": {
            name: {"packed": manifest["versions"][name], "here": _version(name)}
            for name in edge.PACKAGES
        },
        "recorded": _recorded(manifest["ledger"]),
        "latency": sweep(folder, thread_counts(cores())),
    }


def sweep(folder: Path, threads: Sequence[int]) -> list[dict[str, Any]]:
    """Time a bundle with several numbers of threads, which take turns.

    Args:
        folder: The bundle.
        threads: Threads within one operation of the model.

    Returns:
        For each number the ``threads``, ``batch_1`` and ``batch_32``, see `check`.

    Raises:
        BundleError: The bundle is refused.
    """
    models = {str(number): edge.Model(folder, number) for number in threads}
    texts: list[str] = edge.read_manifest(folder)["golden"]["texts"]

    def timed(batches: list[list[str]], rounds: int) -> dict[str, dict[str, float]]:
        calls = {name: _caller(model, batches) for name, model in models.items()}
        return interleaved(calls, len(batches), rounds)

    alone = timed([[text] for text in texts], _ROUNDS)
    batched = timed([list(islice(cycle(texts), BATCH))], _BATCH_ROUNDS)
    return [
        {"threads": int(name), "batch_1": alone[name], f"batch_{BATCH}": batched[name]}
        for name in models
    ]


def _caller(model: edge.Model, batches: Sequence[Sequence[str]]) -> Callable[[int], Any]:
    return lambda row: model.predict(batches[row])


def thread_counts(most: int) -> list[int]:
    """Return 1, 2, 4 … and the number of cores."""
    return sorted({most, *(1 << power for power in range(most.bit_length()))})


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """Return what decides how fast int8 is here.

    Args:
        cpuinfo: Where Linux tells.

    Returns:
        ``machine``, for example ``"x86_64"``; ``name``; ``cores`` that this process may use;
        ``flags`` that matter for int8; ``int8_dot_product``, whether the processor sums products of
        8-bit integers in one step, without saturating (VNNI, dotprod). Only Linux tells; elsewhere
        both are None.
    """
    found: dict[str, str] = {}
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        found = {key.strip().lower(): value.strip() for key, _, value in pairs}
    words = found.get("flags", found.get("features"))
    flags = None if words is None else sorted(_FLAGS & set(words.split()))
    return {
        "machine": platform.machine(),
        "name": found.get("model name") or platform.processor() or "unknown",
        "cores": cores(),
        "flags": flags,
        "int8_dot_product": None if flags is None else bool(_DOT_PRODUCT & set(flags)),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _recorded(ledger: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    for row in ledger:
        times = row.get("latency_ms", {}).get("batch_1")
        if row["stage"] == "bundle" and times:
            return {"threads": row["threads"], "batch_1": times}
    return None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.check",
        description="Check every byte and every recorded answer of a bundle, and time it here.",
        epilog=_EPILOG,
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_public_key(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    report = check(bundle_folder(options.bundle, options.public_key))
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(report)
    return DONE if report["passed"] else REFUSED


def _print(report: Mapping[str, Any]) -> None:
    failed = [each["message"] for each in report["checks"] if not each["passed"]]
    for message in failed:
        print("FAIL", message)
    if failed:
        print("Self-test FAILED: do not use this bundle. It was not timed.")
        return
    print(f"Self-test passed: {len(report['checks'])} checks of files and golden answers.")
    here = report["processor"]
    told = {None: "unknown", True: "yes", False: "no (on x86, weights of 8 bits may saturate)"}
    print(f"\n{here['name']} ({here['machine']}), {here['cores']} cores")
    print(f"int8 flags: {' '.join(here['flags'] or []) or 'none known'}")
    print(f"int8 dot product (VNNI, dotprod): {told[here['int8_dot_product']]}")
    print("".join(_version_lines(report["versions"])), end="")
    print(f"\n{'ms a call':<12}{'threads':>7}{'p50':>9}{'p95':>9}{'ratio':>8}{'texts/s':>10}")
    recorded = report["recorded"]
    if recorded:
        print(_line("recorded", recorded["threads"], recorded["batch_1"], 1, None))
    for size in (1, BATCH):
        for row in report["latency"]:
            print(_line(f"batch {size}", row["threads"], row[f"batch_{size}"], size, recorded))
    if not recorded:
        print("The bundle records no time of its own.")


def _version_lines(versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [
        f"{name} {found['here']}, packed with {found['packed']}\n"
        for name, found in versions.items()
        if found["here"] != found["packed"]
    ]


def _line(name: str, threads: int, times: Mapping[str, float], size: int, recorded: Any) -> str:
    """Return a row of the table; a single text's ratio is to the recorded median."""
    ratio = f"{times['p50'] / recorded['batch_1']['p50']:.2f}×" if recorded and size == 1 else ""
    shown = f"{name:<12}{threads:>7}{times['p50']:>9.2f}{times['p95']:>9.2f}{ratio:>8}"
    return f"{shown}{1000 * size / times['p50']:>10,.0f}"


if __name__ == "__main__":
    sys.exit(main())
