"""The page of a score that no text can break, the rows of its table, and colours on which text can be read."""

from html.parser import HTMLParser

import pytest

from tests.support.scores import score_of
from trainer.contracts.base import changed
from trainer.reports.experiment_tables import SCALE_COLOURS, HeatScale, contrast, luminance
from trainer.reports.heatmap_html import HEAT_COLOURS, heatmap_html
from trainer.reports.score_table import token_rows

EVIL = "<b>&\"'\u0628\u06d5\n</p><script>x"


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

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def test_rows__of_bytes_are_characters_with_the_sum_of_their_surprisals() -> None:
    score = changed(
        score_of("abcde", [0.5, 1.0, 2.0, 0.25, 4.0]),
        tokens=("<0xD0>", "<0x96>", "a", "<0xC3>", "<0xA9>"),
        char_spans=((0, 0), (0, 1), (1, 2), (2, 2), (2, 3)),
        surprisal=(None, 0.5, 1.0, 2.0, 0.25),
        topk=((), (), (), (("<0xC3>", 0.5),), (("x", 0.5),)),
    )
    rows = list(token_rows(score, "Жaé"))
    expected = [("Ж", "<0xD0><0x96>", None, ()), ("a", "a", 1.0, ()), ("é", "<0xC3><0xA9>", 2.25, (("<0xC3>", 0.5),))]
    assert [(row.text, row.token, row.surprisal, row.expected) for row in rows] == expected
    assert (rows[2].entropy, rows[2].rank) == (None, None)


@pytest.mark.parametrize(("unknown", "is_warned"), [("b", True), ("", False)])
def test_page__warns_about_figures_per_character_of_unknown_text(unknown: str, is_warned: bool) -> None:
    page = heatmap_html(score_of("abab", [1.0] * 4, unknown=unknown), "abab")
    assert ("· 2 unknown characters · ⚠ figures are too low to compare" in page) == is_warned
    assert ("0 unknown characters</" in page) == (not is_warned)


def test_page__shows_every_character_and_takes_none_as_markup() -> None:
    size = len(EVIL) - 1  # without the newline
    score = score_of(EVIL, [1.0] * size, unknown="&", expected=(("<i>", 0.5),))
    page = Page(heatmap_html(score, EVIL))
    spans = [attributes for attributes in page.of("span") if "title" in attributes]
    assert len(spans) == size
    assert EVIL in page.text
    assert {tag for tag, _ in page.tags} <= {"html", "head", "meta", "title", "style", "body", "h1", "div", "p", "span"}
    assert [attributes["dir"] for attributes in page.of("p")] == ["auto", "auto"]
    title = (spans[0]["title"] or "").splitlines()
    assert title == ["U+003C", "surprisal 1.44 bits", "rank 2", "entropy 1.00 bits", "<i> 0.500"]
    assert [attributes.get("class") for attributes in spans].count("unknown") == 1
    assert not any("src" in attributes or "href" in attributes for _, attributes in page.tags)


def test_page__has_the_colours_of_its_scale_and_marks_what_has_no_score() -> None:
    score = score_of("abc", [0.0, 5.5, 99.0])
    styles = [attributes.get("style") for attributes in Page(heatmap_html(score, "abc")).of("span")]
    light = f"background:{HEAT_COLOURS[-1]};color:#000"
    assert [style for style in styles if style] == [f"background:{HEAT_COLOURS[0]};color:#fff", light, light]
    unscored = changed(score, surprisal=(None, 5.5, 99.0), rank=(None, 2, 2), entropy=(None, 1.0, 1.0))
    page = Page(heatmap_html(unscored, "abc"))
    [span] = [attributes for attributes in page.of("span") if "not scored" in (attributes.get("title") or "")]
    assert span["class"] == "unscored"


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.3, 0.5, 0.77, 1.0, 2.0])
def test_text__on_each_colour_has_the_contrast_that_can_be_read(value: float) -> None:
    scale = HeatScale(0.0, 1.0)
    assert contrast(luminance(scale.colour(value)), luminance(scale.text_colour(value))) >= 4.5


def test_scale__runs_from_its_first_to_its_last_colour() -> None:
    scale = HeatScale(1.0, 3.0)
    assert [scale.colour(value) for value in (1.0, 2.0, 3.0)] == [SCALE_COLOURS[0], SCALE_COLOURS[4], SCALE_COLOURS[-1]]
    assert HeatScale(2.0, 2.0).colour(2.0) == SCALE_COLOURS[0]
    assert contrast(luminance("#ffffff"), luminance("#000000")) == pytest.approx(21.0)


def test_page__keeps_a_letter_with_its_marks_and_lists_the_surprisal_of_each_character() -> None:
    text = "कि t͡s"
    page = Page(heatmap_html(score_of(text, [1.0, 0.5, 2.0, 0.25, 0.25, 4.0], unknown="s"), text))
    letters = [one for one in page.of("span") if one.get("title")]
    assert [(one["title"] or "").count("surprisal") for one in letters] == [2, 1, 3]
    assert [one.get("class") for one in letters] == [None, None, "unknown"]
    assert (letters[0]["title"] or "").splitlines() == [
        *("U+0915", "surprisal 1.44 bits", "rank 2", "entropy 1.00 bits"),
        *("U+093F", "surprisal 0.72 bits", "rank 2", "entropy 1.00 bits"),
    ]
    alone = Page(heatmap_html(score_of("a", [1.5]), "a")).of("span")
    assert letters[0]["style"] == alone[0]["style"], "the colour of the sum"
