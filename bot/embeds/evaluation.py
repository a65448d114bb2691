"""Answers to `/mt eval`; the digits are those of `mt eval`."""

import discord

from bot.embeds.text import BLURPLE, count, make_embed, shown_name
from trainer.contracts.inference import EvalMetrics
from trainer.contracts.runs import RunRecord


def evaluating_answer(record: RunRecord, measured: str) -> discord.Embed:
    """Return the answer while a run is evaluated; `measured` names the split or the corpus."""
    lines = [
        f"On {measured}. The result replaces this message.",
        "After 15 minutes it comes as a direct message.",
    ]
    return make_embed(BLURPLE, f"📐 Evaluating… {shown_name(record)}", lines, record.run_id)


def evaluation_answer(record: RunRecord, measured: str, metrics: EvalMetrics) -> discord.Embed:
    """Return the metrics of a run on a split or a corpus."""
    token = "token" if metrics.objective == "causal_lm" else "masked token"
    figures = [f"**{metrics.loss:.4f}** nats per {token}"]
    figures += [] if metrics.bits_per_char is None else [f"**{metrics.bits_per_char:.3f}** bits per character"]
    unknown = "" if metrics.unknown_share is None else f" · {metrics.unknown_share:.2%} of the text unknown"
    lines = [
        f"On {measured}",
        " · ".join([*figures, f"perplexity **{metrics.perplexity:.3f}**"]),
        f"Accuracy {metrics.top1_accuracy:.1%} · top-5 {metrics.top5_accuracy:.1%}",
        f"{count(metrics.n_tokens, f'predicted {token}')}{unknown}",
    ]
    return make_embed(BLURPLE, f"📐 Evaluation of {shown_name(record)}", lines, record.run_id)
