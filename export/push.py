"""Upload a bundle to a running server, which verifies and tests it before it answers.

python -m export.push BUNDLE URL
"""

from __future__ import annotations

import argparse
import http.client
import io
import ipaddress
import json
import ssl
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

from export import edge
from export.bundle import SIGNATURE_FILE
from export.console import DONE, Parser, bundle_folder, count, guarded
from export.errors import ExportError
from export.serve import TOKEN, read_token
from export.serving.folder import chosen_name, model_name

_EPILOG = f"""\
  python -m export.push runs/lora_cls/bundle http://localhost:8000 --token-file token

The server has been started with the same token, from a file or from {TOKEN}. It checks every byte
and every recorded answer; until then, and if it refuses, the version that it has goes on. Without
--version the bundle becomes the one after the highest.

exit status: 0 the new version answers; 1 the bundle was refused, here or there; 3 the command is
wrong, or the server cannot be reached
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return guarded(lambda: _run(_parser().parse_args(arguments)))


def push(
    bundle: Path, url: str, token: str, *, name: str | None = None, version: int | None = None,
    certificates: str | None = None, own: tuple[str, str | None] | None = None,
    clear: bool = False, seconds: float = 600,
) -> tuple[int, dict[str, Any]]:  # fmt: skip
    """Upload a bundle.

    Args:
        bundle: What `export.check` would pass.
        url: Of the server.
        token: The server's.
        name: Of the model there; None for what the bundle's own name makes.
        version: None for the one after the highest.
        certificates: File with those to trust; None for the system's.
        own: Files with this client's certificate and its key (None: in the same file), for a server
            that asks for them.
        clear: Send the token through a network without encryption.
        seconds: To wait for each step of the network, the server's test included.

    Returns:
        The status and the content of the answer.

    Raises:
        BundleError: The bundle has changed since it was packed.
        ExportError: The URL or the name is wrong, or the server cannot be reached.
    """
    where = _checked(url, clear)
    if where.scheme == "http" and (certificates or own):
        raise ExportError(f"Certificates are for https, and {url} is http. Leave them out.")
    trusted = _trusted(certificates, own) if where.scheme == "https" else None
    manifest = edge.read_manifest(bundle)
    for check in edge.check_files(bundle, manifest):
        if not check.passed:
            raise edge.BundleError(check.message)
    name = model_name(manifest.get("name", "")) if name is None else chosen_name(name)
    path = f"{where.path.rstrip('/')}/v2/repository/models/{name}"
    path += f"/versions/{version}/push" if version else "/push"
    with tempfile.TemporaryFile() as archive:
        signature = [SIGNATURE_FILE] if (bundle / SIGNATURE_FILE).exists() else []
        _pack(bundle, [edge.MANIFEST_FILE, *signature, *manifest["files"]], archive)
        try:
            return _post(where, path, archive, token, trusted, seconds)
        except (OSError, http.client.HTTPException) as error:
            raise ExportError(
                f"{url} does not answer: {error}. Is it running, and is the bundle within its "
                "--max-upload-bytes?"
            ) from error


def _checked(url: str, clear: bool) -> SplitResult:
    if "@" in url:  # before any message repeats it
        raise ExportError(
            "The URL has an @, as after a name and a password. They are not sent: leave them "
            "out. The server takes a token: --token-file FILE."
        )
    try:
        where = urlsplit(url)
        usable = where.scheme in ("http", "https") and where.hostname and where.port != 0
    except ValueError:  # of a port or an address
        usable = None
    if not usable:
        raise ExportError(f"{url} is no URL of a server: http://HOST:PORT or https://HOST.")
    if where.scheme == "http" and not clear and not _is_here(str(where.hostname)):
        raise ExportError(
            f"{url} would carry the token in clear through the network. Use https, or --clear in a "
            "network that you trust."
        )
    return where


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pack(bundle: Path, names: Sequence[str], archive: IO[bytes]) -> None:
    with tarfile.open(fileobj=archive, mode="w:") as tar:
        for name in names:
            tar.add(bundle / name, name, recursive=False, filter=_plain)
    archive.seek(0)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who packed it and when."""
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _trusted(
    certificates: str | None, own: tuple[str, str | None] | None
) -> ssl.SSLContext:  # fmt: skip
    try:
        context = ssl.create_default_context(cafile=certificates)
    except ssl.SSLError as error:
        raise ExportError(
            f"{certificates}: OpenSSL finds no certificate in it. It has to be a PEM file."
        ) from error
    except OSError as error:
        raise ExportError(f"{certificates} cannot be read: {error.strerror or error}.") from error
    if own:
        for file in filter(None, own):
            if not Path(file).is_file():
                raise ExportError(f"There is no file {file}, which should hold a certificate.")
        try:
            context.load_cert_chain(*own, password="none was given")  # or OpenSSL would ask for it
        except ssl.SSLError as error:
            files = " and ".join(filter(None, own))
            raise ExportError(
                f"{files}: OpenSSL does not take them ({error.reason}). They have to be a "
                "certificate and its key, in PEM and not encrypted."
            ) from error
    return context


