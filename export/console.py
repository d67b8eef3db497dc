"""What the commands on bundles share: the parser, the exit status, and the bundle that is named."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from export import edge
from export.errors import ExportError

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


def bundle_folder(name: str) -> Path:
    """Return the bundle that a command names.

    Raises:
        ExportError: There is no bundle.json in it.
    """
    folder = Path(name)
    if not (folder / edge.MANIFEST_FILE).is_file():
        what = "has no bundle.json" if folder.is_dir() else "is no folder"
        raise ExportError(
            f"{folder} is not a bundle: it {what}. Name the folder that a run has packed, for "
            "example runs/lora_cls/bundle."
        )
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
    except edge.BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except BrokenPipeError:
        # The reader (head, say) has enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        print(f"error: {unusable(error)}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return STOPPED
