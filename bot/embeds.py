"""What people read: records to Discord embeds, pure and clamped to Discord's limits."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from math import exp, log
from typing import assert_never

import discord

from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.contracts.inference import GenerateRequest, GenerateResponse, ScoreResponse, StopReason
from trainer.contracts.runs import RunRecord, RunStatus

GREY, BLURPLE, GREEN, RED, AMBER = 0x95A5A6, 0x5865F2, 0x57F287, 0xED4245, 0xFAA61A

_CHART_NAME = "loss.png"
_TITLE, _DESCRIPTION, _FOOTER, _TOTAL = 256, 4096, 2048, 6000  # Discord's embed limits
_SHOWN_ERROR = 1500
_BAR_CELLS = 16
_SPARKS = "▁▂▃▄▅▆▇█"
_SPARKLINE_CELLS = 12
_THIN_SPACE = "\u202f"
_ZERO_WIDTH_SPACE = "\u200b"


def run_card(record: RunRecord, status: RunStatus, losses: Sequence[float]) -> discord.Embed:
    """The one live message of a run, as the run stands; `losses` are the training losses, oldest first."""
    name = plain(display_name(record))
    match status.status:
        case "queued":
            place = "Waiting for a worker"
            if status.queue_position is not None:
                place = f"Position {status.queue_position} in the queue"
            text = [*_recipe(record), f"{place} · asked for {_relative(status.created_at.timestamp())}"]
            return _embed(GREY, f"⏳ Queued: {name}", text, status.run_id)
        case "running":
            return _embed(BLURPLE, f"🏃 Training: {name}", _progress(status, losses), status.run_id)
        case "completed":
            text = [*_result(status), *_recipe(record)]
            return _embed(GREEN, f"✅ Completed: {name}{_duration(status)}", text, status.run_id)
        case "failed":
            return _embed(RED, f"❌ Failed: {name}{_where(status)}", [*_failure(status), *_kept(status)], status.run_id)
        case "cancelled":
            return _embed(GREY, f"⏹ Cancelled: {name}{_where(status)}", _kept(status), status.run_id)
        case _:
            assert_never(status.status)


def final_message(record: RunRecord, status: RunStatus, losses: Sequence[float]) -> discord.Embed:
    """The message that pings when a run has ended: the card, and what to do next."""
    embed = run_card(record, status, losses)
    match status.status:
        case "completed":
            hint = f"Try it: `/mt generate run:{status.run_id}` · `/mt score run:{status.run_id}`"
        case "failed":
            hint = "Give the run's id below when asking for help."
        case _:
            hint = "Start again with `/mt train`."
    embed.description = clamp(f"{embed.description}\n{hint}", _DESCRIPTION)
    return embed.set_footer(text=final_footer(status.run_id))


def final_footer(run_id: str) -> str:
    """How a run's last message is told from its card."""
    return f"{run_id} · result"


def status_answer(
    record: RunRecord, status: RunStatus, losses: Sequence[float], *, request_id: str, dm_closed: bool
) -> discord.Embed:
    """The card with what only somebody who asks wants to know: the last sign of life."""
    embed = run_card(record, status, losses)
    text = [embed.description or ""]
    if status.status == "running" and status.last_heartbeat_ts is not None:
        beat = _relative(status.last_heartbeat_ts)
        text.append(f"Last sign of life {beat}" if status.reachable else f"⚠ Unreachable: last sign of life {beat}")
    if dm_closed:
        text.append("Your direct messages are closed to this bot: its reports come only when you ask here.")
    embed.description = clamp("\n".join(text), _DESCRIPTION)
    return embed.set_footer(text=_answer_footer(status.run_id, request_id))


def accepted_answer(record: RunRecord, *, request_id: str) -> discord.Embed:
    """The answer to `/mt train`."""
    text = [*_recipe(record), "Its card comes by direct message and is kept up to date."]
    title = f"⏳ Queued: {plain(display_name(record))}"
    return _embed(GREY, title, text, _answer_footer(record.run_id, request_id))


def cancel_answer(record: RunRecord, *, request_id: str) -> discord.Embed:
    """The answer to `/mt cancel` and to the card's button."""
    text = ["It stops at its next step; what it has saved is kept."]
    title = f"⏹ Cancelling: {plain(display_name(record))}"
    return _embed(GREY, title, text, _answer_footer(record.run_id, request_id))


def score_answer(record: RunRecord, text: str, score: ScoreResponse, *, request_id: str) -> discord.Embed:
    """The summary of a score; the text itself is not repeated."""
    unknown = f" · {_count(score.unk_count)} unknown characters" if score.unk_count else ""
    loss = score.loss or 0.0
    lines = [
        f"**{loss:.3f}** nats/token · {score.bits_per_char or 0.0:.2f} bits/char · perplexity {score.perplexity:.2f}",
        f"{loss * (score.n_scored or 0):.1f} nats in all over {_count(score.n_scored or 0)} tokens{unknown}",
    ]
    title = f"📏 Score of {_count(len(text))} characters with {plain(display_name(record))}"
    return _embed(BLURPLE, title, lines, _answer_footer(record.run_id, request_id))


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
        lines.append(code_block(request.prompt_text + output, room))
        lines.append(f"{_count(steps)} tokens · {_stopped(reason)}")
    title = f"✍ {plain(display_name(record))} · {' · '.join(settings)}"
    return _embed(BLURPLE, title, lines, _answer_footer(record.run_id, request_id))


