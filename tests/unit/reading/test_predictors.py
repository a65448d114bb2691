"""The tidy table: exclusions in their order, the predictors of units and of those before, and its CSV."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from math import isnan, log

import pytest
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from trainer.contracts.errors import ErrorCode
from trainer.contracts.readings import Predictor, ReadingOptions, TableOptions
from trainer.data.rows import TextFile
from trainer.reading.predictors import Observations, observations, tidy_csv
from trainer.reading.tables import Times, read_times

HEADER = "text,position,word,person,rt,gaze\n"
TEXTS = (
    "a,1,The,p,300,0\na,2,dog,p,99,200\na,3,barked,p,3001,210\na,4,again,p,,\na,5,now,p,310,220\na,6,end.,p,320,230\n"
    "b,1,A,p,300,200\nb,2,cat,p,400,300\nb,3,ran,p,401,301\nb,4,off,p,402,302\n"
)
SURPRISAL: Sequence[float | None] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, None, 9.0, 10.0]
ALL = ReadingOptions(exclude=(), baseline=(), spillover=0, min_ms=0, max_ms=1e6)


def read(rows: str = TEXTS, header: str = HEADER) -> Times:
    return read_times(TextFile("t.csv", (header + rows).encode()), TableOptions())


def changed(**fields: object) -> ReadingOptions:
    return ALL.model_copy(update=fields)


def counts(rows: Observations) -> dict[str, int]:
    return {one.reason: one.n_rows for one in rows.excluded}


def values_of(rows: Observations) -> list[float]:
    values: list[float] = rows.values.tolist()
    return values


def units_of(rows: Observations) -> list[int]:
    units: list[int] = rows.unit.tolist()
    return units


def column(rows: Observations, name: str) -> list[float | None]:
    numbers: list[float] = rows.predictors[name][rows.unit].tolist()
    return [None if isnan(number) else number for number in numbers]


def written(times: Times, rows: Observations) -> list[dict[str, str]]:
    return [*csv.DictReader(StringIO("".join(tidy_csv(times, rows, rows.unit % 2))))]


def test_exclusions__count_a_row_for_its_first_reason_in_the_stated_order() -> None:
    options = ReadingOptions(exclude=("punctuation", "last", "first"), baseline=("length",), spillover=1)
    rows = observations(read(), "self_paced", options, {"surprisal": SURPRISAL})
    assert [one.reason for one in rows.excluded] == [
        *("first", "last", "punctuation", "missing", "too_short", "too_long", "beginning", "gap", "inside_token"),
    ]
    # `end.` is the last too; `cat` has no surprisal and `ran` none of the unit before; times are from 100 to 3000 ms.
    assert counts(rows) == {
        **{"first": 2, "last": 2, "punctuation": 0, "missing": 1, "too_short": 1, "too_long": 1},
        **{"beginning": 0, "gap": 0, "inside_token": 2},
    }
    assert units_of(rows) == [4] and values_of(rows) == [310.0]
    assert rows.needed == ("surprisal", "surprisal_1", "length", "length_1")


def test_exclusions__that_are_not_requested_are_not_counted() -> None:
    rows = observations(read(), "self_paced", ALL, {"surprisal": [1.0] * 10})
    assert counts(rows) == {
        "missing": 1,
        **dict.fromkeys(("too_short", "too_long", "beginning", "gap", "inside_token"), 0),
    }
    assert values_of(rows) == [300.0, 99.0, 3001.0, 310.0, 320.0, 300.0, 400.0, 401.0, 402.0]


@pytest.mark.parametrize(("low", "high"), [(310, None), (None, 310), (None, None), (99, 3001), (300, 300)])
def test_limits__are_times_that_are_kept(low: float | None, high: float | None) -> None:
    options = changed(min_ms=low, max_ms=high)
    rows = observations(read(), "self_paced", options, {"surprisal": [1.0] * 10})
    expected = [300, 99, 3001, 310, 320, 300, 400, 401, 402]
    lowest, highest = low or 100.0, high or 3000.0
    assert values_of(rows) == [time for time in expected if lowest <= time <= highest]


def test_skipped_units__are_missing_from_times_and_count_for_skipping() -> None:
    gaze = observations(read(), "gaze", ALL, {"surprisal": [1.0] * 10})
    assert counts(gaze)["missing"] == 2 and gaze.response == "time"
    skipping = observations(read(), "skipping", changed(min_ms=50, scale="log"), {"surprisal": [1.0] * 10})
    assert skipping.response == "skipping"
    assert values_of(skipping) == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_log__is_the_natural_logarithm_of_the_times() -> None:
    rows = observations(read(), "self_paced", changed(scale="log"), {"surprisal": [1.0] * 10})
    assert rows.response == "log_time"
    assert values_of(rows) == pytest.approx(
        [log(ms) for ms in (300, 99, 3001, 310, 320, 300, 400, 401, 402)], rel=1e-15
    )


@pytest.mark.parametrize("step", [1, 10])
def test_predictors__of_units_before_are_absent_behind_a_gap_in_positions(step: int) -> None:
    places = [("a", 1), ("a", 2), ("a", 4), ("a", 5), ("a", 6), ("b", 3), ("b", 4)]
    rows = "".join(f"{text},{step * place},w,p,300,300\n" for text, place in places)
    found = observations(read(rows), "gaze", changed(spillover=2), {"surprisal": [float(n) for n in range(7)]})
    for name, expected in (("surprisal_1", "- 0 - 2 3 - 5"), ("surprisal_2", "- - - - 2 - -")):
        before: list[float] = found.predictors[name].tolist()
        assert " ".join("-" if isnan(one) else f"{one:.0f}" for one in before) == expected
    left_out = {reason: n_rows for reason, n_rows in counts(found).items() if n_rows}
    assert left_out == {"beginning": 4, "gap": 2} and units_of(found) == [4]


def test_predictors__of_units_before_are_those_of_the_same_text() -> None:
    options = changed(spillover=2)
    rows = observations(read(), "gaze", options, {"surprisal": SURPRISAL, "entropy": [0.5] * 10})
    assert rows.needed == ("surprisal", "surprisal_1", "surprisal_2")
    assert units_of(rows) == [2, 4, 5]  # 0 and 3 have no time; others lack a surprisal, or begin a text
    assert column(rows, "surprisal") == [3, 5, 6]
    assert column(rows, "surprisal_1") == [2, 4, 5]
    assert column(rows, "surprisal_2") == [1, 3, 4]
    assert column(rows, "length") == [6, 3, 4]
    assert column(rows, "length_2") == [3, 6, 5]
    assert column(rows, "position") == [3, 5, 6]
    assert {*rows.predictors} == {
        *(f"{name}{lag}" for name in ("surprisal", "entropy", "length") for lag in ("", "_1", "_2")),
        "position",
    }


def test_predictors__that_are_not_needed_may_be_absent() -> None:
    scores: Mapping[Predictor, Sequence[float | None]] = {"surprisal": [1.0] * 10, "unigram": SURPRISAL}
    rows = observations(read(), "gaze", changed(spillover=1), scores)
    assert (counts(rows)["beginning"], counts(rows)["inside_token"]) == (1, 0)  # the first of b; that of a has no time
    assert column(rows, "unigram") == [2, 3, 5, 6, None, 9, 10]
    assert column(rows, "unigram_1") == [1, 2, 4, 5, 7, None, 9]
    needed = observations(read(), "gaze", changed(spillover=1, baseline=("unigram",)), scores)
    assert (counts(needed)["beginning"], counts(needed)["inside_token"]) == (1, 2)


def test_rows__of_which_none_is_left_are_refused_with_their_reasons() -> None:
    said = "'t.csv' has no gaze row that is not left out: 2 missing, 8 too_short. Change `measures`, `min_ms`."
    with refused(ErrorCode.INVALID_INPUT, said):
        observations(read(), "gaze", changed(min_ms=500), {"surprisal": [1.0] * 10})


@pytest.mark.parametrize(
    ("word", "running", "expected"),
    [
        ("end.", "", True),
        ("\u201cso", "", True),
        ("it's", "", False),
        ("well-known", "", False),
        ("ape", "The ape, sat", True),
        ("ape", "The (ape sat", True),
        ("ape", "The ape , sat", False),
    ],
)
def test_punctuation__is_at_the_ends_of_a_unit_or_beside_it(word: str, running: str, expected: bool) -> None:
    rows = f'a,1,The,p,300,"{running}"\na,2,{word},p,300,\na,3,sat,p,300,\n'
    times = read(rows, "text,position,word,person,rt,running_text\n")
    assert times.is_running == bool(running)
    rows_left = observations(times, "self_paced", changed(exclude=("punctuation",)), {"surprisal": [1.0] * 3})
    assert (1 not in units_of(rows_left)) == expected
    assert {0, 2} <= {*units_of(rows_left)}


def test_csv__has_lme4_s_names_and_all_digits() -> None:
    times = read("1,a,1,The,p,300\n1,b,1,A,q,310.5\n1,b,2,dog,q,320\n", "item,condition,position,word,person,rt\n")
    scores: Mapping[Predictor, Sequence[float | None]] = {"surprisal": [0.1, 1 / 3, 2.0], "entropy": [None, 1.0, 1e-9]}
    rows = observations(times, "self_paced", changed(spillover=0), scores)
    assert "".join(tidy_csv(times, rows, rows.unit % 2)) == (
        "text,item,position,word,person,fold,time,surprisal,entropy,length\n"
        "1:a,1,1,The,p,0,300.0,0.1,NA,3.0\n"
        "1:b,1,1,A,q,1,310.5,0.3333333333333333,1.0,1.0\n"
        "1:b,1,2,dog,q,0,320.0,2.0,1e-09,3.0\n"
    )
    means = read("a,1,The,100\n", "text,position,word,rt\n")
    of_means = observations(means, "self_paced", changed(scale="log"), {"surprisal": [1.0]})
    assert written(means, of_means) == [
        {
            **{"text": "a", "position": "1", "word": "The", "fold": "0"},
            **{"log_time": f"{log(100)}", "surprisal": "1.0", "length": "3.0"},
        }
    ]


@for_all_pairs(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 9)), min_size=1, max_size=5), min_size=1),
    st.integers(0, 2),
)
def test_rows__are_those_of_a_count_by_hand(texts: Sequence[Sequence[tuple[int, int | None]]], spillover: int) -> None:
    """Times of 0 are missing; 100 ms and the least surprisal are within the limits."""
    cells = [(text, place, *unit) for text, units in enumerate(texts) for place, unit in enumerate(units)]
    content = "".join(f"{text},{place + 1},w{place},p,{100 * time}\n" for text, place, time, _ in cells)
    expected: list[list[str]] = []
    for text, place, time, _ in cells:
        before = [texts[text][place - lag][1] if place >= lag else None for lag in range(spillover + 1)]
        if 100 <= 100 * time <= 400 and None not in before:
            expected.append([f"{text}", f"{place + 1}", f"{100.0 * time}", *(f"{one}.0" for one in before)])
    times = read(content + "x,1,w,p,100\nx,2,w,p,100\nx,3,w,p,100\n", "text,position,word,person,rt\n")
    scores: list[float | None] = [*(surprisal for _, _, _, surprisal in cells), 1, 1, 1]
    options = changed(spillover=spillover, min_ms=100, max_ms=400)
    rows = observations(times, "self_paced", options, {"surprisal": scores})
    names = ["text", "position", "time", *rows.needed]
    found = [[line[name] for name in names] for line in written(times, rows)]
    assert [line for line in found if line[0] != "x"] == expected
