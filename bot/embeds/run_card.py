"""The card of a run, which is edited as the run proceeds, and the final message."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from math import log

import discord

from bot.embeds.advice import advice, can_resume
from bot.embeds.text import (
    AMBER,
    BLURPLE,
    CODE_BLOCK_MARKS,
    GREEN,
    GREY,
    RED,
    byte_size,
    clamp,
    clamp_start,
    code_block,
    count,
    make_embed,
    plain,
    relative_time,
    shown_name,
    without_links,
)
from bot.outcome import Outcome
from trainer.contracts.base import FileRecord
from trainer.contracts.events import EVALUATING
from trainer.contracts.inference import Sample, perplexity
from trainer.contracts.runs import RunRecord, RunStatus

_CHART_NAME = "loss.png"
_WEIGHTS = "model.safetensors"
_MAX_ERROR, _MAX_SAMPLE, _MAX_LOG = 1500, 400, 1000
_LITTLE_LEARNED = 0.95  # of the loss of the uniform baseline
_BAR_CELLS, _SPARKLINE_CELLS = 16, 12
_SPARKS = "▁▂▃▄▅▆▇█"


def run_card(record: RunRecord, status: RunStatus, losses: Sequence[float]) -> discord.Embed:
    """Return the card of a run in its current state; `losses` are the training losses, oldest first."""
    name = shown_name(record)
    match status.status:
        case "queued":
            lines = [*_recipe_with_weights(record, status), _place_in_queue(status), status.message]
            return make_embed(GREY, f"⏳ Queued: {name}", lines, status.run_id)
        case "running" if not status.reachable:
            return make_embed(AMBER, f"⚠ Worker not responding: {name}", _unreachable(status), status.run_id)
        case "running" if status.message == EVALUATING:
            return make_embed(BLURPLE, f"🧮 Evaluating: {name}", _evaluating(status), status.run_id)
        case "running":
            return make_embed(BLURPLE, f"🏃 Training: {name}", _progress(record, status, losses), status.run_id)
        case _:
            colour, title = _end_title(name, status)
            lines = _checkpoint(status)
            if status.status == "completed":
                lines = [*_result(status), *_warning(status), *_recipe_with_weights(record, status)]
            elif status.status == "failed":
                lines = [*_failure(status), advice(status), *lines]
            return make_embed(colour, title, lines, status.run_id)


def final_message(record: RunRecord, status: RunStatus, outcome: Outcome) -> discord.Embed:
    """Return the message that notifies of a run's end: its outcome and what to do next."""
    colour, title = _end_title(shown_name(record), status)
    match status.status:
        case "completed":
            lines = [
                *_result(status),
                *_warning(status),
                *_samples(outcome.samples),
                *_files(outcome.files),
                f"Reproduce: `/mt train config:{status.run_id}.yaml`, the file of **Copy config**.",
                *_chat_command(record),
            ]
        case "failed":
            lines = [*_failure(status), advice(status), *_checkpoint(status)]
            if outcome.last_lines:
                log_end = clamp_start("\n".join(outcome.last_lines), _MAX_LOG - 2 * CODE_BLOCK_MARKS)
                lines.append(f"Last lines of the log:\n{code_block(log_end, _MAX_LOG)}")
            lines.append("When you ask for help, include the run id below.")
        case _:
            command = f"`/mt resume run:{status.run_id}`"
            resume = f"{command} resumes the run from its last checkpoint. " if can_resume(status) else ""
            lines = [*_checkpoint(status), f"{resume}`/mt train` starts a new run."]
    return make_embed(colour, title, lines, final_footer(status.run_id))


def final_footer(run_id: str) -> str:
    """Return the footer that distinguishes a final message from a card."""
    return f"{run_id} · result"


def recipe(record: RunRecord) -> list[str]:
    """Return a run's model, tokenizer, corpus and origin in two lines, or three for one that starts from another."""
    request = record.effective
    size = f" {request.model_size}" if request.model_size else ""
    origin = []
    if record.resumed_from_run_id is not None:
        origin = [f"Resumes `{record.resumed_from_run_id}`"]
    elif request.init_from_run_id is not None:
        frozen = ", embeddings frozen" if request.freeze_embeddings else ""
        origin = [f"Warm start from `{request.init_from_run_id}`{frozen}"]
    is_attachment = request.corpus.name == request.corpus.sha256
    corpus = "attached text" if is_attachment else plain(request.corpus.name)
    return [
        f"{request.model_family}{size} · {request.model.sizes()}"
        f" · {request.tokenizer.method} tokenizer · {count(request.num_epochs, 'epoch')}",
        f"Corpus: {corpus}, {byte_size(request.corpus.bytes)} · seed {request.seed}",
        *origin,
    ]


