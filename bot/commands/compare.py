"""`/mt compare`: metrics and loss curves of a run beside those of up to three baselines."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import discord
from discord import app_commands

from bot.commands.responses import Answer, ButtonAnswer, ButtonForm, CommandContext, respond
from bot.commands.run_options import corpus_name, find_run, suggested_runs
from bot.messages.buttons import ButtonPress, button_row, option, select
from bot.messages.comparison import attach_comparison, compare_answer, settings_answer
from bot.messages.text import display_name
from bot.session.client import Bot
from trainer.contracts.errors import AppError
from trainer.contracts.inference import EvalSplit
from trainer.contracts.runs import has_unknown_text
from trainer.people.language import _
from trainer.reports.comparison import Measurement, check_different, differences, summary_on
from trainer.reports.comparison import compare as compare_measurements
from trainer.reports.score_table import Curve

_LETTERS = "abcd"


class _Compared(NamedTuple):
    """A run of a comparison."""

    measurement: Measurement
    name: str
    losses: Curve
    bits_per_nat: float | None
    """Bits per character for one nat per token; None if unknown, or too low to compare."""


@app_commands.command(description="Compare metrics and loss curves of two to four runs.")
@app_commands.describe(
    a="Id of the run to judge",
    b="Id of the baseline run",
    c="Id of a second baseline",
    d="Id of a third baseline",
    split="Split on which the runs were evaluated; default: test",
)
@app_commands.autocomplete(
    a=suggested_runs("compare"),
    b=suggested_runs("compare"),
    c=suggested_runs("compare"),
    d=suggested_runs("compare"),
)
async def compare(
    interaction: discord.Interaction[Bot],
    a: str,
    b: str,
    c: str | None = None,
    d: str | None = None,
    split: EvalSplit = "test",
) -> None:
    run_ids = [run_id.strip() for run_id in (a, b, c, d) if run_id is not None]
    await respond(interaction, "compare", lambda context: compare_runs(context, run_ids, split))


async def compare_runs(context: CommandContext, run_ids: Sequence[str], split: EvalSplit = "test") -> Answer:
    """Answer with the comparison of the first run with the others."""
    compared = [await _compared(context, run_id, split) for run_id in run_ids]
    check_different(run_ids)
    comparison = compare_measurements([one.measurement for one in compared], split=split)
    embed = compare_answer(comparison)
    curves, unit = _curves(compared)
    chart = await context.bot.charts.comparison_chart(curves, unit)
    options = [
        option(run_id, _("Against {name}", name=one.name))
        for one, run_id in zip(compared[1:], run_ids[1:], strict=True)
    ]
    differing = select("differences", run_ids[0], _("Show different settings, to you alone"), options)
    return Answer(embed, attach_comparison(embed, chart, curves, unit), button_row(differing))


async def _compared(context: CommandContext, run_id: str, split: EvalSplit) -> _Compared:
    run = await find_run(context, "compare", run_id)
    manifest = await asyncio.to_thread(run.directory.completed_manifest)
    follower = await asyncio.to_thread(run.directory.follow)
    status = await asyncio.to_thread(follower.refresh)
    try:
        summary = summary_on(manifest, split)
    except AppError as error:
        message = _(
            "`{run_id}` has no results on its {split} split. Try another `split`, or another run.",
            run_id=manifest.run_id,
            split=_(split),
        )
        raise AppError(error.code, message) from None
    bits_per_nat = None if has_unknown_text(status.unknown_char_share) else status.bits_per_nat
    measurement = Measurement(manifest, summary, status.tokens_per_second)
    return _Compared(measurement, display_name(run.record), follower.train_losses, bits_per_nat)


def _curves(compared: Sequence[_Compared]) -> tuple[dict[str, Curve], str]:
    """Return the training losses by letter and name, and their unit: bits per character where all runs have them."""
    has_bits = all(one.bits_per_nat is not None for one in compared)
    curves: dict[str, Curve] = {
        f"{letter}: {one.name}": tuple(
            (step, loss * (one.bits_per_nat or 1.0) if has_bits else loss) for step, loss in one.losses
        )
        for letter, one in zip(_LETTERS, compared, strict=False)
    }
    return curves, _("bits per character") if has_bits else _("nats per token")


async def _show_differences(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "compare", press.run_id)
    other = await find_run(context, "compare", press.selected or "")
    await context.bot.index.refresh()
    found = differences(run.record.effective, other.record.effective)
    return Answer(settings_answer(run.record, other.record, found, lambda corpus: corpus_name(context, corpus)))


COMPARE_BUTTONS: dict[str, ButtonAnswer | ButtonForm] = {"differences": ButtonAnswer("status", _show_differences)}
