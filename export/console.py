"""What the commands on bundles share: the parser, the exit status, and the bundle that is named."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from export import edge
from export.errors import ExportError, SignatureError

DONE, REFUSED, WRONG, STOPPED = 0, 1, 3, 130


class Parser(argparse.ArgumentParser):
    """argparse, with the message and the exit status that a wrong command has here.

    Epilogs are printed as they are written, and options have to be written out.
    """

    #: What a wrong command raises.
    wrong: ClassVar[type[Exception]] = ExportError

    def __init__(self, **arguments: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"formatter_class": formatter, "allow_abbrev": False, **arguments})

    def error(self, message: str) -> NoReturn:
        """Refuse the command."""
        raise self.wrong(f"{message[0].upper()}{message[1:]}. See {self.prog} --help.")


def count(text: str) -> int:
    """Read an option's value that is a whole number from 1 up.

    Raises:
        argparse.ArgumentTypeError: It is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def add_public_key(parser: argparse.ArgumentParser) -> None:
    """Add the option that has a bundle's signature checked before it is used."""
    parser.add_argument(
        "--public-key",
        metavar="FILE",
        help="refuse a bundle that is not signed with its private key (see export.sign)",
    )


def bundle_folder(name: str, public_key: str | None = None) -> Path:
    """Return the bundle that a command names.

    Args:
        name: Its folder.
        public_key: If given, the file with the key that it has to be signed with.

    Raises:
        ExportError: There is no bundle.json in it, or the key cannot be used.
        SignatureError: It is not signed, or not what was signed.
    """
    folder = Path(name)
    if not (folder / edge.MANIFEST_FILE).is_file():
        what = "has no bundle.json" if folder.is_dir() else "is no folder"
        raise ExportError(
            f"{folder} is not a bundle: it {what}. Name the folder that a run has packed, for "
            "example runs/lora_cls/bundle."
        )
    if public_key is not None:
        from export.signature import verify

        verify(folder, Path(public_key))
    return folder


def unusable(error: OSError) -> str:
    """Say which file cannot be used, why, and what to look at."""
    return (
        f"{error.filename or 'A file'} cannot be read or written: {error.strerror or error}. "
        "Check the path, the rights and the disk."
    )


def guarded(command: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command and turn what ends it into one line and an exit status.

    Args:
        command: Returns its exit status.
        stopped: What to say to a person who stops it.

    Returns:
        That status; 1 if the bundle was refused; 3 if the command, a file or the data is wrong; 130
        if it was stopped.
    """
    try:
        return command()
    except (edge.BundleError, SignatureError) as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except BrokenPipeError:
        return reader_gone()
    except OSError as error:
        print(f"error: {unusable(error)}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return STOPPED


@contextmanager
def reader_may_go() -> Iterator[None]:
    """Print; what the reader of the output does not wait for goes nowhere, and work goes on."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        reader_gone()


def reader_gone() -> int:
    """End well where the reader of the output (head, say) has enough; return the exit status.

    Python would complain when it flushes at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
