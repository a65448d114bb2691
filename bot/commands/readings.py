"""`/mt-reading`: what surprisal explains of reading times, and which word boundaries it finds."""

import asyncio
from collections.abc import Awaitable

import discord
from discord import app_commands

from bot.commands.inference import RUN_HELP, infer
from bot.commands.jobs import add_commands, job_group, watch_job
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import find_run, names_in, suggested_runs, suggested_scorers
from bot.messages.report_card import report_lines
from bot.messages.text import BLURPLE, make_embed, plain, said
from bot.rest.attachments import attached_text, attachment_name, read_attachment
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.readings import ReadingOptions, ReadingRequest
from trainer.contracts.segmentation import SegmentRequest
from trainer.data.rows import TextFile
from trainer.lab import calls
from trainer.lab.language import _
from trainer.reading.request import reading_request
from trainer.reports.names import named, run_names
from trainer.reports.segmentation_report import segmentation_report

mt_reading = job_group("readings", "Explain reading times by the surprisals of runs.")


@mt_reading.command(name="start", description="Explain a table of reading times by the surprisals of runs.")
@app_commands.describe(
    data="Table with the columns text, position, word, person, rt, or in the form of a public data set",
    run="Run ids, groups, or RUN@1200, with commas; default: your newest run",
    checkpoints="Also take the checkpoints that the runs have kept",
    options="Such as: measures: [gaze], scale: log, columns: {self_paced: RT_ms}",
)
@app_commands.autocomplete(run=suggested_scorers)
async def start_reading(
    interaction: discord.Interaction[Bot],
    data: discord.Attachment,
    run: str = "",
    checkpoints: bool = False,
    options: str = "",
) -> None:
    def start(context: CommandContext) -> Awaitable[Answer]:
        return _start(context, data, names_in(run), options, has_checkpoints=checkpoints)

    await respond(interaction, "mt-reading start", start)


async def _start(
    context: CommandContext, data: discord.Attachment, names: list[str], options: str, *, has_checkpoints: bool
) -> Answer:
    from trainer.config.yaml import parse_yaml  # slow: not at the start

    chosen = parse(ReadingOptions, parse_yaml(f"{{{options}}}", "options"))
    names = names or [(await find_run(context, "score", None)).model]
    content = await read_attachment(data, context.bot.settings, "data")
    table = TextFile(attachment_name(data.filename, data.title, "data"), content)
    request: ReadingRequest = await asyncio.to_thread(reading_request, chosen, names, table)
    request = changed(request, has_checkpoints=has_checkpoints)
    status = await context.lab.call(calls.START_READING, context.caller, body=request)
    return await watch_job(context, JOB_ROWS["readings"], status.reading_id)


@mt_reading.command(name="segment", description="Find the word boundaries of a text whose spaces are removed.")
@app_commands.describe(
    file="Text with spaces between words: .txt, or .jsonl, .csv or .tsv with a field `text`", run=RUN_HELP
)
@app_commands.autocomplete(run=suggested_runs("mt-reading segment"))
async def segment(interaction: discord.Interaction[Bot], file: discord.Attachment, run: str | None = None) -> None:
    await respond(interaction, "mt-reading segment", lambda context: _segment(context, file, run))


async def _segment(context: CommandContext, file: discord.Attachment, run_id: str | None) -> Answer:
    run = await find_run(context, "mt-reading segment", run_id)
    given = await attached_text(file, context.bot.settings)
    request = parse(SegmentRequest, {"text": given.text})
    found = (await infer(context, run, request)).result()
    name, names = (
        plain(attachment_name(file.filename, file.title, is_corpus=True)),
        run_names([(run.model, run.record.effective.label)]),
    )
    lines = [*report_lines(named(segmentation_report(found, name), names))]
    lines += [plain(said(note)) for note in given.notes]
    return Answer(make_embed(BLURPLE, f"✂ {_('Word segmentation of {name}', name=name)}", lines, run.model))


add_commands(
    mt_reading,
    "readings",
    list="List the analyses of reading times, newest first.",
    show="Show an analysis of reading times or its results.",
    cancel="Cancel an analysis of reading times.",
)
