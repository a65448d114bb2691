"""What people read: records to Discord embeds, pure and clamped to Discord's limits."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import pairwise
from math import log
from typing import Literal, assert_never

import discord

from bot.outcome import Outcome
from bot.report import HIGH_BITS, ReportFiles, Summary, expected_instead, visible
from bot.run_index import RunEntry
from trainer.contracts.base import FileRecord, RunState
from trainer.contracts.comparison import Against, Comparison, verdict
from trainer.contracts.errors import FAILS_AGAIN, AppError, ErrorClass, ErrorCode
from trainer.contracts.inference import (
    ChatResponse,
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Sample,
    ScoreResponse,
    perplexity,
)
from trainer.contracts.runs import RunRecord, RunStatus, describe_unused
from trainer.contracts.wording import counted
from trainer.reports.score_table import Unit, in_unit

GREY, BLURPLE, GREEN, RED, AMBER, PURPLE = 0x95A5A6, 0x5865F2, 0x57F287, 0xED4245, 0xFAA61A, 0x9B59B6

_CHART_NAME, _MAP_NAME = "loss.png", "surprisal.png"
_TITLE, _DESCRIPTION, _FOOTER, _TOTAL = 256, 4096, 2048, 6000  # Discord's embed limits
_SHOWN_ERROR = 1500
_UNTOLD = 300
_UNTOLD_FOOTER = "Told once. Let this bot write to you, and it tells you of your next runs."
_TABLE, _EXPECTED = 2000, 5
_VALUE = 40
_SAID = 1000
_SAMPLE, _LOG = 400, 1000
_LITTLE_LEARNED = 0.95  # of the loss of the uniform baseline
_WEIGHTS = "model.safetensors"
_BLOCK = 8  # the marks of a code block
_BAR_CELLS = 16
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARKLINE_CELLS = 12
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, ends a line or turns the direction of what follows."""
_THIN_SPACE = "\u202f"
_ZERO_WIDTH_SPACE = "\u200b"


def run_card(record: RunRecord, status: RunStatus, losses: Sequence[float]) -> discord.Embed:
    """The one live message of a run, as the run stands; `losses` are the training losses, oldest first."""
    name = plain(display_name(record))
    match status.status:
        case "queued":
            return _embed(GREY, f"⏳ Queued: {name}", [*_recipe(record), *_waiting(status)], status.run_id)
        case "running" if not status.reachable:
            return _embed(AMBER, f"⚠ Worker not responding: {name}", _unreachable(status), status.run_id)
        case "running":
            return _embed(BLURPLE, f"🏃 Training: {name}", _progress(status, losses), status.run_id)
        case "completed":
            text = [*_result(status), *_little_learned(status), *_recipe(record)]
            return _embed(_end_colour(status), _completed_title(name, status), text, status.run_id)
        case "failed":
            return _embed(RED, f"❌ Failed: {name}{_where(status)}", [*_failure(status), *_kept(status)], status.run_id)
        case "cancelled":
            return _embed(GREY, f"⏹ Cancelled: {name}{_where(status)}", _kept(status), status.run_id)
        case _:
            assert_never(status.status)


def final_message(record: RunRecord, status: RunStatus, outcome: Outcome) -> discord.Embed:
    """The message that notifies when a run has ended: what came of it, and what to do next."""
    name = plain(display_name(record))
    match status.status:
        case "completed":
            colour, title = _end_colour(status), _completed_title(name, status)
            lines = [
                *_result(status)[:1],
                *_little_learned(status),
                *_samples(outcome.samples),
                *_files(outcome.files),
                f"Next: {_next_commands(record)}",
            ]
        case "failed":
            colour, title = RED, f"❌ Failed: {name}{_where(status)}"
            lines = [*_failure(status), *_kept(status)]
            if outcome.last_lines:
                lines.append(f"The last lines of its log:\n{code_block(_end_of_lines(outcome.last_lines), _LOG)}")
            lines.append(f"{_resume_hint(status)}Give the run's id below when asking for help.")
        case _:
            colour, title = GREY, f"⏹ Cancelled: {name}{_where(status)}"
            lines = [*_kept(status), f"{_resume_hint(status)}`/mt train` starts a new training."]
    return _embed(colour, title, lines, final_footer(status.run_id))


