"""Answers to `/mt score`, `/mt generate`, `/mt predict` and `/mt chat`."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from operator import itemgetter

import discord

from bot.messages.report_card import reader_of_names
from bot.messages.text import (
    BLURPLE,
    CODE_BLOCK_MARKS,
    MAX_DESCRIPTION,
    PURPLE,
    clamp,
    clamp_start,
    code_block,
    count,
    figure,
    figure_per_char,
    isolated,
    make_embed,
    per_char,
    percent,
    plain,
    said,
    shown_name,
    shown_perplexity,
    unit_per,
    unknown_mark,
    unknown_warning,
    utf16_length,
)
from bot.people.user_settings import current_unit
from trainer.contracts.chats import ChatResponse
from trainer.contracts.generations import FinishReason, GenerateRequest, GenerateResponse
from trainer.contracts.predictions import PredictResponse
from trainer.contracts.reports import Note
from trainer.contracts.runs import RunRecord, has_unknown_text
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.units import LOSS_DIGITS, SURPRISAL_DIGITS, bits_in_unit, in_unit
from trainer.lab.language import _, numeral, plural
from trainer.reports.surprisal_report import HEATMAP_NAME, HIGH_NATS, ReportFiles, Summary, expected_instead, visible

STOPS: dict[FinishReason, str] = {
    "eos": "ended by the model",
    "stop_sequence": "stopped at the stop text",
    "max_new_tokens": "stopped at the maximum length",
    "context_full": "stopped at the end of the model's context",
}
_MAX_TABLE, _MAX_EXPECTED, _MAX_MESSAGE = 2000, 5, 1000
_MAX_SIGNS, _MAX_SIGN = 5, 20


def score_answer(
    record: RunRecord,
    text: str,
    score: ScoreResponse,
    own_bits_per_char: float | None,
    unknown_signs: Mapping[str, int],
    refusal: str | None = None,
) -> discord.Embed:
    """Return the summary of a score beside the run's own test split; of the text, only unknown signs are shown.

    `own_bits_per_char` is None if the run's own are unknown, or too low to compare.
    `refusal` is the reason why a detailed report was refused.
    """
    unknown = ""
    if score.unknown_chars:
        unknown = f" · {count(score.unknown_chars, 'unknown character')}{_signs(unknown_signs)}"
    mean = figure(score.mean_surprisal)
    total = _("{number} {unit} in total", number=figure(score.nats, SURPRISAL_DIGITS), unit=_(current_unit()))
    total += f" · {count(score.n_scored or 0, 'token')}{unknown}"
    if score.loss is None:
        lines = [f"**{mean}** {unit_per('masked token')}", total]
    else:
        without = _("{loss} without line ends", loss=f"{mean} {unit_per('token')}")
        figures = _line_figures(score.bits_per_char, score.perplexity, score.unknown_char_share)
        mark = unknown_mark(score.unknown_char_share)
        lines = [f"**{figure(score.loss)}** {unit_per('token')}{mark} · {figures}", f"{without} · {total}"]
    lines += unknown_warning(score.unknown_char_share)
    lines += leak_lines(score.notes)
    is_comparable = score.bits_per_char is not None and not has_unknown_text(score.unknown_char_share)
    if own_bits_per_char is not None and score.bits_per_char is not None and is_comparable:
        lines.append(_against_own_text(score.bits_per_char - own_bits_per_char))
    lines += [] if refusal is None else [f"🔒 {refusal}"]
    title = _("Score of {length} with {name}", length=count(len(text), "character"), name=shown_name(record))
    return make_embed(BLURPLE, f"📏 {title}", lines, score.model)


def leak_lines(notes: Sequence[Note]) -> list[str]:
    """Return the warnings about a text that the run was trained on."""
    return [f"⚠ {reader_of_names().note(one)}" for one in notes]


def report_answer(record: RunRecord, report: ReportFiles, model: str, *, left_out: int) -> discord.Embed:
    """Return the report of surprisals: their spread, the most surprising positions and the expected tokens.

    `left_out` is the number of characters by which the text was too long.
    """
    summary = report.summary
    has_characters = summary.n_characters == summary.n_tokens
    top = summary.most_surprising[0]
    figures: list[str] = []
    if summary.perplexity is not None:
        shown = _line_figures(summary.bits_per_char, summary.perplexity, summary.unknown_char_share)
        figures.append(_("{figures} with line ends", figures=shown))
    if summary.n_unknown:
        figures.append(
            count(summary.n_unknown, "unknown character")
            if has_characters
            else count(summary.n_unknown, "unknown token")
        )
    lines = [
        _(
            "Mean **{mean}** {unit} · median {median} · max {most} at {place} «{sign}» · above {limit}: {number}"
            " of {total}",
            mean=figure(summary.mean),
            unit=_(current_unit()),
            median=figure(summary.median, SURPRISAL_DIGITS),
            most=figure(top.surprisal, SURPRISAL_DIGITS),
            place=count(top.start + 1),
            sign=plain(visible(top.text)),
            limit=numeral(in_unit(HIGH_NATS, current_unit()), ".3g"),
            number=count(summary.n_high),
            total=count(summary.n_tokens, "character") if has_characters else count(summary.n_tokens, "token"),
        ),
        *([" · ".join(figures)] if figures else []),
        *unknown_warning(summary.unknown_char_share),
        *leak_lines(summary.notes),
        code_block(_surprising_table(summary), _MAX_TABLE),
    ]
    if report.shown_characters < summary.n_characters:
        shown = count(report.shown_characters, "character")
        lines.append(_("The picture shows the first {characters}; the files contain all.", characters=shown))
    if left_out:
        shown = count(left_out, "character")
        lines.append(_("The text is too long. The report leaves out the last {characters}.", characters=shown))
    lines.append(_("Visible only to you; the text is not logged."))
    title = f"🔬 {_('Surprisal report: {name}', name=shown_name(record))}"
    return make_embed(PURPLE, title, lines, model).set_image(url=f"attachment://{HEATMAP_NAME}")


def table_answer(record: RunRecord, report: ReportFiles, model: str) -> discord.Embed:
    """Return the note beside the table of a report."""
    summary = report.summary
    lines = [
        plural(
            "{count} row, one per token: its characters, surprisal and rank.",
            "{count} rows, one per token: its characters, surprisal and rank.",
            summary.n_tokens,
        )
    ]
    title = f"📄 {_('Table of surprisals: {name}', name=shown_name(record))}"
    return make_embed(PURPLE, title, [*lines, _("Visible only to you; the text is not logged.")], model)


def report_files(report: ReportFiles) -> list[discord.File]:
    """Return the files of a report; the picture has a description for screen readers."""
    summary = report.summary
    top = summary.most_surprising[0]
    text = _(
        "Surprisal of each character as the colour of its cell, dark for low surprisal: mean {mean} {unit}, highest"
        " {most} at {place}.",
        mean=figure(summary.mean),
        unit=_(current_unit()),
        most=figure(top.surprisal, SURPRISAL_DIGITS),
        place=top.start + 1,
    )
    return [
        discord.File(BytesIO(data), name, description=text if name == HEATMAP_NAME else None)
        for name, data in report.files.items()
    ]


def generate_answer(record: RunRecord, request: GenerateRequest, response: GenerateResponse) -> discord.Embed:
    """Return the generated texts, each after its prompt in a code block."""
    outputs = response.outputs or ()
    settings = [f"T {request.temperature:g}"]
    settings += [f"top-k {request.top_k}"] if request.top_k else []
    settings += [f"top-p {request.top_p:g}"] if request.top_p < 1 else []
    settings += [_("seed {seed}", seed=response.seed_used)] if response.seed_used is not None else []
    room = (MAX_DESCRIPTION - 200) // max(1, len(outputs)) - 100
    lines = []
    for output, steps, reason in zip(outputs, response.steps or (), response.stop_reason or (), strict=True):
        prompt_room = max(room // 4, room - CODE_BLOCK_MARKS - utf16_length(output))
        lines.append(code_block(clamp_start(request.prompt_text or "", prompt_room) + output, room))
        lines.append(f"{count(steps, 'token')} · {_(STOPS[reason])}")
    title = f"✍ {shown_name(record)} · {' · '.join(settings)}"
    return make_embed(BLURPLE, title, [*lines, *map(said, response.notes)], response.model)


def chat_answer(record: RunRecord, message: str, response: ChatResponse) -> discord.Embed:
    """Return the message and the model's answer, each in a code block, and the number of dropped turns."""
    facts = [count(response.steps or 0, "token")]
    facts += [_(STOPS[response.stop_reason])] if response.stop_reason else []
    facts += (
        [plural("oldest {count} turn dropped", "oldest {count} turns dropped", response.turns_dropped)]
        if response.turns_dropped
        else []
    )
    lines = [
        code_block(clamp_start(message, _MAX_MESSAGE), _MAX_MESSAGE + CODE_BLOCK_MARKS),
        code_block(response.answer or "", MAX_DESCRIPTION - _MAX_MESSAGE - 200),
        " · ".join([*facts, _("session {session}", session=f"`{response.session_id}`")]),
    ]
    return make_embed(BLURPLE, f"💬 {shown_name(record)}", lines, response.model)


