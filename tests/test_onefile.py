"""One ONNX file with the tokenizer inside, and the proof that it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_bundle import GOLDEN, LABELS, MAX_LENGTH, SPECIAL, WORDS, make_bundle, make_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers

from export import convert, edge, graph_tokenizer, onefile
from export.hard_texts import HARD, hard_texts
from export.nodes import Nodes

#: Most of what differs between tokenizers lies here; all of Unicode takes seconds for each test.
FEW = [
    *range(0x3100),
    *range(0x5000, 0x7000),
    *range(0xAC00, 0xAD00),
    *range(0xE000, 0xE010),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(
        tmp_path_factory.mktemp("packed") / "bundle",
        temperature=2.5,
        offsets={"größe": 0.8, "person": -0.3},
        thresholds={"place": 0.7},
    )


@pytest.fixture
def few_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_tokenizer, "_CODE_POINTS", FEW)


def _convert(bundle: Path, out: Path, *arguments: str) -> int:
    return convert.main([str(bundle), "--to", "onefile", "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def written(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, made with all of Unicode."""
    folder = tmp_path_factory.mktemp("onefile")
    (folder / "lines.txt").write_text("where is the moons?\nwho\n", encoding="utf-8")
    out = folder / "out"
    assert _convert(bundle, out, "--texts", str(folder / "lines.txt")) == 0
    return out


def test_it_answers_as_the_bundle_does(bundle: Path, written: Path) -> None:
    model = edge.Model(bundle)
    session = onefile.open_texts(str(written / "model.onnx"), model)
    assert [node.name for node in session.get_inputs()] == ["text"]
    texts = [*GOLDEN, *hard_texts(WORDS, SPECIAL, 200)]
    for batch in ([""], ["", " "], texts[:1], texts):
        labels, rows = session.run(
            ["label", "probabilities"], {"text": np.array(batch, dtype=object)}
        )
        expected = model.predict(batch)
        assert labels.tolist() == [each.label or "" for each in expected]
        given = [list(each.probabilities.values()) for each in expected]
        np.testing.assert_allclose(rows, given, atol=1e-7)
    assert "" in labels.tolist()  # a threshold was at work


def test_the_file_says_what_it_is(bundle: Path, written: Path) -> None:
    model = onnx.load(written / "model.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["bundle_sha256"] == edge.read_manifest(bundle)["sha256"]
    assert about["labels"] == '["place", "größe", "person"]'
    notes = (written / "README.md").read_text(encoding="utf-8")
    assert "texts, and are the same" in notes
    assert {path.name for path in written.iterdir()} == {
        "README.md", "model.onnx", "requirements.txt",
    }  # fmt: skip


def test_the_example_of_its_readme_runs(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = (written / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(written)
    names: dict[str, Any] = {}
    exec(notes.split("```python\n")[1].split("```")[0], names)
    assert (len(names["label"]), names["probabilities"].shape) == (2, (2, len(LABELS)))


def _cased(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)


def _accents(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)


def _no_cjk(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.BertNormalizer(handle_chinese_chars=False)


def _more_tokens(tokenizer: Tokenizer) -> None:
    """As MPNet has them: one that is looked for in the normalized text, one inside another."""
    tokenizer.add_tokens([AddedToken("<Ünk>", normalized=True), "[CLS][SEP]", "a.b*"])


@pytest.mark.parametrize("change", [_cased, _accents, _no_cjk, _more_tokens])
@pytest.mark.usefixtures("few_characters")
def test_tokenizers_of_berts_kind_are_equal(
    tmp_path: Path, change: Callable[[Tokenizer], None]
) -> None:
    tokenizer = make_tokenizer()
    change(tokenizer)
    model = edge.Model(make_bundle(tmp_path / "bundle", tokenizer=tokenizer))
    nodes = Nodes("text/")
    graph_tokenizer.add_tokenizer(nodes, tokenizer, model.manifest["processing"], "text")
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = [
        text
        for text in hard_texts([*WORDS, "漢", "É", "é", "["], added)
        if all(ord(character) in FEW for character in text)
    ]
    assert len(texts) > 500
    assert onefile.differences(model, nodes, texts) == []


@pytest.mark.usefixtures("few_characters")
def test_other_tokens_are_shown_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A word that has to stand alone is nothing that the graph knows of."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("moo", single_word=True)])
    bundle = make_bundle(tmp_path / "bundle", tokenizer=tokenizer)
    out, lines = tmp_path / "out", tmp_path / "lines.txt"
    lines.write_text("the moo\nthe moon\n", encoding="utf-8")
    assert _convert(bundle, out, "--texts", str(lines)) == 3
    said = capsys.readouterr().err.splitlines()
    assert "each of a million characters: seconds, or minutes" in said[0]
    assert "get other tokens there, and so other answers" in said[1]
    assert said[2:4] == ["  'the moon'", "    tokenizer: ['[CLS]', 'the', 'moon', '[SEP]']"]
    assert said[4].startswith("    graph:     ['[CLS]', 'the', 'moo', '[UNK]', '[SEP]', '[PAD]'")
    assert not out.exists()


def test_another_kind_of_tokenizer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    bundle = make_bundle(tmp_path / "bundle", tokenizer=tokenizer)
    assert _convert(bundle, tmp_path / "out") == 3
    assert "The tokenizer's pre_tokenizer is ByteLevel, and only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "lines.txt cannot be read or written"), (b"\xff", "lines.txt is not UTF-8 (byte 0)")],
)
def test_texts_that_cannot_be_read_are_one_line(
    bundle: Path,
    tmp_path: Path,
    content: bytes | None,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = tmp_path / "lines.txt"
    if content:
        lines.write_bytes(content)
    assert _convert(bundle, tmp_path / "out", "--texts", str(lines)) == 3
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_a_missing_package_is_named(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    assert _convert(bundle, tmp_path / "out") == 3
    assert "pip install 'potstill[onefile]'" in capsys.readouterr().err


def test_hard_texts_are_always_the_same() -> None:
    texts = hard_texts(WORDS, SPECIAL, 50)
    assert texts == hard_texts(WORDS, SPECIAL, 50)
    assert set(texts) > {text for kind in HARD.values() for text in kind}
    assert any("[CLS]" in text for text in texts)
    assert max(map(len, texts)) > 100 * MAX_LENGTH
    assert "\n".join(texts).encode()  # no text that UTF-8 cannot say