def error_answer(error: AppError, request_id: str) -> discord.Embed:
    """Amber: the person can put it right, or may not. Grey: try again later. Red: a fault of ours or of the run."""
    footer = f"request {request_id}"
    match error.code.error_class:
        case ErrorClass.USER_INPUT if error.code is ErrorCode.FORBIDDEN:
            return _embed(AMBER, "🔒 Not allowed", [error.message], footer)
        case ErrorClass.USER_INPUT:
            return _embed(AMBER, "✋ That does not work", [error.message], footer)
        case ErrorClass.TRANSIENT:
            return _embed(GREY, "⏳ Busy", [error.message], footer)
        case ErrorClass.FATAL:
            text = [error.message, "Give the code below when asking for help."]
            return _embed(RED, "❌ Something broke", text, footer)
        case unknown:
            assert_never(unknown)


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


def code_block(text: str, limit: int) -> str:
    """A text as it is, in a code block of at most `limit` UTF-16 units that nothing in it can end."""
    safe = text.replace("`", f"`{_ZERO_WIDTH_SPACE}")
    return f"```\n{clamp(safe, limit - 8) or _ZERO_WIDTH_SPACE}\n```"


def plain(text: str) -> str:
    """A text of a user with its markdown, mentions and links made inert."""
    inert = discord.utils.escape_markdown(text).replace("<", f"<{_ZERO_WIDTH_SPACE}")
    return inert.replace("@", f"@{_ZERO_WIDTH_SPACE}").replace("://", f":{_ZERO_WIDTH_SPACE}//")


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
        f"{asked.model_family}{size} · {model.embedding_size}/{model.hidden_size}/{model.num_layers}"
        f" · {asked.tokenizer.method} tokenizer · {asked.num_epochs} epochs",
        f"Corpus: {corpus}, {_bytes(asked.corpus.bytes)} · seed {asked.seed}",
    ]


def _progress(status: RunStatus, losses: Sequence[float]) -> list[str]:
    if status.train_loss is None:
        return [f"{progress_bar(status.progress)} **{status.progress:.0f} %**", status.message]
    steps = f"{_count(status.step)} / {_count(status.total_steps)}" if status.total_steps else _count(status.step)
    lines = [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · epoch {status.epoch}/{status.total_epochs}"
        f" · step {steps}",
        f"Loss **{status.train_loss:.3f}** nats/token{_bits(status.train_loss, status)}"
        f" · perplexity {exp(min(status.train_loss, 700.0)):.2f}  {sparkline(losses)}",
    ]
    if status.val_loss is not None:
        best = f" · best {status.best_val_loss:.3f}" if status.best_val_loss is not None else ""
        lines.append(f"Validation {status.val_loss:.3f} nats/token{_bits(status.val_loss, status)}{best}")
    speed = f"{_count(round(status.chars_per_second))} characters/s" if status.chars_per_second else status.message
    lines.append(" · ".join([speed, *(part for part in (status.device, status.precision) if part)]))
    saved = "" if status.last_checkpoint_step is None else f"checkpoint at step {_count(status.last_checkpoint_step)}"
    if status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        ends = f"ETA {_relative(status.last_heartbeat_ts + status.eta_seconds)}"
        saved = f"{ends} · {saved}" if saved else ends
    return [*lines, saved] if saved else lines


def _result(status: RunStatus) -> list[str]:
    lines = []
    if status.test_loss is not None and status.bits_per_char is not None:
        lines.append(
            f"Test **{status.test_loss:.3f}** nats/token · {status.bits_per_char:.2f} bits/char"
            f" · perplexity {exp(min(status.test_loss, 700.0)):.2f}"
        )
    if status.best_val_loss is not None:
        lines.append(f"Validation {status.best_val_loss:.3f} nats/token{_bits(status.best_val_loss, status)} (best)")
    lines.append(f"{_count(status.step)} steps in {status.epoch} epochs")
    return lines


def _failure(status: RunStatus) -> list[str]:
    text = status.error.message if status.error else status.message
    code = f"`{status.error.code}` " if status.error else ""
    return [f"{code}{plain(clamp(text, _SHOWN_ERROR))}"]


def _kept(status: RunStatus) -> list[str]:
    if status.last_checkpoint_step is None:
        return ["No checkpoint had been saved yet."]
    loss = ""
    if status.best_val_loss is not None:
        loss = f" (best validation {status.best_val_loss:.3f} nats/token{_bits(status.best_val_loss, status)})"
    return [f"Kept: the checkpoint of step {_count(status.last_checkpoint_step)}{loss}"]


def _where(status: RunStatus) -> str:
    return f" at step {_count(status.step)} (epoch {status.epoch})" if status.step else ""


def _duration(status: RunStatus) -> str:
    if status.started_at is None or status.finished_at is None:
        return ""
    minutes, seconds = divmod(round((status.finished_at - status.started_at).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] if hours else []
    parts += [f"{minutes} min"] if hours or minutes else []
    return f" in {' '.join([*parts, f'{seconds} s'])}"


def _bits(loss_nats: float, status: RunStatus) -> str:
    """A loss per token as bits per character, by the tokens and characters of the training text per second."""
    if not status.tokens_per_second or not status.chars_per_second:
        return ""
    return f" · {loss_nats / log(2) * status.tokens_per_second / status.chars_per_second:.2f} bits/char"


def _stopped(reason: StopReason) -> str:
    match reason:
        case "eos":
            return "ended by the model"
        case "stop_sequence":
            return "stopped by the stop text"
        case "max_new_tokens":
            return "stopped by length"
        case _:
            assert_never(reason)


def _relative(unix_seconds: float) -> str:
    """A time that each reader's client shows as 'in 5 minutes'."""
    return f"<t:{round(unix_seconds)}:R>"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", _THIN_SPACE)


def _bytes(size: int) -> str:
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1000:.1f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
