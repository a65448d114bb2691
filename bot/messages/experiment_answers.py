"""Parts of answers about experiments: their buttons, and the other metrics of a result than excess surprisal."""

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Literal, get_args

import discord

from bot.messages.buttons import button, option, select
from bot.messages.experiment_card import matrix_lines, perplexity_lines, seeds_note
from bot.messages.text import GREEN, code_block, count, figure, make_embed, plain, unit_per
from bot.people.user_settings import current_unit
from trainer.contracts.experiments import ExperimentResult, ExperimentStatus
from trainer.contracts.units import SURPRISAL_DIGITS
from trainer.lab.language import _
from trainer.reports.experiment_tables import MISSING

Metric = Literal["surprisal", "perplexity", "auc", "asymmetry"]
_ALL: tuple[Metric, ...] = get_args(Metric)
METRICS: dict[str, Metric] = {str(metric): metric for metric in _ALL}
_MAX_TABLE = 3000


def metric_answer(status: ExperimentStatus, result: ExperimentResult, metric: Metric) -> discord.Embed:
    """Return the table of a metric of a completed experiment."""
    model, kind = result.headline
    what = _(
        "({model}, {kind} text, {seeds})",
        model=plain(model),
        kind=kind.replace("_", "-"),
        seeds=count(len(result.seeds), "seed"),
    )
    match metric:
        case "perplexity":
            title = _(
                "Perplexity per character {what}, and area under the training loss in {unit} · steps."
                " Rows: model of a language; columns: text.",
                what=what,
                unit=_(current_unit()),
            )
            table = perplexity_lines(result)
        case "asymmetry":
            title = _(
                "Asymmetry of the excess surprisal, {unit} {what}. Row a, column b: positive if a is more surprised by"
                " b than b by a.",
                what=what,
                unit=unit_per("char"),
            )
            asymmetries = _asymmetries(result)
            table = matrix_lines(result.languages, result.languages, lambda a, b: asymmetries.get((a, b), MISSING))
        case _:
            title = _(
                "Area under the training loss, {unit} · steps, by model: mean ± standard deviation over seeds.",
                unit=_(current_unit()),
            )
            table = _areas(result)
    lines = [f"{title} {seeds_note(result)}", code_block("\n".join(table), _MAX_TABLE)]
    return make_embed(
        GREEN,
        f"🧪 {_('Experiment {name}: {metric}', name=plain(status.name), metric=metric)}",
        lines,
        status.experiment_id,
    )


def experiment_facts(status: ExperimentStatus) -> str:
    """Return the facts of an experiment in a list."""
    done = _("{done} of {cells}", done=status.cells_done, cells=count(status.n_cells, "cell"))
    return f"{_(status.status)} · {done}"


def _asymmetries(result: ExperimentResult) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for row in result.models[0].tables.asymmetry:
        if row.scoring_mode == result.modes[0]:
            found[row.language_a, row.language_b] = figure(row.asymmetry, sign="+")
            found[row.language_b, row.language_a] = figure(-row.asymmetry, sign="+")
    return found


def _areas(result: ExperimentResult) -> list[str]:
    models = tuple({row.model: row for row in result.curves})
    rows = [["", *models]]
    for language in result.languages:
        areas = [
            [row.auc for row in result.curves if (row.model, row.language) == (model, language) and row.auc is not None]
            for model in models
        ]
        rows.append([language, *map(_mean, areas)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(models) + 1)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    spread = f"±{figure(stdev(values), SURPRISAL_DIGITS)}" if len(values) > 1 else ""
    return f"{figure(fmean(values), SURPRISAL_DIGITS)}{spread}"


def experiment_items(status: ExperimentStatus) -> Iterator[discord.ui.Item[discord.ui.View]]:
    """Yield the list and the buttons that only an experiment has."""
    experiment_id = status.experiment_id
    if status.status == "completed":
        options = [option(metric, metric) for metric in METRICS]
        yield select("expmetric", experiment_id, _("Metric"), options)
        yield button("expcsv", experiment_id, "CSV")
        yield button("exptex", experiment_id, "LaTeX")
    elif status.has_ended:
        yield button("exprerun", experiment_id, _("Rerun missing"))
