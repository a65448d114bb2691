"""`/mt unlock`: reads the test split of a run, or of a group of runs, once."""

import discord
from discord import app_commands

from bot.commands.groups import find_run_or_group
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import suggested_runs
from bot.messages.buttons import button, button_row
from bot.messages.report_card import report_lines
from bot.messages.text import AMBER, BLURPLE, make_embed, shown_name
from bot.session.client import Bot
from trainer.contracts.looks import Unlocked, UnlockRequest
from trainer.contracts.parameters import WaitQuery
from trainer.contracts.runs import RunRecord
from trainer.lab import calls
from trainer.lab.language import _
from trainer.lab.waits import asked_to_end
from trainer.reports.unlock_report import unlock_report

_WAIT_SECONDS = 60.0
_CONFIRMED = "sure"


@app_commands.command(description="Read a run's test split once; the look is counted.")
@app_commands.describe(run="Name or id of the run or the group")
@app_commands.autocomplete(run=suggested_runs("unlock"))
async def unlock(interaction: discord.Interaction[Bot], run: str) -> None:
    await respond(interaction, "unlock", lambda context: _unlock(context, run, is_confirmed=False))


async def _unlock(context: CommandContext, run_id: str, *, is_confirmed: bool) -> Answer:
    """Read the test split once the caller has confirmed it, because no look can be taken back."""
    record = (await find_run_or_group(context, "unlock", run_id)).record
    if not is_confirmed:
        confirm = button("unlock", record.run_id, _("Read it"), style=discord.ButtonStyle.danger, detail=_CONFIRMED)
        return Answer(unlock_question(record), view=button_row(confirm))
    body = UnlockRequest(runs=(record.run_id,))

    async def read(wait_seconds: float) -> Unlocked:
        return await context.lab.call(calls.UNLOCK, context.caller, query=WaitQuery(wait=wait_seconds), body=body)

    async def end() -> Answer:
        return Answer(unlock_answer(record, await asked_to_end(lambda: read(_WAIT_SECONDS))))

    first = await read(0.0)
    return Answer(unlock_answer(record, first), later=None if first.has_ended else end)


def unlock_question(record: RunRecord) -> discord.Embed:
    """Return the question before a test split is read."""
    lines = [
        _("This shows the losses on the test split and counts as a look at it, which stays counted."),
        _("Do it when everything else is decided."),
    ]
    return make_embed(AMBER, f"🔒 {_('Read the test split of {name}?', name=shown_name(record))}", lines, record.run_id)


def unlock_answer(record: RunRecord, unlocked: Unlocked) -> discord.Embed:
    """Return the losses of the runs of an unlock; one that is not measured yet has none."""
    lines = [*report_lines(unlock_report(unlocked))]
    return make_embed(BLURPLE, f"🔓 {_('Test split of {name}', name=shown_name(record))}", lines, record.run_id)


BUTTONS: Reactions = {
    "unlock": ButtonAnswer(
        "unlock",
        lambda context, press: _unlock(context, press.run_id, is_confirmed=press.detail == _CONFIRMED),
        lambda press: press.detail == _CONFIRMED,
    )
}