def _recipe_with_weights(record: RunRecord, status: RunStatus) -> list[str]:
    params = status.params if record.cost is None else record.cost.params
    first, *others = recipe(record)
    return [first if params is None else f"{first} · {weight_count(params)} weights", *others]


def weight_count(params: int) -> str:
    """Return a number of weights to three figures: 34.1 k, 0.96 M."""
    return f"{params / 1e6:.3g} M" if params >= 100_000 else f"{params / 1e3:.3g} k"


def attach_chart(embed: discord.Embed, png: bytes | None, status: RunStatus) -> list[discord.File]:
    """Show a loss chart in an embed; return the file to send with it, new for each try, since a try reads it."""
    if png is None:
        return []
    embed.set_image(url=f"attachment://{_CHART_NAME}")
    return [discord.File(BytesIO(png), _CHART_NAME, description=chart_alt_text(status))]


def chart_alt_text(status: RunStatus) -> str:
    """Describe a run's loss chart for screen readers."""
    loss = "" if status.train_loss is None else f": training loss {status.train_loss:.3f} nats per token"
    validation = "" if status.val_loss is None else f", validation loss {status.val_loss:.3f}"
    return f"Loss over steps up to step {status.step}{loss}{validation}."


def progress_bar(percent: float) -> str:
    """Return sixteen cells; the last one is full only at 100."""
    full = int(max(0.0, min(100.0, percent)) * _BAR_CELLS / 100)
    return "▰" * full + "▱" * (_BAR_CELLS - full)


