"""Serve bundles over HTTP: the open inference protocol v2, a plain route, and a page to try it.

python -m export.serve MODELS_DIR|BUNDLE --port 8000
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from export import edge
from export.console import DONE, Parser, add_public_key, count, guarded, unusable
from export.errors import ExportError
from export.machine import cores
from export.serving import tls
from export.serving.limits import Limits, option

if TYPE_CHECKING:
    from export.serving.folder import ModelFolder
    from export.serving.web import Web

TOKEN = "POTSTILL_TOKEN"
_TOKEN_LENGTH = 16
_log = logging.getLogger("potstill.serve")
_EPILOG = """\
MODELS_DIR holds NAME/VERSION/ with a bundle in each (versions are numbers; of each model the newest
that is sound answers), or NAME, a bundle itself. Then:

  curl localhost:8000/predict -d '{"text": "How far is the moon?"}'
  http://localhost:8000/        a page to try it
  http://localhost:8000/docs    all routes; /v2 is for tritonclient[http] and others
  http://localhost:8000/metrics

Push, load and unload are off until there is a token, in a file or in POTSTILL_TOKEN:

  (umask 077; python -c "import secrets; print(secrets.token_urlsafe())" > token)
  python -m export.serve models --token-file token
  python -m export.push runs/lora_cls/bundle http://localhost:8000 --token-file token

Answers of an int8 bundle depend a little on the texts that share a batch; --max-batch 1 ends that.
Needs the extra: pip install "potstill[serve]". SIGTERM stops it once open requests are answered.

exit status: 0 stopped; 1 the bundle was refused; 3 the command or a file is wrong
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _run(command_line().parse_args(arguments)))


def read_token(file: str | None) -> str | None:
    """Return the token from a file or from the environment; None if there is none.

    Raises:
        ExportError: It is too short to be secret, or no header can carry it.
    """
    found = Path(file).read_text("utf-8") if file else os.environ.get(TOKEN, "")
    token = found.strip()
    if not token and not file:
        return None
    if len(token) < _TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise ExportError(
            f"The token in {file or TOKEN} has to be {_TOKEN_LENGTH} or more ASCII characters on "
            'one line. Make one: python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return token


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = Parser(
        prog="python -m export.serve", description="Serve bundles over HTTP.", epilog=_EPILOG
    )
    parser.add_argument("source", metavar="MODELS_DIR|BUNDLE")
    parser.add_argument(
        "--host", default="127.0.0.1", help="(default: 127.0.0.1, which others cannot reach)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--name", help="of the model, if it is one BUNDLE (default: its own)")
    parser.add_argument("--token-file", metavar="FILE", help="switches push, load and unload on")
    add_public_key(parser)
    parser.add_argument(
        "--workers", type=count, metavar="N",
        help="batches of one model at once (default: one for each core that it may use)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="within one batch (default: 1)"
    )
    parser.add_argument(
        "--keep", type=count, default=1, metavar="N",
        help="versions of a model that answer side by side, when new ones come (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--retain", type=count, metavar="N",
        help="versions of a model that stay on the disk when one is pushed: the highest, and those "
        "that answer (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--stop-delay", type=_seconds, default=0.0, metavar="N",
        help="seconds to go on after SIGTERM, not ready, until a balancer has noticed (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--log-level", choices=("info", "warning", "error"), default="info",
        help="info has a line for each request, never its texts (default: info)",
    )  # fmt: skip
    tls.add_options(parser)
    limits = parser.add_argument_group("limits")
    for each in fields(Limits):
        kind, about = type(each.default), each.metadata["about"]
        limits.add_argument(
            option(each.name), type=kind, default=each.default, metavar="N",
            help=f"{about} (default: {each.default:g})" if kind is float else
            f"{about} (default: {each.default})",
        )  # fmt: skip
    return parser


def build(options: argparse.Namespace) -> Web:
    """Load the models and return the server for them, not yet running.

    Args:
        options: Of the command line.

    Raises:
        BundleError: The only bundle is refused.
        SignatureError: It is not signed with the key that is wanted.
        ExportError: An option or a file is wrong, or a package is missing.
    """
    limits = Limits(**{each.name: getattr(options, each.name) for each in fields(Limits)})
    token = read_token(options.token_file)
    _warn_of_readers(options.token_file)
    tls.settings(options)  # before a model is read
    if not 0 <= options.port < 1 << 16:
        raise ExportError(f"--port {options.port} is no port: take one from 0 to 65535.")
    source = Path(options.source)
    single = source if (source / edge.MANIFEST_FILE).is_file() else None
    if not single and (source / "ledger.json").is_file():
        raise ExportError(f"{source} is a run's folder. Name its bundle: {source / 'bundle'}.")
    if options.name is not None and not single:
        raise ExportError("--name names the model of one BUNDLE; in MODELS_DIR its folder does.")
    try:
        from export.serving.app import Server
        from export.serving.folder import ModelFolder, models_folder
        from export.serving.metrics import Metrics
        from export.serving.repository import Repository, Workers
        from export.serving.web import web_server

        workers = Workers(options.workers or cores(), options.threads)
        metrics = Metrics()
        folder = ModelFolder(None if single else models_folder(source))
        key = Path(options.public_key) if options.public_key else None
        repository = Repository(folder, limits, workers, options.keep, metrics, key, options.retain)
        repository.start(single, options.name)
        server = web_server(Server(repository, limits, token, metrics), options)
    except ModuleNotFoundError as error:
        raise ExportError(
            f'{error.name} is not installed, which serving needs: pip install "potstill[serve]".'
        ) from error
    if not single and token is not None:
        _claim(folder)
    elif not single and not folder.entries():
        raise ExportError(
            f"No model lies in {source}, and without a token none can be pushed. Put a bundle "
            "there as NAME/1, or start with --token-file FILE."
        )
    return server


def _claim(folder: ModelFolder) -> None:
    """Become the server that takes bundles for the folder, or say in the log why not."""
    try:
        reason = "" if folder.staging() else "another server takes them, until it stops"
    except OSError as error:
        reason = unusable(error)
    if reason:
        fields = {"folder": str(folder.root), "reason": reason}
        _log.warning("no bundles are taken here", extra={"fields": fields})


def _seconds(text: str) -> float:
    """Read an option's value that is a number of seconds, 0 or more."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, 0 or more")
    return found


def _warn_of_readers(token_file: str | None) -> None:
    """Say so in the log if other users of the machine may read the token."""
    if token_file and os.name == "posix":
        mode = stat.S_IMODE(Path(token_file).stat().st_mode)
        if mode & stat.S_IROTH:
            fields = {"file": token_file, "mode": f"{mode:o}", "do": f"chmod 600 {token_file}"}
            _log.warning("others may read the token", extra={"fields": fields})


def _run(options: argparse.Namespace) -> int:
    from export.serving import logs

    writer = logs.start(options.log_level)
    try:
        server = build(options)
        # uvicorn raises a signal again once all is answered, and then it is no failure.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        server.run()
    finally:
        writer.close()
    if not server.started:
        raise ExportError(f"The server did not start on {options.host}:{options.port}: see above.")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
