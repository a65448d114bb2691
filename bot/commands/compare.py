"""`/mt compare`: metrics and loss curves of a run beside those of up to three baselines."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import discord
from discord import app_commands

from bot.commands.groups import find_run_or_group
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import corpus_name, suggested_runs
from bot.messages.buttons import ButtonPress, button_row, option, select
from bot.messages.report_card import report_lines
from bot.messages.text import (
    AMBER,
    BLURPLE,
    GREEN,
    GREY,
    attach_picture,
    clamp,
    make_embed,
    plain,
    shown_name,
    unit_per,
)
from bot.people.user_settings import current_unit
from bot.session.client import Bot
from trainer.config.train_request import TRAIN_OPTIONS
from trainer.config.validation import parse
from trainer.contracts.errors import AppError
from trainer.contracts.evaluations import EvalSplit
from trainer.contracts.parameters import CompareQuery
from trainer.contracts.runs import RunRecord, RunStatus, has_unknown_text
from trainer.contracts.units import LOSS_DIGITS, bits_in_unit, in_unit
from trainer.lab import calls
from trainer.lab.lab import Lab
from trainer.lab.language import _, numeral
from trainer.reports.bands import band_of
from trainer.reports.comparison import Comparison, Difference, NotEvaluated, differences
from trainer.reports.comparison_report import compared_names, comparison_report
from trainer.reports.score_table import Curve

_LETTERS = "abcd"

_MAX_VALUE, _MAX_ALT_TEXT = 40, 1024
_CHART_NAME = "comparison.png"
_CORPORA = {"corpus": "corpus", "validation_corpus": "validation corpus", "test_corpus": "test corpus"}
_SETTINGS = {
    **{option.field: name.replace("_", " ") for name, option in TRAIN_OPTIONS.items()},
    **_CORPORA,
    "early_stopping.enabled": "early stopping",
    "early_stopping.patience": "early stopping patience",
    "optimizer.name": "optimizer",
    "tokenizer.method": "tokenizer",
    "tokenizer_id": "tokenizer",
}
"""Names of settings: the option's name, or plain words."""
VALUES = {"null": "–", "true": "yes", "false": "no"}


@app_commands.command(description="Compare metrics and loss curves of two to four runs.")
@app_commands.describe(
    a="Name or id of the run to judge",
    b="Id of the baseline run",
    c="Id of a second baseline",
    d="Id of a third baseline",
    split="Split; default: test, or validation if that is locked",
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
    split: EvalSplit | None = None,
) -> None:
    run_ids = [run_id.strip() for run_id in (a, b, c, d) if run_id is not None]
    await respond(interaction, "compare", lambda context: compare_runs(context, run_ids, split))


async def compare_runs(context: CommandContext, names: Sequence[str], split: EvalSplit | None = None) -> Answer:
    """Answer with the comparison of the first run with the others."""
    query = parse(CompareQuery, {"runs": ",".join(names), "split": split})
    try:
        comparison = await context.lab.call(calls.COMPARE_RUNS, context.caller, query=query)
    except NotEvaluated as error:
        message = _(
            "`{run_id}` has no results on its {split} split. Try another `split`, or another run.",
            run_id=error.name.replace("`", "'"),
            split=_(error.split),
        )
        raise AppError(error.code, message) from None
    embed = compare_answer(comparison)
    shown = compared_names(comparison)
    curves, unit = await _curves(context.lab, shown)
    chart = await context.bot.charts.comparison_chart(curves, unit)
    first, *others = comparison.runs
    options = [option(one.run_id, _("Against {name}", name=shown[one.run_id])) for one in others]
    differing = select("differences", first.run_id, _("Show different settings, to you alone"), options)
    return Answer(embed, partial(attach_comparison, embed, chart, curves, unit), button_row(differing))


