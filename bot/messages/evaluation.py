"""Answers to `/mt eval`; the digits are those of `mt eval`."""

import discord

from bot.messages.text import BLURPLE, count, make_embed, shown_name, unknown_warning
from trainer.contracts.inference import EvalMetrics
from trainer.contracts.runs import RunRecord
from trainer.people.language import _, numeral


def evaluating_answer(record: RunRecord, measured: str) -> discord.Embed:
    """Return the answer while a run is evaluated; `measured` names the split or the corpus."""
    lines = [
        _("On {text}. The result replaces this message.", text=measured),
        _("After 15 minutes it comes as a direct message."),
    ]
    return make_embed(BLURPLE, f"📐 {_('Evaluating… {name}', name=shown_name(record))}", lines, record.run_id)


def evaluation_answer(record: RunRecord, measured: str, metrics: EvalMetrics) -> discord.Embed:
    """Return the metrics of a run on a split or a corpus."""
    loss = f"**{numeral(metrics.loss, '.4f')}**"
    if metrics.objective == "causal_lm":
        figures, predicted = [_("{loss} nats per token", loss=loss)], count(metrics.n_tokens, "predicted token")
    else:
        figures = [_("{loss} nats per masked token", loss=loss)]
        predicted = count(metrics.n_tokens, "predicted masked token")
    if metrics.bits_per_char is not None:
        figures.append(_("{bits} bits per character", bits=f"**{numeral(metrics.bits_per_char, '.3f')}**"))
    figures.append(_("perplexity {perplexity}", perplexity=f"**{numeral(metrics.perplexity, '.3f')}**"))
    unknown = ""
    if metrics.unknown_char_share is not None:
        unknown = f" · {_('{share} of the text unknown', share=numeral(metrics.unknown_char_share, '.2%'))}"
    lines = [
        _("On {text}", text=measured),
        " · ".join(figures),
        _(
            "Accuracy {top1} · top-5 {top5}",
            top1=numeral(metrics.top1_accuracy, ".1%"),
            top5=numeral(metrics.top5_accuracy, ".1%"),
        ),
        f"{predicted}{unknown}",
        *unknown_warning(metrics.unknown_char_share),
    ]
    return make_embed(BLURPLE, f"📐 {_('Evaluation of {name}', name=shown_name(record))}", lines, record.run_id)
