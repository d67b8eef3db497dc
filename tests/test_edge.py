from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import (
    GOLDEN,
    LABELS,
    MAX_LENGTH,
    make_bundle,
    make_tokenizer,
    reference,
    save_model,
)
from tiny_bundle import table as token_table

from export import edge
from export.bundle import write_manifest

FILES = ["README.md", "bundle.json", "edge.py", "model.onnx", "requirements.txt", "tokenizer.json"]
NASTY = [
    "Who is it?",
    "",
    "   ",
    "who",
    "WHO ÍS thé moon",
    "漢漢who漢",
    "how\tbig\nis\r\nit",
    "wh\x00o \x07is\u200bit",
    "😀 who 👩‍👩‍👧 is it",
    "[SEP] who [PAD] [CLS]",
    "?" * 100,
    "where is the moon how big who was it where is the moon",
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("packed") / "bundle")


@pytest.fixture
def bundle(packed: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(packed, tmp_path / "bundle"))


def run(
    folder: Path, *arguments: str | bytes, stdin: bytes = b"", flags: Sequence[str] = ("-I",)
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *flags, folder / "edge.py", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def change(folder: Path, **fields: Any) -> None:
    """Change bundle.json and renew all sums, as a person would who knows the format."""
    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    write_manifest(folder, content | fields)


# --- What is imported -------------------------------------------------------------------------


def test_edge_imports_only_what_a_bundle_installs() -> None:
    tree = ast.parse(Path(edge.__file__).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    assert names - sys.stdlib_module_names == {"numpy", "onnxruntime", "tokenizers"}


def test_importing_edge_is_light() -> None:
    code = "import edge, sys; print({'numpy', 'onnxruntime', 'tokenizers'} & sys.modules.keys())"
    place = Path(edge.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


def test_missing_packages_are_named_with_the_command_that_installs_them(packed: Path) -> None:
    done = run(packed, "Who is it?", flags=["-I", "-S"])  # -S: without site-packages
    assert done.returncode == 1
    assert "No module named" in done.stderr
    assert f"pip install -r {packed / 'requirements.txt'}" in done.stderr
    assert "Traceback" not in done.stderr


# --- A changed byte ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused(bundle: Path, name: str, place: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(edge.BundleError, match=name):
        edge.Model(bundle)
    assert not all(check.passed for check in edge.checks(bundle))


def test_every_byte_of_the_manifest_counts(bundle: Path) -> None:
    path = bundle / "bundle.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = whole[place] ^ (1, 0x20)[place % 2]  # 0x20 turns a into A
        path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        with pytest.raises(edge.BundleError):
            edge.read_manifest(bundle)
    path.write_bytes(whole.replace(b"\n", b" ", 1))
    with pytest.raises(edge.BundleError, match="has changed"):
        edge.read_manifest(bundle)


def test_a_byte_more_or_less_is_refused(bundle: Path) -> None:
    for name in FILES:
        whole = (bundle / name).read_bytes()
        for content in (whole + b"\n", whole[:-1], b""):
            (bundle / name).write_bytes(content)
            with pytest.raises(edge.BundleError, match=name):
                edge.Model(bundle)
        (bundle / name).write_bytes(whole)
    edge.Model(bundle)


def test_an_edited_edge_refuses_itself(bundle: Path) -> None:
    path = bundle / "edge.py"
    path.write_text(path.read_text(encoding="utf-8") + "# harmless\n", encoding="utf-8")
    done = run(bundle, "Who is it?")
    assert (done.returncode, done.stdout) == (1, "")
    assert "edge.py has changed since it was packed" in done.stderr
    assert "Copy the whole bundle again" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", sorted(set(FILES) - {"edge.py"}))
def test_a_missing_file_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    done = run(bundle, "Who is it?")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{bundle / name} cannot be read: No such file" in done.stderr
    assert run(bundle, "--self-test").returncode == 1


def test_files_beside_the_bundle_do_no_harm(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    assert edge.Model(bundle).predict(["Who is it?"])[0].label == "person"


def test_an_unknown_format_says_which_edge_is_needed(bundle: Path) -> None:
    path = bundle / "bundle.json"
    text = path.read_text(encoding="utf-8").replace('"format": 2', '"format": 9')
    path.write_text(text.replace('"created_by": "potstill', '"created_by": "potstill 9'))
    with pytest.raises(edge.BundleError, match=r"\(9, 'single_label'\).*comes with potstill 9"):
        edge.Model(bundle)


# --- Answers ----------------------------------------------------------------------------------


def test_tokens_are_those_of_transformers(packed: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(), pad_token="[PAD]")
    rows, model = token_table(), edge.Model(packed)
    for text in NASTY:
        ids = theirs(text, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        assert len(ids) <= MAX_LENGTH
        np.testing.assert_allclose(model.logits([text])[0], reference(ids, rows), atol=1e-5)


def test_settings_inside_the_tokenizer_file_do_not_matter(bundle: Path) -> None:
    before = edge.Model(bundle).logits(NASTY)
    make_tokenizer().save(str(bundle / "tokenizer.json"))  # truncates to 5, pads to 7
    change(bundle)
    model = edge.Model(bundle)
    np.testing.assert_array_equal(model.logits(NASTY), before)
    assert model.encode("who").shape == (2, 3), "padding is masked, but it costs time"


@pytest.mark.parametrize(
    "text",
    [
        "who was it " * 100_000,
        "x" * 100_000,
        "漢" * 50_000,
        " " * 50_000 + "who was it " * 5_000,
        "\x01" * 480 + "i" + "s" * 1_000,  # one unknown word; cut off it would be known pieces
        "\u200b" * 1_000 + "who is the moon",
    ],
)
def test_a_huge_text_is_answered_like_any_other(packed: Path, text: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    expected = reference(tokenizer.encode(text).ids, token_table())
    np.testing.assert_allclose(edge.Model(packed).logits([text])[0], expected, atol=1e-5)


def test_neighbors_in_a_batch_do_not_matter(packed: Path) -> None:
    model = edge.Model(packed)
    alone = np.concatenate([model.logits([text]) for text in NASTY])
    np.testing.assert_allclose(model.logits(NASTY), alone, atol=1e-5)
    assert model.logits([]).shape == (0, len(LABELS))
    assert model.predict([]) == []


def test_so_many_tokens_at_once_and_the_answers_are_those_of_each_alone(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = edge.Model(packed)
    texts = [f"How far is the moon{n * ' indeed'}?" for n in range(24)]
    alone = np.concatenate([model.logits([text]) for text in texts])
    sizes, run = [], model._session.run

    class Session:
        def run(self, names: Any, feed: Any) -> Any:
            sizes.append(feed["input_ids"].size)
            return run(names, feed)

    monkeypatch.setattr(model, "_session", Session())
    for tokens in (1, 100, 1024):
        monkeypatch.setattr(edge, "TOKENS", tokens)
        sizes.clear()
        np.testing.assert_allclose(model.logits(texts), alone, atol=1e-5)
        assert max(sizes) <= max(tokens, max(model.encode(text).shape[1] for text in texts))


def test_probabilities_are_the_softmax_by_label(packed: Path) -> None:
    model = edge.Model(packed)
    answer = model.predict(["How big is it?"])[0]
    raw = np.exp(model.logits(["How big is it?"])[0].astype(float))
    assert answer.label == "größe"
    assert list(answer.probabilities) == LABELS == model.labels
    assert list(answer.probabilities.values()) == pytest.approx((raw / raw.sum()).tolist())
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_huge_logits_do_not_overflow(tmp_path: Path) -> None:
    model = save_model(tmp_path / "tiny.onnx", token_table() * np.float32(1e30))
    answer = edge.Model(make_bundle(tmp_path / "bundle", model=model)).predict(["Who is it?"])[0]
    assert answer.probabilities["person"] == pytest.approx(1)


def test_under_its_threshold_a_label_is_not_given(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", thresholds={"person": 1.0, "place": 0.1})
    person, place = edge.Model(folder).predict(["Who is it?", "Where is it?"])
    assert person.label is None
    assert max(person.probabilities, key=person.probabilities.__getitem__) == "person"
    assert place.label == "place"
    assert json.loads(run(folder, "--json", "Who is it?").stdout)["label"] is None
    assert run(folder, "Who is it?").stdout.startswith("(undecided)\n")


def test_a_temperature_changes_probabilities_and_no_label(packed: Path, tmp_path: Path) -> None:
    plain, mild = edge.Model(packed), edge.Model(make_bundle(tmp_path / "mild", temperature=4.0))
    for one, other, logits in zip(
        plain.predict(GOLDEN), mild.predict(GOLDEN), plain.logits(GOLDEN), strict=True
    ):
        powers = np.exp(logits.astype(np.float64) / 4)
        assert list(other.probabilities.values()) == pytest.approx(powers / powers.sum())
        assert other.label == one.label
        assert max(other.probabilities.values()) < max(one.probabilities.values())
    assert all(check.passed for check in edge.checks(tmp_path / "mild"))


def test_offsets_choose_the_label_and_leave_the_probabilities(packed: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "moved", temperature=2.0, offsets={"person": 9, "place": -9})
    model = edge.Model(folder)
    mild = edge.Model(make_bundle(tmp_path / "mild", temperature=2.0)).predict(GOLDEN)
    assert [answer.label for answer in model.predict(GOLDEN)] == ["person"] * len(GOLDEN)
    assert [each.probabilities for each in model.predict(GOLDEN)] == [
        each.probabilities for each in mild
    ]
    assert {answer.label for answer in mild} == set(LABELS)
    # The recorded answers are those that are given.
    assert set(model.manifest["golden"]["labels"]) == {"person"}
    assert all(check.passed for check in edge.checks(folder))


def test_an_offset_is_of_a_log_probability(tmp_path: Path) -> None:
    """At a temperature of 2 an offset of 1 makes up for two points of a logit."""
    model = edge.Model(make_bundle(tmp_path / "bundle", temperature=2.0, offsets={"größe": 1.0}))
    scored = np.array([[5, 3.01, 0], [5, 2.99, 0]], dtype=np.float32)
    assert [answer.label for answer in model.decide(scored)] == ["größe", "place"]


def test_the_threshold_is_of_the_label_that_is_chosen(tmp_path: Path) -> None:
    decision = {"offsets": {"größe": 5.0}, "thresholds": {"größe": 0.3}}
    model = edge.Model(make_bundle(tmp_path / "bundle", **decision))
    scored = np.log(np.array([[0.65, 0.31, 0.04], [0.65, 0.29, 0.06]], dtype=np.float32))
    assert [answer.label for answer in model.decide(scored)] == ["größe", None]


def test_the_first_format_is_read_still(bundle: Path) -> None:
    path = bundle / "bundle.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for newer in ("temperature", "offsets"):
        del content[newer]
    change(bundle, **content)
    raw = json.loads(path.read_text(encoding="utf-8")) | {"format": 1, "sha256": "0" * 64}
    data = json.dumps(raw).encode()
    path.write_bytes(data.replace(b"0" * 64, edge.seal(data, "0" * 64).encode(), 1))
    assert all(check.passed for check in edge.checks(bundle))
    assert edge.Model(bundle).predict(["Who is it?"])[0].label == "person"


def test_session_options_are_those_of_the_bundle(packed: Path) -> None:
    session = json.loads((packed / "bundle.json").read_text(encoding="utf-8"))["session"]
    options = edge.session_options(session | {"graph_optimization_level": "ORT_ENABLE_BASIC"})
    assert options.intra_op_num_threads == 1
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert edge.session_options(session, threads=3).intra_op_num_threads == 3


# --- The command line -------------------------------------------------------------------------


def test_people_see_the_label_and_then_all_by_probability(packed: Path) -> None:
    done = run(packed, "How big is it?")
    label, *rows = done.stdout.splitlines()
    assert (done.returncode, label, done.stderr) == (0, "größe", "")
    values = [float(row.split()[0]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert rows[0].split()[1] == "größe"
    assert {row.split()[1] for row in rows} == set(LABELS)


def test_several_texts_as_json(packed: Path) -> None:
    done = run(packed, "--json", "--threads", "2", "Who is it?", "Where is it?")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == ["person", "place"]
    assert list(answers[0]["probabilities"]) == LABELS


@pytest.mark.parametrize("batch_size", ["1", "2", "3", "100"])
def test_a_stream_gives_a_line_for_every_line(packed: Path, batch_size: str) -> None:
    lines = [
        b"\xef\xbb\xbfWho is it?\r\n",
        b"\n",
        b"Where \xff is it\n",
        b"How big is it?\n",
        b" \t\r\n",
        b"Where is the moon",  # no line end
    ]
    done = run(packed, "--batch-size", batch_size, stdin=b"".join(lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("label") for answer in answers] == [
        "person", None, None, "größe", None, "place",
    ]  # fmt: skip
    assert "empty" in answers[1]["error"]
    assert "not UTF-8 (byte 0xff at offset 6)" in answers[2]["error"]
    assert "empty" in answers[4]["error"]
    assert (done.returncode, done.stderr) == (1, "")


def test_a_line_with_nothing_but_a_byte_order_mark_is_empty(packed: Path) -> None:
    done = run(packed, stdin=b"\xef\xbb\xbf\nWho is it?\n")
    assert "empty" in json.loads(done.stdout.splitlines()[0])["error"]


def test_a_good_stream_ends_well(packed: Path) -> None:
    done = run(packed, stdin=b"Who is it?\nHow big is it?\n" * 500)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1000
    assert run(packed, stdin=b"").returncode == 0


def test_a_slow_producer_is_answered_line_by_line(packed: Path) -> None:
    command = [sys.executable, "-I", packed / "edge.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for text, label in ((b"Who is it?\n", "person"), (b"How big?\n", "größe")):
            process.stdin.write(text)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["label"] == label
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_reader_that_leaves_early_is_no_trouble(packed: Path) -> None:
    command = [sys.executable, "-I", packed / "edge.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"Who is it?\n" * 2000)
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def test_bad_bytes_in_an_argument_are_one_message(packed: Path) -> None:
    done = run(packed, b"Where \xff is it", "", "Who is it?")
    assert done.returncode == 1
    assert "error: not UTF-8 (byte 0xff at offset 6)" in done.stdout
    assert "error: empty" in done.stdout
    assert "person" in done.stdout
    assert done.stderr == ""


def test_labels_print_in_any_locale(packed: Path) -> None:
    done = subprocess.run(
        [sys.executable, packed / "edge.py", "How big is it?"],
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().startswith("größe\n")


def test_a_terminal_without_text_is_told_what_to_give(packed: Path) -> None:
    terminal, other_end = os.openpty()
    done = subprocess.run(
        [sys.executable, packed / "edge.py"], stdin=other_end, capture_output=True, check=False
    )
    os.close(terminal)
    os.close(other_end)
    assert done.returncode == 2
    assert b"nothing to classify" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--batch-size", "0"], ["--threads", "-1"], ["--self-test", "text"], ["--batch-size", "two"]],
)
def test_a_wrong_command_line_is_refused(packed: Path, arguments: list[str]) -> None:
    done = run(packed, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_about_tells_where_the_model_comes_from(packed: Path) -> None:
    about = json.loads(run(packed, "--about").stdout)
    assert about["name"] == "tiny"
    assert about["licenses"] == {"data": "CC0-1.0", "weights": "Apache-2.0"}
    assert about["ledger"][0]["metrics"] == {"accuracy": 1.0}
    assert about["created_by"].startswith("potstill")


# --- The self-test ----------------------------------------------------------------------------


def test_a_sound_bundle_passes_with_one_line_per_check(packed: Path) -> None:
    done = run(packed, "--self-test")
    *lines, verdict = done.stdout.splitlines()
    assert (done.returncode, done.stderr, verdict) == (0, "", "Self-test passed.")
    assert all(line.startswith("ok ") for line in lines)
    for name in FILES:
        assert sum(line.startswith(f"ok   {name} as packed") for line in lines) == 1
    for text in GOLDEN:
        assert sum(repr(text) in line for line in lines) == 1


def test_every_damaged_file_is_listed(bundle: Path) -> None:
    (bundle / "README.md").write_text("other")
    (bundle / "tokenizer.json").unlink()
    done = run(bundle, "--self-test")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 1
    assert len(failed) == 2
    assert "README.md has changed" in failed[0]
    assert "tokenizer.json cannot be read" in failed[1]
    assert "Self-test FAILED" in done.stdout


def test_changed_weights_under_renewed_sums_fail(bundle: Path) -> None:
    save_model(bundle / "model.onnx", token_table() * np.float32(1.01))  # all labels stay
    change(bundle)
    done = run(bundle, "--self-test")
    assert done.returncode == 1
    assert "FAIL golden text 'Where is the moon?': place (was place), logits differ" in done.stdout
    assert "pip install -r" in done.stdout


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": LABELS[::-1]},
        {
            "processing": {
                "max_length": 4,
                "pad_token_id": 0,
                "inputs": ["input_ids", "attention_mask"],
            }
        },
    ],
    ids=["label order", "shorter texts"],
)
def test_other_processing_under_renewed_sums_fails(bundle: Path, fields: dict[str, Any]) -> None:
    change(bundle, **fields)
    checks = list(edge.checks(bundle))
    assert [check.passed for check in checks[: len(FILES)]] == [True] * len(FILES)
    assert not all(check.passed for check in checks)


@pytest.mark.parametrize(("shift", "sound"), [(0.5, True), (1.5, False)])
def test_golden_logits_may_be_off_by_the_tolerance(bundle: Path, shift: float, sound: bool) -> None:
    golden = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["golden"]
    golden["logits"][2][1] += shift * golden["tolerance"]
    change(bundle, golden=golden)
    checks = list(edge.checks(bundle))
    assert all(check.passed for check in checks) is sound
    assert ("Who was it?" in "".join(c.message for c in checks if not c.passed)) is not sound


def test_a_wrong_golden_label_fails(bundle: Path) -> None:
    golden = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["golden"]
    golden["labels"][0] = "person"
    change(bundle, golden=golden)
    assert not all(check.passed for check in edge.checks(bundle))


def test_a_model_that_answers_nan_is_not_believed(bundle: Path) -> None:
    save_model(bundle / "model.onnx", token_table() * np.float32("nan"))
    change(bundle)
    with pytest.raises(edge.BundleError, match="gave NaN"):
        edge.Model(bundle).predict(["Who is it?"])
    assert "gave NaN" in list(edge.checks(bundle))[-1].message


def test_a_model_that_does_not_load_says_so(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"not a model")
    change(bundle)
    done = run(bundle, "--self-test")
    assert done.returncode == 1
    assert "does not load" in done.stdout
    assert "onnxruntime" in done.stdout
    assert "Traceback" not in done.stderr


# --- On a machine that has nothing else -------------------------------------------------------


@pytest.mark.chain
def test_a_bundle_runs_where_only_its_requirements_are_installed(
    bundle: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    command = [python, "-m", "pip", "install", "--no-deps", "--retries", "1", "--timeout", "15"]
    installed = subprocess.run(
        [*command, "-r", bundle / "requirements.txt"], capture_output=True, text=True, check=False
    )
    if "connection" in installed.stderr.lower() or "timed out" in installed.stderr.lower():
        pytest.skip("the package index cannot be reached")
    assert installed.returncode == 0, installed.stderr

    def isolated(*arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [python, "-I", *arguments],
            input=stdin,
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    nothing_else = "from importlib.util import find_spec as f; print(f('torch'), f('export'))"
    assert isolated("-c", nothing_else).split() == ["None", "None"]
    assert "Self-test passed." in isolated(str(bundle / "edge.py"), "--self-test")
    assert isolated(str(bundle / "edge.py"), "How big is it?").startswith("größe\n")
    lines = isolated(str(bundle / "edge.py"), stdin="Who is it?\nWhere?\n").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["person", "place"]