def final_footer(run_id: str) -> str:
    """How a run's last message is told from its card."""
    return f"{run_id} · result"


def can_resume(status: RunStatus) -> bool:
    """Whether there is a checkpoint from which an ended run would not fail in the same way again."""
    is_spoilt = status.error is not None and status.error.code in FAILS_AGAIN
    return status.last_checkpoint_step is not None and not is_spoilt


def status_answer(
    record: RunRecord,
    status: RunStatus,
    losses: Sequence[float],
    *,
    request_id: str,
    closed: Literal["dm", "channel"] | None,
) -> discord.Embed:
    """The card with what only somebody who asks wants to know: the last sign of life, and why no messages come."""
    embed = run_card(record, status, losses)
    text = [embed.description or ""]
    if status.status == "running" and status.reachable and status.last_heartbeat_ts is not None:
        text.append(f"Last sign of life {_relative(status.last_heartbeat_ts)}")
    if closed is not None:
        text.append(closed_hint(closed, has_ended=status.status not in ("queued", "running")))
    embed.description = clamp("\n".join(text), _DESCRIPTION)
    return embed.set_footer(text=_answer_footer(status.run_id, request_id))


def closed_hint(closed: Literal["dm", "channel"], *, has_ended: bool = False) -> str:
    """Why no messages come, and what to do about it."""
    if closed == "dm":
        what, change = "This bot cannot send you direct messages.", "allow direct messages"
    else:
        what, change = "This bot cannot write into the channel where you watch.", "let the bot write there"
    if has_ended:
        return f"{what} Its result comes only here."
    return f"{what} Use `/mt status` here, or {change} and run `/mt watch`."


def untold_note(ends: Sequence[tuple[RunRecord, RunStatus]]) -> discord.Embed:
    """The ends that somebody could not be sent, beside what they have asked for; short enough to stand there."""
    lines = ["I could not send you how these runs ended, since I may not write to you. `/mt status` shows them."]
    for record, status in ends:
        card = run_card(record, status, ())
        first = (card.description or "").split("\n")[0]
        lines.append(clamp(f"**{card.title}**\n{first} · `{status.run_id}`", _UNTOLD))
    return _embed(AMBER, "📪 You have not been told", lines, _UNTOLD_FOOTER)


def accepted_answer(record: RunRecord, *, note: str | None = None, request_id: str) -> discord.Embed:
    """Return the answer to `/mt train`, with what the run will need, and to `/mt resume`."""
    text = [
        *_recipe(record),
        *([] if record.cost is None else record.cost.lines()),
        *describe_unused(record.unused_settings),
        *([] if note is None else [f"⚠ {note}"]),
        "Its card comes by direct message and is kept up to date.",
    ]
    title = f"⏳ Queued: {plain(display_name(record))}"
    return _embed(GREY, title, text, _answer_footer(record.run_id, request_id))


def cancel_answer(record: RunRecord, *, has_ended: bool, has_started: bool, request_id: str) -> discord.Embed:
    """The answer to `/mt cancel` and to the card's button."""
    if has_ended:
        text = "It was not being trained at the moment; what it has saved is kept."
        text = text if has_started else "It had not started: nothing was trained."
    else:
        text = "It stops at its next step; what it has saved is kept."
    title = f"⏹ {'Cancelled' if has_ended else 'Cancelling'}: {plain(display_name(record))}"
    return _embed(GREY, title, [text], _answer_footer(record.run_id, request_id))


def watch_answer(
    record: RunRecord,
    place: str,
    *,
    has_ended: bool,
    has_final: bool,
    closed: Literal["dm", "channel"] | None,
    request_id: str,
) -> discord.Embed:
    """The answer to `/mt watch` and to its button; `place` says where messages come."""
    if closed is not None:
        title = f"📪 Not reachable: {plain(display_name(record))}"
        return _embed(
            AMBER, title, [closed_hint(closed, has_ended=has_ended)], _answer_footer(record.run_id, request_id)
        )
    text = f"Its card is kept up to date, and its last message comes, {place}."
    if has_ended:
        text = "It has ended, and you have had its result." if has_final else f"It has ended: its result comes {place}."
    title = f"👁 Watching: {plain(display_name(record))}"
    return _embed(BLURPLE, title, [text], _answer_footer(record.run_id, request_id))


