"""Answers to `/mt-admin`."""

from collections.abc import Mapping

import discord

from bot.messages.text import AMBER, BLURPLE, GREEN, GREY, RED, clamp, make_embed, plain, relative_time, shown_name
from trainer.contracts.jobs import WorkerInfo
from trainer.contracts.runs import RunRecord
from trainer.people.language import _, plural
from trainer.people.permissions import AccessLevel
from trainer.queue.queue import WorkersState
from trainer.queue.run_index import RunEntry
from trainer.services.health import Finding

_SIGNS = {"ok": "✅", "warning": "⚠", "failure": "❌"}
_MAX_WORKERS, _MAX_DEVICES, _MAX_FINDING = 10, 120, 400


def workers_answer(state: WorkersState, runs: Mapping[str, RunEntry], devices: Mapping[str, str]) -> discord.Embed:
    """Return each worker with its machine, its state and its runs; `devices` are those of the runs."""
    lines: list[str] = []
    for worker in state.workers[:_MAX_WORKERS]:
        lines += _worker_lines(worker)
        own = state.runs_of(worker)
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
    is_well = bool(state.workers) and all(worker.state == "ready" for worker in state.workers)
    return make_embed(BLURPLE if is_well else AMBER, f"🛠 {title}", lines)


def _worker_lines(worker: WorkerInfo) -> list[str]:
    slots = plural("{count} slot", "{count} slots", worker.slots)
    machine = plain(clamp(", ".join(worker.devices), _MAX_DEVICES))
    if worker.takes != "any":
        machine += f" ({_(TAKES[worker.takes])})"
    parts = [plain(worker.version), machine, worker.memory_text(), slots, _(worker.state)]
    if worker.started_at is not None:
        parts.append(_("started {time}", time=relative_time(worker.started_at)))
    parts.append(_("seen {time}", time=relative_time(worker.seen_at)))
    lines = [f"**{plain(worker.name)}** · {' · '.join(parts)}"]
    if "artifacts_folder_mismatch" in worker.refusals:
        lines.append(_("⚠ It takes no job: its artifacts folder is not that of the queued runs."))
    if "version_mismatch" in worker.refusals:
        lines.append(_("⚠ It takes no job: its version is not that of this bot. Update and restart it."))
    return lines


TAKES = {"cpu": "runs on the CPU only", "gpu": "runs for GPUs only"}
"""The runs that a worker takes, unless it takes all."""


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