async def _curves(lab: Lab, names: Mapping[str, str]) -> tuple[dict[str, Curve], str]:
    """Return the training losses by letter and name, and their unit: per character where all runs have that.

    The losses of a group are the means of its completed runs.
    """
    runs_of = [await _runs(lab, one) for one in names]
    firsts = [runs[0] for runs in runs_of]
    bits_per_nat = [None if has_unknown_text(run.unknown_char_share) else run.bits_per_nat for run in firsts]
    unit, has_bits = current_unit(), None not in bits_per_nat
    curves: dict[str, Curve] = {}
    for letter, name, runs, bits in zip(_LETTERS, names.values(), runs_of, bits_per_nat, strict=False):
        scale = bits_in_unit(bits or 0.0, unit) if has_bits else in_unit(1.0, unit)
        losses = band_of([(await lab.feeds.curves(run.run_id)).by_name["train"] for run in runs]).mean
        curves[f"{letter}: {name}"] = tuple((step, scale * loss) for step, loss in losses)
    return curves, unit_per("char" if has_bits else "token")


async def _runs(lab: Lab, name: str) -> Sequence[RunStatus]:
    """Return a run, or the completed runs of a group."""
    if lab.stores.runs.find(name) is not None:
        return (await lab.feeds.status(name),)
    return (await lab.feeds.group(name)).with_completed()


async def _show_differences(context: CommandContext, press: ButtonPress) -> Answer:
    names = press.run_id, press.selected or ""
    run, other = [(await find_run_or_group(context, "compare", name)).record for name in names]
    await context.lab.index.refresh()
    found = differences(run.effective, other.effective)
    return Answer(settings_answer(run, other, found, lambda corpus: corpus_name(context, corpus)))


BUTTONS: Reactions = {"differences": ButtonAnswer("status", _show_differences)}


def compare_answer(comparison: Comparison) -> discord.Embed:
    """Return the report of a comparison: everybody in the channel sees it."""
    names = [*map(plain, compared_names(comparison).values())]
    title = _("{name} against {others}", name=names[0], others=", ".join(names[1:]))
    footer = " · ".join(run.run_id for run in comparison.runs)
    return make_embed(
        _colour(comparison), f"⚖ {title}", [*report_lines(comparison_report(comparison, in_channel=True))], footer
    )


def settings_answer(
    record: RunRecord, baseline: RunRecord, found: Iterable[Difference], corpus_name: Callable[[str], str]
) -> discord.Embed:
    """Return the settings in which two runs differ; `corpus_name` returns the shown name of a corpus."""
    names = f"{shown_name(record)} · {shown_name(baseline)}"
    lines = list(_differences(found, corpus_name)) or [_("They have the same settings.")]
    return make_embed(
        BLURPLE, f"⚖ {_('Different settings: {names}', names=names)}", lines, f"{record.run_id} · {baseline.run_id}"
    )


def attach_comparison(
    embed: discord.Embed, png: bytes | None, curves: Mapping[str, Curve], unit: str
) -> list[discord.File]:
    """Show the chart of a comparison in its embed; return the file to send, with a description for screen readers."""
    ends = ", ".join(f"{name} {numeral(curve[-1][1], f'.{LOSS_DIGITS}f')}" for name, curve in curves.items() if curve)
    text = clamp(
        _("Training of each run over steps, in {unit}. The last values: {ends}.", unit=unit, ends=ends), _MAX_ALT_TEXT
    )
    return attach_picture(embed, png, _CHART_NAME, text)


def _colour(comparison: Comparison) -> int:
    verdicts = {one.verdict for one in comparison.against}
    if verdicts == {"not_comparable"}:
        return GREY
    if any(one.is_regression for one in comparison.against):
        return AMBER
    return GREEN if verdicts == {"better"} else BLURPLE


def _differences(differences: Iterable[Difference], corpus_name: Callable[[str], str]) -> Iterator[str]:
    for found in differences:
        block, part = [*found.field.split(".", 1), ""][:2]
        if block == "model" and ("null" in (found.run, found.other) or part == "architecture"):
            continue  # sizes of two architectures, which the models' names show
        name = _SETTINGS.get(found.field) or _SETTINGS.get(block)
        if name is None:
            name = found.field.removeprefix("model.").removeprefix("num_").replace(".", " ").replace("_", " ")
        values = [_(VALUES[value]) if value in VALUES else value for value in (found.run, found.other)]
        if block in _CORPORA:
            values = [corpus_name(value) for value in values]
        shown = [plain(clamp(value, _MAX_VALUE)) for value in values]
        has_same_name = block in _CORPORA and (part == "sha256" or shown[0] == shown[1])
        yield f"{name}: {_('different content, same name') if has_same_name else ' · '.join(shown)}"
