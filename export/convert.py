"""Turn a bundle into what other servers and runtimes take.

python -m export.convert BUNDLE --to triton --out DIR
python -m export.convert BUNDLE --to onefile --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export import edge
from export.console import DONE, Parser, add_public_key, bundle_folder, guarded
from export.errors import ExportError

_EPILOG = """\
triton   a model repository for Triton Inference Server: an ensemble that takes texts, of the
         tokenizer (Python backend), the model (ONNX Runtime backend) and the decision (Python
         backend). The Python steps need numpy and tokenizers.
onefile  one ONNX file with the tokenizer inside: texts in, labels and probabilities out. Needs
         onnxruntime-extensions, here and where it runs: pip install 'potstill[onefile]'. It is
         only written if its tokens are the tokenizer's, on the texts that the bundle carries, on
         those of --texts, and on a hard set of over 2,000; otherwise the texts that differ are
         shown.

Both cut long texts on the right: a bundle that reads them in windows, or head and tail, is refused.

examples:
  python -m export.convert runs/lora_cls/bundle --to triton --out models
  python -m export.convert runs/lora_cls/bundle --to onefile --out onefile --texts lines.txt

exit status: 0 written; 1 the bundle was refused; 3 the command or a file is wrong, or the bundle
cannot be turned into this; nothing is written then
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.convert",
        description="Turn a bundle into what other servers and runtimes take.",
        epilog=_EPILOG,
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--to", required=True, choices=["triton", "onefile"])
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--texts", metavar="FILE",
        help="with onefile: compare tokens on these texts too, one a line",
    )  # fmt: skip
    parser.add_argument(
        "--name", metavar="NAME", help="with triton: of the ensemble (default: the bundle's name)"
    )
    add_public_key(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    for name, kind in (("texts", "onefile"), ("name", "triton")):
        if getattr(options, name) is not None and options.to != kind:
            raise ExportError(f"--{name} goes with --to {kind} only.")
    model = edge.Model(bundle_folder(options.bundle, options.public_key))
    if model.problem != "single_label" or model.pairs:
        what = "pairs of texts" if model.pairs else f"problems of the type {model.problem}"
        raise ExportError(
            f"Bundles for {what} cannot be converted yet; edge.py and export.serve answer them."
        )
    target = Path(options.out)
    if options.to == "triton":
        from export import triton

        name = triton.write(model, target, options.name)
        print(f"{target}: a Triton model repository; send texts to {name!r}. See its README.md.")
    else:
        from export import onefile

        texts = _lines(Path(options.texts)) if options.texts else []
        count = onefile.write(model, target, texts)
        print(f"{target}: one ONNX file; its tokens are the tokenizer's on {count:,} texts.")
    return DONE


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ExportError(
            f"{path} is not UTF-8 (byte {error.start}). Convert it, for example with iconv."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