def unwatch_answer(record: RunRecord, *, request_id: str) -> discord.Embed:
    """The answer to `/mt unwatch` and to its button."""
    text = ["Your card of it stays as it is now, and no message comes at its end."]
    title = f"🔕 Not watching: {plain(display_name(record))}"
    return _embed(GREY, title, text, _answer_footer(record.run_id, request_id))


def unwatch_all_answer(run_ids: Sequence[str], *, request_id: str) -> discord.Embed:
    text = [f"You are told no more of `{run_id}`." for run_id in run_ids] or ["You were watching none."]
    return _embed(GREY, "🔕 Watching no run", text, f"request {request_id}")


def cancel_question(record: RunRecord, *, request_id: str) -> discord.Embed:
    """What is asked before a run that has gone on for long is ended."""
    text = [f"It was asked for {_relative(record.created_at.timestamp())}. What it has saved is kept."]
    title = f"⏹ Cancel {plain(display_name(record))}?"
    return _embed(AMBER, title, text, _answer_footer(record.run_id, request_id))


def runs_page(
    runs: Sequence[RunEntry], *, wanted: str, count: int, page: int, pages: int, request_id: str
) -> discord.Embed:
    """One page of the runs that were asked for; `count` is how many there are on all pages."""
    lines = [line for run in runs for line in _in_list(run)]
    if not runs:
        lines = ["There is none. `/mt train` starts one; `mine:False` shows the runs of others too."]
    where = f"page {page} of {pages} · " if pages > 1 else ""
    return _embed(BLURPLE, f"📋 {wanted}: {_count(count)}", lines, f"{where}request {request_id}")


def compare_answer(found: Comparison, text_name: Callable[[str], str], *, request_id: str) -> discord.Embed:
    """Return one run judged by another: the verdict, their numbers in short lines, and the settings that differ.

    `text_name` gives the name by which people know a corpus.
    """
    first, other = found.runs
    [one] = found.against
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
    here, there = plain(first.label or first.run_id), plain(other.label or other.run_id)
    lines = [
        f"**{verdict(one, found.tolerance)}**",
        *one.notes,
        "",
        f"**{here}** · {there}",
        f"{first.model} · {other.model} · {found.split} split",
        *(_compared(*row) for row in rows if row[1] is not None or row[2] is not None),
    ]
    differences = list(_differences(one, text_name))
    if differences:
        lines += ["", "**Settings that differ**", *differences]
    colour = GREY if one.rise is None else AMBER if one.is_regression else GREEN if one.rise < 0 else BLURPLE
    return _embed(colour, f"⚖ {here} against {there}", lines, f"{first.run_id} · {other.run_id} · request {request_id}")


def _compared(name: str, here: float | None, there: float | None, apart: float | None, form: str) -> str:
    change = "" if apart is None else f" ({_figure(apart, '+' + form)})"
    return f"{name} **{_figure(here, form)}** · {_figure(there, form)}{change}"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).replace(",", _THIN_SPACE)


def _differences(one: Against, text_name: Callable[[str], str]) -> Iterator[str]:
    """Yield a line per setting that differs, by the name of its option where there is one."""
    for found in one.differences:
        block, _, part = found.field.partition(".")
        if block == "model" and ("null" in (found.run, found.other) or part == "architecture"):
            continue  # of two architectures, which the models' names say
        name = _SETTINGS.get(found.field) or _SETTINGS.get(block)
        if name is None:
            name = found.field.removeprefix("model.").removeprefix("num_").replace(".", " ").replace("_", " ")
        values = [_VALUES.get(value, value) for value in (found.run, found.other)]
        if block in _TEXTS:
            values = [text_name(value) for value in values]
        shown = [plain(clamp(value, _VALUE)) for value in values]
        is_namesake = block in _TEXTS and (part == "sha256" or shown[0] == shown[1])
        yield f"{name}: {'other content under one name' if is_namesake else ' · '.join(shown)}"


_TEXTS = {"corpus": "text", "validation_corpus": "validation text", "test_corpus": "test text"}
_SETTINGS = {
    **_TEXTS,
    "model_family": "model",
    "model_size": "preset",
    "num_epochs": "epochs",
    "init_from_run_id": "init from",
    "tokenizer_id": "tokenizer",
    "early_stopping.enabled": "early stop",
    "early_stopping.patience": "early stop after",
    "optimizer.name": "optimizer",
    "tokenizer.method": "tokenizer",
}
"""How `/mt train`, or else people, name a field."""
_VALUES = {"null": "–", "true": "yes", "false": "no"}


