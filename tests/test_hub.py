"""Assets of the Hugging Face Hub, against a small server that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

COMMIT = "a" * 40
CARD = b"---\nlicense: mit\n---\n"
BASE = {"config.json": b"{}", "tokenizer.json": b"{}", "README.md": CARD}
NAMED = b"""---
license: cc-by-4.0
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {"0": sad, "1": glad}}}
  - {name: page, dtype: int64}
---
"""
TWO = b"""---
configs:
- {config_name: one, data_files: one.csv}
- {config_name: two, data_files: two.csv}
---
"""
REPOSITORIES = {
    "models/me/whole": {
        **BASE,
        "model.safetensors": save({"a": np.zeros(3)}),
        "pytorch_model.bin": b"old",
        "onnx/model.onnx": b"other runtime",
        "modeling.py": b"raise SystemExit",
    },
    "models/me/pickled": {**BASE, "pytorch_model.bin": b"old"},
    "models/me/bare": {"README.md": CARD},
    "models/me/gated": BASE,
    "datasets/me/rows": {
        "README.md": NAMED,
        "train.csv": b"text,label,page\na,0,7\nb,1,8\n",
        "test.csv": b"text,label,page\nc,-1,9\n",
    },
    "datasets/me/two": {"README.md": TWO, "one.csv": b"x\n1\n", "two.csv": b"y\n1\n"},
    "datasets/me/script": {"README.md": CARD, "script.py": b"raise SystemExit"},
}
# The Hub's client reads its address when it is imported, hence a process of its own.
CLIENT = """
import json, sys
from recipes.assets import resolve, rows
from recipes.errors import RecipeError

def ask(uri, kind, offline):
    try:
        asset = resolve(uri, kind, offline=offline)
        answer = {"files": sorted(p.name for p in asset.path.iterdir()), "license": asset.license,
                  "fingerprint": asset.fingerprint, "source": asset.source}
        if kind == "data":
            answer["rows"] = {n: json.loads(f.to_json(orient="split"))
                              for n, f in rows(asset).items()}
        return answer
    except RecipeError as error:
        return {"error": str(error)}

print(json.dumps([ask(*question) for question in json.loads(sys.argv[1])]))
"""


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "api":
            return self.about("/".join(parts[1:4]), parts[4:])
        repository = "/".join(parts[:3] if parts[0] == "datasets" else ["models", *parts[:2]])
        if repository == "models/me/gated":
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        name = parts[-1]
        body = REPOSITORIES[repository][name]
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        return self.answer(200, body, {"ETag": etag, "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET  # noqa: N815

    def about(self, repository: str, rest: list[str]) -> None:
        files = REPOSITORIES.get(repository)
        if files is None:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if rest[0] == "revision" and rest[1] not in ("main", COMMIT):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        tree = [
            {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for name, body in files.items()
        ]
        info = {"id": repository.split("/", 1)[1], "sha": COMMIT}
        body = json.dumps(tree if rest[0] == "tree" else info).encode()
        return self.answer(200, body, {"Content-Type": "application/json"})

    def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...


def ask(home: Path, endpoint: str, questions: list[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(questions)],
        env={**environment, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Everything the tests below ask, in one go: each client process takes seconds to start."""
    home = tmp_path_factory.mktemp("hub")
    questions = [
        ("hub:me/whole", "model", True),
        ("hub:me/whole", "model", False),
        ("hub:me/whole@v9", "model", False),
        ("hub:me/pickled", "model", False),
        ("hub:me/bare", "model", False),
        ("hub:me/gated", "model", False),
        ("hub:me/absent", "model", False),
        ("hub:me/absent", "data", False),
        ("hub:me/a--b", "model", False),
        ("hub:me/rows", "data", False),
        ("hub:me/two", "data", False),
        ("hub:me/script", "data", False),
    ]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    online = ask(home, endpoint, questions)
    server.shutdown()
    server.server_close()
    later = [
        ("hub:me/whole", "model", True),
        ("hub:me/rows", "data", True),
        ("hub:me/rows", "data", False),
        ("hub:me/new", "model", False),
    ]
    after = ask(home, endpoint, later)
    return {
        **dict(zip(questions, online, strict=True)),
        **{("later", *question): answer for question, answer in zip(later, after, strict=True)},
    }


def test_a_model_comes_with_safetensors_and_nothing_else(answers):
    answer = answers["hub:me/whole", "model", False]
    expected = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert answer["files"] == expected
    assert answer["license"] == "mit"
    assert answer["source"] == f"Hugging Face Hub, me/whole, commit {COMMIT[:12]}"


def test_pickled_weights_come_only_where_there_are_no_safetensors(answers):
    assert "pytorch_model.bin" in answers["hub:me/pickled", "model", False]["files"]


def test_rows_keep_every_column_and_labels_by_name(answers):
    answer = answers["hub:me/rows", "data", False]
    assert answer["license"] == "cc-by-4.0"
    assert set(answer["rows"]) == {"train", "test"}
    train = answer["rows"]["train"]
    assert train["columns"] == ["text", "label", "page"]
    assert train["data"] == [["a", "sad", 7], ["b", "glad", 8]]
    assert answer["rows"]["test"]["data"] == [["c", None, 9]]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (("hub:me/whole", "model", True), ["Hugging Face cache", "network is switched off"]),
        (("hub:me/whole@v9", "model", False), ["hub:me/whole@v9", "no such revision"]),
        (("hub:me/bare", "model", False), ["hub:me/bare is no model", "config.json"]),
        (("hub:me/gated", "model", False), ["gated", "accept its terms", "hf auth login"]),
        (("hub:me/absent", "model", False), ["no model 'me/absent'", "spelling"]),
        (("hub:me/absent", "data", False), ["no data set 'me/absent'", "spelling"]),
        (("hub:me/a--b", "model", False), ["'hub:me/a--b' is not a name on the Hub"]),
        (("hub:me/two", "data", False), ["'one', 'two'", "data.train"]),
        (("hub:me/script", "data", False), ["cannot be read as one data set"]),
        (("later", "hub:me/new", "model", False), ["Cannot reach", "not in the cache"]),
    ],
)
def test_what_goes_wrong_is_said_in_one_message(answers, question, words):
    message = answers[question]["error"]
    assert all(word in message for word in words), message


def test_what_was_downloaded_serves_offline_and_without_the_hub(answers):
    model = answers["later", "hub:me/whole", "model", True]
    assert model == answers["hub:me/whole", "model", False]
    for offline in (True, False):
        data = answers["later", "hub:me/rows", "data", offline]
        assert data == answers["hub:me/rows", "data", False]
