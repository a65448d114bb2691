"""Tables of items: their columns as they are in a file, and the requests that a long one is cut into."""

from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.items import Cell, ItemOptions, ItemUnit
from trainer.data.item_tables import item_requests, read_columns


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", '\ufeffid,text\r\n1,"a, b"\r\n\r\n2, c\r\n', {"id": ["1", "2"], "text": ["a, b", " c"]}),
        ("a.TSV", "id\ttext\n1\ta\n", {"id": ["1"], "text": ["a"]}),
        ("a.csv", "id;text\n1;a,b\n", {"id": ["1"], "text": ["a,b"]}),
        ("a.csv", 'note,text\n"two\nlines",a\n"\n\n",b\n', {"note": ["two\nlines", "\n\n"], "text": ["a", "b"]}),
        (
            "a.jsonl",
            '{"id": 1, "text": "a"}\n\n{"text": "b", "new": true, "id": 2.5}\n',
            {"id": [1, 2.5], "text": ["a", "b"], "new": [None, True]},
        ),
    ],
)
def test_table__has_the_values_that_its_file_has(
    name: str, content: str, columns: dict[str, list[Cell]], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert list(read_columns(path).columns.items()) == list(columns.items())


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.xlsx", "a", "'a.xlsx' cannot be read as a table: its name must end in .csv, .tsv, .jsonl."),
        ("a.csv", "", "'a.csv': it has no items."),
        ("a.csv", "\na,b,a\n1,2,3\n", "'a.csv': line 2 names the column 'a' more than once."),
        ("a.csv", "a,b\n1\n", "'a.csv': line 2 has 1 column, and the first line names 2."),
        ("a.jsonl", '{"a": 1}\n{"a": [2]}', "'a.jsonl': line 2 has a list or an object in `a`, and no text or number."),
        ("a.jsonl", "{}", "'a.jsonl': it has no items."),
        ("a.jsonl", "[]", "'a.jsonl': line 1 is not a JSON object."),
    ],
)
def test_file__that_is_no_table_is_refused(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    with refused(ErrorCode.INVALID_INPUT) as caught:
        read_columns(path)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("text", "note", "n_rows", "per", "n_requests"),
    [
        ("a" * 100, "", 401, "item", 3),
        ("a", "", 20_001, "item", 3),
        ("a" * 1000, "b" * 2000, 20, "char", 4),
        ("a" * 30_000, "", 2, "word", 2),
    ],
)
def test_long_table__is_cut_into_requests_in_its_order(
    text: str, note: str, n_rows: int, per: ItemUnit, n_requests: int
) -> None:
    columns: dict[str, list[Cell]] = {"id": [*range(n_rows)], "text": [text] * n_rows, "note": [note] * n_rows}
    options = ItemOptions(text_column="text", per=per)
    requests = [*item_requests(columns, options)]
    assert len(requests) == n_requests
    for name, values in columns.items():
        assert [value for request in requests for value in request.table[name]] == values
    assert [request.table["id"][0] for request in requests] == [request.first_row - 1 for request in requests]
    assert {request.unit for request in requests} == {per}


def test_region__that_is_missing_is_named_by_its_row_in_the_table() -> None:
    columns: dict[str, list[Cell]] = {"text": ["a" * 15_000] * 3, "part": ["a", "a", "b"]}
    with refused(ErrorCode.INVALID_INPUT, "row 3: the region in `part` is not in the text"):
        list(item_requests(columns, ItemOptions(text_column="text", region_columns=("part",))))


def test_text_in_rows__is_in_one_request_and_has_the_numbers_of_its_rows() -> None:
    columns: dict[str, list[Cell]] = {
        "story": [story for story in range(1, 5) for _ in range(3_000)],
        "word": [f"{'a' * story}\u0301" for story in range(1, 5) for _ in range(3_000)],
        "note": ["two\nlines"] * 12_000,
    }
    requests = [*item_requests(columns, ItemOptions(text_column="word", group_column="story"))]
    assert [(request.first_row, len(request.table["word"])) for request in requests] == [
        *((1, 6_000), (6_001, 3_000), (9_001, 3_000))
    ]
    assert [len(text.parts) for request in requests for text in request.texts()] == [3_000] * 4
    with refused(ErrorCode.INVALID_INPUT, "rows 1 to 12,000 are one text: a text has at most 10,000 rows."):
        list(item_requests(columns, ItemOptions(text_column="word", group_column="note")))