def logs_answer(record: RunRecord, lines: Sequence[str], *, is_attached: bool, request_id: str) -> discord.Embed:
    """The last lines of a run's log, unless they come as a file."""
    if not lines:
        text = "It has written no log yet: the log begins when a worker starts the run."
    else:
        text = "They are in the file." if is_attached else code_block("\n".join(lines), _DESCRIPTION)
    title = f"📜 The last {_count(len(lines), 'line')} of {plain(display_name(record))}"
    return _embed(BLURPLE, title, [text], _answer_footer(record.run_id, request_id))


def help_answer(title: str, lines: Sequence[str], *, request_id: str) -> discord.Embed:
    return _embed(BLURPLE, f"❔ {title}", lines, f"request {request_id}")


def score_answer(
    record: RunRecord,
    text: str,
    score: ScoreResponse,
    unit: Unit,
    *,
    request_id: str,
    own_bits_per_char: float | None,
    refused: str | None = None,
) -> discord.Embed:
    """The summary of a score, beside the run's own test split; the text itself is not repeated.

    `refused` says why there is no more than this.
    """
    unknown = f" · {_count(score.unk_count, 'unknown character')}" if score.unk_count else ""
    mean = in_unit(score.mean_surprisal, unit)
    in_all = f"{in_unit(score.nats, unit):.1f} {unit} in all over {_count(score.n_scored or 0, 'token')}{unknown}"
    if score.loss is None:
        lines = [f"**{mean:.3f}** {unit}/masked token", in_all]
    else:
        lines = [
            f"**{in_unit(score.loss, unit):.3f}** {unit}/token · {_of_lines(score.bits_per_char, score.perplexity)}",
            f"{mean:.3f} {unit}/token without line ends · {in_all}",
        ]
    lines += [] if own_bits_per_char is None else [f"Its own test split: {own_bits_per_char:.2f} bits/char"]
    lines += [] if refused is None else [f"🔒 {refused}"]
    title = f"📏 Score of {_count(len(text), 'character')} with {plain(display_name(record))}"
    return _embed(BLURPLE, title, lines, _answer_footer(record.run_id, request_id))


def _of_lines(bits_per_char: float | None, perplexity_per_token: float | None) -> str:
    return f"{bits_per_char or 0.0:.2f} bits/char · perplexity {perplexity_per_token or 0.0:.2f}"


def report_answer(record: RunRecord, made: ReportFiles, *, left_out: int, request_id: str) -> discord.Embed:
    """The report of surprisals: how they are spread, where they are highest, what was expected there instead.

    `left_out` is how many characters of the text were too many for it.
    """
    found = made.summary
    piece = "character" if found.n_characters == found.n_tokens else "token"
    top = found.most_surprising[0]
    highest = in_unit(top.surprisal, found.unit)
    figures: list[str] = []
    if found.perplexity is not None:
        figures.append(f"{_of_lines(found.bits_per_char, found.perplexity)} with line ends")
    if found.n_unknown:
        figures.append(_count(found.n_unknown, f"unknown {piece}"))
    lines = [
        f"Mean **{found.mean:.2f}** {found.unit} · median {found.median:.2f} · max {highest:.2f} at"
        f" {_count(top.start + 1)} «{plain(visible(top.text))}» · above {HIGH_BITS} bits: {_count(found.n_high)} of"
        f" {_count(found.n_tokens, piece)}",
        *([" · ".join(figures)] if figures else []),
        code_block(_surprising_table(found), _TABLE),
    ]
    if made.shown_characters < found.n_characters:
        lines.append(
            f"The picture shows the first {_count(made.shown_characters, 'character')}; the files have them all."
        )
    if left_out:
        left = _count(left_out, "character")
        lines.append(f"The text was too long: the report is without the last {left}.")
    lines.append("Visible only to you; the text is not logged.")
    embed = _embed(
        PURPLE, f"🔬 Surprisal report: {plain(display_name(record))}", lines, _answer_footer(record.run_id, request_id)
    )
    return embed.set_image(url=f"attachment://{_MAP_NAME}")


