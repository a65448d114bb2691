"""`/mt experiment start`, `list`, `show`, `export` and `cancel`: cross-language experiments."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.exported_files import one_file, zipped_results
from bot.commands.pages import unfiltered_list
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import Suggestion, autocomplete
from bot.commands.started_jobs import watched
from bot.commands.training import download_to
from bot.messages.buttons import ButtonPress
from bot.messages.experiment_answers import (
    METRICS,
    REFRESH,
    Metric,
    experiment_buttons,
    experiments_page,
    metric_answer,
)
from bot.messages.experiment_card import attach_figures, experiment_card
from bot.messages.text import plain
from bot.people.user_settings import current_unit
from bot.session.client import Bot
from trainer.artifacts.experiments import ExperimentDirectory
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentRequest, ExperimentResult
from trainer.contracts.installation import recipes
from trainer.contracts.parameters import ExperimentPath
from trainer.data.corpora import CorpusStore
from trainer.lab import calls
from trainer.lab.language import _
from trainer.lab.waits import all_pages
from trainer.queue.run_index import matching
from trainer.system.files import read_record

experiment = app_commands.Group(name="experiment", description="Cross-language experiments.")
_EXPORTED = {".csv", ".tex", ".pdf", ".html"}
_TABLE, _LATEX = "matrix.csv", "table.tex"


def _experiments(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    try:
        context.lab.permissions.check_experiments(context.caller)
    except AppError:
        return
    for experiment_id in matching(typed, context.lab.index.experiments, lambda name: (name,)):
        yield experiment_id, experiment_id


_suggested = autocomplete(_experiments)


@experiment.command(name="start", description="Train a model per language, and score every language with each.")
@app_commands.describe(
    recipe="Plan of the program; default: turkic",
    languages="Language codes, with commas; default: those of the plan",
    seeds="Trainings per language and model; default: those of the plan",
    config="Plan (YAML) in place of a recipe",
)
@app_commands.choices(recipe=[app_commands.Choice(name=name, value=name) for name in recipes()])
async def start_experiment(
    interaction: discord.Interaction[Bot],
    recipe: str | None = None,
    languages: str = "",
    seeds: app_commands.Range[int, 1, 20] | None = None,
    config: discord.Attachment | None = None,
) -> None:
    codes = [code.strip() for code in languages.split(",") if code.strip()]
    await respond(interaction, "experiment start", lambda context: _start(context, recipe, codes, seeds, config))


async def _start(
    context: CommandContext,
    recipe: str | None,
    codes: list[str],
    seeds: int | None,
    config: discord.Attachment | None,
) -> Answer:
    if recipe is not None and config is not None:
        raise AppError(ErrorCode.INVALID_INPUT, _("Give `recipe` or `config`, not both."))
    if len(codes) == 1:
        raise AppError(ErrorCode.INVALID_INPUT, _("`languages` must name at least two languages, as `kk,tr`."))
    options: dict[str, object] = {} if seeds is None else {"seeds": list(range(1, seeds + 1))}
    with TemporaryDirectory() as folder:
        plan: str | Path = recipe or "turkic"
        if config is not None:
            plan = await download_to(context, config, "config", folder)
        request = await asyncio.to_thread(_read_plan, plan, options, codes)
    return await _accept(context, await asyncio.to_thread(_with_built_corpora, request, context.lab.queue.corpora))


def _read_plan(plan: str | Path, options: dict[str, object], codes: list[str]) -> ExperimentRequest:
    from trainer.config.experiment_file import plan_path, read_plan  # slow: not at the start

    return read_plan(plan_path(plan) if isinstance(plan, str) else plan, options, codes)


def _with_built_corpora(request: ExperimentRequest, corpora: CorpusStore) -> ExperimentRequest:
    """Return the request with the corpus that `/mt corpus build` made of each language without another corpus."""
    languages, names = dict(request.languages), corpora.names()
    for code, options in request.languages.items():
        if options.corpus is None and request.corpora is None and code not in names:
            found = [name for name in names if name.endswith(f"_{code}_ipa")]
            if len(found) > 1:
                names_found = ", ".join(found)
                message = _(
                    "Several corpora are of '{code}': {corpora}. Name one in a `config`.",
                    code=code,
                    corpora=names_found,
                )
                raise AppError(ErrorCode.INVALID_INPUT, message)
            languages[code] = changed(options, corpus=found[0] if found else None)
    return changed(request, languages=languages)


async def _accept(context: CommandContext, request: ExperimentRequest) -> Answer:
    status = await context.lab.call(calls.START_EXPERIMENT, context.caller, body=request)
    answer = Answer(experiment_card(status), view=experiment_buttons(status))
    if status.status == "completed":
        return answer
    return await watched(context, answer, _directory(context, status.experiment_id), "experiment show")


@experiment.command(name="list", description="List the experiments, newest first.")
async def list_experiments(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "experiment list", lambda context: _list(context, 0))


async def _list(context: CommandContext, number: int) -> Answer:
    found = await all_pages(lambda query: context.lab.call(calls.EXPERIMENTS.list, context.caller, query=query))
    page = _LIST.page_of(found.experiments, number)
    return Answer(experiments_page(page.items, total=len(found.experiments), page=page.title), view=page.buttons)


@experiment.command(name="show", description="Show an experiment: its progress, or its matrix of languages.")
@app_commands.describe(experiment="Id of the experiment", metric="Numbers of the matrix; default: surprisal")
@app_commands.autocomplete(experiment=_suggested)
async def show_experiment(interaction: discord.Interaction[Bot], experiment: str, metric: Metric = "surprisal") -> None:
    await respond(interaction, "experiment show", lambda context: _show(context, experiment.strip(), metric))


async def _show(context: CommandContext, experiment_id: str, metric: Metric) -> Answer:
    experiment = await _find(context, experiment_id)
    path = ExperimentPath(experiment_id=experiment.experiment_id)
    status = await context.lab.call(calls.EXPERIMENTS.get, context.caller, path)
    buttons = experiment_buttons(status)
    if status.status != "completed":
        return Answer(experiment_card(status), view=buttons)
    result = await asyncio.to_thread(read_record, experiment.result, ExperimentResult)
    if metric != "surprisal":
        return Answer(metric_answer(status, result, metric), view=buttons)
    embed = experiment_card(status, result)
    figures = await context.bot.charts.experiment_figures(result, current_unit())
    return Answer(embed, attach_figures(embed, figures, result), buttons)


@experiment.command(name="export", description="Get the report of an experiment: CSV, LaTeX, PDF and HTML.")
@app_commands.describe(experiment="Id of the experiment")
@app_commands.autocomplete(experiment=_suggested)
async def export_experiment(interaction: discord.Interaction[Bot], experiment: str) -> None:
    await respond(interaction, "experiment export", lambda context: _export(context, experiment.strip()))


async def _export(context: CommandContext, experiment_id: str) -> Answer:
    experiment = await _find(context, experiment_id)
    title = _("Report of experiment {name}", name=plain(experiment_id))
    return await zipped_results(experiment, _EXPORTED, experiment_id, title)


@experiment.command(name="cancel", description="Cancel an experiment; its finished runs stay.")
@app_commands.describe(experiment="Id of the experiment")
@app_commands.autocomplete(experiment=_suggested)
async def cancel_experiment(interaction: discord.Interaction[Bot], experiment: str) -> None:
    await respond(interaction, "experiment cancel", lambda context: _cancel(context, experiment.strip()))


async def _cancel(context: CommandContext, experiment_id: str) -> Answer:
    path = ExperimentPath(experiment_id=(await _find(context, experiment_id)).experiment_id)
    status = await context.lab.call(calls.EXPERIMENTS.cancel, context.caller, path)
    return Answer(experiment_card(status), view=experiment_buttons(status))


async def _find(context: CommandContext, given: str) -> ExperimentDirectory:
    """Return the experiment that a name is meant for; raises FORBIDDEN if the caller may not see it."""
    return _directory(context, await context.lab.full_id(context.caller, "experiment_id", given))


def _directory(context: CommandContext, experiment_id: str) -> ExperimentDirectory:
    return context.lab.queue.experiments.get(experiment_id)


async def _file(context: CommandContext, experiment_id: str, name: str) -> Answer:
    """Return one file of the report."""
    experiment = await _find(context, experiment_id)
    if not experiment.has_completed():
        raise AppError(ErrorCode.CONFLICT, _("The experiment has no report yet: it has not completed."))
    return await one_file(experiment.path, name, experiment_id, _("The matrix of the experiment."))


async def _rerun(context: CommandContext, press: ButtonPress) -> Answer:
    """Start the same experiment again, which reuses the runs that have completed."""
    record = await asyncio.to_thread((await _find(context, press.run_id)).record)
    return await _accept(context, record.request)


_LIST = unfiltered_list("experiments", "experiment list", _list)
BUTTONS: Reactions = {
    **_LIST.button_reactions,
    "experiment": ButtonAnswer(
        "experiment show",
        lambda context, press: _show(context, press.run_id, "surprisal"),
        lambda press: press.detail == REFRESH,
    ),
    "expmetric": ButtonAnswer(
        "experiment show",
        lambda context, press: _show(context, press.run_id, METRICS.get(press.selected or "", "surprisal")),
    ),
    "expcsv": ButtonAnswer("experiment export", lambda context, press: _file(context, press.run_id, _TABLE)),
    "exptex": ButtonAnswer("experiment export", lambda context, press: _file(context, press.run_id, _LATEX)),
    "exprerun": ButtonAnswer("experiment start", _rerun),
    "expcancel": ButtonAnswer("experiment cancel", lambda context, press: _cancel(context, press.run_id)),
}
FORMS = _LIST.form_reactions
