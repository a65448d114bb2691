"""The card of a run, which is edited as the run proceeds, and the final message."""

from collections.abc import Sequence
from itertools import pairwise
from math import log

import discord

from bot.messages.advice import advice, can_resume
from bot.messages.option_names import with_option_names
from bot.messages.report_card import reader_of_names
from bot.messages.text import (
    AMBER,
    BLURPLE,
    CODE_BLOCK_MARKS,
    GREEN,
    GREY,
    RED,
    attach_picture,
    byte_size,
    clamp,
    clamp_start,
    code_block,
    count,
    figure,
    make_embed,
    plain,
    relative_time,
    said,
    shown_name,
    shown_perplexity,
    unit_of,
    unknown_warning,
    with_unit,
    without_links,
)
from bot.people.user_settings import current_unit
from trainer.artifacts.outcome import Outcome
from trainer.contracts.base import FileRecord
from trainer.contracts.generations import Sample
from trainer.contracts.runs import Leaks, RunRecord, RunStatus, is_largely_unknown
from trainer.contracts.units import SURPRISAL_DIGITS, perplexity
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab.language import _, numeral, plural, told
from trainer.reports.leak_notes import held_out_notes
from trainer.reports.run_notes import counting_note, test_note
from trainer.reports.run_report import card_fields

_CHART_NAME = "loss.png"
_WEIGHTS = "model.safetensors"
_MAX_ERROR, _MAX_SAMPLE, _MAX_LOG = 1500, 400, 1000
_LITTLE_LEARNED = 0.95  # of the loss of the uniform baseline
_BAR_CELLS, _SPARKLINE_CELLS = 16, 12
_SPARKS = "▁▂▃▄▅▆▇█"


def run_card(record: RunRecord, status: RunStatus, losses: Sequence[float], *, is_brief: bool = False) -> discord.Embed:
    """Return the card of a run in its current state; `losses` are the training losses, oldest first.

    A brief card of a completed run leaves the rest to the final message.
    """
    name = shown_name(record)
    match status.status:
        case "queued":
            lines = [*_recipe_with_weights(record, status), _place_in_queue(status), _shown_message(status)]
            if status.step:  # its worker has ended
                lines += [f"{progress_bar(status.progress)} {_steps_in_epochs(status)}", *_checkpoint(status)]
            return make_embed(GREY, f"⏳ {_('Queued: {name}', name=name)}", lines, status.run_id)
        case "running" if not status.reachable:
            return make_embed(
                AMBER, f"⚠ {_('Worker not responding: {name}', name=name)}", _unreachable(status), status.run_id
            )
        case "running" if status.phase == "evaluating":
            return make_embed(BLURPLE, f"🧮 {_('Evaluating: {name}', name=name)}", _evaluating(status), status.run_id)
        case "running":
            return make_embed(
                BLURPLE, f"🏃 {_('Training: {name}', name=name)}", _progress(record, status, losses), status.run_id
            )
        case "paused":
            resume = _("`/mt resume run:{run_id}` resumes the run.", run_id=status.run_id)
            lines = [f"{progress_bar(status.progress)} {_steps_in_epochs(status)}", *_checkpoint(status), resume]
            return make_embed(GREY, f"⏸ {_('Paused: {name}', name=name)}", lines, status.run_id)
        case "completed":
            colour, title = _end_title(name, status)
            lines = [*_losses(status)[:1], *_worth(record, status)] if is_brief else _end_lines(record, status)
            lines = [*lines, *_recipe_with_weights(record, status)]
            return make_embed(colour, title, lines, status.run_id)
        case _:
            colour, title = _end_title(name, status)
            return make_embed(colour, title, _end_lines(record, status), status.run_id)


def final_message(record: RunRecord, status: RunStatus, outcome: Outcome) -> discord.Embed:
    """Return the message that notifies of a run's end: its outcome and what to do next."""
    colour, title = _end_title(shown_name(record), status)
    lines = _end_lines(record, status)
    match status.status:
        case "completed":
            lines += [*_samples(outcome.samples), *_chat_command(record)]
        case "failed":
            if outcome.last_lines:
                log_end = clamp_start("\n".join(outcome.last_lines), _MAX_LOG - 2 * CODE_BLOCK_MARKS)
                lines.append(f"{_('Last lines of the log:')}\n{code_block(log_end, _MAX_LOG)}")
            lines.append(_("When you ask for help, include the run id below."))
        case _:
            again = _("`/mt train` starts a new run.")
            if can_resume(status):
                resume = _("`/mt resume run:{run_id}` resumes the run from its last checkpoint.", run_id=status.run_id)
                again = f"{resume} {again}"
            lines.append(again)
    return make_embed(colour, title, lines, status.run_id)


