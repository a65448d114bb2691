"""`/mt battery start`, `list`, `show` and `cancel`: what runs know, by minimal pairs and test suites."""

import asyncio
from collections.abc import Iterator
from io import BytesIO

import discord
from discord import app_commands

from bot.commands.exported_files import one_file, zipped_results
from bot.commands.pages import unfiltered_list
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import Suggestion, autocomplete, described, find_run, fitting_runs
from bot.commands.started_jobs import watched
from bot.messages.battery_card import REFRESH, alt_of, batteries_page, battery_buttons, battery_card
from bot.messages.text import isolated
from bot.rest.attachments import attachment_name, read_attachment
from bot.session.client import Bot
from trainer.artifacts.batteries import BatteryDirectory
from trainer.batteries.sources import battery_names
from trainer.config.validation import decoded, parse
from trainer.contracts.base import narrowed
from trainer.contracts.batteries import BatteryRequest, Measure
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.parameters import BatteryPath
from trainer.lab import calls
from trainer.lab.language import _
from trainer.lab.waits import all_pages
from trainer.queue.run_index import matching

battery = app_commands.Group(name="battery", description="Batteries of minimal pairs.")
_EXPORTED = {".csv", ".tex", ".html", ".json", ".png"}
_PAGE, _TABLE, _LATEX = "report.html", "accuracy.csv", "table.tex"
_CURVES = "development.csv"
_PICTURES = ("accuracy.png", "loss.png", "words.png")
"""Pictures of a development; its card has the first that there is."""


