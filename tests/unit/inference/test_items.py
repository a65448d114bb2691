"""Scores of tables of items: columns, units and frequencies, against single forward passes and plain counts."""

import math
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import strategies as st

from tests.support.answers import scored_nats, small_tokenizer, surprisals
from tests.support.families import POSITIONS, QUICK, model_of
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from trainer.api import Model
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.items import RESULT_COLUMNS, Cell, ItemsRequest, ItemsResponse, item_notes
from trainer.contracts.sequences import SequenceParts, SequencesRequest
from trainer.tokenizers.base import vocabulary_of

METHODS = ["char", "byte", "word", "bpe", "wordpiece", "sentencepiece"]
TABLE: dict[str, list[Cell]] = {
    "subject": [7, 8],
    "before": ["His sun", ""],
    "sentence": ["  was “quoted” twice ", "the sea, the sea"],
    "early": ["was", "the"],
    "late": ["twice", "sea"],
}
REGIONS: dict[str, object] = {"text_column": "sentence", "region_columns": ["early", "late"]}
TRAINING = ["The sun was shining on the sea,\nshining with all", "his might: the SUN"]

Row = dict[str, Cell]


def model_with(method: str, family: str = "lstm", text: Callable[[], Iterable[str]] | None = lambda: TRAINING) -> Model:
    """A model of lines, or of a stream after the name of the method with a `+`."""
    tokenizer = small_tokenizer(method.removesuffix("+"), "stream" if method.endswith("+") else "line")
    return Model("run", model_of(family, vocabulary_of(tokenizer)), tokenizer, text)


def scored(model: Model, **fields: object) -> ItemsResponse:
    return model.ask(parse(ItemsRequest, {"table": TABLE, "context_column": "before", **fields}))


def rows(model: Model, **fields: object) -> list[Row]:
    table = scored(model, **fields).table or {}
    count = len(table["source_row"])
    return [{name: values[row] for name, values in table.items()} for row in range(count)]


def number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return value


def token_figures(model: Model, text: str) -> list[tuple[int, float, float]]:
    """The place of each token's first non-space character, its surprisal and the entropy of its prediction."""
    tokenizer = model.tokenizer
    ids: list[int] = [tokenizer.special_ids.start, *tokenizer.encode(text)]
    inputs = torch.tensor(ids).unsqueeze(0)
    with torch.inference_mode():
        log_p = model.model.forward(inputs)[0, :-1].double().log_softmax(-1)
    entropies: list[float] = (-(log_p.exp() * log_p).sum(-1)).tolist()
    places = [start + len(text[start:]) - len(text[start:].lstrip()) for start, _ in tokenizer.spans(text)]
    nats = surprisals(model.model, ids)
    return list(zip(places, nats, entropies, strict=True))