def report_files(made: ReportFiles) -> list[discord.File]:
    """The files of a report; what its picture shows is said for people who do not see it."""
    found = made.summary
    top = found.most_surprising[0]
    text = (
        f"Surprisal of each character as the colour of its cell, dark for what was expected: mean {found.mean:.2f}"
        f" {found.unit}, highest {in_unit(top.surprisal, found.unit):.2f} at {top.start + 1}."
    )
    return [
        discord.File(BytesIO(made.png), _MAP_NAME, description=text),
        discord.File(BytesIO(made.html), "surprisal.html"),
        discord.File(BytesIO(made.csv), "surprisal.csv"),
        discord.File(BytesIO(made.json), "surprisal.json"),
    ]


def generate_answer(
    record: RunRecord, request: GenerateRequest, made: GenerateResponse, *, request_id: str
) -> discord.Embed:
    """The continuations, each after its prompt in a code block, where nothing in them can act."""
    outputs = made.outputs or ()
    settings = [f"T {request.temperature:g}"]
    settings += [f"top-k {request.top_k}"] if request.top_k else []
    settings += [f"top-p {request.top_p:g}"] if request.top_p < 1 else []
    settings += [f"seed {made.seed_used}"] if made.seed_used is not None else []
    room = (_DESCRIPTION - 200) // max(1, len(outputs)) - 100
    lines = []
    for output, steps, reason in zip(outputs, made.steps or (), made.stop_reason or (), strict=True):
        prompt_room = max(room // 4, room - _BLOCK - utf16_length(output))
        lines.append(code_block(_end_of(request.prompt_text or "", prompt_room) + output, room))
        lines.append(f"{_count(steps, 'token')} · {_stopped(reason)}")
    title = f"✍ {plain(display_name(record))} · {' · '.join(settings)}"
    return _embed(BLURPLE, title, lines, _answer_footer(record.run_id, request_id))


def chat_answer(record: RunRecord, message: str, made: ChatResponse, *, request_id: str) -> discord.Embed:
    """What was said and what the model answered, each in a code block, and what of the chat it did not read."""
    told = [_count(made.steps or 0, "token")]
    told += [_stopped(made.stop_reason)] if made.stop_reason else []
    told += [f"no room for the oldest {_count(made.turns_dropped, 'turn')}"] if made.turns_dropped else []
    lines = [
        code_block(_end_of(message, _SAID), _SAID + _BLOCK),
        code_block(made.answer or "", _DESCRIPTION - _SAID - 200),
        " · ".join(told),
    ]
    return _embed(BLURPLE, f"💬 {plain(display_name(record))}", lines, _answer_footer(record.run_id, request_id))


def error_answer(error: AppError, request_id: str) -> discord.Embed:
    """Amber: the person can put it right, or may not. Grey: try again later. Red: a fault of ours or of the run."""
    footer, message = f"request {request_id}", _quoting(error.message)
    match error.code.error_class:
        case ErrorClass.USER_INPUT if error.code is ErrorCode.FORBIDDEN:
            return _embed(AMBER, "🔒 Not allowed", [message], footer)
        case ErrorClass.USER_INPUT:
            problems = [f"• {_quoting(problem.message)}" for problem in error.details]
            return _embed(AMBER, "✋ That does not work", problems if len(problems) > 1 else [message], footer)
        case ErrorClass.TRANSIENT:
            return _embed(GREY, "⏳ Busy", [message], footer)
        case ErrorClass.FATAL:
            text = [message, "Give the code below when asking for help."]
            return _embed(RED, "❌ Something broke", text, footer)
        case unknown:
            assert_never(unknown)


STATE_SIGNS: dict[RunState, str] = {
    "queued": "⏳",
    "running": "🏃",
    "completed": "✅",
    "failed": "❌",
    "cancelled": "⏹",
}


def attach_chart(embed: discord.Embed, png: bytes | None, status: RunStatus) -> list[discord.File]:
    """Show a loss chart in an embed; the file to send with it, new for each try, since a try reads it."""
    if png is None:
        return []
    embed.set_image(url=f"attachment://{_CHART_NAME}")
    return [discord.File(BytesIO(png), _CHART_NAME, description=chart_alt_text(status))]


def chart_alt_text(status: RunStatus) -> str:
    """What a run's loss chart shows, for people who do not see it."""
    loss = "" if status.train_loss is None else f": training loss {status.train_loss:.3f} nats per token"
    validation = "" if status.val_loss is None else f", validation loss {status.val_loss:.3f}"
    return f"Loss over steps up to step {status.step}{loss}{validation}."


def display_name(record: RunRecord) -> str:
    return record.effective.label or record.run_id


def progress_bar(percent: float) -> str:
    """Sixteen cells; the last one fills only at 100."""
    filled = int(max(0.0, min(100.0, percent)) * _BAR_CELLS / 100)
    return "▰" * filled + "▱" * (_BAR_CELLS - filled)


def sparkline(values: Sequence[float]) -> str:
    """A curve in at most twelve characters, lowest ▁ to highest █; means of neighbours where it is longer."""
    cells = min(_SPARKLINE_CELLS, len(values))
    edges = [index * len(values) // cells for index in range(cells + 1)] if cells else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return "".join(_SPARKS[round((mean - low) / (high - low) * 7) if high > low else 0] for mean in means)


def utf16_length(text: str) -> int:
    """The length in UTF-16 units, as Discord's clients count; never less than the number of characters."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def clamp(text: str, limit: int) -> str:
    """Cut a text to at most `limit` UTF-16 units, with … where something was cut."""
    if utf16_length(text) <= limit:
        return text
    cut = text.encode("utf-16-le", "surrogatepass")[: (limit - 1) * 2]
    return cut.decode("utf-16-le", "ignore").rstrip() + "…"


def _end_of(text: str, limit: int) -> str:
    """The last `limit` UTF-16 units of a text at most, after … where something was cut."""
    if utf16_length(text) <= limit:
        return text
    cut = text.encode("utf-16-le", "surrogatepass")[-(limit - 1) * 2 :]
    return "…" + cut.decode("utf-16-le", "ignore")


def code_block(text: str, limit: int) -> str:
    """A text as it is, in a code block of at most `limit` UTF-16 units that nothing in it can end."""
    safe = text.replace("`", f"`{_ZERO_WIDTH_SPACE}")
    return f"```\n{clamp(safe, limit - _BLOCK) or _ZERO_WIDTH_SPACE}\n```"


def plain(text: str) -> str:
    """Make the markdown, mentions, links and direction of a user's text inert."""
    inert = discord.utils.escape_markdown(_without_controls(text)).replace("<", f"<{_ZERO_WIDTH_SPACE}")
    return isolated(inert.replace("@", f"@{_ZERO_WIDTH_SPACE}").replace("://", f":{_ZERO_WIDTH_SPACE}//"))


def isolated(text: str) -> str:
    """Keep a text that is written from right to left from reordering the text around it."""
    turns = any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in text)
    return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}" if turns else text


