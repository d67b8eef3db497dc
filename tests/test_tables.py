from __future__ import annotations

import codecs
import csv
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from export.rows import look_through
from recipes.errors import RecipeError
from recipes.look.findings import Origin
from recipes.look.reading import Troubles, read_windows
from recipes.tasks.columns import choose_columns, clean, label_name, label_names
from recipes.tasks.tables import read_table

HEADER = b"text,label\n"
ITEM = "this is a rather long sentence about item {},{}\n"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refused(file: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        read_table(file)
    return str(caught.value)


# Reading


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_delimited_values_stay_as_written(tmp_path: Path, name: str, mark: str) -> None:
    values = ["NA", "null", "None", "NaN", "007", "1e5", " true ", "1.0", 'he said "no"', "ß\u2028"]
    rows = "".join(f"{value}{mark}{value}\n" for value in values)
    frame = read_table(write(tmp_path, name, f"text{mark}label\n{rows}"))
    assert frame["text"].tolist() == values
    assert frame["label"].tolist() == values


def test_an_empty_field_is_missing_and_a_blank_line_is_no_row(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "a.csv", 'text,label\n\na,\n\n"",b\n'))
    assert frame["text"].tolist() == ["a", None]
    assert frame["label"].tolist() == [None, "b"]
    assert list(frame.index) == [3, 5]


def test_rows_are_numbered_by_the_line_they_start_in(tmp_path: Path) -> None:
    content = 'text,label\r\n"one\r\n\r\ntwo, three",a\r\nfour,b\r\n'
    frame = read_table(write(tmp_path, "a.csv", content))
    assert frame.index.name == "line"
    assert list(frame.index) == [2, 5]
    assert frame["text"].tolist() == ["one\r\n\r\ntwo, three", "four"]


def test_byte_order_mark_and_header_blanks_are_no_part_of_a_name(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "a.csv", b"\xef\xbb\xbf text, label ,\na,b,c\n"))
    assert list(frame.columns) == ["text", "label", "column 3"]


