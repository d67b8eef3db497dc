"""The page to try it on, and the headers that let it do no more than it needs."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

HTML = Path(__file__).with_name("page.html").read_text("utf-8")


def _source(tag: str) -> str:
    (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", HTML, re.DOTALL)
    return "'sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() + "'"


#: Only the page's own script and style run, and only this server is asked.
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src {_source('script')}; style-src {_source('style')}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