def result_details(record: RunRecord, status: RunStatus, outcome: Outcome) -> list[str]:
    """Return what the final message of a completed run leaves out; nothing of another run."""
    if status.status != "completed":
        return []
    looks = None if status.test_loss is None else test_note(status)
    lines = [] if looks is None else [reader_of_names().note(looks)]
    lines.append(f"{_steps_in_epochs(status)}{_early_stop(status)}")
    if status.auc is not None:
        area, unit = figure(status.auc, SURPRISAL_DIGITS), _(current_unit())
        lines.append(_("Area under the loss curve: {area} {unit} · steps", area=area, unit=unit))
    again = _(
        "Reproduce: `/mt train config:{run_id}.yaml`, the file of **{button}**.",
        run_id=record.run_id,
        button=_("Copy config"),
    )
    return [*lines, *_files(outcome.files), again]


def _end_lines(record: RunRecord, status: RunStatus) -> list[str]:
    """Return the lines that the card of an ended run and its final message have in common."""
    match status.status:
        case "completed":
            return [*_losses(status), *_worth(record, status), *notes_of(status.notes)]
        case "failed":
            return [*_failure(status), advice(status), *_checkpoint(status)]
        case _:
            return _checkpoint(status)


def recipe(record: RunRecord) -> list[str]:
    """Return a run's model, tokenizer, corpus and origin in two lines, or three for one that starts from another."""
    request = record.effective
    size = f" {request.model_size}" if request.model_size else ""
    kind = f" · {_('masked tokens')}" if request.objective == "masked_lm" else ""
    kind += f" · {_('both directions')}" if request.is_bidirectional else ""
    origin = []
    if record.resumed_from_run_id is not None:
        origin = [_("Resumes {run_id}", run_id=f"`{record.resumed_from_run_id}`")]
    elif request.init_from_run_id is not None:
        frozen = _(", embeddings frozen") if request.freeze_embeddings else ""
        origin = [_("Warm start from {run_id}", run_id=f"`{request.init_from_run_id}`") + frozen]
    corpus = _("attached text") if request.corpus.is_attached else plain(request.corpus.name)
    length = count(request.num_epochs, "step") if request.counts_steps else count(request.num_epochs, "epoch")
    return [
        f"{request.model_family}{size}{kind} · {told(request.model.sizes())}"
        f" · {_('{method} tokenizer', method=request.tokenizer.method)} · {length}",
        _(
            "Corpus: {corpus}, {size} · seed {seed}",
            corpus=corpus,
            size=byte_size(request.corpus.bytes),
            seed=request.seed,
        ),
        *origin,
    ]


def _recipe_with_weights(record: RunRecord, status: RunStatus) -> list[str]:
    params = status.params if record.cost is None else record.cost.params
    first, *others = recipe(record)
    return [
        first if params is None else _("{recipe} · {number} weights", recipe=first, number=weight_count(params)),
        *others,
    ]


def weight_count(params: int) -> str:
    """Return a number of weights to three figures: 34.1 k, 0.96 M."""
    if params >= 100_000:
        return _("{number} M", number=numeral(params / 1e6, ".3g"))
    return _("{number} k", number=numeral(params / 1e3, ".3g"))


def attach_chart(embed: discord.Embed, png: bytes | None, status: RunStatus) -> list[discord.File]:
    """Show a loss chart in an embed; return the file to send with it."""
    return attach_picture(embed, png, _CHART_NAME, chart_alt_text(status))


def chart_alt_text(status: RunStatus) -> str:
    """Describe a run's loss chart for screen readers."""
    text = _("Loss over steps up to step {step}", step=status.step)
    if status.train_loss is not None:
        text += _(": training loss {loss}", loss=f"{figure(status.train_loss)} {unit_of(status.objective)}")
    if status.val_loss is not None:
        text += _(", validation loss {loss}", loss=figure(status.val_loss))
    if status.counted_val_loss is not None:
        text += _(", the n-gram's {loss}", loss=figure(status.counted_val_loss))
    return f"{text}."


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
    requested = _("requested {time}", time=relative_time(status.created_at.timestamp()))
    if status.queue_position is None:
        return requested
    return f"{_('Position {position} in the queue', position=count(status.queue_position))} · {requested}"


def _evaluating(status: RunStatus) -> list[str]:
    lines = [f"{progress_bar(100)} {_steps_in_epochs(status)}"]
    if status.best_val_loss is not None:
        lines.append(_best_validation(status, status.best_val_loss))
    return [*lines, _("The best weights are evaluated.")]


