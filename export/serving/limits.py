"""What the server takes before it says no, and with which status it says so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from export.errors import ExportError


class RefusedError(Exception):
    """A request that is not answered: the status and the message that the client gets."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _limit(default: Any, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class Limits:
    """Bounds of everything that a client can make the server hold or wait for.

    Each field is an option of ``python -m export.serve``, with the words below.

    Raises:
        ExportError: A value is not above 0, or a request could never fit in the queue.
    """

    max_batch: int = _limit(32, "texts that are answered together")
    max_wait_ms: float = _limit(2.0, "how long a text may wait for others to share its batch")
    max_queue: int = _limit(1024, "texts that may wait for one model; more get 503")
    max_texts: int = _limit(256, "texts of one request; more get 413")
    max_characters: int = _limit(20_000, "characters of one text; more get 413")
    max_body_bytes: int = _limit(1 << 20, "bytes of one request; more get 413")
    max_connections: int = _limit(512, "connections at once; more get 503")
    keep_alive_seconds: float = _limit(75.0, "for a connection to be idle between requests")
    max_header_bytes: int = _limit(32 << 10, "bytes of a request's head; more get 431")
    header_seconds: float = _limit(10.0, "for a request's head to come; then 408")
    body_seconds: float = _limit(30.0, "for a request's body to come; then 408")
    send_seconds: float = _limit(30.0, "for a client to take what is sent; then it is cut off")
    answer_seconds: float = _limit(30.0, "for the model to answer; then 503")
    drain_seconds: float = _limit(30.0, "for open requests to end when the server is stopped")
    max_upload_bytes: int = _limit(1 << 30, "bytes of a pushed bundle; more get 413")
    upload_seconds: float = _limit(600.0, "for a pushed bundle to come; then 408")
    load_seconds: float = _limit(60.0, "for a bundle to be read and tested; then 422")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            bad = value < 0 or not math.isfinite(value)
            if bad or (value == 0 and each.name != "max_wait_ms"):
                least = "0 or more" if each.name == "max_wait_ms" else "above 0"
                raise ExportError(f"{option(each.name)} has to be {least}, and is {value}.")
        if self.max_texts > self.max_queue:
            raise ExportError(
                f"--max-texts {self.max_texts} is more than --max-queue {self.max_queue}: such a "
                "request would never be answered. Raise the queue or lower the texts."
            )

    def check(self, texts: list[str]) -> None:
        """Refuse texts that nobody should send.

        Raises:
            RefusedError: There are none or too many, or one is blank or too long.
        """
        if not texts:
            raise RefusedError(400, "There is no text: give one or more.")
        if len(texts) > self.max_texts:
            raise RefusedError(
                413, f"{len(texts)} texts are more than {self.max_texts}: send them in parts."
            )
        for place, text in enumerate(texts):
            if len(text) > self.max_characters:
                raise RefusedError(
                    413,
                    f"Text {place} has {len(text)} characters, and {self.max_characters} are "
                    "taken: cut it.",
                )
            if not text.strip():
                raise RefusedError(400, f"Text {place} is blank: there is nothing to classify.")


def option(name: str) -> str:
    """Return the command line's name of a field."""
    return f"--{name.replace('_', '-')}"