def _quoting(message: str) -> str:
    """A sentence of ours that may repeat what somebody has written; its own marks stay."""
    return _without_controls(message).replace("](", f"]{_ZERO_WIDTH_SPACE}(")


def _without_controls(text: str) -> str:
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def _embed(colour: int, title: str, lines: Sequence[str], footer: str) -> discord.Embed:
    title, footer = clamp(title, _TITLE), clamp(footer, _FOOTER)
    room = min(_DESCRIPTION, _TOTAL - utf16_length(title) - utf16_length(footer))
    embed = discord.Embed(colour=colour, title=title, description=clamp("\n".join(lines), room))
    return embed.set_footer(text=footer)


def _answer_footer(run_id: str, request_id: str) -> str:
    return f"{run_id} · request {request_id}"


def _recipe(record: RunRecord) -> list[str]:
    """What is trained on what, in two lines."""
    asked = record.effective
    size = f" {asked.model_size}" if asked.model_size else ""
    model = asked.model
    is_attachment = asked.corpus.name == asked.corpus.sha256
    corpus = "the attached text" if is_attachment else plain(asked.corpus.name)
    return [
        f"{asked.model_family}{size} · {model.sizes()}"
        f" · {asked.tokenizer.method} tokenizer · {_count(asked.num_epochs, 'epoch')}",
        f"Corpus: {corpus}, {_bytes(asked.corpus.bytes)} · seed {asked.seed}",
    ]