def sparkline(values: Sequence[float]) -> str:
    """Return a curve of at most twelve characters, lowest ▁ to highest █; a longer curve is averaged."""
    cells = min(_SPARKLINE_CELLS, len(values))
    edges = [index * len(values) // cells for index in range(cells + 1)] if cells else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return "".join(_SPARKS[round((mean - low) / (high - low) * 7) if high > low else 0] for mean in means)


def _place_in_queue(status: RunStatus) -> str:
    requested = f"requested {relative_time(status.created_at.timestamp())}"
    if status.queue_position is None:
        return requested
    start = requested if status.starts_ts is None else f"starts {relative_time(status.starts_ts)}"
    return f"Position {count(status.queue_position)} in the queue · {start}"


def _evaluating(status: RunStatus) -> list[str]:
    lines = [f"{progress_bar(100)} {count(status.step, 'step')} in {count(status.epoch, 'epoch')}"]
    if status.best_val_loss is not None:
        best = _unit(status.best_val_bits_per_char, status)
        lines.append(f"Validation {status.best_val_loss:.3f}{best} (best{_of_epoch(status)})")
    return [*lines, "The best weights are evaluated on the test split."]


def _progress(record: RunRecord, status: RunStatus, losses: Sequence[float]) -> list[str]:
    if status.train_loss is None:
        return [f"{progress_bar(status.progress)} **{status.progress:.0f} %**", status.message]
    steps = f"{count(status.step)} / {count(status.total_steps)}" if status.total_steps else count(status.step)
    lines = [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · epoch {status.epoch}/{status.total_epochs}"
        f" · step {steps}",
        f"Loss **{status.train_loss:.3f}**{_unit(status.train_bits_per_char, status)}"
        f" · perplexity {perplexity(status.train_loss):.2f}  {sparkline(losses)}",
    ]
    if status.val_loss is not None:
        epoch = "" if status.best_epoch is None else f" (epoch {status.best_epoch})"
        best = f" · best {status.best_val_loss:.3f}{epoch}" if status.best_val_loss is not None else ""
        lines.append(f"Validation {status.val_loss:.3f}{_unit(status.val_bits_per_char, status)}{best}")
    speed = f"{count(round(status.chars_per_second))} characters/s" if status.chars_per_second else status.message
    memory = None if status.gpu_memory_bytes is None else f"{status.gpu_memory_bytes / 1e9:.1f} GB"
    lines.append(" · ".join([speed, *(part for part in (status.device, status.precision, memory) if part)]))
    if status.grad_norm is not None and status.learning_rate is not None:
        lines.append(f"Gradient norm {status.grad_norm:.2f} · learning rate {status.learning_rate:.2g}")
    last: list[str] = []
    if status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        last.append(f"ETA {relative_time(status.last_heartbeat_ts + status.eta_seconds)}")
    rule = record.effective.early_stopping
    if rule.enabled and status.evals_without_gain is not None:
        last.append(f"early stop {status.evals_without_gain}/{rule.patience}")
    if status.last_checkpoint_step is not None:
        age = "" if status.last_checkpoint_ts is None else f" {relative_time(status.last_checkpoint_ts)}"
        last.append(f"checkpoint at step {count(status.last_checkpoint_step)}{age}")
    return [*lines, " · ".join(last)] if last else lines


def _unreachable(status: RunStatus) -> list[str]:
    steps = f" of {count(status.total_steps)}" if status.total_steps else ""
    last = "" if status.last_heartbeat_ts is None else f" · last heartbeat {relative_time(status.last_heartbeat_ts)}"
    return [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · step {count(status.step)}{steps}{last}",
        "The worker is not responding. The run resumes from its last checkpoint when a worker is available.",
        *_checkpoint(status),
    ]


def _end_title(name: str, status: RunStatus) -> tuple[int, str]:
    epoch = f" (epoch {status.epoch})" if status.epoch else ""
    where = f" at step {count(status.step)}{epoch}" if status.step else ""
    match status.status:
        case "completed":
            title = f"Completed: {name}{_duration(status)}"
            return (AMBER, f"⚠ {title}") if _warning(status) else (GREEN, f"✅ {title}")
        case "failed":
            return RED, f"❌ Failed: {name}{where}"
        case _:
            return GREY, f"⏹ Cancelled: {name}{where}"


def _result(status: RunStatus) -> list[str]:
    lines = []
    if status.test_loss is not None:
        test = f"Test **{status.test_loss:.3f}**{_unit(status.bits_per_char, status)}"
        lines.append(f"{test} · perplexity {perplexity(status.test_loss):.2f}")
    if status.best_val_loss is not None:
        best = _unit(status.best_val_bits_per_char, status)
        lines.append(f"Validation {status.best_val_loss:.3f}{best} (best{_of_epoch(status)})")
    lines.append(f"{count(status.step, 'step')} in {count(status.epoch, 'epoch')}{_early_stop(status)}")
    if status.auc is not None:
        lines.append(f"Area under the loss curve: {status.auc:.1f} nats · steps")
    return lines


def _of_epoch(status: RunStatus) -> str:
    return "" if status.best_epoch is None else f", epoch {status.best_epoch}"


def _early_stop(status: RunStatus) -> str:
    return "" if status.early_stopped is None else f" · stopped early: {'yes' if status.early_stopped else 'no'}"


def _warning(status: RunStatus) -> list[str]:
    """Warn about a model that is hardly better than the uniform baseline."""
    loss = status.best_val_loss if status.test_loss is None else status.test_loss
    if loss is None or status.vocab_size is None or loss < _LITTLE_LEARNED * log(status.vocab_size):
        return []
    return [
        f"⚠ The model has learned almost nothing: its loss is {loss:.2f}{_unit(None, status)}, and the uniform"
        f" baseline has {log(status.vocab_size):.2f}. Train longer, on more text or with another learning rate."
    ]


def _failure(status: RunStatus) -> list[str]:
    text = status.error.message if status.error else status.message
    code = f"`{status.error.code}` " if status.error else ""
    return [f"{code}{without_links(clamp(text, _MAX_ERROR))}"]


def _checkpoint(status: RunStatus) -> list[str]:
    if status.last_checkpoint_step is None:
        return ["No checkpoint was saved."]
    loss = ""
    if status.best_val_loss is not None:
        unit = _unit(status.best_val_bits_per_char, status)
        loss = f" (best validation {status.best_val_loss:.3f}{unit})"
    return [f"Kept: checkpoint at step {count(status.last_checkpoint_step)}{loss}"]


def _samples(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return []
    return ["Generated text:", *(code_block(sample.prompt + sample.text, _MAX_SAMPLE) for sample in samples)]


def _files(files: Sequence[FileRecord]) -> list[str]:
    """Return the weights file with its hash, and the total size of the other files."""
    weights = next((file for file in files if file.path == _WEIGHTS), None)
    if weights is None:
        return []
    others = sum(file.bytes for file in files) - weights.bytes
    return [
        f"Files: `{_WEIGHTS}` {byte_size(weights.bytes)}, sha256 `{weights.sha256[:12]}…`"
        f" · {count(len(files) - 1)} more, {byte_size(others)}"
    ]


def _chat_command(record: RunRecord) -> list[str]:
    """Return the command that has no button; a masked model generates no text."""
    return [f"Chat with it: `/mt chat run:{record.run_id}`"] if record.effective.objective == "causal_lm" else []


def _duration(status: RunStatus) -> str:
    if status.started_at is None or status.finished_at is None:
        return ""
    minutes, seconds = divmod(round((status.finished_at - status.started_at).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] if hours else []
    parts += [f"{minutes} min"] if hours or minutes else []
    return f" in {' '.join([*parts, f'{seconds} s'])}"


def _unit(bits_per_char: float | None, status: RunStatus) -> str:
    """Return the unit of a run's loss, and the loss in bits per character if it is known."""
    unit = "token" if status.objective == "causal_lm" else "masked token"
    return f" nats/{unit}" + ("" if bits_per_char is None else f" · {bits_per_char:.2f} bits/char")