def test_a_long_field_is_read_and_the_csv_limit_left_alone(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    frame = read_table(write(tmp_path, "a.csv", HEADER + b"x" * 1_000_000 + b",a\n"))
    assert len(frame["text"].iloc[0]) == 1_000_000
    assert csv.field_size_limit() == limit


def test_a_text_file_is_a_text_a_line(tmp_path: Path) -> None:
    content = ' one, "two"\r\n\n \t\nthree\u2028four\x85 \n'
    frame = read_table(write(tmp_path, "a.TXT", content))
    assert list(frame.columns) == ["text"]
    assert frame["text"].tolist() == [' one, "two"', "three\u2028four\x85 "]
    assert list(frame.index) == [1, 4]
    assert "is empty" in refused(write(tmp_path, "b.txt", "\n \n"))
    assert "line 2 of" in refused(write(tmp_path, "c.txt", b"a\nb\xe9\n")).lower()


def test_json_lines_keep_their_types_and_lines(tmp_path: Path) -> None:
    content = '{"text": "a\u2028b", "label": 1}\n\n{"text": "c\\u00e9"}\r\n'
    frame = read_table(write(tmp_path, "a.JSONL", content))
    assert frame["text"].tolist() == ["a\u2028b", "cé"]
    assert frame["label"].tolist() == [1, None]
    assert list(frame.index) == [1, 3]


def test_parquet_keeps_integers_and_counts_rows(tmp_path: Path) -> None:
    data = {"text": ["a", None, "c"], "label": pd.array([2**60 + 1, 1, None], dtype="Int64")}
    pd.DataFrame(data, index=[7, 8, 9]).to_parquet(tmp_path / "a.parquet")
    frame = read_table(tmp_path / "a.parquet")
    assert frame.index.name == "row"
    assert list(frame.index) == [1, 2, 3]
    assert [label_name(value) for value in frame["label"][:2]] == [str(2**60 + 1), "1"]


def test_parquet_strings_must_be_utf8(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 1], dtype="int32").tobytes())
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff")])
    parquet.write_table(pa.table({"text": broken, "label": ["a"]}), tmp_path / "a.parquet")
    assert "UTF8" in refused(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xef\xbb\xbf\n", "is empty"),
        ("a.parquet", b"", "is empty"),
        ("a.csv", HEADER, r"columns \(\"text\" and \"label\"\) but no rows"),
        ("a.jsonl", b"{}\n", "no rows"),
        ("a.csv", HEADER + b"a,b\ncaf\xe9,b\n", "Line 3 of .*byte 0xe9 at offset 18.*iconv"),
        ("a.csv", b"\xef\xbb\xbf" + HEADER + b"\xe9,b\n", "Line 2 of .* at offset 14"),
        ("a.csv", (HEADER + b"a,b\n").decode().encode("utf-16"), "is UTF-16,.*iconv -f utf-16 "),
        ("a.csv", (HEADER * 9).decode().encode("utf-16-be"), "is UTF-16BE"),
        ("a.csv", (HEADER * 9).decode().encode("utf-16-le"), "is UTF-16LE"),
        ("a.csv", (HEADER + b"a,b\n").decode().encode("utf-32"), "is UTF-32"),
        ("a.csv", HEADER + b"nul\0 here,b\n", "Line 2 of .* NUL byte at offset 14"),
        ("a.csv", b"text,label,text\na,b,c\n", 'more than one column named "text"'),
        ("a.csv", HEADER + b"a,b\nHi, you,b\n\nc\n", "line 3 has 3 and line 5 has 1"),
        ("a.csv", HEADER + b'a,b\n"c,d\ne,f\n', "row at line 3 .* never closes"),
        ("a.csv", HEADER + b'a,b\n"Hi" he said,d\n', "row at line 3 .* write a quote twice"),
        ("a.csv", b"text|label\na|b\n", "bars"),
        ("a.tsv", b"text;label\na;b\n", "semicolons"),
        ("a.csv", b"text\tlabel\na\tb\n", r"tabs.*Rename the file to \.tsv"),
        ("a.tsv", b"text,label\na,b\n", r"commas.*Rename the file to \.csv"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "Line 2 of .* column"),
        ("a.jsonl", b'[{"text": "a"}]\n', "Line 1 of .* array.*jq"),
        ("a.jsonl", b'[\n{"text": "a"},\n]\n', "Line 1 of .*jq"),
        ("a.jsonl", b'{"text": "a"}\n"b"\n', "Line 2 of .* no JSON object"),
        ("a.jsonl", b"[" * 100_000, "Line 1 of .* is not JSON"),
        ("a.jsonl", b'{"text": "\\ud83d!"}\n', r"Line 1 of .* half a character: \\ud83d"),
        ("a.parquet", b"text,label\na,b\n", "cannot be read as Parquet"),
        ("a b.json", b"[]", r"must end in \.csv, \.tsv.*'.*a b\.json' > '.*a b\.jsonl'"),
        ("a.xlsx", b"PK", "Save the sheet as CSV"),
        ("a", b"a,b", r"must end in \.csv"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    message = refused(write(tmp_path, name, content))
    assert re.search(said, message)
    assert str(tmp_path) in message


def test_a_path_that_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "reviews.csv", HEADER + b"a,b\n")
    assert 'Did you mean "reviews.csv"?' in refused(tmp_path / "review.tsv")
    assert 'Tables there: "reviews.csv"' in refused(tmp_path / "zzz.csv")
    assert "nor does its folder" in refused(tmp_path / "nowhere" / "a.csv")
    assert 'is a folder; name a file. Tables in it: "reviews.csv"' in refused(tmp_path)

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "reviews.csv cannot be read: Permission denied" in refused(file)


# Choosing columns


def test_semicolons_of_a_spreadsheet_are_seen_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(codecs.BOM_UTF8 + b'text;label\r\n"yes; well, so";1,5\r\nno;2\r\n')
    rows = [{"text": "yes; well, so", "label": "1,5"}, {"text": "no", "label": "2"}]
    assert read_table(path).to_dict("records") == rows
    troubles = Troubles()
    windows = read_windows(path, Origin("a.csv", "train", "line"), troubles, lambda _: None)
    assert [row for window in windows for _, row in window] == rows
    assert not troubles.found
    assert [row for window in look_through(path, "text").windows() for row in window] == rows


def test_what_parts_fields_is_seen_in_the_header_outside_of_quotes(tmp_path: Path) -> None:
    for content in ('\ntext;"label, final"\nno;a\n', "text;label\nno;a\n"):
        path = write(tmp_path, "b.csv", content)
        assert read_table(path).iloc[0].tolist() == ["no", "a"]
    assert read_table(write(tmp_path, "c.csv", '"a;b",label\nno,a\n')).columns[0] == "a;b"


def table(tmp_path: Path, content: str) -> pd.DataFrame:
    return read_table(write(tmp_path, "a.csv", content))


SENTENCES = "".join(ITEM.format(number, "ab"[number % 2]) for number in range(10))


@pytest.mark.parametrize(
    ("content", "asked", "found"),
    [
        ("Review,n,Stars\nx,1,2\n", (None, None), ("Review", "Stars")),
        ("title,text,label,topic\na,b,c,d\n", (None, None), ("text", "label")),
        ("title,text,label\na,b,c\n", ("title", None), ("title", "label")),
        ("text,label\na,b\n", ("label", "text"), ("label", "text")),
        ("p,q\n" + SENTENCES, (None, None), ("p", "q")),
        ("p,q\n" + SENTENCES, ("p", None), ("p", "q")),
        ("p,q\n" + SENTENCES, (None, "q"), ("p", "q")),
    ],
)
def test_obvious_columns_are_found(
    tmp_path: Path, content: str, asked: tuple[Any, Any], found: tuple[str, str]
) -> None:
    text, label, notes = choose_columns(table(tmp_path, content), *asked, "a.csv")
    assert (text, label) == found
    guessed = [name for name, given in zip(found, asked, strict=True) if given is None]
    assert len(notes) == bool(guessed)
    assert all(f'"{name}"' in notes[0] for name in guessed)


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        ("text,label\na,b\n", ("txt", None), 'no column "txt".*data.text.*mean "text".*"label"'),
        ("text,label\na,b\n", (None, "Label"), 'data.label names. Did you mean "label"'),
        ("text,label\na,b\n", ("text", "text"), "both name"),
        ("text\na\n", (None, None), "only the column"),
        ("id,q,a\n1,2,3\n", (None, None), "text and which the label.*data.text=.*data.label="),
        ("review,topic,class\na,b,c\n", (None, None), "holds the label.*data.label=NAME"),
        ("text,id\n" + "a,1\nb,2\nc,3\n", (None, None), "holds the label"),
        (SENTENCES, (None, None), "seems to have no header"),
    ],
)
def test_unsafe_columns_are_refused(
    tmp_path: Path, content: str, asked: tuple[Any, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        choose_columns(table(tmp_path, content), *asked, "a.csv")


# Cleaning

MIXED = 'text,label\nfine,a\n"  ",b\n,c\nfoo,\n{long},d\nbar,NaN\nbaz, NA \nqux,None\n'


def test_unusable_rows_are_refused_by_line(tmp_path: Path) -> None:
    frame = table(tmp_path, MIXED.format(long="x" * 1_000_000))
    with pytest.raises(RecipeError) as caught:
        clean(frame, "text", "label", "a.csv", "refuse", 100_000)
    message = str(caught.value)
    assert "2 with an empty text (lines 3 and 4)" in message
    assert "2 without a label (lines 5 and 7)" in message
    assert "1 with a text of more than 100,000 characters (line 6)" in message
    assert "data.invalid_rows=drop" in message
    assert "data.max_characters=1000000" in message
    assert len(message) < 1000


def test_unusable_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    frame = table(tmp_path, MIXED.format(long="x" * 101))
    rows, notes = clean(frame, "text", "label", "a.csv", "drop", 100)
    assert rows.to_dict("split") == {
        "index": [2, 8, 9],
        "columns": ["text", "label"],
        "data": [["fine", "a"], ["baz", "NA"], ["qux", "None"]],
    }
    assert "Left out 5 of the 8 rows of a.csv" in notes[0]
    assert '"NA" (1 row) and "None" (1 row)' in notes[1]
    same, _ = clean(frame.iloc[[0, 4]], "text", "label", "a.csv", "refuse", 101)
    assert len(same) == 2


@pytest.mark.parametrize("invalid_rows", ["refuse", "drop"])
@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        (["1", "2.5", None], ["a", "b", "c"], "holds numbers .*data.text"),
        ([1, 2], ["a", "b"], "holds numbers"),
        (["a", "b"], [["x"], ["y"]], "lists or objects, such as \"\\['x'\\]\".*data.label"),
        (["a", "b"], ["x", {"y": 1}], r"row 1\)"),
    ],
)
def test_wrong_columns_are_refused_in_any_case(
    texts: list[Any], labels: list[Any], said: str, invalid_rows: Any
) -> None:
    frame = pd.DataFrame({"t": texts, "l": labels}, dtype=object)
    with pytest.raises(RecipeError, match=said):
        clean(frame, "t", "l", "a.jsonl", invalid_rows, 100)