def _in_list(run: RunEntry) -> list[str]:
    """A run in two lines: what and how far, then by which id, on which text, by whom and when."""
    state = f"{run.state} {run.progress:.0f} %" if run.state == "running" else run.state
    loss = "" if run.loss_nats is None else f" · {run.loss_nats:.3f} nats/token"
    bits = "" if run.bits_per_char is None else f" · {run.bits_per_char:.2f} bits/char"
    corpus = "an attached text" if run.has_attached_text else plain(clamp(run.corpus, 60))
    starter = "command line" if run.user_id is None else f"<@{run.user_id}>"
    return [
        f"{STATE_SIGNS[run.state]} **{plain(run.name)}** · {state}{loss}{bits}",
        f"`{run.run_id}` · {corpus} · {starter} · {_relative(run.created_at.timestamp())}",
    ]


def _progress(status: RunStatus, losses: Sequence[float]) -> list[str]:
    if status.train_loss is None:
        return [f"{progress_bar(status.progress)} **{status.progress:.0f} %**", status.message]
    steps = f"{_count(status.step)} / {_count(status.total_steps)}" if status.total_steps else _count(status.step)
    lines = [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · epoch {status.epoch}/{status.total_epochs}"
        f" · step {steps}",
        f"Loss **{status.train_loss:.3f}**{_unit(status.train_bits_per_char, status)}"
        f" · perplexity {perplexity(status.train_loss):.2f}  {sparkline(losses)}",
    ]
    if status.val_loss is not None:
        best = f" · best {status.best_val_loss:.3f}" if status.best_val_loss is not None else ""
        lines.append(f"Validation {status.val_loss:.3f}{_unit(status.val_bits_per_char, status)}{best}")
    speed = f"{_count(round(status.chars_per_second))} characters/s" if status.chars_per_second else status.message
    lines.append(" · ".join([speed, *(part for part in (status.device, status.precision) if part)]))
    saved = "" if status.last_checkpoint_step is None else f"checkpoint at step {_count(status.last_checkpoint_step)}"
    if status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        ends = f"ETA {_relative(status.last_heartbeat_ts + status.eta_seconds)}"
        saved = f"{ends} · {saved}" if saved else ends
    return [*lines, saved] if saved else lines


def _result(status: RunStatus) -> list[str]:
    lines = []
    if status.test_loss is not None:
        test = f"Test **{status.test_loss:.3f}**{_unit(status.bits_per_char, status)}"
        lines.append(f"{test} · perplexity {perplexity(status.test_loss):.2f}")
    if status.best_val_loss is not None:
        best = _unit(status.best_val_bits_per_char, status)
        lines.append(f"Validation {status.best_val_loss:.3f}{best} (best)")
    lines.append(f"{_count(status.step, 'step')} in {_count(status.epoch, 'epoch')}")
    return lines


def _failure(status: RunStatus) -> list[str]:
    text = status.error.message if status.error else status.message
    code = f"`{status.error.code}` " if status.error else ""
    return [f"{code}{_quoting(clamp(text, _SHOWN_ERROR))}"]


def _kept(status: RunStatus) -> list[str]:
    if status.last_checkpoint_step is None:
        return ["No checkpoint had been saved yet."]
    loss = ""
    if status.best_val_loss is not None:
        unit = _unit(status.best_val_bits_per_char, status)
        loss = f" (best validation {status.best_val_loss:.3f}{unit})"
    return [f"Kept: the checkpoint of step {_count(status.last_checkpoint_step)}{loss}"]


def _resume_hint(status: RunStatus) -> str:
    if not can_resume(status):
        return ""
    return f"`/mt resume run:{status.run_id}` resumes it from its checkpoint. "


def _where(status: RunStatus) -> str:
    epoch = f" (epoch {status.epoch})" if status.epoch else ""
    return f" at step {_count(status.step)}{epoch}" if status.step else ""


def _waiting(status: RunStatus) -> list[str]:
    """Where a queued run waits, a run that trains being ahead of it, and what it waits for."""
    place = "" if status.queue_position is None else f"Position {_count(status.queue_position)} in the queue · "
    return [f"{place}asked for {_relative(status.created_at.timestamp())}", status.message]


