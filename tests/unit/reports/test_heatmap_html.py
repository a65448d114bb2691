"""The forms of a score: minimal pairs with their interval, a page that no text can break, portions of files."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.scores import score_of
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.input_text import BadLine, Portion, read_portions
from trainer.reports.heatmap_html import HEAT_COLOURS, heatmap_html
from trainer.reports.minimal_pairs import Pair, ScoredPair, pair_report, read_pair, scored_pair, wilson_interval
from trainer.reports.score_table import token_rows

PAIR = Pair(1, "a", "b", None)
WILSON = [  # Newcombe (1998), table I, method 3
    (81 / 263, 263, 0.2553, 0.3662),
    (15 / 148, 148, 0.0624, 0.1605),
    (0.0, 20, 0.0, 0.1611),
    (1 / 29, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("share", "count", "low", "high"), WILSON)
def test_interval__is_that_of_the_published_examples(share: float, count: int, low: float, high: float) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=5e-5)


def test_pair__is_a_tie_where_scores_are_not_exact_enough() -> None:
    found = [scored_pair(PAIR, 10.0, second).less_surprising for second in (10.0, 10.00009, 10.0002, 9.9998)]
    assert found == ["tie", "tie", "first", "second"]


def test_report__counts_a_tie_as_half_and_keeps_the_order_of_groups() -> None:
    def pair(group: str | None, second: float) -> ScoredPair:
        return scored_pair(PAIR._replace(group=group), 1.0, second)

    report = pair_report("run", [pair("z", 2.0), pair("a", 1.0), pair("z", 0.5), pair(None, 3.0)])
    assert (report.overall.accuracy, report.overall.n_ties, report.overall.n_pairs) == (0.625, 1, 4)
    assert [(found.group, found.accuracy) for found in report.groups] == [("z", 0.5), ("a", 0.5)]


@pytest.mark.parametrize(
    ("line", "pair"),
    [("a b\t c\r", Pair(7, "a b", "c", None)), ("a\tb\tgroup one", Pair(7, "a", "b", "group one")), (" \t ", None)],
)
def test_pair__is_read_of_two_columns_or_three(line: str, pair: Pair | None) -> None:
    assert read_pair(7, line) == pair


@pytest.mark.parametrize("line", ["a b", "a\tb\tc\td", "a\t", "\tb", "a\tb\t"])
def test_line_that_is_no_pair__is_named(line: str) -> None:
    with pytest.raises(AppError, match=r"^Line 1,007 is no pair") as caught:
        read_pair(1007, line)
    assert caught.value.code == ErrorCode.INVALID_INPUT


class Page(HTMLParser):
    """The content of a page as a browser parses it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = "<b>&\"'\u0628\u06d5\n</p><script>x"


def test_rows__of_bytes_are_characters_with_the_sum_of_their_surprisals() -> None:
    score = changed(
        score_of("abcde", [0.5, 1.0, 2.0, 0.25, 4.0]),
        tokens=("<0xD0>", "<0x96>", "a", "<0xC3>", "<0xA9>"),
        char_spans=((0, 0), (0, 1), (1, 2), (2, 2), (2, 3)),
        surprisal=(None, 0.5, 1.0, 2.0, 0.25),
        topk=((), (), (), (("<0xC3>", 0.5),), (("x", 0.5),)),
    )

    rows = list(token_rows(score, "Жaé"))

    assert [(row.text, row.token, row.surprisal) for row in rows] == [
        ("Ж", "<0xD0><0x96>", None),
        ("a", "a", 1.0),
        ("é", "<0xC3><0xA9>", 2.25),
    ]
    assert [row.expected for row in rows] == [(), (), (("<0xC3>", 0.5),)]
    assert (rows[2].entropy, rows[2].rank) == (None, None)


@pytest.mark.parametrize(("unknown", "is_warned"), [("b", True), ("", False)])
def test_page__warns_about_bits_per_character_of_unknown_text(unknown: str, is_warned: bool) -> None:
    page = heatmap_html(score_of("abab", [1.0] * 4, unknown=unknown), "abab")
    assert ("· 2 unknown characters · ⚠ bits per character are too low to compare" in page) == is_warned
    assert ("0 unknown characters</" in page) == (not is_warned)


def test_page__shows_every_character_and_takes_none_as_markup() -> None:
    places = [char for char in EVIL if char != "\n"]
    score = score_of(EVIL, [1.0] * len(places), unknown="&", expected=(("<i>", 0.5),))
    page = Page(heatmap_html(score, EVIL))
    spans = [attributes for tag, attributes in page.tags if tag == "span" and "title" in attributes]
    assert len(spans) == len(places)
    assert EVIL.replace("\n", "\n") in page.text
    assert {tag for tag, _ in page.tags} <= {"html", "head", "meta", "title", "style", "body", "h1", "div", "p", "span"}
    assert [attributes["dir"] for tag, attributes in page.tags if tag == "p"] == ["auto", "auto"]
    told = (spans[0]["title"] or "").splitlines()
    assert told == ["U+003C", "surprisal 1.000 nats (1.443 bits)", "rank 2", "entropy 0.693 nats", "<i> 0.500"]
    assert [attributes.get("class") for attributes in spans].count("unknown") == 1
    assert not any("src" in attributes or "href" in attributes for _, attributes in page.tags)


def test_page__has_the_colours_of_its_scale_and_marks_what_has_no_score() -> None:
    score = score_of("abc", [0.0, 5.5, 99.0])
    unscored: dict[str, object] = {
        "surprisal": (None, *(score.surprisal or ())[1:]),
        "rank": (None, 2, 2),
        "entropy": (None, 1.0, 1.0),
    }

    styles = [attributes.get("style") for tag, attributes in Page(heatmap_html(score, "abc")).tags if tag == "span"]
    page = Page(heatmap_html(score.model_copy(update=unscored), "abc"))

    assert [style for style in styles if style] == [
        f"background:{HEAT_COLOURS[0]};color:#fff",
        f"background:{HEAT_COLOURS[-1]};color:#000",
        f"background:{HEAT_COLOURS[-1]};color:#000",
    ]
    [span] = [
        attributes for tag, attributes in page.tags if tag == "span" and "not scored" in (attributes.get("title") or "")
    ]
    assert span["class"] == "unscored"


def test_portions__are_whole_lines_with_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("\ufeffab\nc\u00e9\r\n\nlonger than that\nx\n".encode() + b"\xff\n\xfe\nlast")
    found = list(read_portions(file, 6))
    parts = [part for part in found if isinstance(part, Portion)]
    assert parts == [
        Portion(1, "ab\nc\u00e9\r"),
        Portion(3, ""),
        Portion(4, "longer than that"),
        Portion(5, "x"),
        Portion(8, "last"),
    ]
    bad = [part for part in found if isinstance(part, BadLine)]
    assert [(part.number, part.error.message[:15]) for part in bad] == [(6, "It is not UTF-8"), (7, "It is not UTF-8")]
    assert found.index(bad[0]) == 4


def test_line_that_no_request_takes__is_told_and_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"a" * 2_000_001 + b"\nb\n" + "\U0001f600".encode() * 5_000_000 + b"\nc")
    found = list(read_portions(file, 100))
    assert [part.number for part in found] == [1, 2, 3, 4]
    assert [part.error.code for part in found if isinstance(part, BadLine)] == [ErrorCode.PAYLOAD_TOO_LARGE] * 2
