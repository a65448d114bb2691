"""The card of a battery: its states, its accuracies and its controls."""

import pytest

from bot.messages.battery_card import batteries_page, battery_card
from tests.support.battery_results import ONE, SEVERAL
from tests.support.development_results import DEVELOPMENT
from trainer.contracts.base import RunState, changed, now
from trainer.contracts.batteries import BatteryStatus

STATUS = BatteryStatus(
    battery_id="ab-1",
    status="queued",
    message="Waiting for a worker.",
    runs=("lstm-1",),
    batteries=("a&b",),
    done=5,
    total=20,
    created_at=now(),
    elapsed_seconds=2.0,
)


@pytest.mark.parametrize(
    ("state", "title", "said"),
    [
        ("queued", "⏳ Queued: battery a&b", "Waiting for a worker."),
        ("running", "🔎 Running: battery a&b", "**5 of 20** items"),
        ("completed", "🔎 Completed: battery a&b", "Waiting for a worker."),
        ("failed", "❌ Failed: battery a&b", "Finished scores are stored."),
        ("cancelled", "⏹ Cancelled: battery a&b", "**5 of 20** items"),
    ],
)
def test_card__shows_the_state(state: RunState, title: str, said: str) -> None:
    embed = battery_card(changed(STATUS, status=state))
    assert embed.title == title and said in (embed.description or "")


def test_completed_battery__has_accuracies_and_controls() -> None:
    shown = battery_card(changed(STATUS, status="completed"), ONE).description or ""
    rows = [line.split() for line in shown.splitlines()]
    assert ["a&b", "75.0%", "30.1%", "…", "95.4%"] in rows
    assert ["empty", "–", "–"] in rows
    assert "a&b: ⚠ 2 items with one text that begins the other: the shorter one wins. Try `measure:end`." in shown
    assert "a&b: untrained 75.0% (30.1% … 95.4%), chance 50.0%" in shown and "not at chance" not in shown
    assert "a&b: counts: unigrams 50.0%, 5-grams 75.0%" in shown
    assert "20.0% of the items stand in the training text, 40.0% with eight words in a row" in shown


def test_several_runs__stand_side_by_side_with_what_is_wrong() -> None:
    shown = battery_card(changed(STATUS, status="completed"), SEVERAL).description or ""
    rows = [line.split() for line in shown.splitlines()]
    assert ["x", "75.0%", "(30.1%…95.4%)", "75.0%", "(30.1%…95.4%)"] in rows and ["empty", "–", "–"] in rows
    assert "**second** · a&b: 1 tie\n" in shown
    assert "**second** · a&b: untrained 75.0% (30.1% … 95.4%), chance 50.0% ⚠ not at chance" in shown
    assert "**second** · a&b: counts: unigrams 50.0%\n" in shown, "which are its best n-grams"


def test_suite__shows_each_of_its_formulas_and_some_controls() -> None:
    [result] = ONE.runs
    formulas = (*(changed(result.formulas[0], paradigm="x", n_right=n) for n in (1, 2)), *result.formulas)
    controls = (changed(result.controls[0], suite="x"),) * 11
    suite = changed(result, formulas=formulas, controls=controls)
    one = battery_card(changed(STATUS, status="completed"), changed(ONE, runs=(suite,))).description or ""
    assert ["formula", "2", "50.0%", "15.0%", "…", "85.0%"] in [line.split() for line in one.splitlines()]
    assert "formula 3" not in one and "formula 1" in one
    assert one.count("a&b: x: untrained") == 10 and "\n…\n" in one
    other = changed(suite, run=changed(suite.run, run_id="lstm-2"))
    both = battery_card(changed(STATUS, status="completed"), changed(ONE, runs=(suite, other))).description or ""
    assert ["formula", "1", "50.0%", "(15.0%…85.0%)", "50.0%", "(15.0%…85.0%)"] in [
        line.split() for line in both.splitlines()
    ]


def test_battery__tells_of_validation_text_and_of_what_is_not_compared() -> None:
    leak = changed(ONE.runs[0].leaks[0], validation_whole=0.6, unsearched=("deleted",))
    summary = changed(ONE, runs=(changed(ONE.runs[0], leaks=(leak,)),), notes=("These are not compared.",))
    shown = battery_card(changed(STATUS, status="completed"), summary).description or ""
    assert "⚠ a&b: 60.0% of the items stand in the validation text" in shown
    assert "⚠ a&b: the training text of " in shown and "⚠ These are not compared." in shown
    told = changed(DEVELOPMENT, notes=("Half of it was read.",))
    assert "⚠ Half of it was read." in (battery_card(changed(STATUS, status="completed"), ONE, told).description or "")


def test_long_battery__shows_its_first_paradigms() -> None:
    [result] = ONE.runs
    many = tuple(changed(result.groups[1], name=f"paradigm {n}") for n in range(60))
    shown = battery_card(changed(STATUS, status="completed"), changed(ONE, runs=(changed(result, groups=many),)))
    assert "paradigm 24 " in (shown.description or "") and "paradigm 25 " not in (shown.description or "")
    assert "\n…\n" in (shown.description or "")


def test_list__has_a_line_for_each_battery() -> None:
    assert "No batteries yet" in (batteries_page([], total=0, page="").description or "")
    page = batteries_page([STATUS, changed(STATUS, status="completed")], total=2, page=" · page 1 of 1")
    assert page.title == "🔎 2 batteries · page 1 of 1"
    assert "`ab-1` · a&b · 1 run · queued" in (page.description or "")
