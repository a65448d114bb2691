"""Answers to `/mt compare`."""

from collections.abc import Callable, Iterator

import discord

from bot.embeds.text import AMBER, BLURPLE, GREEN, GREY, THIN_SPACE, clamp, make_embed, plain
from trainer.config.request_options import TRAIN_OPTIONS
from trainer.contracts.comparison import Against, Comparison, verdict

_MAX_VALUE = 40
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
_VALUES = {"null": "–", "true": "yes", "false": "no"}


def compare_answer(comparison: Comparison, corpus_name: Callable[[str], str]) -> discord.Embed:
    """Return the comparison of a run with a baseline: the verdict, metrics in short lines, and different settings.

    `corpus_name` returns the shown name of a corpus.
    """
    first, other = comparison.runs
    [one] = comparison.against
    delta = one.delta
    rows: list[tuple[str, float | None, float | None, float | None, str]] = [
        ("Loss", first.loss, other.loss, delta.loss, ".4f"),
        ("Perplexity", first.perplexity, other.perplexity, delta.perplexity, ".2f"),
        ("Bits/char", first.bits_per_char, other.bits_per_char, delta.bits_per_char, ".4f"),
        ("Top-1", first.top1_accuracy, other.top1_accuracy, delta.top1_accuracy, ".1%"),
        ("Top-5", first.top5_accuracy, other.top5_accuracy, delta.top5_accuracy, ".1%"),
        ("Parameters", first.params, other.params, delta.params, ",d"),
        ("Tokens/s", first.tokens_per_second, other.tokens_per_second, delta.tokens_per_second, ",.0f"),
    ]
    name, baseline = plain(first.label or first.run_id), plain(other.label or other.run_id)
    lines = [
        f"**{verdict(one, comparison.tolerance)}**",
        *one.notes,
        "",
        f"**{name}** · {baseline}",
        f"{first.model} · {other.model} · {comparison.split} split",
        *(_metric_line(*row) for row in rows if row[1] is not None or row[2] is not None),
    ]
    differences = list(_differences(one, corpus_name))
    if differences:
        lines += ["", "**Different settings**", *differences]
    colour = GREY if one.rise is None else AMBER if one.is_regression else GREEN if one.rise < 0 else BLURPLE
    return make_embed(colour, f"⚖ {name} against {baseline}", lines, f"{first.run_id} · {other.run_id}")


def _metric_line(name: str, value: float | None, baseline: float | None, delta: float | None, form: str) -> str:
    change = "" if delta is None else f" ({_figure(delta, '+' + form)})"
    return f"{name} **{_figure(value, form)}** · {_figure(baseline, form)}{change}"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).replace(",", THIN_SPACE)


def _differences(one: Against, corpus_name: Callable[[str], str]) -> Iterator[str]:
    for found in one.differences:
        block, _, part = found.field.partition(".")
        if block == "model" and ("null" in (found.run, found.other) or part == "architecture"):
            continue  # sizes of two architectures, which the models' names show
        name = _SETTINGS.get(found.field) or _SETTINGS.get(block)
        if name is None:
            name = found.field.removeprefix("model.").removeprefix("num_").replace(".", " ").replace("_", " ")
        values = [_VALUES.get(value, value) for value in (found.run, found.other)]
        if block in _CORPORA:
            values = [corpus_name(value) for value in values]
        shown = [plain(clamp(value, _MAX_VALUE)) for value in values]
        has_same_name = block in _CORPORA and (part == "sha256" or shown[0] == shown[1])
        yield f"{name}: {'different content, same name' if has_same_name else ' · '.join(shown)}"
