"""Names of runs in reports, in charts and in the tables of Discord."""

import re
from collections.abc import Mapping

import pytest

from bot.messages.report_card import table_card
from tests.support.battery_results import SEVERAL
from tests.support.messages import COMPLETED
from tests.support.readings import reading_record
from tests.support.reports import REPORTS
from tests.unit.reports.test_reading_report import fit
from tests.unit.reports.test_segmentation_report import RESULT as SEGMENTATION
from trainer.contracts.base import changed
from trainer.contracts.readings import ReadingResult
from trainer.contracts.reports import Link, Report, Series, Table, column, note, section
from trainer.reports.names import named, run_names
from trainer.reports.reading_report import reading_report
from trainer.reports.report_figures import short_names
from trainer.reports.run_report import run_report
from trainer.reports.segmentation_report import segmentation_report

EMBED_CHARACTERS = 64
"""Characters of a line in a block of code of an embed, which breaks longer ones."""
FIRST, SECOND = "char_lstm-20261130-ffcf58f6", "char_lstm-20261130-30ebfa44"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({FIRST: "русская модель", SECOND: None}, {FIRST: "русская модель", SECOND: SECOND}),
        ({FIRST: "a", SECOND: "a"}, {FIRST: "a (ffcf58f6)", SECOND: "a (30ebfa44)"}),
        ({"lstm-1-7": "a", "gpt2-1-7": "a"}, {"lstm-1-7": "a (lstm-1-7)", "gpt2-1-7": "a (gpt2-1-7)"}),
        (
            {f"{FIRST}-s1": "a", f"{FIRST}-s2": "a"},
            {f"{FIRST}-s1": "a (s1)", f"{FIRST}-s2": "a (s2)", FIRST: "a"},
        ),
        ({f"{FIRST}@20": "a", f"{FIRST}@40": "a"}, {FIRST: "a"}),
    ],
)
def test_names__are_labels_with_the_ends_of_ids_where_two_are_equal(
    labels: Mapping[str, str | None], names: Mapping[str, str]
) -> None:
    assert run_names(labels.items()) == names


def test_names__stand_in_texts_and_not_in_addresses_files_and_commands() -> None:
    link = Link(text=f"unigram of {FIRST}", address=f"runs/{FIRST}")
    table = Table(
        name="t", title=note("T"), columns=(column("model"),), rows=((link,), (f"{FIRST}@20",)), file=f"{FIRST}.csv"
    )
    command, other = note("`mt score {run}`", run=FIRST), note("{run} and {other}", run=FIRST, other=f"{FIRST}-s1")
    report = Report(title=note("R"), sections=tuple(section("S", [table, command, other])))
    [found] = named(report, {FIRST: "a"}).sections
    shown = changed(table, rows=((changed(link, text="unigram of a"),), ("a@20",)))
    assert found.parts == (shown, command, note("{run} and {other}", run="a", other=f"{FIRST}-s1"))


def test_reading__calls_runs_by_their_labels_in_tables_and_lines() -> None:
    record, _ = reading_record("reading-1", FIRST)
    record = changed(record, runs=tuple(changed(run, label="русская модель") for run in record.runs))
    fits = fit(FIRST, 0.01, 100.0), fit(FIRST, 0.02, 200.0, counts="unigram")
    report = reading_report(ReadingResult(reading_id="reading-1", data=record.data, fits=fits), record, {})
    series: list[Series] = [one for figure in report.figures() for one in figure.series]
    assert {one.name for one in series} == {"русская модель", "unigram of русская модель"}
    assert FIRST not in report.model_dump_json().replace(f'"address":"runs/{FIRST}"', "")


def test_short_names__keep_different_names_different() -> None:
    names = [f"unigram of the model {letter * 6} of the long evening" for letter in "ab"]
    short = short_names([*names, "lstm"])
    assert len({*short.values()}) == 3 and short["lstm"] == "lstm"


def _long_reports() -> Mapping[str, Report]:
    long = "a name of sixty-four characters, which a person may give to a run"[:64]
    record, _ = reading_record("reading-1", FIRST, SECOND)
    fits = tuple(fit(run, 0.01, 100.0, counts=counts) for run in (FIRST, SECOND) for counts in (None, "unigram"))
    reports = {
        **REPORTS,
        "reading": reading_report(ReadingResult(reading_id="reading-1", data=record.data, fits=fits), record, {}),
        "segmentation": segmentation_report(SEGMENTATION, long),
        "run": run_report(changed(COMPLETED, label=long)),
    }
    ids = {FIRST: f"{long} 1", SECOND: f"{long} 2", "run": long, **{one.run.name: long for one in SEVERAL.runs}}
    return {name: named(report, ids) for name, report in reports.items()}


@pytest.mark.parametrize("name", _long_reports())
def test_discord__has_each_row_of_a_table_on_one_line(name: str) -> None:
    report = _long_reports()[name]
    tables = [part for one in report.sections for part in one.first_parts() if isinstance(part, Table)]
    for place, table in enumerate(tables):
        caption, _, block = str(table_card(report, place, "job").description).partition("```")
        assert max(map(len, block.splitlines())) <= EMBED_CHARACTERS
        if "95 % interval" in caption and not any(one.shows == "interval" for one in table.columns):
            assert re.search(r"[(\[]", block)