def _post(
    where: SplitResult, path: str, archive: IO[bytes], token: str, trusted: ssl.SSLContext | None,
    seconds: float,
) -> tuple[int, dict[str, Any]]:  # fmt: skip
    from tqdm import tqdm

    size = archive.seek(0, io.SEEK_END)
    archive.seek(0)
    host = str(where.hostname)
    connection = http.client.HTTPConnection(host, where.port, timeout=seconds)
    if trusted:
        connection = http.client.HTTPSConnection(host, where.port, timeout=seconds, context=trusted)
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/x-tar",
        "content-length": str(size),
    }
    with tqdm.wrapattr(
        archive, "read", total=size, unit="B", unit_scale=True, disable=None
    ) as file:
        # Refused before it had come in whole: the answer may be there.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, file, headers)
        answer = connection.getresponse()
    try:
        content = json.loads(answer.read())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        content = {"error": f"{answer.status} {answer.reason}: is this a server of potstill?"}
    return answer.status, content


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.push",
        description="Upload a bundle to a running server.",
        epilog=_EPILOG,
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("url", metavar="URL")
    parser.add_argument("--token-file", metavar="FILE", help=f"(default: the variable {TOKEN})")
    parser.add_argument("--name", help="of the model there (default: the bundle's own)")
    parser.add_argument("--version", type=count, metavar="N", help="(default: the next one)")
    parser.add_argument("--ca-file", metavar="FILE", help="certificates to trust, for https")
    parser.add_argument(
        "--cert-file", metavar="FILE", help="own certificate, for a server that asks for one"
    )
    parser.add_argument("--key-file", metavar="FILE", help="its key (default: in the same file)")
    parser.add_argument("--clear", action="store_true", help="allow http to another machine")
    return parser


def _run(options: argparse.Namespace) -> int:
    token = read_token(options.token_file)
    if token is None:
        raise ExportError(f"A push needs the server's token: --token-file FILE, or set {TOKEN}.")
    if options.key_file and not options.cert_file:
        raise ExportError("--key-file is the key of a certificate: give --cert-file too.")
    status, content = push(
        bundle_folder(options.bundle), options.url, token, name=options.name,
        version=options.version, certificates=options.ca_file, clear=options.clear,
        own=(options.cert_file, options.key_file) if options.cert_file else None,
    )  # fmt: skip
    if status == http.client.OK:
        print(f"{content['name']} version {content['version']} answers on {options.url}.")
        return DONE
    if status in (http.client.UNPROCESSABLE_ENTITY, http.client.BAD_REQUEST):
        raise edge.BundleError(f"{options.url} says: {content['error']}")
    raise ExportError(f"{options.url} says ({status}): {content['error']}")


if __name__ == "__main__":
    sys.exit(main())