def _progress(record: RunRecord, status: RunStatus, losses: Sequence[float]) -> list[str]:
    if status.train_loss is None:
        return [f"{progress_bar(status.progress)} **{numeral(status.progress, '.0f')} %**", _shown_message(status)]
    steps = f"{count(status.step)} / {count(status.total_steps)}" if status.total_steps else count(status.step)
    lines = [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · "
        + _("epoch {epoch}/{epochs}", epoch=status.epoch, epochs=status.total_epochs)
        + f" · {_('step {step}', step=steps)}",
        f"{_('Loss')} {_loss(status, f'**{figure(status.train_loss)}**', status.train_bits_per_char)}"
        f" · {shown_perplexity(perplexity(status.train_loss), status.unknown_char_share)}  {sparkline(losses)}",
    ]
    if status.val_loss is not None:
        epoch = "" if status.best_epoch is None else f" ({_('epoch {epoch}', epoch=status.best_epoch)})"
        best = ""
        if status.best_val_loss is not None:
            best = f" · {_('best {loss}', loss=figure(status.best_val_loss))}{epoch}"
        last_value = _loss(status, figure(status.val_loss), status.val_bits_per_char)
        lines.append(f"{_('Validation {loss}', loss=last_value)}{best}")
    lines += unknown_warning(status.unknown_char_share)
    reader = reader_of_names()
    fields = [f"{reader.note(title)} {reader.cell(cell, column)}" for title, cell, column in card_fields(status)]
    lines += [" · ".join(fields)] if status.tokens_per_second else [_shown_message(status)]
    last: list[str] = []
    if status.eta_seconds is not None and status.last_heartbeat_ts is not None:
        last.append(_("ETA {time}", time=relative_time(status.last_heartbeat_ts + status.eta_seconds)))
    rule = record.effective.early_stopping
    if rule.enabled and status.evals_without_gain is not None:
        last.append(_("early stop {number}/{most}", number=status.evals_without_gain, most=rule.patience))
    if status.last_checkpoint_step is not None:
        age = "" if status.last_checkpoint_ts is None else f" {relative_time(status.last_checkpoint_ts)}"
        last.append(f"{_('checkpoint at step {step}', step=count(status.last_checkpoint_step))}{age}")
    return [*lines, " · ".join(last)] if last else lines


def _unreachable(status: RunStatus) -> list[str]:
    step = count(status.step)
    if status.total_steps:
        step = _("{step} of {steps}", step=step, steps=count(status.total_steps))
    last = ""
    if status.last_heartbeat_ts is not None:
        last = f" · {_('last heartbeat {time}', time=relative_time(status.last_heartbeat_ts))}"
    return [
        f"{progress_bar(status.progress)} **{int(status.progress)} %** · {_('step {step}', step=step)}{last}",
        _("The worker is not responding. The run resumes from its last checkpoint when a worker is available."),
        *_checkpoint(status),
    ]


def _end_title(name: str, status: RunStatus) -> tuple[int, str]:
    epoch = f" ({_('epoch {epoch}', epoch=status.epoch)})" if status.epoch else ""
    where = _(" at step {step}", step=count(status.step)) + epoch if status.step else ""
    match status.status:
        case "completed":
            title = _("Completed: {name}", name=name) + _duration(status)
            is_doubtful = _warning(status) or status.warnings
            return (AMBER, f"⚠ {title}") if is_doubtful else (GREEN, f"✅ {title}")
        case "failed":
            return RED, f"❌ {_('Failed: {name}', name=name)}{where}"
        case _:
            return GREY, f"⏹ {_('Cancelled: {name}', name=name)}{where}"


def _losses(status: RunStatus) -> list[str]:
    """Return the losses of a completed run, that on the test split first."""
    lines = []
    if status.test_loss is not None:
        share, known = status.unknown_char_share, None if status.baseline is None else status.baseline.known_loss
        is_hidden = known is not None and is_largely_unknown(share)
        bits = None if is_hidden else status.bits_per_char
        test = _("Test {loss}", loss=_loss(status, f"**{figure(status.test_loss)}**", bits))
        lines.append(test if is_hidden else f"{test} · {shown_perplexity(perplexity(status.test_loss), share)}")
    elif (locked := test_note(status)) is not None:
        lines.append(reader_of_names().note(locked))
    if status.best_val_loss is not None:
        lines.append(_best_validation(status, status.best_val_loss))
    return lines


def _worth(record: RunRecord, status: RunStatus) -> list[str]:
    """Return what the losses of a completed run are worth: beside counting, and the reasons to doubt them."""
    counted = [] if status.baseline is None else [reader_of_names().note(counting_note(status.baseline))]
    doubts = [*unknown_warning(status.unknown_char_share), *_warning(status), *leak_warnings(record, status.leaks)]
    return [*counted, *doubts]