@pytest.mark.parametrize("invalid_rows", ["refuse", "drop"])
def test_no_usable_row_is_refused(invalid_rows: Any) -> None:
    frame = pd.DataFrame({"t": ["a", "b"], "l": [None, " "]})
    with pytest.raises(RecipeError, match=r"No row of .* 2 without a label .*data\.label=l"):
        clean(frame, "t", "l", "a.csv", invalid_rows, 100)


def test_a_text_among_numbers_is_an_unusable_row() -> None:
    frame = pd.DataFrame({"t": ["a", 3], "l": ["x", "y"]}, dtype=object)
    with pytest.raises(RecipeError, match=r"1 whose text is no string \(row 1\)"):
        clean(frame, "t", "l", "a.jsonl", "refuse", 100)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (" a b ", "a b"), ("007", "007"), (1, "1"), (1.0, "1"), (-1.5, "-1.5"), (True, "true"),
        (False, "false"), (None, None), (float("nan"), None), (" ", None), ("NaN", None),
        ("None", "None"), (2**60 + 1, str(2**60 + 1)),
    ],
)  # fmt: skip
def test_one_rule_names_labels_of_every_type(value: object, name: str | None) -> None:
    assert label_name(value) == name


def test_label_order_is_by_value_for_numbers_only() -> None:
    assert label_names(pd.Series(["10", "9", "-1.5", "9"])) == ["-1.5", "9", "10"]
    assert label_names(pd.Series(["10", "9", "b"])) == ["10", "9", "b"]


def test_a_hundred_thousand_rows_take_about_a_second(tmp_path: Path) -> None:
    lines = "".join(ITEM.format(number, number % 5) for number in range(100_000))
    file = write(tmp_path, "a.csv", "text,label\n" + lines)
    start = time.process_time()
    rows, _ = clean(read_table(file), "text", "label", "a.csv", "refuse", 1000)
    # Processor time, about 0.5 s: other tests may run beside it.
    assert time.process_time() - start < 5
    assert len(rows) == 100_000
