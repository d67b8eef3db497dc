"""Requests that schemathesis makes up from the OpenAPI page, right ones and wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tiny_bundle import make_bundle
from tiny_server import TOKEN, running

#: With these names the requests reach the model.
CONFIGURATION = """\
[parameters]
"path.name" = "tiny"
"path.version" = "1"
"""
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
]


def test_nothing_that_is_made_up_breaks_the_server(tmp_path: Path) -> None:
    make_bundle(tmp_path / "models" / "tiny" / "1")
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        Path(sys.executable).with_name("schemathesis"), "run", "--checks", ",".join(CHECKS),
        "--header", f"Authorization: Bearer {TOKEN}", "--phases", "examples,coverage,fuzzing",
        "--max-examples", "10", "--seed", "0", "--generation-database", "none",
        "--request-timeout", "10", "--no-color", "--exclude-path-regex", "(push|unload)$",
    ]  # fmt: skip
    with running(tmp_path / "models") as server:
        found = subprocess.run(
            [*command, f"{server.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)}, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-1000:]
        assert "Tested: 13" in found.stdout
        assert server.ask("/predict", {"text": "Who?"}).status == 200
        counted = server.ask("/metrics").content.decode()
    for route in ("/predict", "/v2/models/{name}/infer"):
        for status in (200, 400):
            assert f'potstill_requests_total{{route="{route}",status="{status}"}}' in counted
    assert 'status="500"' not in counted