@pytest.mark.parametrize("method", [*METHODS, "char+", "bpe+"])
def test_unit__sums_the_tokens_that_begin_in_it(method: str) -> None:
    model = model_with(method)
    texts = ["His sun was “quoted” twice", "the sea, the sea"]
    ranges = [(8, 11), (21, 26), (0, 3), (13, 16)]
    found = rows(model, **REGIONS)
    assert [row["unit"] for row in found] == ["early", "late"] * 2
    for row, (start, end) in zip(found, ranges, strict=True):
        text = texts[number(row, "source_row") > 1]
        inside = [figures for figures in token_figures(model, text) if start <= figures[0] < end]
        expected = math.fsum(nats for _, nats, _ in inside), math.fsum(entropy for _, _, entropy in inside)
        assert (row["unit_text"], row["n_tokens"], row["n_chars"]) == (text[start:end], len(inside), end - start)
        assert (number(row, "surprisal_nats"), number(row, "entropy_nats")) == pytest.approx(expected, abs=1e-4)
    for row, text, start in zip(rows(model, **REGIONS, per="item"), texts, (7, 0), strict=True):
        inside = [figures for figures in token_figures(model, text) if start <= figures[0]]
        assert number(row, "surprisal_nats") == pytest.approx(math.fsum(nats for _, nats, _ in inside), abs=1e-4)
        assert (row["n_tokens"], row["n_chars"]) == (len(inside), len(text[start:].strip()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["lstm", "bert"])
def test_words_and_tokens__have_the_surprisals_of_a_score(method: str, family: str) -> None:
    model = model_with(method, family)
    text = "his sun, Ağaç “twice”"
    table: dict[str, object] = {"table": {"sentence": [text]}, "text_column": "sentence", "context_column": None}
    score = model.score(text)
    words = rows(model, **table, per="word")
    of_words = [(word.text, word.surprisal) for word in score.words or ()]
    assert [(row["unit_text"], row["surprisal_nats"]) for row in words] == of_words
    assert [row["unit"] for row in words] == [1, 2, 3, 4]
    tokens = rows(model, **table, per="char")
    assert math.fsum(number(row, "surprisal_nats") for row in tokens) == pytest.approx(math.fsum(scored_nats(score)))
    assert sum(number(row, "n_tokens") for row in tokens) == score.n_tokens
    assert sum(number(row, "n_unknown") for row in tokens) == score.unk_count
    if method in ("char", "byte"):
        assert [row["unit_text"] for row in tokens] == list(text)


@pytest.mark.parametrize("family", QUICK)
def test_columns__are_repeated_for_each_unit_in_order(family: str) -> None:
    model = model_with("bpe", family)
    for per, count in {"item": 1, "region": 2, "word": 3}.items():
        found = scored(model, **REGIONS, per=per, first_row=5).table or {}
        added = [name for name in RESULT_COLUMNS if per != "item" or not name.startswith("unit")]
        assert [*found] == [*TABLE, *added]
        rows_of = [number - 5 for number in found["source_row"] if isinstance(number, int)]
        assert rows_of == sorted(rows_of) and rows_of.count(0) == count
        assert all(list(found[name]) == [values[row] for row in rows_of] for name, values in TABLE.items())


def test_regions__without_a_column_of_texts_are_joined_and_may_be_absent() -> None:
    table = {"r1": ["the sun", ""], "r2": ["", "the sea"], "r3": ["shining", "shining"]}
    model = model_with("char")
    found = rows(model, table=table, context_column=None, region_columns=["r1", "r2", "r3"])
    whole = rows(
        model, table={"t": ["the sun shining", "the sea shining"]}, context_column=None, text_column="t", per="item"
    )
    assert [row["unit_text"] for row in found] == ["the sun", "", "shining", "", "the sea", "shining"]
    for first, item in zip((0, 3), whole, strict=True):
        nats = [row["surprisal_nats"] for row in found[first : first + 3]]
        assert nats.count(None) == 1
        total = math.fsum(value for value in nats if isinstance(value, float))
        assert total == pytest.approx(number(item, "surprisal_nats"))


@for_all_pairs(st.text("ab é,", max_size=20), st.integers(0, 2**20))
def test_parts__of_any_regions_are_the_text(text: str, cuts: int) -> None:
    stripped, places = f"{text}b".strip(), [place for place in range(20) if cuts >> place & 1]
    regions = {f"r{n}": stripped[a:b].strip() for n, (a, b) in enumerate(zip(places[::2], places[1::2], strict=False))}
    request = ItemsRequest(
        table={"text": (f"{text}b",), **{name: (region,) for name, region in regions.items()}},
        text_column="text",
        region_columns=tuple(regions),
    )
    [item] = request.texts()
    assert item.text == stripped
    assert [(name, item.parts[part].strip()) for name, part in item.regions] == list(regions.items())


WORDS: dict[str, list[Cell]] = {
    "word": ["the", "sun", "NA", "was", "shíning", "the", "sea,", "the"],
    "story": [1, 1, 1, 1, 1, 2, 2, 1],
    "zone": [1, 2, 3, 4, 5, 1, 2, 1],
    "before": [*["his might"] * 5, None, None, "his might"],
}
GROUPED: dict[str, object] = {"table": WORDS, "text_column": "word", "group_column": "story"}


@pytest.mark.parametrize("method", [*METHODS, "bpe+"])
def test_rows_of_one_text__are_scored_once_and_given_back(method: str) -> None:
    model = model_with(method)
    answer = scored(model, **GROUPED)
    found = rows(model, **GROUPED)
    texts = ["his might the sun was shíning", "the sea,", "his might the"]
    ranges = [(0, 10, 13), (0, 14, 17), (0, 18, 18), (0, 18, 21), (0, 22, 29), (1, 0, 3), (1, 4, 8), (2, 10, 13)]
    for name in WORDS:
        assert [row[name] for row in found] == WORDS[name]
    assert [row["source_row"] for row in found] == list(range(1, 9))
    assert [row["unit"] for row in found] == [1, 2, 3, 4, 5, 1, 2, 1]
    for row, (text, start, end) in zip(found, ranges, strict=True):
        inside = [nats for place, nats, _ in token_figures(model, texts[text]) if start <= place < end]
        assert (row["unit_text"], row["n_tokens"]) == (texts[text][start:end], len(inside))
        if inside:
            assert number(row, "surprisal_nats") == pytest.approx(math.fsum(inside), abs=1e-4)
    assert found[2]["surprisal_nats"] is None
    assert answer.notes == (
        "Counted as empty: 1 cell with `NA` or the like, first in row 3. `keep_na` scores them as words.",
        "Not joined: 1 text with the group of an earlier text, first in row 8, as other rows stand between them.",
    )


@pytest.mark.parametrize("method", METHODS)
def test_words_and_tokens_of_a_text_in_rows__have_the_row_of_their_beginning(method: str) -> None:
    model = model_with(method)
    table = {"part": ["did", "n't ", "", "see", "him", "!"], "item": ["a"] * 6}
    options: dict[str, object] = {"table": table, "context_column": None, "text_column": "part"}
    usual = rows(model, **options, group_column=["item"], per="word")
    assert [(row["unit_text"], row["source_row"]) for row in usual] == [("didn't", 1), ("see", 4), ("him!", 5)]
    spaced = rows(model, **options, group_column=["item"], per="word", separator=" ")
    assert [(row["unit_text"], row["source_row"]) for row in spaced] == [
        *(("did", 1), ("n't", 2), ("see", 4), ("him", 5), ("!", 6))
    ]
    bare = rows(model, **options, group_column=["item"], per="word", separator="")
    whole = rows(model, table={"t": ["didn'tseehim!"]}, context_column=None, text_column="t", per="word")
    assert [(row["unit_text"], row["source_row"]) for row in bare] == [("didn'tseehim!", 1)]
    assert number(bare[0], "surprisal_nats") == pytest.approx(number(whole[0], "surprisal_nats"))
    tokens = rows(model, **options, group_column="item", per="char", separator="")
    sources = [number(row, "source_row") for row in tokens]
    assert sources == sorted(sources) and (method == "word" or {*sources} <= {1, 2, 4, 5, 6})
    if method == "char":
        assert sources == [1, 1, 1, 2, 2, 2, 4, 4, 4, 5, 5, 5, 6]


@pytest.mark.parametrize(
    ("separator", "context", "text", "note"),
    [
        (" ", "他", "他 我 早上", True),
        ("", "他", "他我早上", False),
        ("　", "", "我　早上", False),
        (" ", "", "我 早上", True),
        (None, "他", "他我早上", True),
        (None, "It is", "It is 我早上", True),
    ],
)
def test_separator__stands_between_context_and_regions(
    separator: str | None, context: str, text: str, note: bool
) -> None:
    table = {"before": [context], "r1": ["我"], "r2": [""], "r3": [" 早上"]}
    request: dict[str, object] = {"context_column": "before", "region_columns": ["r1", "r2", "r3"]}
    [item] = parse(ItemsRequest, {**request, "table": table, "separator": separator}).texts()
    assert item.text == text
    assert item.has_unwritten_space is note


def request_of(fields: dict[str, object]) -> ItemsRequest:
    return parse(ItemsRequest, fields)


@pytest.mark.parametrize(
    ("fields", "notes"),
    [
        ({"table": {"t": list("abcde")}, "text_column": "t"}, ["Each text is one word, scored by itself"]),
        ({"table": {"t": list("abcd")}, "text_column": "t"}, []),
        (
            {"table": {"t": list("abcdefghij"), "g": list("vvwwxxyyzz")}, "text_column": "t", "separator": ""}
            | {"group_column": "g"},
            [],
        ),
        ({"table": {"t": ["a", "b", "c", "d", "e f"]}, "text_column": "t"}, []),
        ({"table": {"t": ["我早上喝了咖啡"] * 5}, "text_column": "t"}, []),
        ({"table": {"t": ["我"] * 5}, "text_column": "t"}, ["Each text is one word"]),
        ({"table": {"t": list("abcde"), "c": ["a"] * 5}, "text_column": "t", "context_column": "c"}, []),
        (
            {"table": {"t": list("abcde"), "g": list(range(5))}, "text_column": "t", "group_column": "g"},
            ["Each text is one"],
        ),
        (
            {
                "table": {"t": ["a", "b", "c", *"no no no a b c a b c".split()], "g": list("xxxyyyzzzzzz")},
                "text_column": "t",
            }
            | {"group_column": "g"},
            ["Joined although the same words come more than once: 1 text, first in row 7. "],
        ),
        (
            {"table": {"a": ["the door", "it", "it"], "b": [".", "'s", "'tis'"]}, "region_columns": ["a", "b"]},
            ["Joined without a space where usually none is written, as before punctuation: 2 texts, first in row 1. "],
        ),
        (
            {"table": {"a": ["the door", "it", "it"], "b": [".", "'s", "'tis'"]}, "region_columns": ["a", "b"]}
            | {"separator": " "},
            ["Joined with a space where usually none is written, as before punctuation: 2 texts, first in row 1. "],
        ),
        ({"table": {"t": ["a . b"], "r": ["."]}, "text_column": "t", "region_columns": ["r"]}, []),
        (
            {
                "table": {"t": ["a b", "cat at", "cat"], "r": ["b", "at", "a"]},
                "text_column": "t",
                "region_columns": ["r"],
            },
            ["Found only inside a longer word: regions of 1 text, first in row 3."],
        ),
        (
            {"table": {"t": ["a b", "at, at"], "r": ["b", "at"]}, "text_column": "t", "region_columns": ["r"]},
            ["Found at several positions: regions of 1 text, first in row 2. The first between white space"],
        ),
        (
            {"table": {"t": ["a b", "a b"], "c": ["NA", "nan"], "r": ["<NA>", "b"]}, "text_column": "t"}
            | {"context_column": "c", "region_columns": ["r"]},
            ["Counted as empty: 3 cells with `NA` or the like, first in row 1. "],
        ),
        (
            {"table": {"t": ["NA b"], "c": ["NA"], "r": ["NA"]}, "text_column": "t", "keep_na": True}
            | {"context_column": "c", "region_columns": ["r"]},
            [],
        ),
    ],
)
def test_reading__is_reported_with_a_count_and_its_first_row(fields: dict[str, object], notes: list[str]) -> None:
    found = item_notes([request_of(fields)])
    assert [note.startswith(said) for note, said in zip(found, notes, strict=True)] == [True] * len(notes)


def test_guesses__in_the_parts_of_a_table_are_counted_together() -> None:
    first: dict[str, object] = {"table": {"t": ["a", "NA"], "g": ["x", "x"]}, "text_column": "t", "group_column": "g"}
    second: dict[str, object] = {
        "table": {"t": ["a", "NA"], "g": ["y", "x"]},
        "text_column": "t",
        "group_column": "g",
        "first_row": 3,
    }
    with refused(ErrorCode.INVALID_INPUT, "row 4 has no text: `NA` is a word with `keep_na` only"):
        parse(ItemsRequest, second)
    words: dict[str, object] = {**second, "table": {"t": ["NA", "a", "b"], "g": ["y", "y", "x"]}}
    empty, again = item_notes([request_of(first), request_of(words)])
    assert empty.startswith("Counted as empty: 2 cells with `NA` or the like, first in row 2.")
    assert again.startswith("Not joined: 1 text with the group of an earlier text, first in row 5,")


@pytest.mark.parametrize(
    ("text", "region", "occurrence", "before"),
    [
        ("the dog saw the dog", "dog", 2, "the dog saw the "),
        ("the dog saw the dog", "dog", "1", "the "),
        ("the dog saw the dog", "dog", 2.0, "the dog saw the "),
        ("a dogma, the dog", "dog", 1, "a dogma, the "),
        ("a dogma, the dog", "dog", None, "a dogma, the "),
        ("a dogma, dogmas", "dog", 2, "a dogma, "),
        ("a dog", "", 7, ""),
    ],
)
def test_occurrence__is_the_one_that_a_column_says(text: str, region: str, occurrence: Cell, before: str) -> None:
    table = {"t": [text], "r": [region], "n": [occurrence]}
    options: dict[str, object] = {"text_column": "t", "region_columns": ["r"], "occurrence_column": "n"}
    [item] = request_of({"table": table, **options}).texts()
    assert item.parts[0] == before and item.text == text and not item.is_ambiguous


@pytest.mark.parametrize("text", ["Müller trägt", "Müller trägt"])
@pytest.mark.parametrize("region", ["trägt", "trägt"])
def test_region__is_found_in_composed_and_decomposed_spelling(text: str, region: str) -> None:
    table = {"t": [text], "r": [region]}
    options: dict[str, object] = {"table": table, "text_column": "t", "region_columns": ["r"], "context_column": None}
    [item] = request_of(options).texts()
    assert item.text == text and item.parts[0] in ("Müller ", "Müller ")
    assert [row["unit_text"] for row in rows(model_with("char"), **options)] == ["trägt"]


def test_region__is_a_whole_word_where_it_can_be() -> None:
    table: dict[str, tuple[Cell, ...]] = {
        "text": ("other the he", "evlerde", "the cat, he"),
        "first": ("he", "ler", "he"),
        "second": ("", "de", "cat"),
    }
    items = [*ItemsRequest(table=table, text_column="text", region_columns=("first", "second")).texts()]
    parts = [("other the ", "he", "", "", ""), ("ev", "ler", "", "de", ""), ("t", "he", " ", "cat", ", he")]
    assert [item.parts for item in items] == parts


def test_log_frequency__counts_words_without_case_and_punctuation() -> None:
    counts = Counter("the sun was shining on the sea shining with all his might the sun".split())
    total = sum(counts.values()) + len(counts)
    found = rows(model_with("bpe"), **REGIONS, per="word")
    words = ["was", "quoted", "twice", "the", "sea", "the", "sea"]
    expected = [math.log((counts[word] + 1) / total) for word in words]
    assert [row["log_frequency"] for row in found] == pytest.approx(expected)
    items = rows(model_with("bpe"), **REGIONS, per="item")
    assert [row["log_frequency"] for row in items] == pytest.approx([math.fsum(expected[:3]), math.fsum(expected[3:])])


@pytest.mark.parametrize("method", [*METHODS, "bpe+"])
def test_log_frequency__of_a_token_counts_the_tokens_of_the_training_text(method: str) -> None:
    model = model_with(method)
    tokenizer = model.tokenizer
    lines = "\n".join(TRAINING).split("\n")
    counts = Counter(token for line in lines for token in tokenizer.encode(line))
    if tokenizer.special_ids.newline is not None:  # a newline of a stream is text
        counts[tokenizer.special_ids.newline] = len(lines)
    total = sum(counts.values()) + len(counts)
    found = rows(model, table={"t": ["the Ağaç"]}, context_column=None, text_column="t", per="char")
    logs = [math.log((counts[token] + 1) / total) for token in tokenizer.encode("the Ağaç")]
    assert math.fsum(number(row, "log_frequency") for row in found) == pytest.approx(math.fsum(logs))


def test_frequencies__of_a_long_text_are_counted_in_parts() -> None:
    model = model_with("char", text=lambda: ["th" * (1 << 21), "the"])
    options: dict[str, object] = {"table": {"t": ["the"]}, "context_column": None, "text_column": "t", "per": "char"}
    found = rows(model, **options)
    counts = [(1 << 21) + 1, (1 << 21) + 1, 1]
    expected = [math.log((count + 1) / (sum(counts) + 3)) for count in counts]
    assert [row["log_frequency"] for row in found] == pytest.approx(expected)
    assert rows(model, **options) == found


def test_frequencies__are_empty_without_the_training_text() -> None:
    def changed_text() -> Iterable[str]:
        raise AppError(ErrorCode.DATA_NOT_FOUND, "The corpus has changed.")

    for text in (None, changed_text):
        answer = scored(model_with("bpe", text=text), **REGIONS)
        assert not answer.has_frequencies
        assert (answer.table or {})["log_frequency"] == (None,) * 4
    assert scored(model_with("bpe"), **REGIONS).has_frequencies


def test_items__beyond_the_context_are_counted() -> None:
    table = {"t": ["shining " * POSITIONS, "the sun"]}
    assert scored(model_with("bpe", "gpt2"), table=table, context_column=None, text_column="t").n_cut == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "`text_column` or `region_columns` must name the texts"),
        ({"text_column": "sentence", "per": "region"}, "`region_columns` must name the regions that are the rows"),
        ({"region_columns": ["early", "early"]}, "must name each column once"),
        ({"text_column": "text"}, "`table` has no column `text`: it has `subject`, `before`, `sentence`"),
        ({"text_column": "subject"}, "row 1 has no text in `subject`, but the value 7"),
        ({"text_column": "before"}, "row 2 has no text"),
        ({"text_column": "early", "region_columns": ["late"]}, "row 1: the region in `late` is not in the text"),
        ({**REGIONS, "region_columns": ["late", "early"]}, "row 1: the region in `early` is not after the region"),
        ({"table": {"a": ["b\nc"]}, "text_column": "a"}, "row 1 has several lines in `a`: an item is one line"),
        (
            {"text_column": "late", "group_column": "subject", "region_columns": ["early"]},
            "goes without `region_columns`",
        ),
        ({"text_column": "late", "group_column": "subject", "per": "item"}, "it goes without `per` `item`"),
        ({"text_column": "late", "group_column": "item"}, "`table` has no column `item`: it has `subject`"),
        (
            {"text_column": "late", "group_column": ["subject", "before"]},
            "row 2 has no value in `before`, which groups",
        ),
        ({"text_column": "late", "occurrence_column": "subject"}, "is for one column of regions and a column of texts"),
        (
            {"text_column": "sentence", "region_columns": ["late"], "occurrence_column": "subject"},
            "row 1: the region in `late` occurs 1 time, not 7",
        ),
        (
            {"text_column": "sentence", "region_columns": ["late"], "occurrence_column": "early"},
            "row 1 must have a number from 1 in `early`, not was",
        ),
        (
            {"table": {"a": ["b", "c"], "g": ["1", " 1"], "c": ["x", ""]}, "text_column": "a"}
            | {"group_column": "g", "context_column": "c"},
            "rows 1 to 2 are one text, and differ in `c`",
        ),
        ({"table": {"a": ["null"]}, "text_column": "a"}, "row 1 has no text: `null` is a word with `keep_na` only"),
        (
            {"table": {"a": ["n\u00e9 a"], "b": ["ne"]}, "text_column": "a", "region_columns": ["b"]},
            "is not in the text",
        ),
        (
            {"table": {"a": ["ne\u0301 a"], "b": ["ne"]}, "text_column": "a", "region_columns": ["b"]},
            "is not in the text",
        ),
        pytest.param(
            {"table": {"a": ["b " * 3000], **{f"{n}": ["b"] for n in range(400)}}, "text_column": "a"}
            | {"region_columns": [f"{n}" for n in range(400)]},
            "row 1: the regions occur too often in the texts",
            marks=pytest.mark.slow,
        ),
        ({"table": {"a": ["b"]}, "text_column": "a", "separator": "\n"}, "separator"),
        ({"table": {"a": ["b"], "c": []}, "text_column": "a"}, "must have columns of equal lengths"),
        ({"table": {"a": []}, "text_column": "a"}, "must have 1 to 10,000 rows"),
        ({"table": {"a": ["b"], "unit": [1]}, "text_column": "a"}, "has a column `unit`, which the results have too"),
    ],
)
def test_table__that_cannot_be_scored_is_refused(fields: dict[str, object], said: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, said):
        parse(ItemsRequest, {"table": TABLE, **fields})


