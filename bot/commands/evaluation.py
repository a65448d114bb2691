"""`/mt eval` and its buttons: metrics of a run on one of its splits, or on a corpus."""

import asyncio

import discord
from discord import app_commands

from bot.commands.inference import RUN_HELP, require_worker
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, Reactions, respond
from bot.commands.run_options import Run, corpus_name, corpus_suggestions, find_run, suggested_corpora, suggested_runs
from bot.messages.buttons import MAX_OPTION_CHARACTERS, MAX_OPTIONS, ButtonPress, button, button_row, option, select
from bot.messages.report_card import reader_of_names
from bot.messages.text import (
    BLURPLE,
    count,
    figure,
    make_embed,
    percent,
    plain,
    shown_name,
    shown_perplexity,
    unknown_mark,
    unknown_warning,
    with_unit,
)
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics, EvalRecord, EvalRequest, EvalResponse, EvalSplit
from trainer.contracts.runs import RunRecord, is_largely_unknown
from trainer.lab.language import _
from trainer.reports.run_notes import counting_note, known_note

_DEFAULT_SPLIT: EvalSplit = "validation"
_SPLITS: dict[str, EvalSplit] = {"/validation": "validation", "/test": "test"}
"""Values of a list that stand for splits; no corpus has a name that begins with a slash."""


@app_commands.command(name="eval", description="Evaluate a run on one of its splits, or on a corpus.")
@app_commands.describe(
    run=RUN_HELP,
    corpus="Name of a corpus to measure as a whole, instead of a split",
    split=f"Split of the run's own data; default: {_DEFAULT_SPLIT}",
)
@app_commands.autocomplete(run=suggested_runs("eval"), corpus=suggested_corpora)
async def evaluate(
    interaction: discord.Interaction[Bot],
    run: str | None = None,
    corpus: app_commands.Range[str, 1, 512] | None = None,
    split: EvalSplit | None = None,
) -> None:
    await respond(interaction, "eval", lambda context: _evaluate(context, run, corpus, split))


async def _evaluate(context: CommandContext, run_id: str | None, corpus: str | None, split: EvalSplit | None) -> Answer:
    run = await find_run(context, "eval", run_id)
    if corpus is not None and split is not None:
        raise AppError(
            ErrorCode.INVALID_INPUT, _("Give `corpus` or `split`, not both: a corpus is measured as a whole.")
        )
    if corpus is not None:
        corpus = await asyncio.to_thread(context.lab.queue.corpora.full_name, corpus)
    request = parse(EvalRequest, {"split": split or _DEFAULT_SPLIT, "path_override": corpus})
    await require_worker(context, run)
    response = await context.lab.submit(context.caller, run.model, request)
    return await _follow(context, run, request, response)


async def _follow(context: CommandContext, run: Run, request: EvalRequest, response: EvalResponse) -> Answer:
    """Answer with the metrics, but at first with a note if they are not known yet.

    The button of the note shows them after a restart of the bot.
    """
    await context.lab.index.refresh()
    corpus = request.path_override
    of_corpus = corpus and _("the corpus {name}", name=plain(corpus_name(context, corpus)))
    measured = of_corpus or _("its own {split} split", split=_(request.split))

    async def end() -> Answer:
        answered = await context.lab.queue.inference.wait(response)
        return Answer(evaluation_answer(run.record, measured, answered.measured(), run.model))

    if response.status not in ("queued", "running"):
        return await end()
    show = button("evaluated", run.model, _("Show result"), detail=response.request_id)
    return Answer(evaluating_answer(run.record, measured, run.model), view=button_row(show), later=end)


async def _show_result(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "eval", press.run_id)
    record = await context.lab.queue.inference.get(EvalRecord, run.record.run_id, press.detail or "")
    return await _follow(context, run, record.request, record.response)


async def _choose(context: CommandContext, press: ButtonPress) -> Answer:
    """Answer with a list of the splits and corpora on which the run can be evaluated."""
    run = await find_run(context, "eval", press.run_id)
    await context.lab.index.refresh()
    options = [option(value, _("Its own {split} split", split=_(split))) for value, split in _SPLITS.items()]
    options += [
        option(value, _("Corpus {name}", name=name))
        for value, name in corpus_suggestions(context, "")
        if len(value) <= MAX_OPTION_CHARACTERS
    ]
    embed = make_embed(
        BLURPLE, f"📐 {_('Evaluate {name}', name=shown_name(run.record))}", [_("On which text?")], press.run_id
    )
    texts = select("evaluate", press.run_id, _("A split or a corpus"), options[:MAX_OPTIONS])
    return Answer(embed, view=button_row(texts))


async def _evaluate_on_selected(context: CommandContext, press: ButtonPress) -> Answer:
    selected = press.selected
    split = _SPLITS.get(selected or "")
    return await _evaluate(context, press.run_id, None if split else selected, split)


BUTTONS: Reactions = {
    "evalon": ButtonAnswer("eval", _choose),
    "evaluate": ButtonAnswer("eval", _evaluate_on_selected),
    "evaluated": ButtonAnswer("eval", _show_result, lambda press: True),
}


def evaluating_answer(record: RunRecord, measured: str, model: str) -> discord.Embed:
    """Return the answer while a run is evaluated; `measured` names the split or the corpus."""
    lines = [
        _("On {text}. The result replaces this message.", text=measured),
        _("After 15 minutes it comes as a direct message."),
    ]
    return make_embed(BLURPLE, f"📐 {_('Evaluating… {name}', name=shown_name(record))}", lines, model)


def evaluation_answer(record: RunRecord, measured: str, metrics: EvalMetrics, model: str) -> discord.Embed:
    """Return the metrics of a run on a split or a corpus."""
    losses, share = metrics.lines, metrics.unknown_char_share
    margin = "" if losses.margin_nats is None else f" ± {figure(losses.margin_nats)} (95 %)"
    is_hidden = metrics.known is not None and is_largely_unknown(share)
    bits = None if is_hidden else metrics.bits_per_char
    loss = with_unit(f"**{figure(metrics.loss)}**{margin}", metrics.objective, bits, share)
    if metrics.objective == "causal_lm":
        predicted = count(metrics.n_tokens, "predicted token")
    else:
        predicted = count(metrics.n_tokens, "predicted masked token")
    mark, known = unknown_mark(share), metrics.known
    unknown = "" if share is None else f" · {_('{share} of the text unknown', share=percent(share))}"
    top1, top5 = percent(metrics.top1_accuracy), percent(metrics.top5_accuracy)
    lines = [
        _("On {text}", text=measured),
        loss if is_hidden else f"{loss} · {shown_perplexity(metrics.perplexity, share)}",
        *([reader_of_names().note(known_note(known))] if known is not None and mark else []),
        *([] if losses.missing_interval is None else [reader_of_names().note(losses.missing_interval)]),
        *([] if metrics.baseline is None else [reader_of_names().note(counting_note(metrics.baseline))]),
        *([] if is_hidden else [_("Accuracy {top1} · top-5 {top5}", top1=f"{top1}{mark}", top5=f"{top5}{mark}")]),
        f"{predicted}{unknown}",
        *unknown_warning(share),
        *(f"⚠ {reader_of_names().note(one)}" for one in metrics.notes),
    ]
    return make_embed(BLURPLE, f"📐 {_('Evaluation of {name}', name=shown_name(record))}", lines, model)
