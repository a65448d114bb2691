"""The file of human ratings: its columns, and one sentence for each mistake."""

from pathlib import Path

import pytest

from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.experiments import Rating
from trainer.experiments.ratings_file import read_ratings

HEADER, OTHER_HEADER = b"listener,language,mean_rating\n", b"listener_language,text_language,mean_human_rating\n"


def test_ratings__are_read_by_either_names_of_their_columns(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_bytes('\ufefflanguage,mean_rating, listener,people\r\nkk,6.5,ky,"12"\r\n\r\nky, 7,kk,9\r\n'.encode())
    first = Rating(listener="ky", language="kk", mean_rating=6.5)
    assert read_ratings(file) == (first, Rating(listener="kk", language="ky", mean_rating=7.0))
    file.write_bytes(OTHER_HEADER + b"ky,kk,6.5\n")
    assert read_ratings(file) == (first,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must name the columns listener, language and mean_rating"),
        (b"listener,language\nkk,ky\n", "must name the columns"),
        (b"listener,listener,language,mean_rating\nkk,kk,ky,3\n", "must name the columns"),
        (
            HEADER + b"kk,ky,3\n\nkk,tr\n",
            "The ratings file is no table: line 4 has 2 columns, and the first line names 3.",
        ),
        (HEADER + b"kk,ky,much\n", "Line 2 of the ratings file needs a number as mean_rating."),
        (OTHER_HEADER + b"kk,ky,much\n", "Line 2 of the ratings file needs a number as mean_human_rating."),
        (HEADER[:-1] + b"," + OTHER_HEADER, "columns listener, language and mean_rating, or listener_language,"),
        (HEADER + b"kk,ky,nan\n", "Line 2 of the ratings file needs a number as mean_rating."),
        (HEADER + b"kk,,3\n", "Line 2 of the ratings file needs a listener and a language."),
        (HEADER + b"kk,ky,3\nky,kk,3\nkk,ky,3\n", "Line 4 of the ratings file rates a pair of languages that an"),
        (
            HEADER + b'kk,"ky,3\n',
            "The ratings file is no table: line 2 begins a cell with a quotation mark that nothing closes",
        ),
        (b"\xff\xfe", "is UTF-16 text"),
    ],
)
def test_ratings__mistakes_are_named_with_their_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "ratings.csv"
    file.write_bytes(content)
    with refused(ErrorCode.INVALID_INPUT, message):
        read_ratings(file)
