"""Answers to commands about runs, and errors."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

import discord

from bot.messages.option_names import option_name, with_option_names
from bot.messages.run_card import leak_warnings, notes_of, recipe, result_details, run_card
from bot.messages.text import (
    AMBER,
    BLURPLE,
    GREEN,
    GREY,
    MAX_DESCRIPTION,
    RED,
    byte_size,
    clamp,
    code_block,
    count,
    figure,
    figure_per_char,
    make_embed,
    per_char,
    plain,
    relative_time,
    rough_time,
    said,
    shown_name,
    unit_of,
    unknown_mark,
    without_links,
)
from bot.people.user_settings import Notify
from trainer.artifacts.outcome import Outcome
from trainer.contracts.base import FileRecord, RunState
from trainer.contracts.errors import AppError, ErrorClass, ErrorCode
from trainer.contracts.job_status import UnreadableJob
from trainer.contracts.models import Architecture, NgramConfig
from trainer.contracts.runs import EffectiveRequest, RunRecord, RunStatus, describe_unused
from trainer.contracts.seeds import RunGroup
from trainer.contracts.tokenizers import TokenizerMethod
from trainer.contracts.training_options import ChosenValue
from trainer.lab.language import _, numeral, plural, told
from trainer.lab.limits import LimitReached
from trainer.queue.run_index import RunRow

STATE_SIGNS: dict[RunState, str] = {
    "queued": "⏳",
    "running": "🏃",
    "paused": "⏸",
    "completed": "✅",
    "failed": "❌",
    "cancelled": "⏹",
}
STATE_COLOURS: Mapping[RunState, int] = {"running": BLURPLE, "completed": GREEN, "failed": RED}
"""Colours of cards; those of other states are grey."""
_MAX_UNDELIVERED, _MAX_CORPUS, _MAX_PATH = 150, 60, 60
_MAX_SHOWN_CONFIG, _MAX_SHOWN_NOTE = 1900, 300
_MAX_UNREADABLE, _MAX_REASON = 5, 300
_MODELS: Mapping[Architecture, str] = {
    "lstm": "LSTM",
    "gru": "GRU",
    "rnn": "RNN",
    "gpt2": "GPT-2",
    "llama": "LLaMA",
    "qwen": "Qwen",
    "bert": "BERT",
    "ngram": "n-grams",
}
UNITS: Mapping[TokenizerMethod, str] = {"char": "characters", "byte": "bytes", "word": "words"}
SUBWORDS = "subwords"
"""What a model predicts, for each kind of tokenizer, and for the others."""
CARD_PLACES: dict[Notify, str] = {
    "dm": "A card in your direct messages shows the progress.",
    "here": "A card in this channel shows the progress.",
    "off": "No messages about this run are sent. `/mt status` shows the progress.",
}


def accepted_answer(
    record: RunRecord, note: str | None = None, *, notify: Notify = "dm", group: RunGroup | None = None
) -> discord.Embed:
    """Return the answer to `/mt train` or `/mt resume`: in plain words, what is trained, on what and how long."""
    n_runs = 1 if group is None else len(group.seeds)
    lines = [
        _plan(record),
        *recipe(record)[1:],
        *([] if group is None else [f"{count(n_runs, 'seed')}: {', '.join(map(str, group.seeds))}"]),
        *notes_of(record.notes),
        *leak_warnings(record, record.leaks),
        *map(said, describe_unused(record.unused_settings)),
        *([] if note is None else [f"⚠ {said(note)}"]),
        _(CARD_PLACES[notify]),
    ]
    return make_embed(GREY, f"⏳ {_('Queued: {name}', name=shown_name(record))}", lines, record.run_id)


def _plan(record: RunRecord) -> str:
    """Return in one sentence what a run trains, how often it reads its text, and how long that takes."""
    request, units = record.effective, _(UNITS.get(record.effective.tokenizer.method, SUBWORDS))
    if isinstance(request.model, NgramConfig):
        return _("Counts of n-grams of {units}.", units=units)
    seconds = None if record.cost is None else record.cost.seconds
    if request.minutes is not None:
        length = _("as many passes over the text as the time is enough for")
    elif request.counts_steps:
        length = count(request.num_epochs, "step")
    else:
        length = plural("{count} pass over the text", "{count} passes over the text", request.num_epochs)
    if seconds is None:
        return _(
            "{model} of {units}, {length}. Its card says how long that takes, some seconds after the start.",
            model=_model(request),
            units=units,
            length=length,
        )
    time = _("about {time}", time=rough_time(seconds))
    return _("{model} of {units}, {length}, {time}.", model=_model(request), units=units, length=length, time=time)


def _model(request: EffectiveRequest) -> str:
    """Return the family and the size of a model."""
    return _MODELS[request.model.architecture] + (f" ({request.model_size})" if request.model_size else "")


def details_answer(record: RunRecord, status: RunStatus, outcome: Outcome) -> discord.Embed:
    """Return what the answer to `/mt train` and the final message leave out of a run."""
    lines = [
        *recipe(record)[:1],
        *_values_by_rule(record.chosen),
        *([] if record.cost is None else map(said, record.cost.lines())),
        *result_details(record, status, outcome),
    ]
    return make_embed(GREY, f"🔎 {_('Details of {name}', name=shown_name(record))}", lines, record.run_id)


def _values_by_rule(chosen: Sequence[ChosenValue]) -> list[str]:
    lines = [
        f"`{option_name(choice.field)}` {choice.shown_value()}: {with_option_names(told(choice.reason))}"
        for choice in chosen
    ]
    return [_("Values by rule, unless you give others:"), *lines] if lines else []


def status_answer(
    record: RunRecord, status: RunStatus, losses: Sequence[float], *, closed: Literal["dm", "channel"] | None
) -> discord.Embed:
    """Return a run's card with tags, note and last heartbeat, and a hint if the caller's channel refuses messages."""
    embed = run_card(record, status, losses)
    lines = [embed.description or ""]
    if status.tags:
        lines.append(f"🏷 {plain(', '.join(status.tags))}")
    if status.note:
        lines.append(f"📝 {plain(clamp(status.note, _MAX_SHOWN_NOTE))}")
    if status.status == "running" and status.reachable and status.last_heartbeat_ts is not None:
        lines.append(_("Last heartbeat {time}", time=relative_time(status.last_heartbeat_ts)))
    if closed is not None:
        lines.append(_closed_hint(closed, has_ended=status.has_ended))
    embed.description = clamp("\n".join(lines), MAX_DESCRIPTION)
    return embed


def cancel_answer(record: RunRecord, *, has_ended: bool, has_started: bool) -> discord.Embed:
    """Return the answer to `/mt cancel` and to the Cancel button."""
    name, saved = shown_name(record), _("Saved checkpoints remain.")
    if not has_ended:
        title, text = _("Cancelling: {name}", name=name), f"{_('The run stops after the current step.')} {saved}"
    else:
        title = _("Cancelled: {name}", name=name)
        text = f"{_('The run was not training.')} {saved}" if has_started else _("The run had not started.")
    return make_embed(GREY, f"⏹ {title}", [text], record.run_id)


def cancel_question(record: RunRecord) -> discord.Embed:
    """Return the question before an older run is cancelled."""
    requested = _("The run was requested {time}.", time=relative_time(record.created_at.timestamp()))
    title = _("Cancel {name}?", name=shown_name(record))
    return make_embed(AMBER, f"⏹ {title}", [f"{requested} {_('Saved checkpoints remain.')}"], record.run_id)


def watch_answer(
    record: RunRecord, place: str, *, has_ended: bool, has_final: bool, closed: Literal["dm", "channel"] | None
) -> discord.Embed:
    """Return the answer to `/mt watch` and its button; `place` is the channel of the messages."""
    name = shown_name(record)
    colour, title = BLURPLE, f"👁 {_('Watching: {name}', name=name)}"
    if closed is not None:
        colour, title = AMBER, f"📪 {_('Cannot send messages: {name}', name=name)}"
        text = _closed_hint(closed, has_ended=has_ended)
    elif has_ended:
        text = (
            _("The run has ended. Its result was sent {place}.", place=place)
            if has_final
            else _("The run has ended. Its result is sent {place}.", place=place)
        )
    else:
        text = _("A card with the progress and a final message are sent {place}.", place=place)
    return make_embed(colour, title, [text], record.run_id)


def logs_answer(record: RunRecord, lines: Sequence[str], *, is_attached: bool) -> discord.Embed:
    """Return the last lines of a run's log, unless they are attached as a file."""
    if not lines:
        text = _("No log yet. The log starts when a worker starts the run.")
    else:
        text = _("See the attached file.") if is_attached else code_block("\n".join(lines), MAX_DESCRIPTION)
    title = f"📜 {_('Last {lines} of the log of {name}', lines=count(len(lines), 'line'), name=shown_name(record))}"
    return make_embed(BLURPLE, title, [text], record.run_id)


