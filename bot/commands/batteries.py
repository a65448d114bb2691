"""`/mt-battery start`, `list`, `show` and `cancel`: what runs know, by minimal pairs and test suites."""

from collections.abc import Iterator

import discord
from discord import app_commands

from bot.commands.jobs import add_commands, job_group, watch_job
from bot.commands.responses import Answer, CommandContext, respond
from bot.commands.run_options import (
    Suggestion,
    autocomplete,
    find_run,
    names_in,
    shown_as_typed,
    suggested_scorers,
)
from bot.rest.attachments import attachment_name, read_attachment
from bot.session.client import Bot
from trainer.batteries.sources import battery_names
from trainer.config.validation import decoded, parse
from trainer.contracts.batteries import BatteryRequest, Measure
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import JOB_ROWS
from trainer.lab import calls
from trainer.lab.language import _

mt_battery = job_group("batteries", "Test what runs know of a language, by minimal pairs and test suites.")


def _names(context: CommandContext, typed: str) -> Iterator[Suggestion]:
    return shown_as_typed(typed, battery_names(context.bot.settings))


@mt_battery.command(name="start", description="Test what runs know by minimal pairs.")
@app_commands.describe(
    battery="Name of a known battery, or of a part of one, such as blimp or blimp:passive_1",
    items="Your own items, as .jsonl, .tsv, .csv or .json",
    run="Names or ids of runs, with commas; default: your newest run",
    measure="What is compared of two sentences: the sum of log-probabilities, or their mean; default: sum",
    develop="Also score the checkpoints that the run has kept, to see what it learns when",
)
@app_commands.autocomplete(run=suggested_scorers, battery=autocomplete(_names))
async def start_battery(
    interaction: discord.Interaction[Bot],
    battery: str | None = None,
    items: discord.Attachment | None = None,
    run: str = "",
    measure: Measure = "sum",
    develop: bool = False,
) -> None:
    names = names_in(run)

    async def start(context: CommandContext) -> Answer:
        return await _start(context, battery, items, names, measure, is_development=develop)

    await respond(interaction, "mt-battery start", start)


async def _start(
    context: CommandContext,
    name: str | None,
    items: discord.Attachment | None,
    run_ids: list[str],
    measure: Measure,
    *,
    is_development: bool,
) -> Answer:
    """Start a battery; a development measures the loss of the test split, and its words for those who may read them."""
    n_given = (name is not None) + (items is not None)
    if n_given > 1 or (n_given == 0 and not is_development):
        raise AppError(ErrorCode.INVALID_INPUT, _("Give either `battery` or `items`."))
    run_ids = run_ids or [(await find_run(context, "score", None)).model]
    fields: dict[str, object] = {"runs": run_ids, "measure": measure}
    if is_development:
        named = [await context.lab.run_name(context.caller, given, or_checkpoint=True) for given in run_ids]
        may_list = [await context.lab.rights.may_list_words(context.caller, name) for name in named]
        fields["development"] = {"has_words": all(may_list)}
    if items is not None:
        text = decoded(await read_attachment(items, context.bot.settings, "items"), "`items`")
        fields["files"] = [{"name": attachment_name(items.filename, items.title, "items"), "content": text}]
    elif name is not None:
        fields["batteries"] = [name]
    status = await context.lab.call(calls.START_BATTERY, context.caller, body=parse(BatteryRequest, fields))
    return await watch_job(context, JOB_ROWS["batteries"], status.battery_id)


add_commands(
    mt_battery,
    "batteries",
    list="List the batteries, newest first.",
    show="Show a battery or its results.",
    cancel="Cancel a battery.",
)
