"""Score a table of any size with a bundle: every row, a label and its probabilities.

python -m export.predict BUNDLE --input rows.csv --output scored.csv
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from export import edge, parts, rows
from export.console import DONE, Parser, add_public_key, bundle_folder, count, guarded
from export.errors import ExportError

_PIPE = "-"
#: What the first new column holds; text, if the problem type is not among these.
_KINDS = {"multi_label": "list", "regression": "double"}
_DIGITS = 6  # of a probability: as many as edge.py prints
_EPILOG = """\
Files end in .csv, .tsv, .jsonl or .parquet, and the two may differ. "-" is standard input or output
as JSON lines. Standard input needs --output -, and is answered after every 8,192 rows and at its
end; what goes to standard output cannot be gone on with.

The output has every row and column of the input, in its order, and besides them label and
probability_NAME for each label; a model that gives several labels gives a list, one that gives
numbers only a value. A row whose text is missing or blank has neither label nor
probabilities; a row whose best label is under its threshold has no label. A text longer than the
model takes at once is read as the bundle says: cut on the right, head and tail, or in windows.

The input is looked through first, so that a broken line is told before any is scored. Finished
parts are kept in OUTPUT.partial. After a crash the same command goes on with them, and writes what
an unbroken run writes; --threads may differ. OUTPUT itself appears when all is done.

