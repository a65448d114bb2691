"""The files of an analysis of reading times: the report, its pictures, and its tables."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.contracts.readings import ReadingFit, ReadingResult
from trainer.contracts.reports import Report
from trainer.reports.experiment_tables import csv_table
from trainer.reports.report_html import report_html

_GAIN_COLUMNS = (
    *("model", "counts", "measure", "analysis", "n_observations", "n_texts", "perplexity"),
    *("delta_log_likelihood", "low", "high", "spline", "spline_low", "spline_high"),
)
_EFFECT_COLUMNS = (
    "model",
    "counts",
    "measure",
    "predictor",
    "unit",
    "estimate",
    "low",
    "high",
    "standard_error",
    "clustered_error",
)


def reading_files(result: ReadingResult, report: Report, images: Mapping[str, bytes]) -> dict[str, str | bytes]:
    """Return the files by name, given the report's pictures."""
    return {
        "gains.csv": csv_table(_GAIN_COLUMNS, _gains(result.fits), is_exact=True),
        "effects.csv": csv_table(_EFFECT_COLUMNS, _effects(result.fits), is_exact=True),
        "report.html": report_html(report, images),
        "report.json": report.model_dump_json(),
        **{f"{name}.png": image for name, image in images.items()},
    }


def _gains(fits: Sequence[ReadingFit]) -> Iterator[tuple[object, ...]]:
    for fit in fits:
        line, spline = fit.delta_log_likelihood, fit.spline_delta_log_likelihood
        yield (
            *(fit.model, fit.counts, fit.measure, fit.analysis, fit.n_observations, fit.n_texts, fit.perplexity),
            *(line.estimate, line.low, line.high, spline.estimate, spline.low, spline.high),
        )


def _effects(fits: Sequence[ReadingFit]) -> Iterator[tuple[object, ...]]:
    for fit in fits:
        for one in fit.coefficients:
            values = one.estimate, one.low, one.high, one.standard_error, one.clustered_error
            yield fit.model, fit.counts, fit.measure, one.predictor, one.unit, *values
