"""Rows of the curves over checkpoints, and the results that are computed from the tables again."""

from math import log, sqrt

import pytest
from scipy.stats import t

from tests.support.battery_results import RIGHT, TIES, group
from tests.support.development_results import DEVELOPMENT, NO_ITEMS, WORDS
from tests.support.measured_runs import line_losses
from tests.support.refusals import refused
from trainer.batteries.development import accuracy_rows, loss_rows, recomputed
from trainer.batteries.summary import Items
from trainer.contracts.base import changed, now
from trainer.contracts.batteries import BatteryInfo, BatteryItem, Suite
from trainer.contracts.development import DevelopmentRow
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalMetrics, SequenceLengths
from trainer.contracts.sequences import SequenceParts
from trainer.reports.development_report import development_report
from trainer.reports.development_tables import report_files

METRICS = EvalMetrics(
    run_id="lstm-1",
    split="test",
    dataset="text",
    loss=2.0,
    perplexity=7.389,
    bits_per_char=1.5,
    top1_accuracy=0.25,
    top5_accuracy=0.5,
    n_tokens=400,
    n_chars=800,
    lines=line_losses(2.0, 0.3),
    tokens_per_char=0.5,
    tokens_per_word=2.0,
    seq_len=SequenceLengths(min=10, p50=10.0, p95=10.0, max=10),
    distinct_1=0.0,
    distinct_2=0.0,
    repetition_rate=0.0,
    seed=1,
    checkpoint="last",
    created_at=now(),
)


def test_accuracies__have_their_interval_and_the_chance_of_their_items() -> None:
    battery = BatteryInfo(name="a&b", sha256="a" * 64, n_items=3, n_sequences=8)
    items = [
        item("x", 2),
        item("x", 4),
        changed(item("y", 2), conditions=("c", "d"), regions=((1,), (1,))),
    ]
    groups = [group("battery", "", RIGHT, TIES), group("paradigm", "x", RIGHT), group("paradigm", "y", RIGHT)]
    rows = [*accuracy_rows(8, Items([battery], items), groups, "sum")]
    assert [(row.step, row.level, row.name, row.chance) for row in rows] == [
        (8, "battery", "a&b", None),
        (8, "paradigm", "a&b: x", 0.375),
        (8, "paradigm", "a&b: y", None),
    ]
    suite = Suite(regions={1: "verb"}, formulas=("(1;%c%) < (1;%d%)",))
    *_, last = accuracy_rows(8, Items([changed(battery, suites={"y": suite})], items), groups, "sum")
    assert last.chance == pytest.approx(0.5, abs=0.02)
    assert {(row.measure, row.value, row.low, row.high, row.n) for row in rows} == {("accuracy", 0.75, 0.301, 0.954, 4)}
    assert [*accuracy_rows(8, Items([battery], items), groups[:1], "char")] == [], "ties only"


def item(paradigm: str, n_choices: int) -> BatteryItem:
    sequences = tuple(SequenceParts(parts=(f"text {number}",)) for number in range(n_choices))
    return BatteryItem(battery="a&b", name="f:1", paradigm=paradigm, sequences=sequences)


def test_losses__have_the_interval_over_the_lines_in_their_unit() -> None:
    half = float(t.ppf(0.975, 39)) * 0.3 * sqrt(40 / 39) / sqrt(40)  # 40 lines that are 0.3 above or below the mean
    loss, bits = loss_rows(8, METRICS)
    assert (loss.measure, loss.level, loss.name, loss.value, loss.n) == ("loss", "split", "test", 2.0, 400)
    assert (bits.measure, bits.value, bits.n) == ("bits_per_char", 1.5, 800)
    assert ends(loss) == pytest.approx((2 - half, 2 + half), rel=1e-4)
    assert ends(bits) == pytest.approx((1.5 - half / 2 / log(2), 1.5 + half / 2 / log(2)), rel=1e-4)
    small = next(loss_rows(8, changed(METRICS, loss=half / 2)))
    assert ends(small) == pytest.approx((0.0, 1.5 * half)), "no loss is negative"


def ends(row: DevelopmentRow) -> tuple[float, ...]:
    return tuple(end for end in (row.low, row.high) if end is not None)


def test_losses__of_few_lines_or_masked_models_have_what_is_known() -> None:
    [row] = loss_rows(8, changed(METRICS, bits_per_char=None, lines=line_losses(2.0, lines=5)))
    assert (row.measure, row.low, row.high) == ("loss", None, None), "five lines are too few"


def test_results__are_computed_from_the_tables_again_to_the_last_digit() -> None:
    report = development_report(DEVELOPMENT, NO_ITEMS)
    files = report_files(DEVELOPMENT, report, WORDS, {})
    tables = {name: content for name, content in files.items() if isinstance(content, str)}
    again = recomputed("lstm-1", tables)
    assert again == changed(DEVELOPMENT, missing_words=(), n_unscored=0)


@pytest.mark.parametrize("damage", ["1,w,10", "1,w,10,x", "1,w,10,2.5,3", "x,w,10,2.5"])
def test_damaged_tables__are_refused(damage: str) -> None:
    files = report_files(DEVELOPMENT, development_report(DEVELOPMENT, NO_ITEMS), WORDS, {})
    tables = {name: str(content) for name, content in files.items()}
    tables["words.csv"] += f"{damage}\n"
    with refused(ErrorCode.INVALID_INPUT, "Row 29 of a table"):
        recomputed("lstm-1", tables)
