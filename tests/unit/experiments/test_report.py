"""The report of an experiment: tables, figures and one page without outside assets."""

import csv
import re
from html.parser import HTMLParser
from math import exp, log
from pathlib import Path
from typing import Literal

import pytest

from tests.support.experiment_results import (
    JOINS,
    LANGUAGES,
    excess,
    finished_experiment,
    section_scores,
    with_batteries,
    with_one_seed,
)
from trainer.contracts.base import changed
from trainer.contracts.experiments import ExperimentResult, MatrixRow, TextLeak, Validity
from trainer.contracts.runs import Leak
from trainer.contracts.units import Unit
from trainer.experiments.report import write_report
from trainer.reports.experiment_charts import (
    batteries_figure,
    curves_figure,
    figure_bytes,
    heat_map_figure,
    leaf_order,
    tree_figure,
)
from trainer.reports.experiment_latex import latex_batteries, latex_perplexities, latex_table
from trainer.reports.experiment_report import battery_table, experiment_report, perplexity_table
from trainer.reports.report_html import report_html
from trainer.reports.report_latex import latex_text
from trainer.reports.report_text import ENGLISH
from trainer.reports.report_text import rows_of as texts_of

FINISHED = finished_experiment()
PHASES: dict[str, Literal["first", "second"]] = {"kk": "first", "ky": "second"}
CURVES = tuple(changed(row, phase=PHASES.get(row.language, "single")) for row in FINISHED.curves)
WITH_PHASES = changed(FINISHED, curves=CURVES)
VOID = {"meta", "img", "br", "link"}
ONE_SEED = "One seed per language: the intervals cover sections of the text, not the spread of trainings."
TWO_SEEDS = "2 seeds per language: the intervals cover seeds and sections of the text."
IMAGES = {name: b"\x89PNG" for name in ("heat_map", "tree", "curves")}


def experiment_html(result: ExperimentResult) -> str:
    return report_html(experiment_report(result), IMAGES)


def test_report__warns_of_texts_that_a_run_was_trained_on() -> None:
    leak = TextLeak(model="lstm", language="kk", run_id="lstm-7", text_id="passages-kk", leak=Leak(lines=0.5))
    told = (
        "50.0% of the lines of the text `passages-kk` stand in the training text of `lstm-7`: surprisals are lower"
        " than in unseen text."
    )
    read = Page(experiment_html(changed(FINISHED, leaks=(leak,))))
    assert told in read.text
    assert told not in Page(experiment_html(FINISHED)).text


