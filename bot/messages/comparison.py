"""Answers to `/mt compare`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO

import discord

from bot.messages.text import AMBER, BLURPLE, GREEN, GREY, clamp, make_embed, plain, shown_name
from trainer.config.request_options import TRAIN_OPTIONS
from trainer.contracts.runs import RunRecord
from trainer.people.language import _, numeral
from trainer.reports.comparison import Comparison, Difference, Figures, verdict
from trainer.reports.score_table import Curve

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
FIGURES: tuple[tuple[str, str, Callable[[Figures], float | None]], ...] = (
    ("Loss", ".4f", lambda run: run.loss),
    ("Perplexity", ".2f", lambda run: run.perplexity),
    ("Bits/char", ".4f", lambda run: run.bits_per_char),
    ("Top-1", ".1%", lambda run: run.top1_accuracy),
    ("Top-5", ".1%", lambda run: run.top5_accuracy),
    ("Parameters", ",d", lambda run: run.params),
    ("Tokens/s", ",.0f", lambda run: run.tokens_per_second),
)
"""The title, the format and the value of each metric."""
VALUES = {"null": "–", "true": "yes", "false": "no"}


def compare_answer(comparison: Comparison) -> discord.Embed:
    """Return the comparison of a run with up to three baselines: the verdicts, and metrics in short lines.

    It shows no setting and no corpus: everybody in the channel sees it.
    """
    names = [plain(run.label or run.run_id) for run in comparison.runs]
    lines: list[str] = []
    for one, name in zip(comparison.against, names[1:], strict=True):
        against = _("against {name}: ", name=name) if len(names) > 2 else ""
        lines += [f"**{against}{verdict(one, comparison.tolerance)}**", *one.notes]
    lines += [
        "",
        " · ".join([f"**{names[0]}**", *names[1:]]),
        f"{' · '.join(run.model for run in comparison.runs)} · {_('{split} split', split=_(str(comparison.split)))}",
    ]
    deltas = [comparison.against[0].delta] if len(names) == 2 else []
    for title, form, figure in FIGURES:
        shown = [figure(run) for run in comparison.runs]
        if any(value is not None for value in shown):
            lines.append(_metric_line(title, form, shown, [figure(delta) for delta in deltas]))
    title = _("{name} against {others}", name=names[0], others=", ".join(names[1:]))
    return make_embed(_colour(comparison), f"⚖ {title}", lines, " · ".join(run.run_id for run in comparison.runs))


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
    if png is None:
        return []
    embed.set_image(url=f"attachment://{_CHART_NAME}")
    ends = ", ".join(f"{name} {numeral(curve[-1][1], '.3f')}" for name, curve in curves.items() if curve)
    text = clamp(
        _("Training of each run over steps, in {unit}. The last values: {ends}.", unit=unit, ends=ends), _MAX_ALT_TEXT
    )
    return [discord.File(BytesIO(png), _CHART_NAME, description=text)]


def _colour(comparison: Comparison) -> int:
    verdicts = {one.verdict for one in comparison.against}
    if verdicts == {"not_comparable"}:
        return GREY
    if any(one.is_regression for one in comparison.against):
        return AMBER
    return GREEN if verdicts == {"better"} else BLURPLE


def _metric_line(title: str, form: str, values: Sequence[float | None], deltas: Sequence[float | None]) -> str:
    first, *others = (_figure(value, form) for value in values)
    changes = "".join(f" ({_figure(delta, '+' + form)})" for delta in deltas if delta is not None)
    return f"{_(title)} {' · '.join([f'**{first}**', *others])}{changes}"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else numeral(value, form)


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