def _best_validation(status: RunStatus, loss: float) -> str:
    margin = "" if status.best_val_margin is None else f" ± {figure(status.best_val_margin)} (95 %)"
    shown = _loss(status, f"{figure(loss)}{margin}", status.best_val_bits_per_char)
    if status.best_epoch is None:
        return _("Validation {loss} (best)", loss=shown)
    if status.best_epoch == 0:
        return _("Validation {loss} (best, epoch 0: the parent's weights)", loss=shown)
    return _("Validation {loss} (best, epoch {epoch})", loss=shown, epoch=status.best_epoch)


def _steps_in_epochs(status: RunStatus) -> str:
    epochs = plural("in {count} epoch", "in {count} epochs", status.epoch)
    return f"{count(status.step, 'step')} {epochs}"


def _shown_message(status: RunStatus) -> str:
    """Return the message of a status; those of a waiting run are known in every language."""
    is_own = status.waits_for in (None, "object_store")  # that of a store is its own code
    return said(status.message) if is_own or status.waits_for is None else _(WAIT_MESSAGES[status.waits_for])


def _early_stop(status: RunStatus) -> str:
    if status.early_stopped is None:
        return ""
    return f" · {_('stopped early: {answer}', answer=_('yes') if status.early_stopped else _('no'))}"


def notes_of(notes: Sequence[str]) -> list[str]:
    """Return what the program has chosen or left out."""
    return [f"ℹ {plain(with_option_names(said(note)))}" for note in notes]


def leak_warnings(record: RunRecord, leaks: Leaks) -> list[str]:
    """Return a warning for each held-out split of which much stands in the training split, and what to do."""
    return [f"⚠ {reader_of_names().note(one)}" for one in held_out_notes(record.effective, leaks)]


def _warning(status: RunStatus) -> list[str]:
    """Warn about a model that is hardly better than the uniform baseline, or not clearly better than counting."""
    if status.baseline is not None and status.baseline.against != "better":
        return [f"⚠ {_(warning)}" for warning in status.baseline.warnings()]
    loss = status.best_val_loss if status.test_loss is None else status.test_loss
    if loss is None or status.vocab_size is None or loss < _LITTLE_LEARNED * log(status.vocab_size):
        return []
    return [
        _(
            "⚠ The model has learned almost nothing: its loss is {loss}, and the uniform baseline has {baseline}."
            " Train longer, on more text or with another learning rate.",
            loss=_loss(status, figure(loss)),
            baseline=figure(log(status.vocab_size)),
        ),
    ]


def _failure(status: RunStatus) -> list[str]:
    text = said(status.error.message if status.error else status.message)
    code = f"`{status.error.code}` " if status.error else ""
    return [f"{code}{without_links(clamp(text, _MAX_ERROR))}"]


def _checkpoint(status: RunStatus) -> list[str]:
    if status.last_checkpoint_step is None:
        return [_("No checkpoint was saved.")]
    loss = ""
    if status.best_val_loss is not None:
        best = _loss(status, figure(status.best_val_loss), status.best_val_bits_per_char)
        loss = f" ({_('best validation {loss}', loss=best)})"
    return [_("Kept: checkpoint at step {step}", step=count(status.last_checkpoint_step)) + loss]


def _samples(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return []
    return [_("Generated text:"), *(code_block(sample.prompt + sample.text, _MAX_SAMPLE) for sample in samples)]


def _files(files: Sequence[FileRecord]) -> list[str]:
    """Return the weights file with its hash, and the number and size of all files."""
    weights = next((file for file in files if file.path == _WEIGHTS), None)
    if weights is None:
        return []
    return [
        _(
            "Files: {file} {size}, sha256 {hash} · {files} in all, {total}",
            file=f"`{_WEIGHTS}`",
            size=byte_size(weights.bytes),
            hash=f"`{weights.sha256[:12]}…`",
            files=count(len(files), "file"),
            total=byte_size(sum(file.bytes for file in files)),
        )
    ]


def _chat_command(record: RunRecord) -> list[str]:
    """Return the command that has no button; a masked model generates no text."""
    if record.effective.objective != "causal_lm":
        return []
    return [_("Chat with it: {command}", command=f"`/mt chat run:{record.run_id}`")]


def _duration(status: RunStatus) -> str:
    if status.started_at is None or status.finished_at is None:
        return ""
    minutes, seconds = divmod(round((status.finished_at - status.started_at).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [_("{number} h", number=hours)] if hours else []
    parts += [_("{number} min", number=minutes)] if hours or minutes else []
    return _(" in {duration}", duration=" ".join([*parts, _("{number} s", number=seconds)]))


def _loss(status: RunStatus, loss: str, bits_per_char: float | None = None) -> str:
    return with_unit(loss, status.objective, bits_per_char, status.unknown_char_share)