class Page(HTMLParser):
    """Checks that elements close in order, and collects pictures, captions and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.alts: list[str] = []
        self.captions: list[str] = []
        self.tables = 0
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            fields = dict(attrs)
            assert (fields["src"] or "").startswith("data:image/png;base64,")
            self.alts.append(fields["alt"] or "")
        self.tables += tag == "table"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("caption", "figcaption"):
            self.captions.append(data)


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, WITH_PHASES, section_scores())
    return folder


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        rows: list[dict[str, str]] = list(csv.DictReader(opened))
    return rows


def test_report__has_all_of_its_files(folder: Path) -> None:
    figures = {f"{name}.{end}" for name in ("heat_map", "tree", "curves") for end in ("png", "pdf", "svg")}
    tables = {f"{name}.csv" for name in ("matrix", "listeners", "asymmetry")}
    others = {"seeds.csv", "perplexity.csv", "curves.csv", "assimilation.csv", "correlations.csv"}
    others |= {"table.tex", "perplexity.tex", "report.html", "report.json"}
    stored = {"sections.json", "validity.json", "result.json"}
    assert {path.name for path in folder.iterdir()} == figures | tables | others | stored | {"tables"}
    expected = {"lstm-held-out", "gru-passages", "gru-held-out", "trigram-passages", "trigram-held-out"}
    assert {path.name for path in (folder / "tables").iterdir()} == expected
    assert all({path.name for path in (folder / "tables" / name).iterdir()} == tables for name in expected)
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in IMAGES)
    assert all((folder / f"{name}.pdf").read_bytes().startswith(b"%PDF") for name in IMAGES)
    for name in IMAGES:
        image = (folder / f"{name}.svg").read_text(encoding="utf-8")
        assert all(re.search(f"<text[^>]*>{language}\\b", image) for language in LANGUAGES), name


def test_matrix__has_the_fields_of_its_rows_and_six_decimals(folder: Path) -> None:
    rows = rows_of(folder / "matrix.csv")
    assert list(rows[0]) == list(MatrixRow.model_fields)
    assert [row["listener_language"] for row in rows[:8]] == ["tr"] * 7 + ["az"]
    assert [row["text_language"] for row in rows[:7]] == list(LANGUAGES)
    assert rows[1]["excess_cross_entropy"] == f"{excess('tr', 'az'):.6f}"
    assert [row["scoring_mode"] for row in rows] == ["skip"] * 49 + ["unk"] * 49


@pytest.mark.slow
def test_figures__of_equal_numbers_are_equal_to_the_byte(folder: Path) -> None:
    heat_map, curves = heat_map_figure(WITH_PHASES), curves_figure(WITH_PHASES)
    assert figure_bytes(heat_map, "png") == (folder / "heat_map.png").read_bytes()
    assert figure_bytes(heat_map, "pdf") == (folder / "heat_map.pdf").read_bytes()
    assert figure_bytes(heat_map, "svg") == (folder / "heat_map.svg").read_bytes()
    assert figure_bytes(curves, "png") == (folder / "curves.png").read_bytes()
    first, _, other, *_ = FINISHED.curves
    without_figures = changed(FINISHED, curves=(changed(first, best_val_loss=None, auc=None), other))
    assert figure_bytes(curves_figure(without_figures), "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(("unit", "nats"), [("nats", 1.0), ("bits", log(2))])
def test_figures__have_one_unit(unit: Unit, nats: float) -> None:
    heat_map, tree = heat_map_figure(FINISHED, unit), tree_figure(FINISHED, unit)
    cells, heights = ([one.get_text() for one in figure.axes[0].texts] for figure in (heat_map, tree))
    assert any(cell.startswith(f"{excess('tr', 'az') / nats:.2f}") for cell in cells)
    assert [float(height) for height in heights] == [pytest.approx(one.height / nats, abs=0.006) for one in JOINS]
    labels = heat_map.axes[1].get_ylabel(), tree.axes[0].get_xlabel()
    assert all(label.endswith(f"({unit} per character)") for label in labels)


def test_heat_map__of_many_languages_has_smaller_cells() -> None:
    many, first = tuple(f"{a}{b}" for a in "abcd" for b in "abcd"), FINISHED.models[0]
    row = first.tables.matrix[1]
    matrix = tuple(changed(row, listener_language=a, text_language=b) for a in many for b in many)
    tables = changed(first, tables=changed(first.tables, matrix=matrix))
    few = heat_map_figure(FINISHED).get_figwidth()
    more = heat_map_figure(changed(FINISHED, languages=many, models=(tables,))).get_figwidth()
    assert more / len(many) < few / len(LANGUAGES)


def test_leaves__of_each_cluster_stand_side_by_side() -> None:
    order = leaf_order(LANGUAGES, JOINS)
    assert sorted(order) == sorted(LANGUAGES)
    for join in JOINS:
        places = sorted(order.index(language) for language in join.left + join.right)
        assert places == list(range(places[0], places[-1] + 1))


def test_page__is_well_formed_and_needs_nothing_else(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    read = Page(page)
    assert len(read.alts) == 3 and all(read.alts)
    assert "://" not in re.sub(r"base64,[^\"]*", "", page)
    checks = ("passed, passages: The mean distance is 0.443 nats", "failed, shuffled: With shuffled")
    assert all(text in read.text for text in (*checks, "trigram on the passages"))
    value = excess("tr", "az")
    assert f"{value:.3f}±0.012 ({value - 0.031:.3f} to {value + 0.031:.3f})" in read.text
    assert "<" in read.text, "a character of the models is escaped in the page"
    assert "<script>" not in experiment_html(changed(FINISHED, experiment_id="<script>alert(1)</script>"))


@pytest.mark.parametrize(("result", "note"), [(with_one_seed(), ONE_SEED), (FINISHED, TWO_SEEDS)])
def test_caption__of_every_table_and_figure_explains_intervals(result: ExperimentResult, note: str) -> None:
    page = Page(experiment_html(result))
    assert len(page.captions) == page.tables + len(page.alts) > 20
    without = ("Losses in nats per token", "Characters unknown to a listener", "Mean±deviation over seeds")
    baseline = "The trigram baseline has no seeds: its intervals cover sections of the text."
    others = [one for one in page.captions if note not in one and not one.startswith(without)]
    # of the baseline: matrices and perplexities on two kinds of text in two modes
    assert [baseline in caption for caption in others] == [True] * 8
    for table in (latex_table(result), latex_perplexities(result)):
        [caption] = [line for line in table.splitlines() if r"\caption" in line]
        assert note in caption
    for figure in (tree_figure(result), curves_figure(result)):
        assert figure.get_supxlabel() == note
    spread = " ±: standard deviation over seeds." if len(result.seeds) > 1 else ""
    assert heat_map_figure(result).get_supxlabel() == note + spread


@pytest.mark.slow
def test_note__in_a_figure_overlaps_no_other_text() -> None:
    for figure in (draw(with_one_seed()) for draw in (heat_map_figure, tree_figure, curves_figure)):
        figure_bytes(figure, "png")  # lays it out
        [note] = figure.texts
        left, low, right, high = note.get_window_extent().extents
        assert note.get_text() == figure.get_supxlabel()
        assert 0 <= left < right <= figure.get_figwidth() * figure.dpi and low >= 0
        for axes in figure.axes:
            inside = axes.get_tightbbox()
            assert inside is not None and inside.extents[1] > high


@pytest.mark.slow
def test_report__names_missing_branches_seeds_and_ratings(tmp_path: Path) -> None:
    curves = tuple(changed(row, auc=None) for row in FINISHED.curves)
    missing: dict[str, object] = dict.fromkeys(["seed_rows", "perplexities", "replacements", "correlations"], ())
    missing |= {"validity": Validity(passed=None), "common_characters": None, "curves": curves}
    result = changed(FINISHED, models=(changed(FINISHED.models[0], gap=None),), **missing)
    write_report(tmp_path, result, section_scores())
    read = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert (tmp_path / "result.json").exists() and not (tmp_path / "correlations.csv").exists()
    assert "Nothing to check" in read.text and "No model met a character" in read.text
    assert "Human ratings" not in read.text and "Characters that every model knows" not in read.text
    assert "±0" not in read.text


def test_ratings__stand_in_the_page_with_adjusted_p() -> None:
    text = Page(experiment_html(FINISHED)).text
    test = "Primary test, lstm on the passages, positions whose character every model knows"
    numbers = "Spearman's ρ = -0.790, p = 0.08333 (12 pairs of 4 languages, all rated pairs; 24 permutations"
    assert f"{test}: {numbers} of the languages)." in text
    assert "3 correlations of the excess" in text and "the p-values of 2 exploratory tests are adjusted" in text
    [table] = [one for one in experiment_report(FINISHED).tables() if one.name == "correlations"]
    rows = texts_of(table)
    assert [row[0] for row in rows] == ["test", "primary", "exploratory", "exploratory"]
    assert [row[-1] for row in rows[1:]] == ["0.08333", "0.08333", "–"]
    alone = changed(FINISHED, correlations=tuple(changed(row, r=None, p=None) for row in FINISHED.correlations))
    assert "no correlation, 12 pairs of 4 languages, all rated pairs." in Page(experiment_html(alone)).text


def test_latex__is_balanced_and_escaped_and_shows_gaps() -> None:
    for table in (latex_table(FINISHED), latex_perplexities(FINISHED)):
        assert table.count("{") == table.count("}")
        assert table.count(r"\begin{") == table.count(r"\end{") == 2
    assert latex_text("a_b & 50 % {~}") == r"a\_b \& 50 \% \{\textasciitilde{}\}"
    first = FINISHED.models[0]
    incomplete = changed(first, tables=changed(first.tables, matrix=()))
    assert "–" in latex_table(changed(FINISHED, models=(incomplete,)))


def test_table__names_a_second_phase_that_improved_nothing() -> None:
    seconds = [row for row in WITH_PHASES.curves if (row.phase, row.language) == ("second", "ky")]
    initial = changed(seconds[0], initial_val_loss=seconds[0].best_val_loss)
    titles = []
    for same in (1, len(seconds)):
        parents = {row.run_id: changed(row, initial_val_loss=row.best_val_loss) for row in seconds[:same]}
        rows = tuple(parents.get(row.run_id, row) for row in WITH_PHASES.curves)
        result = changed(WITH_PHASES, curves=rows)
        rows_shown = texts_of(perplexity_table(result, *result.headline, result.modes[0]))
        titles += [row[0] for row in rows_shown if row[0].startswith("ky")]
    assert initial.has_parents_weights and not seconds[0].has_parents_weights
    alone = tuple(row for row in WITH_PHASES.curves if row.seed == seconds[0].seed)
    one_seed = changed(WITH_PHASES, curves=tuple(initial if row.run_id == initial.run_id else row for row in alone))
    titles += [row[0] for row in texts_of(perplexity_table(one_seed, *one_seed.headline, one_seed.modes[0]))]
    best = "best epoch 0: the parent's weights"
    assert titles[:2] == [f"ky (second phase; {best} in {same} of 2 seeds)" for same in (1, 2)]
    assert f"ky (second phase; {best})" in titles


def test_perplexities__stand_in_page_csv_and_latex_with_each_area(folder: Path) -> None:
    # the cross-entropy of fi by the model of kk is 1.64 + 1.6 - 4 * 0.02; the area of seed n is 1.82 + 0.01 n + 0.3
    perplexity, area, spread = f"{exp(1.64 + 1.6 - 0.08):.2f}", "2.13", "0.01"
    page = Page((folder / "report.html").read_text(encoding="utf-8")).text
    assert f"{perplexity}±0.03{area}±{spread}" in page and "kk (first phase)" in page
    latex = (folder / "perplexity.tex").read_text(encoding="utf-8")
    [row] = [line for line in latex.splitlines() if line.startswith("    kk (first phase) &")]
    assert row.endswith(rf"& ${perplexity} \pm 0.03$ & ${area} \pm {spread}$ \\")
    assert "ky (second phase)" in latex
    keys = ("model", "kind", "scoring_mode", "listener_language", "text_language")
    found = {tuple(row[key] for key in keys): row["perplexity"] for row in rows_of(folder / "perplexity.csv")}
    assert found["lstm", "passages", "skip", "kk", "fi"] == f"{exp(1.64 + 1.6 - 0.08):.6f}"


@pytest.mark.slow
def test_batteries__stand_in_page_csv_latex_and_heat_map(tmp_path: Path) -> None:
    result = with_batteries()
    write_report(tmp_path, result, section_scores())
    rows = rows_of(tmp_path / "batteries.csv")
    assert len(rows) == 2 * 7 * 3 * 2 and rows[0]["accuracy"] == "0.900000" and rows[4]["accuracy"] == ""
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    table = "".join(
        ["tr: multiblimp:tur", "kk: kk_words", "kk: ties", "tr", "90.0 [82.0, 98.0]", "62.0 [54.0, 70.0]", "–"]
    )
    assert table in page.text.replace("\n", "") and "words-1a2b3c4dbatteries and differences between runs" in page.text
    assert len(page.captions) == page.tables + len(page.alts)
    assert [one.startswith("Accuracy in % of model gru by the sum") for one in page.captions].count(True) == 1
    latex = latex_batteries(result)
    assert latex == (tmp_path / "batteries.tex").read_text(encoding="utf-8") and latex.count("{") == latex.count("}")
    assert r"    kk & 62.0 [54.0, 70.0] & 90.0 [82.0, 98.0] & – \\" in latex and r"kk: kk\_words" in latex
    assert "Means of 2 seeds per language. In brackets: 95 % intervals by Student's t over the seeds, or" in page.text
    alone = battery_table(changed(result, seeds=(1,)), "lstm").caption
    assert alone is not None
    assert ENGLISH.note(alone).endswith("One seed per language. In brackets: 95 % intervals of Wilson over the items.")
    figure = batteries_figure(result)
    assert figure_bytes(figure, "png") == (tmp_path / "batteries.png").read_bytes()
    assert (tmp_path / "batteries.pdf").read_bytes().startswith(b"%PDF")
    heat, _ = figure.axes
    assert [label.get_text() for label in heat.get_xticklabels()] == ["tr: multiblimp:tur", "kk: kk_words", "kk: ties"]
    texts = [text.get_text() for text in heat.texts]
    assert texts.count("62.0") == 12 and texts.count("90.0") == 2 and texts.count("±2.5") == 14
    one_seed = tuple(changed(row, deviation=None) for row in result.batteries)
    note = batteries_figure(changed(result, seeds=(1,), batteries=one_seed)).get_supxlabel()
    assert note == "One seed per language."