def _last_run(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    """Yield the typed runs with the last one completed."""
    before, comma, last = typed.rpartition(",")
    given = [name.strip() for name in before.split(",")]
    for run in matching(last.strip(), fitting_runs(context, "score"), lambda run: run.names):
        if run.run_id not in given:
            yield f"{before}{comma}{run.run_id}", f"{isolated(run.name)} · {described(run)} · {run.run_id}"


def _batteries(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    for battery_id in matching(typed, context.lab.index.batteries, lambda name: (name,)):
        yield battery_id, battery_id


def _names(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    for name in matching(typed, battery_names(context.bot.settings), lambda name: (name,)):
        yield name, name


_suggested = autocomplete(_batteries)


@battery.command(name="start", description="Test what runs know by minimal pairs.")
@app_commands.describe(
    battery="Name, such as blimp or blimp:passive_1",
    items="Your own items: .jsonl, .tsv, .csv, .json",
    run="Run ids, with commas; default: your newest",
    measure="Log-probability per …; default: sum",
    develop="Score its kept checkpoints",
)
@app_commands.autocomplete(run=autocomplete(_last_run), battery=autocomplete(_names))
async def start_battery(
    interaction: discord.Interaction[Bot],
    battery: str | None = None,
    items: discord.Attachment | None = None,
    run: str = "",
    measure: Measure = "sum",
    develop: bool = False,
) -> None:
    names = [name.strip() for name in run.split(",") if name.strip()]

    async def start(context: CommandContext) -> Answer:
        return await _start(context, battery, items, names, measure, is_development=develop)

    await respond(interaction, "battery start", start)


async def _start(
    context: CommandContext,
    name: str | None,
    items: discord.Attachment | None,
    run_ids: list[str],
    measure: Measure,
    *,
    is_development: bool,
) -> Answer:
    """Start a battery; a development measures the loss and the words of the test split, too."""
    n_given = (name is not None) + (items is not None)
    if n_given > 1 or (n_given == 0 and not is_development):
        raise AppError(ErrorCode.INVALID_INPUT, _("Give either `battery` or `items`."))
    run_ids = run_ids or [(await find_run(context, "score", None)).model]
    fields: dict[str, object] = {"runs": run_ids, "measure": measure}
    if is_development:
        fields["development"] = {"has_words": True}
    if items is not None:
        text = decoded(await read_attachment(items, context.bot.settings, "items"), "`items`")
        fields["files"] = [{"name": attachment_name(items.filename, items.title, "items"), "content": text}]
    elif name is not None:
        fields["batteries"] = [name]
    status = await context.lab.call(calls.START_BATTERY, context.caller, body=parse(BatteryRequest, fields))
    if status.status == "completed":
        return await _show(context, status.battery_id)
    answer = Answer(battery_card(status), view=battery_buttons(status))
    return await watched(context, answer, context.lab.queue.batteries.get(status.battery_id), "battery show")


@battery.command(name="list", description="List the batteries, newest first.")
async def list_batteries(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "battery list", lambda context: _list(context, 0))


async def _list(context: CommandContext, number: int) -> Answer:
    found = await all_pages(lambda query: context.lab.call(calls.BATTERIES.list, context.caller, query=query))
    page = _LIST.page_of(found.batteries, number)
    return Answer(batteries_page(page.items, total=len(found.batteries), page=page.title), view=page.buttons)


@battery.command(name="show", description="Show a battery or its results.")
@app_commands.describe(battery="Id of the battery")
@app_commands.autocomplete(battery=_suggested)
async def show_battery(interaction: discord.Interaction[Bot], battery: str) -> None:
    await respond(interaction, "battery show", lambda context: _show(context, battery.strip()))


async def _show(context: CommandContext, battery_id: str) -> Answer:
    battery = await _find(context, battery_id)
    status = await context.lab.call(calls.BATTERIES.get, context.caller, BatteryPath(battery_id=battery.battery_id))
    if status.status != "completed":
        return Answer(battery_card(status), view=battery_buttons(status))
    development = await asyncio.to_thread(battery.development)
    if development is None:
        return Answer(battery_card(status, await asyncio.to_thread(battery.summary)), view=battery_buttons(status))
    embed, files = battery_card(status, development=development), list[discord.File]()
    for picture in _PICTURES:
        if (path := battery.path / picture).exists():
            embed.set_image(url=f"attachment://{picture}")
            content: bytes = await asyncio.to_thread(path.read_bytes)
            files = [discord.File(BytesIO(content), picture, description=alt_of(development))]
            break
    return Answer(embed, files, battery_buttons(status))


@battery.command(name="cancel", description="Cancel a battery.")
@app_commands.describe(battery="Id of the battery")
@app_commands.autocomplete(battery=_suggested)
async def cancel_battery(interaction: discord.Interaction[Bot], battery: str) -> None:
    await respond(interaction, "battery cancel", lambda context: _cancel(context, battery.strip()))


async def _cancel(context: CommandContext, battery_id: str) -> Answer:
    battery = await _find(context, battery_id)
    status = await context.lab.call(calls.BATTERIES.cancel, context.caller, BatteryPath(battery_id=battery.battery_id))
    return Answer(battery_card(status), view=battery_buttons(status))


async def _find(context: CommandContext, given: str) -> BatteryDirectory:
    """Return the battery that a name is meant for; raises FORBIDDEN if the caller may not see it."""
    lab, caller = context.lab, context.caller
    row, battery_id = JOB_ROWS["batteries"], await lab.full_id(caller, "battery_id", given)
    return narrowed(BatteryDirectory, await lab.job(caller, row, battery_id, row.reads))


async def _all_files(context: CommandContext, battery_id: str) -> Answer:
    """Return the tables and the page of the results as an archive."""
    battery = await _find(context, battery_id)
    return await zipped_results(battery, _EXPORTED, battery_id, _("Results of battery {name}", name=battery_id))


async def _file(context: CommandContext, battery_id: str, name: str) -> Answer:
    """Return one file of the results."""
    battery = await _find(context, battery_id)
    await asyncio.to_thread(battery.result_files)  # refuses a battery without results
    return await one_file(battery.path, name, battery_id, _("The results of the battery."))


_LIST = unfiltered_list("batteries", "battery list", _list)
BUTTONS: Reactions = {
    **_LIST.button_reactions,
    "battery": ButtonAnswer(
        "battery show", lambda context, press: _show(context, press.run_id), lambda press: press.detail == REFRESH
    ),
    "batpage": ButtonAnswer("battery show", lambda context, press: _file(context, press.run_id, _PAGE)),
    "batcsv": ButtonAnswer("battery show", lambda context, press: _file(context, press.run_id, _TABLE)),
    "batcurves": ButtonAnswer("battery show", lambda context, press: _file(context, press.run_id, _CURVES)),
    "battex": ButtonAnswer("battery show", lambda context, press: _file(context, press.run_id, _LATEX)),
    "batall": ButtonAnswer("battery show", lambda context, press: _all_files(context, press.run_id)),
    "batcancel": ButtonAnswer("battery cancel", lambda context, press: _cancel(context, press.run_id)),
}
FORMS = _LIST.form_reactions