def _against_own_text(more_bits: float) -> str:
    """Compare the surprise per character with that on the test split of the run."""
    difference = f"{figure_per_char(abs(more_bits))} {unit_per('char')}"
    if round(bits_in_unit(more_bits, current_unit()), LOSS_DIGITS) == 0:
        return _("As surprised as on its own test set.")
    if more_bits > 0:
        return _("More surprised than on its own test set by {difference}.", difference=difference)
    return _("Less surprised than on its own test set by {difference}.", difference=difference)


def _signs(unknown: Mapping[str, int]) -> str:
    """Return the most frequent unknown signs with their counts, in brackets."""
    most = sorted(unknown.items(), key=itemgetter(1), reverse=True)
    shown = [f"{plain(visible(clamp(sign, _MAX_SIGN)))} ×{count(times)}" for sign, times in most[:_MAX_SIGNS]]
    return f" ({', '.join(shown)}{', …' if len(most) > _MAX_SIGNS else ''})" if shown else ""


def predict_answer(record: RunRecord, text: str, response: PredictResponse) -> discord.Embed:
    """Return the likeliest next tokens with their probabilities, after the end of the text."""
    lines = [code_block(clamp_start(text, _MAX_MESSAGE), _MAX_MESSAGE + CODE_BLOCK_MARKS)]
    rows = [f"{percent(one.prob).rjust(6)}  {isolated(visible(one.token))}" for one in response.suggestions or ()]
    lines.append(code_block("\n".join(rows), _MAX_TABLE))
    lines += (
        [plural("{count} unknown sign in the text", "{count} unknown signs in the text", response.unk_count)]
        if response.unk_count
        else []
    )
    return make_embed(BLURPLE, f"🔮 {_('Next tokens: {name}', name=shown_name(record))}", lines, response.model)


def _line_figures(bits: float | None, perplexity: float | None, unknown_char_share: float | None) -> str:
    return f"{per_char(bits or 0.0, unknown_char_share)} · {shown_perplexity(perplexity or 0.0, unknown_char_share)}"


def _surprising_table(summary: Summary) -> str:
    has_expected = bool(summary.most_surprising[0].expected)
    lines = [_("Most surprising, and the expected tokens") if has_expected else _("Most surprising")]
    for row in summary.most_surprising:
        expected = "  ".join(
            f"{isolated(visible(token))} {percent(share)}" for token, share in expected_instead(row)[:_MAX_EXPECTED]
        )
        sign = isolated(visible(row.text)) + ("" if row.is_known else _(" unknown"))
        surprisal = figure(row.surprisal, SURPRISAL_DIGITS).rjust(6)
        lines.append(f"{numeral(row.start + 1):>6} {surprisal}  {sign}   {expected}".rstrip())
    return "\n".join(lines)
