"""The reader of tables: what pandas, Python's csv and R write comes back cell by cell, or is refused with its line."""

import csv
import json
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from trainer.contracts.batteries import Quoting
from trainer.contracts.errors import ErrorCode
from trainer.data.item_tables import read_columns
from trainer.data.rows import read_rows
from trainer.data.tables import as_text
from trainer.reports.report_text import ENGLISH

Table = Sequence[Sequence[str]]
NAMES = ("text", "note", "id")


class Writer:
    """A program that writes tables: the ending of its files, the characters of its cells, and its rules."""

    def __init__(self, suffix: str, characters: str, write: Callable[[Table], str]) -> None:
        self.suffix, self.characters, self.write = suffix, characters, write


def _csv(dialect: type[csv.Dialect], line_end: str | None = None) -> Callable[[Table], str]:
    def write(table: Table) -> str:
        file = StringIO(newline="")
        csv.writer(file, dialect, lineterminator=line_end or dialect.lineterminator).writerows(table)
        return file.getvalue()

    return write


def _write_table(table: Table) -> str:
    """`write.table(table, sep = "\\t", row.names = FALSE)` of R, in which all columns are texts."""
    quoted = ((f'''"{cell.replace('"', chr(92) + '"')}"''' for cell in row) for row in table)
    return "".join("\t".join(row) + "\n" for row in quoted)


def _json_lines(table: Table) -> str:
    names, *rows = table
    objects: list[dict[str, str]] = [dict(zip(names, row, strict=True)) for row in rows]
    return "".join(json.dumps(one) + "\n" for one in objects)


# A cell between tabs that has tabs itself, and the newlines that end rows, cannot be told from plain quotation marks.
WRITERS = {
    "excel": Writer(".csv", 'ab"\\,;\t\n\r ж', _csv(csv.excel)),
    "excel-tab": Writer(".tsv", 'ab"\\,;\t\n ж', _csv(csv.excel_tab)),
    "unix": Writer(".csv", 'ab"\\,;\t\n\r ж', _csv(csv.unix_dialect)),
    "pandas": Writer(".csv", 'ab"\\,;\t\n ж', _csv(csv.excel, "\n")),
    "pandas-tab": Writer(".tsv", 'ab"\\,;\n ж', _csv(csv.excel_tab, "\n")),
    "R": Writer(".tsv", 'ab",;\t\n ж', _write_table),
    "json": Writer(".jsonl", 'ab"\\,;\t\n\r ж', _json_lines),
}


def _has_text(row: list[str]) -> bool:
    return bool("".join(row).strip())


def tables(characters: str) -> st.SearchStrategy[list[list[str]]]:
    cells = st.text(st.sampled_from(characters), max_size=6)

    def rows(n_columns: int) -> st.SearchStrategy[list[list[str]]]:
        row = st.lists(cells, min_size=n_columns, max_size=n_columns).filter(_has_text)
        return st.lists(row, min_size=1, max_size=4)

    return st.integers(1, len(NAMES)).flatmap(rows)


@pytest.mark.parametrize("name", WRITERS)
def test_table__is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    writer = WRITERS[name]
    file, plain = tmp_path / f"table{writer.suffix}", tmp_path / "plain"
    plain.mkdir()

    @for_all_pairs(tables(writer.characters), st.just(0))
    def check(rows: list[list[str]], _: int) -> None:
        names = NAMES[: len(rows[0])]
        text = writer.write([names, *rows])
        assert [[*row.values()] for _, row in read_rows(text, writer.suffix).rows] == rows
        file.write_bytes(text.encode())
        assert read_columns(file).columns == {name: [row[n] for row in rows] for n, name in enumerate(names)}
        texts = [row[0].replace("\r\n", "\n").replace("\r", "\n") for row in rows]
        assert as_text(file, plain).path.read_bytes().decode() == "".join(f"{text}\n" for text in texts)

    check()


COME = 'word\tzone\titem\n"Come\t1\t1\nin."\t2\t1\n"\t3\t1\nA\t4\t1\n"\t5\t1\n'


