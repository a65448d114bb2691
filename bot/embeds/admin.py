"""Answers to `/mt-admin`."""

from collections.abc import Mapping

import discord

from bot.access import AccessLevel
from bot.embeds.text import AMBER, BLURPLE, GREEN, GREY, RED, clamp, make_embed, plain, relative_time, shown_name
from bot.language import _, plural
from bot.run_index import RunEntry
from trainer.contracts.runs import RunRecord
from trainer.jobs.health import Finding
from trainer.jobs.queue import WorkersState

_SIGNS = {"ok": "✅", "warning": "⚠", "failure": "❌"}
_MAX_WORKERS, _MAX_FINDING = 15, 400


def workers_answer(state: WorkersState, runs: Mapping[str, RunEntry], devices: Mapping[str, str]) -> discord.Embed:
    """Return each worker with its version and its runs; `devices` are those of the runs."""
    lines: list[str] = []
    for worker in state.workers[:_MAX_WORKERS]:
        slots = plural("{count} slot", "{count} slots", worker.slots)
        seen = relative_time(worker.seen_at)
        lines.append(f"**{plain(worker.name)}** · {plain(worker.version)} · {slots} · {_('seen {time}', time=seen)}")
        own = [run_id for run_id, holder in state.runs.items() if holder == worker.name]
        for run_id in own:
            name = runs[run_id].name if run_id in runs else run_id
            lines.append(f"🏃 {plain(clamp(name, 64))} · {plain(devices[run_id])} · `{run_id}`")
        if not own:
            lines.append(_("No run."))
    if not lines:
        lines.append(_("No worker is running. Runs wait until one starts."))
    if state.is_paused:
        lines.append(_("⏸ Paused: no further run starts until `/mt-admin workers action:resume`."))
    title = plural("{count} worker", "{count} workers", len(state.workers))
    return make_embed(AMBER if state.is_paused or not state.workers else BLURPLE, f"🛠 {title}", lines)


def access_answer(user_id: int, level: AccessLevel) -> discord.Embed:
    if level == "user":
        text = _("<@{user_id}> may use this bot.", user_id=user_id)
    else:
        text = _("<@{user_id}> may no longer use this bot, and gets no messages about runs of others.", user_id=user_id)
    return make_embed(GREEN if level == "user" else GREY, f"🔑 {_('Access changed')}", [text])


def deleted_answer(record: RunRecord) -> discord.Embed:
    lines = [_("The run and its files are deleted.")]
    return make_embed(GREY, f"🗑 {_('Deleted: {name}', name=shown_name(record))}", lines, record.run_id)


def doctor_answer(findings: Mapping[str, Finding]) -> discord.Embed:
    """Return each check with its result; red if one has failed."""
    states = [finding.state for finding in findings.values()]
    colour = RED if "failure" in states else AMBER if "warning" in states else GREEN
    lines = [
        f"{_SIGNS[finding.state]} **{name}** · {clamp(finding.message, _MAX_FINDING)}"
        for name, finding in findings.items()
    ]
    n_failed, n_warned = states.count("failure"), states.count("warning")
    summary = _("All checks passed.")
    if n_failed or n_warned:
        failures = plural("{count} check failed", "{count} checks failed", n_failed)
        warnings = plural("{count} warning", "{count} warnings", n_warned)
        summary = f"{failures} · {warnings}"
    return make_embed(colour, f"🩺 {_('Installation')}", [summary, *lines])
