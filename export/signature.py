"""A signature over a bundle, by Ed25519 keys that never leave their machines.

bundle.json holds the sha256 of every other file, so it is all that is signed; ``bundle.sig`` beside
it is JSON with these fields:

=============  =====================================================================================
format         1
algorithm      ``ed25519``
key            sha256 of the 32 bytes of the public key: tells a wrong key from a changed bundle
signature      base64 of the signature of ``CONTEXT`` and the bytes of bundle.json
=============  =====================================================================================

Checking it before anything is loaded refuses a changed, an added and a missing file. edge.py knows
nothing of signatures and needs no more packages for them: it guards against damage, this against
a forger. The keys and the arithmetic are the ``cryptography`` package's (the extra ``sign``).
model-signing, which signs any folder, was tried (1.1.1): it brings sigstore and some thirty
packages, 90 MB, for online identities that are not used here, and knows no Ed25519 keys.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from export import edge
from export.bundle import SIGNATURE_FILE
from export.console import unusable
from export.errors import ExportError, SignatureError
from export.parts import write_whole

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

#: Signed before bundle.json, so that the key's signature of anything else is none of a bundle.
CONTEXT = b"potstill bundle, format 1\n"
#: Where the passphrase of an encrypted private key is looked for.
PASSPHRASE = "POTSTILL_KEY_PASSPHRASE"
_FORMAT, _ALGORITHM = 1, "ed25519"


def sign(folder: Path, private_key: Path) -> Path:
    """Sign a bundle; an older signature is replaced.

    Args:
        folder: The bundle; all its files have to be as they were packed.
        private_key: PEM file with an Ed25519 key. If it is encrypted, the environment variable
            ``PASSPHRASE`` holds the passphrase.

    Returns:
        The signature's file.

    Raises:
        ExportError: The key cannot be used, or the bundle has files that are not its own.
        BundleError: A file has changed.
    """
    key = _private_key(private_key)
    _check_files(folder, edge.read_manifest(folder)["files"])
    content = {
        "format": _FORMAT,
        "algorithm": _ALGORITHM,
        "key": _name(key.public_key()),
        "signature": base64.b64encode(key.sign(_signed(folder))).decode(),
    }
    path = folder / SIGNATURE_FILE
    write_whole(path, json.dumps(content, indent=1).encode() + b"\n")
    return path


def verify(folder: Path, public_key: Path) -> None:
    """Check a bundle's signature and every file, before anything of it is loaded.

    Args:
        folder: The bundle.
        public_key: PEM file with the signer's Ed25519 key.

    Raises:
        SignatureError: There is no signature, it is another key's, or a file has been changed,
            added or removed since, or cannot be read.
        ExportError: The key cannot be used.
    """
    key = _public_key(public_key)
    try:
        _verify(folder, key, public_key)
    except OSError as error:
        raise SignatureError(unusable(error)) from error


def _verify(folder: Path, key: Ed25519PublicKey, public_key: Path) -> None:
    name, signature = _read(folder / SIGNATURE_FILE)
    if name != _name(key):
        raise SignatureError(
            f"{folder} is signed with the key {name[:16]}…, and {public_key} is "
            f"{_name(key)[:16]}…. Give the signer's public key, or do not use this bundle."
        )
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, _signed(folder))
    except InvalidSignature as error:
        raise SignatureError(
            f"{folder / edge.MANIFEST_FILE} is not what was signed. Do not use this bundle: copy "
            "it again from where it was signed."
        ) from error
    try:
        _check_files(folder, edge.read_manifest(folder)["files"])
    except edge.BundleError as error:
        raise SignatureError(str(error)) from error


def check_public_key(public_key: Path) -> None:
    """Check that a file holds a key that signatures can be checked with.

    Raises:
        ExportError: It does not, or the package cryptography is missing.
    """
    _public_key(public_key)


def new_keys(private_key: Path) -> Path:
    """Make a pair of keys; the private one is readable by its owner alone.

    Args:
        private_key: The new PEM file.

    Returns:
        The public key's file beside it, ``NAME.pub.pem``.

    Raises:
        ExportError: One of the two files is there already.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_key = private_key.with_suffix(".pub.pem")
    for path in (private_key, public_key):
        if path.exists():
            raise ExportError(f"{path} is there already, and keys are not replaced. Name another.")
    key = Ed25519PrivateKey.generate()
    pem = form.Encoding.PEM
    secret = key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption())
    with open(private_key, "xb", opener=_for_owner) as file:
        file.write(secret)
    public_key.write_bytes(
        key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)
    )
    return public_key


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


# --- The bundle --------------------------------------------------------------------------------


def _signed(folder: Path) -> bytes:
    return CONTEXT + (folder / edge.MANIFEST_FILE).read_bytes()


def _read(path: Path) -> tuple[str, bytes]:
    """Return the key's name and the signature."""
    try:
        content = json.loads(path.read_bytes())
        form, name = (content["format"], content["algorithm"]), str(content["key"])
        signature = base64.b64decode(content["signature"], validate=True)
    except FileNotFoundError as error:
        raise SignatureError(
            f"{path.parent} is not signed: it has no {path.name}. Have it signed "
            "(python -m export.sign), or give no public key if you trust where it comes from."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SignatureError(
            f"{path} is no signature, or damaged: {error!r}. Copy the whole bundle again from "
            "where it was signed."
        ) from error
    if form != (_FORMAT, _ALGORITHM):
        raise SignatureError(
            f"{path} has format and algorithm {form}, and this potstill knows "
            f"{(_FORMAT, _ALGORITHM)}. Use the one that signed it, or sign it again."
        )
    return name, signature


def _check_files(folder: Path, files: dict[str, dict[str, object]]) -> None:
    """Compare every file with bundle.json, and refuse what is not listed there.

    A Python file or package that lies beside edge.py would be imported by it.
    """
    known = {edge.MANIFEST_FILE, SIGNATURE_FILE, *files}
    for path in sorted(folder.iterdir()):
        if path.name not in known or path.is_symlink() or not path.is_file():
            raise SignatureError(
                f"{path} is not a file of the bundle as it was packed. Remove it if you know where "
                "it comes from, and do not use this bundle otherwise."
            )
    for check in edge.check_files(folder, {"files": files}):
        if not check.passed:
            raise edge.BundleError(check.message)


# --- Keys --------------------------------------------------------------------------------------


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"Signatures need the package cryptography ({error}). Install it: "
            "pip install 'potstill[sign]'."
        ) from error


def _name(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _private_key(path: Path) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    passphrase = os.environ.get(PASSPHRASE, "").encode() or None
    content = path.read_bytes()
    try:
        try:
            key = load_pem_private_key(content, passphrase)
        except TypeError:  # it is encrypted and there is no passphrase, or the other way round
            if passphrase is None:
                raise
            key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ExportError(
            f"{path} cannot be read as a private key in a PEM file: {error}. The passphrase of an "
            f"encrypted one goes into the environment variable {PASSPHRASE}."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportError(_wrong_kind(path))
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ExportError(
            f"{path} cannot be read as a public key in a PEM file: {error}. It begins with "
            "-----BEGIN PUBLIC KEY-----."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ExportError(_wrong_kind(path))
    return key


def _wrong_kind(path: Path) -> str:
    return f"{path} holds no Ed25519 key. Make one: python -m export.sign --new-key NAME.pem."