def files_answer(record: RunRecord, files: Sequence[FileRecord]) -> discord.Embed:
    """Return the files of a completed run with their sizes and hashes; a long list ends with the rest's number."""
    lines: list[str] = []
    for number, file in enumerate(files):
        line = f"`{clamp(file.path, _MAX_PATH)}` {byte_size(file.bytes)} · sha256 `{file.sha256[:12]}…`"
        if sum(map(len, lines)) + len(line) > MAX_DESCRIPTION // 2:
            lines.append(f"{count(len(files) - number, 'more file')}.")
            break
        lines.append(line)
    title = _(
        "{files} of {name}, {size}",
        files=count(len(files), "file"),
        name=shown_name(record),
        size=byte_size(sum(file.bytes for file in files)),
    )
    return make_embed(BLURPLE, f"📁 {title}", lines, record.run_id)


def file_answer(record: RunRecord, file: FileRecord) -> discord.Embed:
    """Return the text to an attached file of a run."""
    lines = [f"{byte_size(file.bytes)} · sha256 `{file.sha256}`"]
    return make_embed(
        BLURPLE, f"📁 {_('{file} of {name}', file=plain(file.path), name=shown_name(record))}", lines, record.run_id
    )


def config_answer(record: RunRecord, text: str) -> discord.Embed:
    """Return a run's experiment file as a code block, unless it is long; it is attached anyway."""
    lines = [_("Attach the file to `/mt train config:` to train again.")]
    if len(text) <= _MAX_SHOWN_CONFIG:
        lines.insert(0, code_block(text, MAX_DESCRIPTION // 2))
    return make_embed(BLURPLE, f"⚙ {_('Settings of {name}', name=shown_name(record))}", lines, record.run_id)


def undelivered_note(cards: Sequence[discord.Embed]) -> discord.Embed:
    """Return the results that could not be sent to the caller, to add to the answer of a command."""
    lines = [_("The final messages of these runs could not be sent to you. `/mt status` shows each run.")]
    for card in cards:
        first = (card.description or "").split("\n")[0]
        title, result = clamp(card.title or "", _MAX_UNDELIVERED), clamp(first, _MAX_UNDELIVERED)
        lines.append(f"**{title}**\n{result} · `{card.footer.text}`")
    footer = _("Shown once. Allow direct messages from this bot to receive results.")
    return make_embed(AMBER, f"📪 {_('Undelivered results')}", lines, footer)


def error_answer(error: AppError, request_id: str) -> discord.Embed:
    """Return an error: amber for the caller's mistakes, grey for temporary failures, red for internal errors."""
    message = error.message
    if isinstance(error, LimitReached):
        message = error.worded(relative_time(error.retry_at or 0), _("use `/mt cancel`"))
    footer, lines = _("request {number}", number=request_id), [without_links(said(message))]
    title = _(error_title(error.code))
    if error.code.error_class is ErrorClass.TRANSIENT:
        return make_embed(GREY, f"⏳ {title}", lines, footer)
    if error.code.error_class is ErrorClass.FATAL:
        return make_embed(
            RED, f"❌ {title}", [*lines, _("When you ask for help, include the request id below.")], footer
        )
    if len(error.details) > 1:
        lines = [f"• {without_links(said(problem.message))}" for problem in error.details]
    sign = "🔒" if error.code is ErrorCode.FORBIDDEN else "✋"
    return make_embed(AMBER, f"{sign} {title}", lines, footer)


def error_title(code: ErrorCode) -> str:
    return code.replace("_", " ").capitalize()


def state_counts(counts: Mapping[RunState, int]) -> str:
    """Return how many runs are in each state, in the order of the states."""
    states = [state for state in STATE_SIGNS if counts.get(state)]
    return " · ".join(f"{STATE_SIGNS[state]} {numeral(counts[state])} {_(state)}" for state in states)


def runs_page(
    rows: Sequence[RunRow], *, title: str, total: int, page: str, unreadable: Sequence[UnreadableJob] = ()
) -> discord.Embed:
    """Return one page of a list of `total` rows: runs, and groups of runs; `page` ends its title."""
    lines = [line for row in rows for line in _run_lines(row)]
    lines += unreadable_lines(unreadable)
    if not lines:
        lines = [_("No runs found. `/mt train` starts one; `mine:False` includes the runs of other people.")]
    return make_embed(BLURPLE, f"📋 {title}: {count(total)}{page}", lines)


def unreadable_lines(jobs: Sequence[UnreadableJob]) -> list[str]:
    """Return what a list says of the jobs that cannot be read."""
    shown = [
        _("⚠ `{name}` cannot be read: {reason}", name=job.job_id, reason=plain(clamp(told(job.reason), _MAX_REASON)))
        for job in jobs[:_MAX_UNREADABLE]
    ]
    return [*shown, *(["…"] if len(jobs) > len(shown) else [])]


def _closed_hint(closed: Literal["dm", "channel"], *, has_ended: bool) -> str:
    """Explain why no messages arrive, and how to receive them."""
    if closed == "dm":
        problem = _("This bot cannot send you direct messages.")
        solution = _("Use `/mt status` here, or allow direct messages and run `/mt watch`.")
    else:
        problem = _("This bot cannot post in the channel of your messages.")
        solution = _("Use `/mt status` here, or let the bot post there and run `/mt watch`.")
    return f"{problem} {_('`/mt status` shows the result.') if has_ended else solution}"


def _run_lines(row: RunRow) -> list[str]:
    """Return a run or a group in two lines: state and losses, of a group their means; id, corpus, owner and age."""
    run = row.runs[0]
    state = _(run.state) + (f" {numeral(run.progress, '.0f')} %" if run.state == "running" else "")
    shown = row.runs
    if row.is_group:
        state = state_counts(Counter(one.state for one in row.runs))
        shown = tuple(one for one in row.runs if one.state == "completed")
    share = max((one.unknown_char_share or 0.0 for one in shown), default=0.0)
    losses = [one.loss_nats for one in shown if one.loss_nats is not None]
    mean = f"{figure(fmean(losses))}{_deviation(losses, figure)}" if losses else ""
    loss = f" · {mean} {unit_of(run.objective)}{unknown_mark(share)}" if mean else ""
    of_chars = [one.bits_per_char for one in shown if one.bits_per_char is not None]
    bits = ""
    if of_chars:
        bits = f" · {per_char(fmean(of_chars), share, _deviation(of_chars, figure_per_char))}"
    corpus = _("attached text") if run.has_attached_text else plain(clamp(run.corpus, _MAX_CORPUS))
    return [
        f"{'📚' if row.is_group else STATE_SIGNS[run.state]} **{plain(run.name)}** · {state}{loss}{bits}",
        f"`{row.name}` · {corpus} · {owner_name(run.user_id)} · {relative_time(run.created_at.timestamp())}",
    ]


def owner_name(user_id: int | None) -> str:
    """Return a mention of the starter of a run, or the program with which it was started."""
    if user_id is None:
        return _("command line")
    return f"<@{user_id}>" if user_id > 0 else _("HTTP API")


def _deviation(values: Sequence[float], shown: Callable[[float], str]) -> str:
    return f" ± {shown(stdev(values))}" if len(values) > 1 else ""
