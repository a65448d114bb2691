"""The card of an experiment in each of its states, within Discord's limits."""

from math import exp, log
from typing import Literal

from bot.messages.experiment_answers import metric_answer
from bot.messages.experiment_card import attach_figures, experiment_card
from tests.support.experiment_results import (
    LANGUAGES,
    experiment_status,
    finished_experiment,
    model_tables,
    with_batteries,
)
from trainer.contracts.base import RunState, changed
from trainer.contracts.experiments import ExperimentResult, ModelTables, Validity


def shown(status: RunState, *states: RunState, result: ExperimentResult | None = None) -> tuple[str, str]:
    card = experiment_card(experiment_status(status, *states), result)
    assert len(card) < 6000
    return card.title or "", card.description or ""


def test_completed_card__has_the_matrix_and_the_checks() -> None:
    title, text = shown("completed", result=finished_experiment())
    assert title == "🧪 Completed: experiment turkic"
    rows = [line.split() for line in text.splitlines()]
    assert list(LANGUAGES) in rows
    # the distance of kk and ky is 0.36; ky comes one place later, and each place counts 0.02
    nats, bit = (0.99, 0.97, 0.0, 0.34, 0.76, 0.74, 1.52), log(2)
    assert ["kk", *(f"{one / bit:.3f}±{0.012 / bit:.3f}" if one else "0.000" for one in nats)] in rows
    shown_gap = f"the gap, {0.44 / bit:.3f}, should be above 0. The tree joins the languages of each branch first."
    assert "✓ passages: The mean distance is " in text and shown_gap in text
    assert f"✗ shuffled: With shuffled characters, the gap is {0.44 / bit:.3f} bits/char.\n" in text
    pair = "the model of tr is less surprised by fi than that of fi by tr"
    interval = f"{0.24 / bit:.3f} [{0.209 / bit:.3f}, {0.271 / bit:.3f}]"
    assert f"Most asymmetric pair: {pair}: {interval} bits/char, a 95 % interval" in text
    assert "(lstm, passages, 2 seeds). Rows: model of a language; columns: text." in text
    rated = "primary test: Spearman's ρ -0.79, p = 0.0833 over 12 pairs of 4 languages. Other tests are exploratory: 2."
    assert f"Human ratings, {rated}" in text
    # exp(1.82) of kk by its own model, and the mean area of both seeds: 1.82 + 0.015 + 0.3
    [perplexities] = [row for row in rows if row[0] == "kk" and "±" not in row[1]]
    assert (perplexities[3], perplexities[-1]) == (f"{exp(1.82):.2f}", f"{2.135 / bit:.2f}")


def test_checks__say_what_their_numbers_should_be() -> None:
    [joined, shuffled] = finished_experiment().validity.checks
    checks = (
        changed(joined, name="held_out", joins_branches_first=False),
        shuffled,
        changed(shuffled, name="control", passed=True),
        changed(joined, gap=None, message="An older version said so."),
    )
    _, text = shown("completed", result=changed(finished_experiment(), validity=Validity(passed=False, checks=checks)))
    assert "✓ held-out: The mean distance is " in text
    assert "The tree does not join the languages of each branch first.\n" in text
    assert f"It should be below half of the {0.44 / log(2):.3f} of the held-out text.\n" in text
    control = f"✓ control: The nearest control is fi, {1.6 / log(2):.3f} bits/char away; that should be more than"
    assert f"{control} the mean across branches, {0.883333 / log(2):.3f}.\n" in text
    assert "✓ passages: An older version said so.\n" in text


def test_completed_card__names_the_phases_and_texts_without_a_model() -> None:
    finished = finished_experiment()
    phases: dict[str, Literal["first", "second"]] = {"kk": "first", "ky": "second"}
    curves = tuple(changed(row, phase=phases.get(row.language, "single")) for row in finished.curves)
    rows = tuple(row for row in finished.perplexities if (row.listener_language, row.text_language) != ("ky", "fi"))
    _, text = shown("completed", result=changed(finished, languages=("kk", "ky"), curves=curves, perplexities=rows))
    assert "kk, first phase" in text
    [second] = [line for line in text.splitlines() if line.startswith("ky, second phase")]
    assert len(second.split()) == 3 + 7 + 1, "a number or a dash for each text, and the area"
    assert second.split()[-2] == "–"


def test_matrix__of_many_languages_ends_with_a_word_on_the_report() -> None:
    many = tuple(f"{first}{second}" for first in "abcdefgh" for second in "abcd")
    result = finished_experiment()
    [row] = [row for row in result.models[0].tables.matrix[:2] if row.text_language == "az"]
    matrix = tuple(changed(row, listener_language=a, text_language=b) for a in many for b in many)
    tables: ModelTables = changed(
        model_tables("lstm", "passages"), tables=changed(result.models[0].tables, matrix=matrix)
    )
    _, text = shown("completed", result=changed(result, languages=many, models=(tables,), seed_rows=()))
    assert "… the report has all languages" in text


def test_figures__have_texts_for_screen_readers() -> None:
    result = finished_experiment()
    card = experiment_card(experiment_status("completed"), result)
    files = attach_figures(card, {"heat_map.png": b"png", "tree.png": b"png"}, result)
    assert card.image.url == "attachment://heat_map.png"
    assert [(file.filename, file.description) for file in files] == [
        ("heat_map.png", "Excess surprisal by listener and text: tr, az, kk, ky, uz, ug, fi."),
        ("tree.png", "Average-linkage tree of tr, az, kk, ky, uz, ug, fi."),
    ]


def test_batteries__have_a_line_a_figure_and_cells_of_their_own() -> None:
    result = with_batteries()
    _, text = shown("completed", result=result)
    own = "tr: multiblimp:tur **90.0%** [82.0%, 98.0%] · kk: kk\\_words **90.0%** [82.0%, 98.0%] · kk: ties –"
    assert text.splitlines()[-2] == f"Accuracy on batteries, each by the model of its language: {own}"
    card = experiment_card(experiment_status("completed"), result)
    assert attach_figures(card, {}, result) == [] and card.image.url is None, "the process that draws has died"
    [last] = attach_figures(card, {"batteries.png": b"png"}, result)
    described = "Accuracy on batteries by language of the model: tr, az, kk, ky, uz, ug, fi."
    assert (last.filename, last.description) == ("batteries.png", described)
    alone = tuple(row for row in result.batteries if row.battery_language != row.model_language)
    assert "Accuracy on batteries" not in shown("completed", result=changed(result, batteries=alone))[1]
    status = experiment_status("running", "completed", "running")
    cells = [changed(cell, kind=kind) for kind in ("battery", "score", "train") for cell in status.cells]
    lines = (experiment_card(changed(status, cells=tuple(cells))).description or "").splitlines()
    assert lines[1:4] == [f"**lstm**, seed 1, {what}: ✓ tr  ▶ az" for what in ("trained", "scored", "batteries")]
    waiting = experiment_card(experiment_status("running", "paused", "queued")).description or ""
    assert waiting.splitlines()[1] == "**lstm**, seed 1, trained: ⏸ tr  ○ az"


def test_areas__of_runs_without_a_loss_curve_are_missing() -> None:
    finished = finished_experiment()
    curves = [changed(row, auc=None) if row.language == "kk" else row for row in finished.curves]
    text = metric_answer(experiment_status("completed"), changed(finished, curves=curves), "auc").description or ""
    assert [line.split()[1:] for line in text.splitlines() if line.startswith("kk ")] == [["–", "–"]]