def _unreachable(status: RunStatus) -> list[str]:
    """What is known of a run whose worker is not responding, without any guess when it ends."""
    steps = f" of {_count(status.total_steps)}" if status.total_steps else ""
    last = "" if status.last_heartbeat_ts is None else f" · last sign of life {_relative(status.last_heartbeat_ts)}"
    return [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · step {_count(status.step)}{steps}{last}",
        "The worker is not responding. The run resumes from its last checkpoint when a worker is available.",
        *_kept(status),
    ]


def _completed_title(name: str, status: RunStatus) -> str:
    return f"{'⚠' if _little_learned(status) else '✅'} Completed: {name}{_duration(status)}"


def _end_colour(status: RunStatus) -> int:
    return AMBER if _little_learned(status) else GREEN


def _little_learned(status: RunStatus) -> list[str]:
    """The warning that a model is hardly better than the uniform baseline, which gives all tokens one probability."""
    loss = status.best_val_loss if status.test_loss is None else status.test_loss
    if loss is None or status.vocab_size is None or loss < _LITTLE_LEARNED * log(status.vocab_size):
        return []
    return [
        f"⚠ The model has learned almost nothing: its loss is {loss:.2f}{_unit(None, status)}, and the uniform"
        f" baseline has {log(status.vocab_size):.2f}. Train longer, on more text or with another learning rate."
    ]


def _samples(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return []
    return ["The model writes:", *(code_block(sample.prompt + sample.text, _SAMPLE) for sample in samples)]


def _files(files: Sequence[FileRecord]) -> list[str]:
    """The file of the weights with its hash, and how much the others are."""
    weights = next((file for file in files if file.path == _WEIGHTS), None)
    if weights is None:
        return []
    others = sum(file.bytes for file in files) - weights.bytes
    return [
        f"Files: `{_WEIGHTS}` {_bytes(weights.bytes)}, sha256 `{weights.sha256[:12]}…`"
        f" · {_count(len(files) - 1)} more, {_bytes(others)}"
    ]


def _next_commands(record: RunRecord) -> str:
    """The commands that work with a completed run; one that fills gaps continues no text."""
    names = ("generate", "chat", "score") if record.effective.objective == "causal_lm" else ("score",)
    return " · ".join(f"`/mt {name} run:{record.run_id}`" for name in names)


def _end_of_lines(lines: Sequence[str]) -> str:
    return _end_of("\n".join(lines), _LOG - 2 * _BLOCK)


def _duration(status: RunStatus) -> str:
    if status.started_at is None or status.finished_at is None:
        return ""
    minutes, seconds = divmod(round((status.finished_at - status.started_at).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] if hours else []
    parts += [f"{minutes} min"] if hours or minutes else []
    return f" in {' '.join([*parts, f'{seconds} s'])}"


def _unit(bits_per_char: float | None, status: RunStatus) -> str:
    """The unit of a run's loss, and that loss in bits per character where it has them."""
    unit = "token" if status.objective == "causal_lm" else "masked token"
    return f" nats/{unit}" + ("" if bits_per_char is None else f" · {bits_per_char:.2f} bits/char")


def _surprising_table(summary: Summary) -> str:
    has_expected = bool(summary.most_surprising[0].expected)
    lines = ["Most surprising, and what was expected instead" if has_expected else "Most surprising"]
    for row in summary.most_surprising:
        instead = "  ".join(
            f"{isolated(visible(token))} {share:.0%}" for token, share in expected_instead(row)[:_EXPECTED]
        )
        sign = isolated(visible(row.text)) + ("" if row.is_known else " unknown")
        surprisal = in_unit(row.surprisal, summary.unit)
        lines.append(f"{row.start + 1:>6,} {surprisal:6.2f}  {sign}   {instead}".rstrip())
    return "\n".join(lines)


def _stopped(reason: FinishReason) -> str:
    match reason:
        case "eos":
            return "ended by the model"
        case "stop_sequence":
            return "stopped by the stop text"
        case "max_new_tokens":
            return "stopped by length"
        case "context_full":
            return "stopped where the model's context ends"
        case _:
            assert_never(reason)


def _relative(unix_seconds: float) -> str:
    """A time that each reader's client shows as 'in 5 minutes'."""
    return f"<t:{round(unix_seconds)}:R>"


def _count(number: int, noun: str | None = None) -> str:
    return (f"{number:,}" if noun is None else counted(number, noun)).replace(",", _THIN_SPACE)


def _bytes(size: int) -> str:
    if size < 1000:
        return _count(size, "byte")
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