exit status: 0 scored; 1 the bundle was refused; 3 the command, a file or the data is wrong; 130
stopped
"""


@dataclass
class Tally:
    """What a run has done so far.

    Attributes:
        rows: Rows that it went through.
        blank: How many of them have no text, or no pair of them.
        kept: How many of them were scored by an earlier run that was cut off.
        pairs: Are pairs asked for?
    """

    rows: int = 0
    blank: int = 0
    kept: int = 0
    pairs: bool = False
    _start: float = field(default_factory=time.monotonic)

    def add(self, texts: Sequence[str | None]) -> None:
        """Count the texts of a window."""
        self.rows += len(texts)
        self.blank += sum(not _is_given(text, self.pairs) for text in texts)

    def __str__(self) -> str:
        scored = self.rows - self.kept
        seconds = max(time.monotonic() - self._start, 1e-3)
        told = f"{scored:,} rows scored in {seconds:.1f} s, {scored / seconds:,.0f} a second"
        if self.kept:
            told += f"; {self.kept:,} were scored before"
        if self.blank:
            what = "pair of texts" if self.pairs else "text"
            told += f"; {self.blank:,} have no {what} and so no label"
        return told


class Scorer:
    """A bundle that answers windows of a table.

    Args:
        model: The bundle.
        text: The column with the texts.
        prefix: Put before the names of the new columns.
        batch_size: Texts that are answered together.
        pair: The column with the second texts, for a model of pairs; None if the texts are pairs
            already, with a tab between them.

    Attributes:
        asked: The columns with texts: one, or the two of pairs.
        columns: The new columns: the label, or a list of labels, then a probability for each label;
            of a model that gives numbers only the value.

    Raises:
        ExportError: There is a column of second texts, and the model takes single ones.
    """

    def __init__(
        self, model: edge.Model, text: str, prefix: str, batch_size: int, pair: str | None = None
    ) -> None:
        if pair is not None and not model.pairs:
            raise ExportError("The bundle's model takes single texts: leave out --pair.")
        self.model, self.text, self.prefix, self.batch_size = model, text, prefix, batch_size
        self.pair, self.asked = pair, [text] if pair is None else [text, pair]
        numbers = model.problem == "regression"
        shares = [] if numbers else [f"{prefix}probability_{x}" for x in model.labels]
        self.columns = [f"{prefix}value" if numbers else f"{prefix}label", *shares]
        self.kind = _KINDS.get(model.problem, "string")

    def texts(self, window: rows.Window) -> list[str | None]:
        """Return the texts of a window, those of a pair as one; None where one is missing."""
        texts = rows.texts_of(window, self.text)
        if self.pair is None:
            return texts
        return [
            edge.PAIR.join(part.replace(edge.PAIR, " ") for part in (first, second))
            if first is not None and second is not None
            else None
            for first, second in zip(texts, rows.texts_of(window, self.pair), strict=True)
        ]

    def check_names(self, names: Iterable[str], where: str) -> None:
        """Refuse a table that has one of the new columns already.

        Raises:
            ExportError: It has.
        """
        if taken := sorted(set(names) & set(self.columns)):
            raise ExportError(
                f"{where} has the column {taken[0]!r} already. Name the new ones otherwise, for "
                "example --prefix predicted_."
            )

    def answer(
        self, texts: Sequence[str | None], progress: Callable[[int], object]
    ) -> dict[str, list[Any]]:
        """Return the new columns for N texts, each a list of N; None where there is no answer.

        Texts of like length share a batch, so that little padding is computed. An int8 model scales
        a whole batch alike: the same window and batch size always give the same answers.

        Args:
            texts: None or blank where there is nothing to classify.
            progress: Told how many more rows are answered.
        """
        found: dict[str, list[Any]] = {name: [None] * len(texts) for name in self.columns}
        encode = self.model.encode
        pairs = self.model.pairs
        encoded = {row: encode(text) for row, text in enumerate(texts) if _is_given(text, pairs)}
        progress(len(texts) - len(encoded))
        # The longest first: memory is highest at the start, not after hours.
        order = sorted(encoded, key=lambda row: -encoded[row].shape[1])
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            scores = self.model.score([encoded[row] for row in batch])
            for row, (label, probabilities) in zip(batch, self.model.decide(scores), strict=True):
                values = [label, *(round(value, _DIGITS) for value in probabilities.values())]
                for column, value in zip(found.values(), values, strict=True):
                    column[row] = value
            progress(len(batch))
        return found


def predict(scorer: Scorer, source: Path, target: Path, *, overwrite: bool = False) -> Tally:
    """Score a file into a file; a run that was cut off goes on with the parts that it finished.

    Args:
        scorer: What answers.
        source: A CSV, TSV, JSON-lines or Parquet file.
        target: Likewise; it appears when all rows are scored.
        overwrite: Replace a file that is there, and drop the parts of another run.

    Raises:
        ExportError: A file is missing, broken or there already; a column is missing or there
            already; there are parts of another bundle, input or setting; another process is at it.
    """
    if target.resolve() == source.resolve():
        raise ExportError(f"The output {target} is the input. Name another output.")
    if target.is_dir():
        raise ExportError(
            f"The output {target} is a folder. Name a file, such as {target}/out.csv."
        )
    suffix = rows.suffix_of(target)
    if not parts.folder_of(target).exists():
        _check_free(target, overwrite)
    found = look_through(scorer, source)
    identity = _identity(scorer, found)
    if parts.finish(target, identity):
        return Tally(found.rows, kept=found.rows)
    _check_free(target, overwrite)
    files, tally = [], Tally(pairs=scorer.model.pairs)
    with parts.partial(target, identity, overwrite) as folder, _progress(found.rows) as bar:
        for window in found.windows():
            texts = scorer.texts(window)
            # Named by what it holds: where windows end otherwise, it is not taken for another.
            files.append(folder / f"part-{tally.rows:012}-{len(texts)}")
            if files[-1].exists():
                tally.kept += len(texts)
                bar.initial = tally.kept  # it does not count as speed
                bar.update(len(texts))
            else:
                answers = scorer.answer(texts, bar.update)
                content = parts.encode(window, answers, found.kinds, suffix, scorer.kind)
                parts.write_whole(files[-1], content)
            tally.add(texts)
        parts.join(files, [*found.kinds, *scorer.columns], target)
    return tally


def look_through(scorer: Scorer, source: Path) -> rows.Source:
    """Read a file once, to find what is wrong in it before any row is scored.

    Raises:
        ExportError: See `export.rows.look_through`; or it has one of the new columns already.
    """
    found = rows.look_through(source, *scorer.asked)
    scorer.check_names(found.kinds, str(source))
    return found


def stream(scorer: Scorer, windows: Iterable[rows.Window]) -> Tally:
    """Score windows as they come, and write JSON lines to standard output.

    Raises:
        ExportError: The first window lacks a column with texts, or a window has one of the new
            columns already.
    """
    tally = Tally(pairs=scorer.model.pairs)
    with _progress(None) as bar:
        for window in windows:
            if isinstance(window, list) and window:
                names = {name: None for row in window for name in row}
                scorer.check_names(names, "The input")
                if not tally.rows:
                    rows.check_texts(scorer.asked, names, "The input")
            texts = scorer.texts(window)
            answers = scorer.answer(texts, bar.update)
            lines = parts.encode(window, answers, {}, ".jsonl")
            with parts.named("standard output"):
                sys.stdout.buffer.write(lines)
                sys.stdout.buffer.flush()
            tally.add(texts)
    return tally


def _check_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise ExportError(f"{target} is there already. Name another output, or add --overwrite.")


def _identity(scorer: Scorer, source: rows.Source) -> dict[str, Any]:
    """Return what the answers follow from, by the names that messages give it."""
    return {
        "bundle": scorer.model.manifest["sha256"],
        "input": source.sha256,
        "text column": scorer.text,
        "prefix": scorer.prefix,
        **({} if scorer.pair is None else {"pair column": scorer.pair}),
        "batch size": scorer.batch_size,
    }


def _is_given(text: str | None, pairs: bool) -> TypeGuard[str]:
    return text is not None and not edge.problem_with(text, pairs)


def _progress(total: int | None) -> Any:
    from tqdm import tqdm

    # Nothing is drawn where no person looks on.
    return tqdm(total=total, unit=" rows", unit_scale=True, smoothing=0, disable=None)


# --- The command ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    stopped = "stopped; with an output file, the same command goes on from here"
    return guarded(lambda: _run(_parser().parse_args(arguments)), stopped)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.predict",
        description="Score every row of a table with a bundle, in constant memory.",
        epilog=_EPILOG,
    )
    parser.add_argument("bundle", metavar="BUNDLE")
    parser.add_argument("--input", required=True, metavar="FILE")
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument(
        "--text", default="text", metavar="COLUMN", help="the one with the texts (default: text)"
    )
    parser.add_argument(
        "--pair", metavar="COLUMN", help="the one with the second texts, if a model takes pairs"
    )
    parser.add_argument("--prefix", default="", help="put before the names of the new columns")
    parser.add_argument(
        "--batch-size", type=count, default=32, metavar="N",
        help="texts that are answered together (default: 32)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=count, metavar="N", help="(default: what bundle.json says)"
    )
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace OUTPUT, and drop parts of a run that was another; parts of the same are kept",
    )  # fmt: skip
    add_public_key(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.input == _PIPE and options.output != _PIPE:
        raise ExportError("Standard input cannot be read twice: it needs --output -.")
    model = edge.Model(bundle_folder(options.bundle, options.public_key), options.threads)
    scorer = Scorer(model, options.text, options.prefix, options.batch_size, options.pair)
    source = Path(options.input)
    if options.input == _PIPE:
        lines = rows.json_lines(sys.stdin.buffer, "standard input", scorer.asked)
        tally = stream(scorer, rows.windows_of(lines))
    elif options.output == _PIPE:
        tally = stream(scorer, look_through(scorer, source).windows())
    else:
        tally = predict(scorer, source, Path(options.output), overwrite=options.overwrite)
    print(f"{tally}: {options.output}", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
