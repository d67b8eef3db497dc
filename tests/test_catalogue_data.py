"""Readers of catalogue data: traps of the files in miniature, counts of the real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.assets import catalogue, resolve, rows
from recipes.assets.catalogue import parse
from recipes.assets.readers import READERS

PIN = "0" * 64


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def pairs(frame) -> list[tuple[str, str]]:
    return list(zip(frame["text"], frame["label"], strict=True))


def test_every_data_entry_has_a_reader_and_every_reader_an_entry():
    used = {entry.reader for entry in catalogue().values() if entry.kind == "data"}
    assert used == set(READERS)


def test_entries_that_share_a_wheel_share_the_download():
    names = ["trec", "trec-fine", "movie-sentiment", "sms-spam"]
    assert len({catalogue()[name].download.pin for name in names}) == 1
    assert len({catalogue()[name].fingerprint for name in names}) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": ["absent.txt"]}, "pins no file"),
        ({"reader": None}, "data needs a reader"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_catalogue_that_contradicts_itself_is_refused(change, message):
    import yaml

    file = {"path": "a.txt", "size": 1, "sha256": PIN}
    wheel = {"package": "p", "version": "1.0", "size": 1, "sha256": PIN}
    words = {"description": "d", "license": "unknown", "source": "s"}
    entry = {"kind": "data", **words, "download": "p", "reader": "trec", **change}
    tree = {
        "entries": {"e": entry},
        "downloads": {"p": {"wheels": [wheel], "files": {"a.txt": file}}},
    }
    with pytest.raises(ValueError, match=message):
        parse(yaml.safe_dump(tree))


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "a/b.txt", ".a"])
def test_a_file_name_cannot_leave_the_cache_folder(name):
    from recipes.assets.catalogue import Download, PinnedFile, Wheel

    wheel = Wheel(package="p", version="1.0", size=1, sha256=PIN)
    with pytest.raises(ValueError, match="pattern"):
        Download(name="p", wheels=(wheel,), files={name: PinnedFile(path="a", size=1, sha256=PIN)})


def test_trec_is_the_end_of_its_file(tmp_path):
    early = "LOC:city An early copy ?\n" * 10
    late = "".join(f"NUM:date Question {i} ?\n" for i in range(5451)) + "HUM:ind Who\x85 am I ?\n"
    file = write(tmp_path / "q.txt", early + late)
    coarse, fine = READERS["trec"](file)["all"], READERS["trec_fine"](file)["all"]
    assert len(coarse) == len(fine) == 5452
    assert pairs(coarse)[0] == ("Question 0 ?", "NUM")
    assert pairs(fine)[-1] == ("Who\x85 am I ?", "HUM:ind")


def test_movie_sentences_near_zero_are_left_out(tmp_path):
    lines = ["id\tsentiment\ttext", "1\t0.5\tgood", "2\t0.49\tso-so", "3\t-0.5\tbad", '4\t3\t"!"']
    file = write(tmp_path / "m.txt", "\r\n".join(lines))
    assert pairs(READERS["movie_sentiment"](file)["all"]) == [
        ("good", "positive"),
        ("bad", "negative"),
        ('"!"', "positive"),
    ]


def test_text_messages_swallowed_by_a_quotation_mark_are_found(tmp_path):
    text = ',spam,text\n0,0,"one\nham\ttwo\nspam\tthree, ""now"""\n1,1,four\n'
    assert pairs(READERS["sms_spam"](write(tmp_path / "s.csv", text))["all"]) == [
        ("one", "ham"),
        ("two", "ham"),
        ('three, "now"', "spam"),
        ("four", "spam"),
    ]


def test_airline_tweets_are_told_by_mentions_and_contradictions_left_out(tmp_path):
    records = [
        "negative,1,@united again",
        "negative,1,self-driving cars are united in failure",
        "positive,1,@JetBlue \u201cyes\u201d",
        "neutral,1,@AmericanAir hm",
        "negative,1,@AmericanAir hm",
        "negative,1,@united again",
    ]
    text = "\r\n".join(["sentiment,confidence,text", *records, ""])
    file = write(tmp_path / "a.csv", text, encoding="mac_roman")
    assert pairs(READERS["airline_tweets"](file)["all"]) == [
        ("@united again", "negative"),
        ("@JetBlue \u201cyes\u201d", "positive"),
        ("@united again", "negative"),
    ]


def test_newsgroups_skip_the_three_header_rows(tmp_path):
    header = "Category\tText\nd\tstring\nclass\t\n"
    train = write(tmp_path / "train.tab", header + "\nsci.med\ta b\n")
    test = write(tmp_path / "test.tab", header + "\nsci.med\tc\n\n")
    frames = READERS["newsgroups"](train, test)
    assert {name: pairs(frame) for name, frame in frames.items()} == {
        "train": [("a b", "sci.med")],
        "test": [("c", "sci.med")],
    }


def test_plain_text_holds_every_line_once_and_no_label(tmp_path):
    dialog = "How are you, Bob?\tI am fine.\nI am fine.\tNo.\n\tSo be it, then \x85 \n"
    snippets = "id\tsentiment\ttext\r\n1\t0.5\tI am fine.\r\n2\t-3\ta\tquiet little film\r\n"
    files = [write(tmp_path / "d.txt", dialog), write(tmp_path / "s.txt", snippets)]
    frame = READERS["plain_text"](*files)["all"]
    assert list(frame.columns) == ["text"]
    assert frame["text"].tolist() == [
        "How are you, Bob?",
        "I am fine.",
        "So be it, then",
        "a\tquiet little film",
    ]


@pytest.mark.network
def test_the_real_plain_text_is_what_was_counted():
    texts = rows(resolve("plain-text", "data"))["all"]["text"]
    assert texts.is_unique
    assert 100_000 < len(texts) < 120_000
    assert texts.str.split().str.len().min() == 3


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "split", "count", "unique", "labels"),
    [
        ("trec", "all", 5452, 5381, {"ENTY": 1245, "HUM": 1215, "ABBR": 86}),
        ("trec-fine", "all", 5452, 5381, {"HUM:ind": 956, "LOC:other": 455}),
        ("movie-sentiment", "all", 10072, 10070, {"positive": 4995, "negative": 5075}),
        ("sms-spam", "all", 5574, 5171, {"ham": 4518, "spam": 653}),
        ("airline-tweets", "all", 14581, 14400, {"negative": 9077, "neutral": 3046}),
        ("20newsgroups", "train", 11293, 11273, {"rec.sport.hockey": 600}),
        ("20newsgroups", "test", 7528, 7521, {"rec.sport.hockey": 399}),
    ],
)
def test_the_real_files_hold_what_was_counted(name, split, count, unique, labels):
    frame = rows(resolve(name, "data"))[split]
    assert list(frame.columns) == ["text", "label"]
    assert not frame.isna().any().any()
    assert len(frame) == count
    distinct = frame.drop_duplicates("text")
    assert len(distinct) == unique
    counts = distinct["label"].value_counts()
    assert {label: counts[label] for label in labels} == labels


@pytest.mark.network
def test_the_real_text_messages_are_all_there():
    counts = rows(resolve("sms-spam", "data"))["all"]["label"].value_counts()
    assert dict(counts) == {"ham": 4827, "spam": 747}


@pytest.mark.network
def test_the_real_backbone_has_what_transformers_needs():
    from recipes.assets.local import check_model

    asset = resolve("minilm-l6", "model")
    check_model(asset.path, asset.uri)
