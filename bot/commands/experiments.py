"""`/mt-experiment start`, `list`, `show`, `export` and `cancel`: cross-language experiments."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import discord
from discord import app_commands

from bot.commands.jobs import add_commands, job_group, watch_job
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import names_in
from bot.messages.buttons import ButtonPress
from bot.rest.attachments import download_to
from bot.session.client import Bot
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentRequest
from trainer.contracts.installation import recipes
from trainer.contracts.operations import JOB_ROWS
from trainer.data.corpora import CorpusStore
from trainer.lab import calls
from trainer.lab.language import _

mt_experiment = job_group("experiments", "Train a model per language, and compare languages with them.")
_ROW = JOB_ROWS["experiments"]


@mt_experiment.command(name="start", description="Train a model per language, and score every language with each.")
@app_commands.describe(
    recipe="Plan of the program; default: smoke, a quick one on texts that are there",
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
    codes = names_in(languages)
    await respond(interaction, "mt-experiment start", lambda context: _start(context, recipe, codes, seeds, config))


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
        plan: str | Path = recipe or "smoke"
        if config is not None:
            plan = await download_to(config, context.bot.settings, "config", folder)
        request = await asyncio.to_thread(_read_plan, plan, options, codes)
    return await _accept(context, await asyncio.to_thread(_with_built_corpora, request, context.lab.queue.corpora))


def _read_plan(plan: str | Path, options: dict[str, object], codes: list[str]) -> ExperimentRequest:
    from trainer.config.experiment_file import plan_path, read_plan  # slow: not at the start

    return read_plan(plan_path(plan) if isinstance(plan, str) else plan, options, codes)


def _with_built_corpora(request: ExperimentRequest, corpora: CorpusStore) -> ExperimentRequest:
    """Return the request with the corpus that `/mt-admin build-corpora` made of each language without another one."""
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
    return await watch_job(context, _ROW, status.experiment_id)


async def _rerun(context: CommandContext, press: ButtonPress) -> Answer:
    """Start the same experiment again, which reuses the runs that have completed."""
    record = await asyncio.to_thread(context.lab.queue.experiments.get(press.run_id).record)
    return await _accept(context, record.request)


add_commands(
    mt_experiment,
    "experiments",
    list="List the experiments, newest first.",
    show="Show an experiment: its progress, or its matrix of languages.",
    export="Get the report of an experiment: CSV, LaTeX, PDF and HTML.",
    cancel="Cancel an experiment; its finished runs stay.",
)
BUTTONS: Reactions = {"exprerun": ButtonAnswer("mt-experiment start", _rerun)}
