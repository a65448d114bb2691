"""Writes the report of an experiment into its folder: tables, figures, and one page that shows them."""

from collections.abc import Iterator
from pathlib import Path

from trainer.contracts.batteries import BatteryRow
from trainer.contracts.experiments import (
    AsymmetryRow,
    Correlation,
    CurveRow,
    ExperimentResult,
    ListenersRow,
    MatrixRow,
    PerplexityRow,
    Replacement,
    SectionsFile,
    SeedRow,
    Tables,
)
from trainer.reports.experiment_latex import latex_batteries, latex_perplexities, latex_table
from trainer.reports.experiment_report import experiment_report
from trainer.reports.experiment_tables import csv_text
from trainer.system.files import DISK, write_atomically

RESULT = "result.json"
"""Written last: an experiment that has this file is completed, and its other files are complete."""


def write_report(folder: Path, result: ExperimentResult, sections: SectionsFile) -> None:
    """Write all files of the report durably into the existing folder of an experiment; `result.json` last."""
    for name, content in _report_files(result, sections):
        path = folder / name
        DISK.make_folder(path.parent)
        DISK.sync(path.parent.parent)
        write_atomically(path, content.encode() if isinstance(content, str) else content)
    write_atomically(folder / RESULT, result.model_dump_json(indent=1).encode())


def _report_files(result: ExperimentResult, sections: SectionsFile) -> Iterator[tuple[str, str | bytes]]:
    headline, *others = result.models
    yield from _csv_files("", headline.tables)
    for tables in others:
        yield from _csv_files(f"tables/{tables.model}-{tables.kind.replace('_', '-')}/", tables.tables)
    yield "seeds.csv", csv_text(SeedRow, result.seed_rows)
    yield "perplexity.csv", csv_text(PerplexityRow, result.perplexities)
    yield "curves.csv", csv_text(CurveRow, result.curves)
    yield "assimilation.csv", csv_text(Replacement, result.replacements)
    if result.correlations:
        yield "correlations.csv", csv_text(Correlation, result.correlations)
    if result.batteries:
        yield "batteries.csv", csv_text(BatteryRow, result.batteries)
        yield "batteries.tex", latex_batteries(result)
    yield "sections.json", sections.model_dump_json()
    yield "validity.json", result.validity.model_dump_json(indent=1)
    yield "table.tex", latex_table(result)
    yield "perplexity.tex", latex_perplexities(result)
    yield from _figures_and_page(result)


def _figures_and_page(result: ExperimentResult) -> Iterator[tuple[str, str | bytes]]:
    from trainer.reports.experiment_charts import (
        batteries_figure,
        curves_figure,
        figure_bytes,
        heat_map_figure,
        tree_figure,
    )
    from trainer.reports.report_html import report_html

    figures = {"heat_map": heat_map_figure(result), "tree": tree_figure(result), "curves": curves_figure(result)}
    if result.batteries:
        figures["batteries"] = batteries_figure(result)
    images = {name: figure_bytes(figure, "png") for name, figure in figures.items()}
    for name, figure in figures.items():
        yield f"{name}.png", images[name]
        yield f"{name}.pdf", figure_bytes(figure, "pdf")
        yield f"{name}.svg", figure_bytes(figure, "svg")
    report = experiment_report(result)
    yield "report.html", report_html(report, images)
    yield "report.json", report.model_dump_json()


def _csv_files(folder: str, tables: Tables) -> Iterator[tuple[str, str]]:
    yield f"{folder}matrix.csv", csv_text(MatrixRow, tables.matrix)
    yield f"{folder}listeners.csv", csv_text(ListenersRow, tables.listeners)
    yield f"{folder}asymmetry.csv", csv_text(AsymmetryRow, tables.asymmetry)
