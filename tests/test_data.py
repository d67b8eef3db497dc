"""The look at the data: each planted fault is found and named, and clean data give no alarm."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_work import workspace

from recipes.data import main
from recipes.errors import RecipeError
from recipes.look.examples import Example, each_of, name_of
from recipes.look.findings import Finding, Look, Origin
from recipes.look.gathering import Gathered
from recipes.look.looking import look_at_recipe, look_at_rows
from recipes.look.prints import Prints
from recipes.reading import read_recipe
from recipes.reporting.data import data_part
from recipes.tasks.wording import measured

Make = Callable[[str], Path]
Row = tuple[str, str]
LABELS = ("calm", "angry", "lost")


def clean_rows(count: int = 600, seed: int = 0) -> list[Row]:
    """Return distinct texts of 8 to 14 words, four of them of the 40 that tell the label."""
    chance = random.Random(seed)
    shared = [
        f"{a}{b}" for a in ("ba", "do", "ki", "mu", "ra") for b in ("lor", "nin", "tas", "vek")
    ]
    own = {
        label: [f"{mark}{a}{b}" for a in ("pa", "re", "so", "ti") for b in map(str.strip, ENDS)]
        for label, mark in zip(LABELS, ("x", "y", "z"), strict=True)
    }
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = LABELS[len(rows) % len(LABELS)]
        words = chance.choices(own[label], k=4) + chance.choices(shared, k=chance.randint(4, 10))
        chance.shuffle(words)
        rows.setdefault(" ".join(words), label)
    return list(rows.items())


ENDS = ("bel", "cor", "dun", "fal", "gim", "hos", "jur", "kep", "lim", "nor")


def write(
    path: Path, rows: Sequence[Sequence[str]], names: Sequence[str] = ("text", "label")
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])
    return path


@pytest.fixture(scope="module")
def backbone(tiny_backbone: Make) -> str:
    return f"backbone.model={tiny_backbone('bert')}"


@pytest.fixture
def look(backbone: str) -> Callable[..., Look]:
    def call(train: Path, *overrides: str, **more: Any) -> Look:
        recipe = read_recipe(
            "lora_cls", [f"data.train={json.dumps(str(train))}", backbone, *overrides]
        )
        return look_at_recipe(recipe, offline=True, **more)

    return call


def found(look: Look, code: str) -> Finding:
    matching = [finding for finding in look.findings if finding.code == code]
    assert len(matching) == 1, [finding.code for finding in look.findings]
    return matching[0]


def alarms(look: Look) -> set[str]:
    # The tiny tokenizer knows none of these words.
    codes = {finding.code for finding in look.findings if finding.level != "note"}
    return codes - {"unknown-tokens"}


def test_clean_rows_give_no_alarm(tmp_path: Path, look: Callable[..., Look]) -> None:
    told = look(write(tmp_path / "clean.csv", clean_rows()))
    assert not alarms(told)
    assert not told.left_out
    assert told.facts["rows"] == "600 of clean.csv"
    assert told.facts["classes"] == "3"


def test_flipped_labels_are_named_by_their_lines(tmp_path: Path, look: Callable[..., Look]) -> None:
    rows = clean_rows()
    flipped = [17, 100, 230, 371, 444, 598]  # 1 %
    for row in flipped:
        text, label = rows[row]
        rows[row] = (text, LABELS[(LABELS.index(label) + 1) % 3])
    told = look(write(tmp_path / "flipped.csv", rows))
    finding = found(told, "label-errors")
    assert alarms(told) == {"label-errors"}
    # The header is line 1.
    assert sorted(number for _, number in finding.rows) == [row + 2 for row in flipped]
    assert "flipped.csv" in finding.where
    assert finding.does


def test_duplicates_across_splits_are_counted(tmp_path: Path, look: Callable[..., Look]) -> None:
    rows = clean_rows(700)
    train, test = rows[:500], rows[500:700]
    test[:10] = train[40:50]  # 5 %
    write(tmp_path / "test.csv", test)
    train_file = write(tmp_path / "train.csv", train)
    told = look(train_file, f"data.test={tmp_path / 'test.csv'}")
    finding = found(told, "overlap")
    assert alarms(told) == {"overlap"}
    assert "10 texts of the test data (5.00%) are in the train data" in finding.what
    assert finding.where == "lines 42, 43, 44, 45 and 46 of train.csv and 5 others"
    assert finding.level == "warning"
    refused = look(train_file, f"data.test={tmp_path / 'test.csv'}", "data.overlap=refuse")
    assert found(refused, "overlap").level == "error"


def test_near_duplicates_across_splits_are_told_apart_from_equal_ones(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    rows = clean_rows(700)
    train, test = rows[:500], rows[500:700]
    test[:10] = [(f"{text.upper()}!", label) for text, label in train[40:50]]
    write(tmp_path / "test.csv", test)
    told = look(write(tmp_path / "train.csv", train), f"data.test={tmp_path / 'test.csv'}")
    finding = found(told, "near-overlap")
    assert alarms(told) == {"near-overlap"}
    assert list(finding.rows) == [("test.csv", number) for number in range(2, 12)]


def test_contradicting_labels_and_duplicates(tmp_path: Path, look: Callable[..., Look]) -> None:
    rows = clean_rows(300)
    told = look(write(tmp_path / "twice.csv", [*rows, *rows[:6], (rows[9][0], "angry")]))
    assert "7 rows" in found(told, "duplicates").what
    finding = found(told, "contradictions")
    assert "1 text with more than one label, in 2 rows" in finding.what
    assert finding.where == "lines 11 and 308 of twice.csv"


def test_a_broken_encoding_is_named_by_line_and_byte(
    tmp_path: Path, look: Callable[..., Look], backbone: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = clean_rows(300)
    lines = ["text,label", *(f"{text},{label}" for text, label in rows)]
    data = [line.encode() for line in lines]
    data[7] = b"caf\xe9 " + data[7]
    path = tmp_path / "latin.csv"
    path.write_bytes(b"\n".join(data))
    told = look(path)
    finding = found(told, "encoding")
    offset = path.read_bytes().index(b"\xe9")
    assert finding.level == "error"
    assert f"byte 0xe9 at offset {offset:,}" in finding.what
    assert finding.where == "line 8 of latin.csv"
    assert "iconv" in finding.change
    assert alarms(told) == {"encoding"}  # it goes on, and finds nothing else
    assert main([str(path), backbone, "--offline"]) == 0
    assert "line 8 of latin.csv" in capsys.readouterr().out


def test_utf16_is_read_and_named(tmp_path: Path, look: Callable[..., Look]) -> None:
    path = tmp_path / "wide.csv"
    lines = ["text,label", *(f"{text},{label}" for text, label in clean_rows(300))]
    path.write_text("\n".join(lines), encoding="utf-16")
    told = look(path)
    assert "UTF-16" in found(told, "encoding").what
    assert told.facts["classes"] == "3"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("mojibake", "the cafÃ© is closed â€œtodayâ€\x9d"),
        ("replaced", "the caf\ufffd is closed"),
        ("control", "the bell \x07 rings"),
    ],
)
def test_damaged_characters(
    code: str, text: str, tmp_path: Path, look: Callable[..., Look]
) -> None:
    told = look(write(tmp_path / "odd.csv", [*clean_rows(300), (text, "calm")]))
    finding = found(told, code)
    assert finding.level == "warning"
    assert finding.where == "line 302 of odd.csv"


def test_characters_of_other_languages_are_no_damage(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    fine = ["naïve café, “quoted” déjà vu", "Привет, как дела", "日本語テキスト", "👩‍👩‍👧 سلام"]
    told = look(write(tmp_path / "many.csv", [*clean_rows(300), *((t, "calm") for t in fine)]))
    assert not alarms(told)


IDS: dict[str, Callable[[int, str], str]] = {
    "by class": lambda row, label: str(1000 * LABELS.index(label) + row),
    "with a prefix": lambda row, label: f"{label[0]}-{row:05d}",
    "the label by another name": lambda row, label: f"class {LABELS.index(label)}",
}


@pytest.mark.parametrize("id_of", IDS.values(), ids=IDS)
def test_a_leaking_id_column_is_named(
    id_of: Callable[[int, str], str], tmp_path: Path, look: Callable[..., Look]
) -> None:
    rows = [
        (id_of(row, label), f"{row * 7919 % 601}", text, label)
        for row, (text, label) in enumerate(clean_rows())
    ]
    told = look(write(tmp_path / "ids.csv", rows, ("key", "harmless", "text", "label")))
    finding = found(told, "leaking-column")
    assert alarms(told) == {"leaking-column"}
    assert '"key"' in finding.what
    assert '"harmless"' not in finding.what


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_noise_is_an_error_and_no_traceback(
    suffix: str, backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(random.Random(0).randbytes(20_000))
    status = main([str(path), backbone, "--offline"])
    told = capsys.readouterr()
    assert status == 3 or "error" in told.out
    assert told.out.replace("\n", "").isprintable()


def test_the_label_in_the_text(tmp_path: Path, look: Callable[..., Look]) -> None:
    rows = [(f"[{label}] {text}", label) for text, label in clean_rows()]
    told = look(write(tmp_path / "tagged.csv", rows))
    assert '"angry" in 100% of its texts' in found(told, "label-in-text").what
    assert "telling-word" in alarms(told)


def test_a_class_with_one_row_is_an_error_and_the_look_goes_on(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    rows = [*clean_rows(), ("a row by itself", "lonely")]
    rows[30:32] = rows[60:62]
    told = look(write(tmp_path / "rare.csv", rows))
    finding = found(told, "rare-class")
    assert finding.level == "error"
    assert '"lonely" (1)' in finding.what
    assert "duplicates" in {finding.code for finding in told.findings}
    assert not told.left_out


def unusable(rows: list[Row]) -> list[Row]:
    return [*rows[:5], ("  ", "calm"), *rows[5:], ("no label here", "")]


REFUSED: dict[str, tuple[str, Callable[[list[Row]], list[Sequence[str]]]]] = {
    "an empty text": ("unusable", lambda rows: [*rows, (" ", "calm")]),
    "no label": ("unusable", lambda rows: [*rows, ("a text", "")]),
    "one class": ("one-class", lambda rows: [(text, "calm") for text, _ in rows]),
    "a rare class": ("rare-class", lambda rows: [*rows, ("one", "lonely"), ("two", "lonely")]),
    "too few rows": ("fraction", lambda rows: rows[:9]),
    "ragged": ("width", lambda rows: [*rows, ("a", "b", "c")]),
    "numbers as texts": (
        "refused",
        lambda rows: [(f"{n}", label) for n, (_, label) in enumerate(rows)],
    ),
}


@pytest.mark.parametrize(("code", "spoil"), REFUSED.values(), ids=REFUSED)
def test_an_error_is_what_a_run_refuses(
    code: str, spoil: Callable[[list[Row]], list[Row]], tmp_path: Path, look: Callable[..., Look]
) -> None:
    path = write(tmp_path / "bad.csv", spoil(clean_rows(120)))
    assert found(look(path), code).level == "error"
    recipe = read_recipe("lora_cls", [f"data.train={path}"])
    from recipes.tasks import tasks

    with pytest.raises(RecipeError):
        tasks.get(recipe.task)().read(recipe.data, offline=True)


def test_rows_that_are_dropped_are_a_warning(tmp_path: Path, look: Callable[..., Look]) -> None:
    told = look(write(tmp_path / "some.csv", unusable(clean_rows())), "data.invalid_rows=drop")
    levels = {(f.level, f.where) for f in told.findings if f.code == "unusable"}
    assert levels == {("warning", "line 7 of some.csv"), ("warning", "line 603 of some.csv")}


def test_broken_quotes_cost_no_other_finding(tmp_path: Path, look: Callable[..., Look]) -> None:
    path = write(tmp_path / "quotes.csv", clean_rows(300))
    text = path.read_text(encoding="utf-8").split("\n")
    text.insert(10, '"a quote" and more,calm')
    path.write_text("\n".join(text), encoding="utf-8")
    told = look(path)
    assert found(told, "quotes").where == "line 11 of quotes.csv"
    assert told.facts["rows"] == "300 of quotes.csv"
    text[10:11] = ['"a quote over', 'two lines" and more,calm']
    path.write_text("\n".join(text), encoding="utf-8")
    (example,) = found(look(path), "quotes").examples
    assert example.endswith(", and 1 line with it")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_is_looked_at(
    suffix: str, tmp_path: Path, look: Callable[..., Look]
) -> None:
    import pandas as pd

    path = tmp_path / f"rows{suffix}"
    frame = pd.DataFrame([*clean_rows(300), ("bell \x07", "calm")], columns=["review", "stars"])
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    where = {".jsonl": "line 301", ".parquet": "row 301"}.get(suffix, "line 302")
    told = look(path)
    assert alarms(told) == {"control"}
    assert found(told, "control").where == f"{where} of rows{suffix}"


def test_texts_alone_are_looked_at(tmp_path: Path, look: Callable[..., Look]) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text, _ in clean_rows(60) + clean_rows(3)))
    told = look(path)
    assert alarms(told) == {"no-labels", "duplicates"}


@pytest.mark.parametrize(
    "values", [[["a"], ["a", "b"], []], [0.5 + n for n in range(40)]], ids=["lists", "numbers"]
)
def test_labels_that_texts_do_not_tell_are_not_judged(
    values: list[Any], tmp_path: Path, look: Callable[..., Look]
) -> None:
    path, chance = tmp_path / "other.jsonl", random.Random(0)
    rows = [
        json.dumps({"text": text, "label": chance.choice(values)}) for text, _ in clean_rows(120)
    ]
    path.write_text("\n".join([*rows, rows[0]]))
    told = look(path)
    assert any("label errors" in check for check in told.left_out)
    assert "label-errors" not in {finding.code for finding in told.findings}
    assert "1 row" in found(told, "duplicates").what


def test_names_of_labels() -> None:
    assert name_of(["b", "a"]) == name_of(["a", "b"]) == "a + b"
    assert each_of(["b", "a", "b", None]) == ("a", "b")
    assert each_of("a") == ("a",)
    assert name_of(2.0) == "2"
    assert name_of("") is None


def test_memory_of_prints_is_bounded_and_the_share_of_duplicates_holds() -> None:
    prints, origin = Prints(limit=2000), Origin("x", "train", "row")
    for number in range(40_000):
        prints.add(origin, number, f"text {number % 30_000}", "a")
    equals = prints.equals()
    assert len(equals.numbers) <= 2000
    assert equals.every > 1
    assert equals.again.mean() == pytest.approx(0.25, abs=0.04)


def test_the_sample_is_bounded_seeded_and_even() -> None:
    def draw() -> list[int]:
        gathered, origin = Gathered(100_000, limit=500), Origin("x", "train", "row")
        gathered.add(Example(origin, number, f"text {number}", "a") for number in range(20_000))
        gathered.finish()
        assert gathered.rows.total() == 20_000
        return [example.number for example in gathered.sample]

    drawn = draw()
    assert drawn == draw() == sorted(drawn)
    assert len(drawn) == 500
    assert sum(number < 10_000 for number in drawn) == pytest.approx(250, abs=60)


def test_a_sample_is_said_aloud_and_counts_hold_for_every_row(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    rows = clean_rows(900)
    told = look(write(tmp_path / "big.csv", [*rows, *rows[:90]]), sample=300)
    assert "300 of 990 rows" in told.facts["sample"]
    assert "90 rows" in found(told, "duplicates").what


WRONG = {
    "no such file": ["nowhere.csv"],
    "an unknown kind": ["table.xlsx"],
    "no such recipe": ["lora_clss"],
    "an unknown column": ["rows.csv", "data.text=txt"],
    "an unknown key": ["rows.csv", "data.txt=text"],
    "an empty file": ["empty.csv"],
    "a header alone": ["header.csv"],
    "no place for the answer": ["rows.csv", "--json", "no/such/folder.json"],
    "an unknown option": ["rows.csv", "--jsn", "x"],
    "a folder": ["."],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_message_and_status_3(
    arguments: list[str],
    backbone: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.csv", clean_rows(60))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "table.xlsx").touch()
    (tmp_path / "header.csv").write_text("text,label\n")
    assert main([*arguments, backbone, "--offline"]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1


def test_the_command_writes_all_as_json(
    backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "it's [one].csv", [*clean_rows(300), ("bell \x07", "calm")])
    assert main([str(path), backbone, "--offline", "--json", str(tmp_path / "look.json")]) == 0
    plain = json.loads((tmp_path / "look.json").read_text(encoding="utf-8"))
    assert "control" in [finding["code"] for finding in plain["findings"]]
    told = capsys.readouterr().out
    assert "line 302" in told
    assert told.replace("\n", "").isprintable()


def test_a_backbone_that_cannot_be_had_costs_its_check_alone(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    told = look(write(tmp_path / "rows.csv", clean_rows(300)), "backbone.model=hub:no/such")
    assert "backbone" in told.left_out["tokens"]
    assert told.facts["classes"] == "3"


def test_help_is_quick_and_shows_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "recipes.data", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "python -m recipes.data reviews.csv" in done.stdout
    for heavy in ("torch", "sklearn", "pandas"):
        assert f" {heavy}\n" not in done.stderr


def test_pairs_are_counted_as_they_are_read(tmp_path: Path, look: Callable[..., Look]) -> None:
    names = ("premise", "hypothesis", "label")
    rows = [("the cat " * 6, f"a dog is {'red ' * (n + 1)}", "yn"[n % 2]) for n in range(60)]
    told = look(write(tmp_path / "a.csv", rows, names), "data.max_length=32")
    assert "the longest 78;" in told.facts["tokens"]  # 12 + 3 + 60 and three special ones
    long = found(told, "long-texts")
    assert long.what.startswith("46 pairs")  # from 15 on: 30 and three
    assert "windows" not in long.change  # a run refuses them
    huge = [("cat " * 9000, "dog", "y"), *rows]
    assert "more than" in look(write(tmp_path / "b.csv", huge, names)).facts["tokens"]


def test_what_is_drawn_of_the_rows_is_refused_in_the_look_too(
    tmp_path: Path, look: Callable[..., Look]
) -> None:
    rows = [(f"text {n}", f"{n}.5") for n in range(60)]
    told = look(write(tmp_path / "a.csv", rows), "data.per_class=4")
    assert "data.per_class" in found(told, "refused").what


def test_numbers_are_told_as_closely_as_they_differ(tmp_path: Path, tiny_backbone: Make) -> None:
    rows = [(f"text {n}", str(1_000_000 + n)) for n in range(300)]
    path = write(tmp_path / "a.csv", rows)
    work = workspace(tmp_path / "run", tiny_backbone("bert"), f"data.train={path}")
    assert work.problem.told(work.rows.train.labels[0]) in {label for _, label in rows}
    told = look_at_rows(work).facts["numbers"]
    assert told == "from 1000000 to 1000299, half of them at most 1000149"
    assert [measured(number, 1e9) for number in (1.25, 3e9, 0)] == ["1.25", "3e+09", "0"]


def test_a_run_looks_at_its_rows_and_the_report_shows_it(
    tmp_path: Path, tiny_backbone: Make
) -> None:
    work = workspace(tmp_path / "run", tiny_backbone("bert"))
    told = look_at_rows(work)
    assert "the training split" in told.facts["rows"]
    assert data_part(work) is None
    folder = tmp_path / "run" / "baseline"
    folder.mkdir()
    hostile = Finding("x", "error", "<b>bad</b>\x07", "line 1", "no", "yes", ("<script>",))
    told.add([hostile])
    (folder / "data.json").write_text(json.dumps(told.plain()), encoding="utf-8")
    part = data_part(work)
    assert part is not None
    assert part["findings"][0]["what"] == "<b>bad</b>\ufffd"
    from recipes.reporting.rendering import render

    page = render("data.html.j2", data=part)
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
