"""Sign a bundle, so that who has the public key can tell that it is yours and unchanged.

python -m export.sign BUNDLE --key private.pem
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export import signature
from export.console import DONE, Parser, bundle_folder, guarded
from export.errors import ExportError

_EPILOG = f"""\
examples:
  python -m export.sign --new-key mine.pem              # makes mine.pem and mine.pub.pem
  python -m export.sign runs/lora_cls/bundle --key mine.pem
  python -m export.sign runs/lora_cls/bundle --public-key mine.pub.pem
  python -m export.predict runs/lora_cls/bundle --public-key mine.pub.pem --input … --output …

Keys are Ed25519 in PEM files; openssl genpkey -algorithm ed25519 makes them too. Keep the private
one to yourself, offline. If it is encrypted, the environment variable {signature.PASSPHRASE}
holds the passphrase. Signatures need the extra: pip install 'potstill[sign]'.

exit status: 0 signed, or the signature is good; 1 the bundle was refused; 3 the command or a file
is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _run(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.sign",
        description="Sign a bundle, check a signature, or make a pair of keys.",
        epilog=_EPILOG,
    )
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", metavar="FILE", help="sign with this private key")
    what.add_argument("--public-key", metavar="FILE", help="check the signature with this key")
    what.add_argument("--new-key", metavar="FILE", help="make a private key and its public one")
    return parser


def _run(options: argparse.Namespace) -> int:
    if (options.bundle is None) != (options.new_key is not None):
        raise ExportError(
            "Name a bundle with --key or --public-key, and none with --new-key. See "
            "python -m export.sign --help."
        )
    if options.new_key:
        public = signature.new_keys(Path(options.new_key))
        print(f"{options.new_key}: keep it to yourself. {public}: give it to who checks.")
    elif options.key:
        path = signature.sign(bundle_folder(options.bundle), Path(options.key))
        print(f"Signed: {path}")
    else:
        bundle_folder(options.bundle, options.public_key)
        print(f"Signature good: every file of {options.bundle} is what the key's owner signed.")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