@pytest.mark.parametrize("values", [{"t": ["a " * 1_000_001]}, {"t": ["a" * 20_000], "note": ["b" * 1000]}])
def test_table__that_is_too_long_is_refused(values: dict[str, object]) -> None:
    with refused(ErrorCode.PAYLOAD_TOO_LARGE):
        parse(ItemsRequest, {"table": values, "text_column": "t", "per": "char"})


@pytest.mark.parametrize("method", ["bpe", "char"])
def test_tokenizations__are_summed_for_exactly_the_characters_of_a_region(method: str) -> None:
    model = model_with(method)
    found = rows(model, **REGIONS, tokenizations="marginal")
    parts = [("His sun", " was", " “quoted”", " twice"), ("the", " sea, the", " sea")]
    sequences = [SequenceParts(context=parts[0][0], parts=parts[0][1:]), SequenceParts(parts=("the", " sea"))]
    response = model.ask(SequencesRequest(sequences=tuple(sequences), tokenizations="marginal"))
    [first, second], [of_first, of_second] = response.scores or (), response.bounds or ()
    nats = [first.part_nats[0], first.part_nats[2], second.part_nats[0]]
    assert [number(row, "surprisal_nats") for row in found[:3]] == pytest.approx(nats, abs=1e-4)
    bounds = [of_first.part_nats[0], of_first.part_nats[2], of_second.part_nats[0]]
    assert [number(row, "left_out_nats") for row in found[:3]] == pytest.approx(bounds, abs=1e-4)
    items = rows(model, **REGIONS, per="item", tokenizations="marginal")
    assert number(items[0], "surprisal_nats") == pytest.approx(first.nats, abs=1e-4)
    absent = rows(
        model,
        table={"a": ["sun", "the"], "b": ["", "sea"]},
        context_column=None,
        region_columns=["a", "b"],
        tokenizations="marginal",
    )
    assert [row["surprisal_nats"] is None for row in absent] == [row["left_out_nats"] is None for row in absent]
    assert [row["surprisal_nats"] is None for row in absent] == [False, True, False, False]


def test_tokenizations__of_words_are_refused() -> None:
    with refused(ErrorCode.INVALID_INPUT, "'marginal' is for `per` item or region"):
        rows(model_with("bpe"), **REGIONS, per="word", tokenizations="marginal")