@pytest.mark.parametrize(
    ("suffix", "text", "quoting", "rows"),
    [
        (".tsv", COME, None, ['"Come', 'in."', '"', "A", '"']),
        (".tsv", COME, "csv", ["Come\t1\t1\nin.", "\t3\t1\nA\t4\t1\n"]),
        (".tsv", COME.replace("word", '"word"'), None, ["Come\t1\t1\nin.", "\t3\t1\nA\t4\t1\n"]),
        (".tsv", 'a\tb\n"Stop!" he said\t1\nshe said "go\t2\n', None, ['"Stop!" he said', 'she said "go']),
        (".csv", 'a,b\n"Stop!" he said,1\nno,2\n', None, ['"Stop!" he said', "no"]),
        (".tsv", 'a\tb\n"old"\t1\n', None, ["old"]),
        (".tsv", 'a\tb\n"old"\t1\n', "none", ['"old"']),
        (".csv", 'a,b\n"old",1\nan "old" man,2\n', None, ["old", 'an "old" man']),
        (".csv", 'a,b\n1,"two\nlines"\n3,4\n', None, ["1", "3"]),
        (".tsv", "a, b, c\td\n1\t2\n", None, ["1"]),
        (".csv", "\n\na\tb, c\n1\t2\n", None, ["1"]),
    ],
)
def test_quotation_marks__are_those_of_cells_or_of_the_text(
    suffix: str, text: str, quoting: Quoting | None, rows: list[str]
) -> None:
    found = read_rows(text, suffix, quoting)
    assert [row[found.names[0]] for _, row in found.rows] == rows
    shown = [*map(ENGLISH.note, found.notes)]
    notes = [note for note in shown if note.startswith("Quotation marks are read as plain characters")]
    assert bool(notes) == (quoting is None and rows[0].startswith('"'))


@pytest.mark.parametrize(("quoting", "is_reported"), [(None, True), ("csv", False)])
def test_quoted_cell__with_lines_like_rows_is_reported(quoting: Quoting | None, is_reported: bool) -> None:
    text = 'item,sentence,note\n1,The sun rose,"yes\n2,The moons rose,no\n3,A star fell,maybe"\n4,It rained,last\n'
    found = read_rows(text, ".csv", quoting)
    assert [row["item"] for _, row in found.rows] == ["1", "4"]
    shown = [*map(ENGLISH.note, found.notes)]
    assert any(note.startswith("The quoted cell that begins in line 2") for note in shown) == is_reported
    plain = read_rows(text, ".csv", "none")
    assert [row["item"] for _, row in plain.rows] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("suffix", "text", "said"),
    [
        (
            ".tsv",
            'a\tb\nx\ty\n"Stop!" he said\t1\n"old"\t2\n',
            "line 3 has text behind the closing quotation mark of a cell",
        ),
        (
            ".csv",
            'a,b\n"old",1\n"never,2\nx,3\n',
            "line 3 begins a cell with a quotation mark that nothing closes: write",
        ),
        (
            ".csv",
            'a,b,c\n"x,2\ny,3\nz",4\n',
            "line 2 begins a cell with a quotation mark that ends in line 4, so that it has 2",
        ),
        (".csv", '"a","b"\n"1",2,"x"\n', "line 2 has 3 columns, and the first line names 2: write a table of R with"),
        (".csv", "a,b\n2,2,x\n", "line 2 has 3 columns, and the first line names 2."),
        (".csv", 'a,a b\n1,2,"x"\n', "line 2 has 3 columns"),
    ],
)
def test_row__that_is_not_that_of_the_header_is_refused_with_its_line(suffix: str, text: str, said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        read_rows(text, suffix)


def test_rows__without_any_text_are_left_out_and_counted() -> None:
    found = read_rows("a,b\n1,2\n,\n\n , \n3,4\n,\n", ".csv")
    assert [number for number, _ in found.rows] == [2, 6]
    assert [*map(ENGLISH.note, found.notes)] == ["2 rows read, 3 empty rows left out."]
