"""HTTPS: uvicorn's own options, and a password that no command line shows."""

from __future__ import annotations

import argparse
import os
import ssl
from pathlib import Path
from typing import Any

from export.errors import ExportError

PASSWORD = "POTSTILL_SSL_KEYFILE_PASSWORD"
_DEMANDS = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `settings` reads."""
    group = parser.add_argument_group("HTTPS, by uvicorn's own options")
    group.add_argument("--ssl-certfile", metavar="FILE", help="the certificate, with its chain")
    group.add_argument("--ssl-keyfile", metavar="FILE", help="its private key")
    group.add_argument(
        "--ssl-keyfile-password-file", metavar="FILE",
        help=f"holds the password of an encrypted key (default: the variable {PASSWORD})",
    )  # fmt: skip
    group.add_argument(
        "--ssl-ca-certs", metavar="FILE", help="who has to have signed the certificates of clients"
    )
    group.add_argument(
        "--ssl-cert-reqs", choices=tuple(_DEMANDS),
        help="of clients (default: required with --ssl-ca-certs, or else none)",
    )  # fmt: skip


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return uvicorn's settings for the options.

    Raises:
        ExportError: Options do not go together, or name a file that is not there.
    """
    if bool(options.ssl_certfile) != bool(options.ssl_keyfile):
        raise ExportError("--ssl-certfile and --ssl-keyfile go together: give both.")
    given = [name for name in ("ca_certs", "cert_reqs", "keyfile_password_file")
             if getattr(options, f"ssl_{name}")]  # fmt: skip
    if not options.ssl_certfile:
        if given:
            option = f"--ssl-{given[0].replace('_', '-')}"
            raise ExportError(f"{option} is for HTTPS: give --ssl-certfile and --ssl-keyfile too.")
        return {}
    demand = options.ssl_cert_reqs or ("required" if options.ssl_ca_certs else "none")
    if demand != "none" and not options.ssl_ca_certs:
        raise ExportError(f"--ssl-cert-reqs {demand} needs --ssl-ca-certs: who is to be trusted?")
    for file in (options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs):
        if file and not Path(file).is_file():
            raise ExportError(f"There is no file {file}, which HTTPS needs. Check its path.")
    return {
        "ssl_certfile": options.ssl_certfile,
        "ssl_keyfile": options.ssl_keyfile,
        # Without any, OpenSSL would ask on the terminal and wait; a wrong one is refused.
        "ssl_keyfile_password": _password(options.ssl_keyfile_password_file) or "none was given",
        "ssl_ca_certs": options.ssl_ca_certs,
        "ssl_cert_reqs": _DEMANDS[demand],
    }


def unusable(error: ssl.SSLError, options: argparse.Namespace) -> ExportError:
    """Return what a person is told whose files OpenSSL does not take."""
    files = [options.ssl_certfile, options.ssl_keyfile, options.ssl_ca_certs]
    return ExportError(
        f"{', '.join(filter(None, files))}: OpenSSL does not take them ({error.reason or error}). "
        f"They have to be PEM files, and the key the certificate's; of an encrypted key the "
        f"password has to be in {options.ssl_keyfile_password_file or PASSWORD}."
    )


def _password(file: str | None) -> str:
    if file is None:
        return os.environ.get(PASSWORD, "")
    return Path(file).read_text("utf-8").removesuffix("\n").removesuffix("\r")
