"""`/mt-admin`: workers, jobs, access, corpora, deletion, and checks of the installation; for its admins only."""

import asyncio
from collections.abc import Mapping

import discord
import structlog
from discord import app_commands

from bot.commands.corpus_build import build_corpora
from bot.commands.help import all_commands
from bot.commands.jobs import list_jobs
from bot.commands.responses import Answer, ButtonAnswer, CommandContext, open_form, respond
from bot.commands.run_options import (
    MAX_CHOICE_CHARACTERS,
    MAX_CHOICES,
    find_run,
    run_for_form,
    suggested_corpora,
    suggested_runs,
)
from bot.messages.buttons import ButtonPress, Field, form
from bot.messages.text import (
    AMBER,
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    display_name,
    make_embed,
    plain,
    relative_time,
    said,
    shown_name,
)
from bot.notifications.broken_workers import broken_worker_lines
from bot.session.client import OWNER_DM_CLOSED, RIVAL, Bot
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import WorkerAction, WorkerInfo, WorkerOrder, WorkersState
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.parameters import CorpusPath, RunPath
from trainer.contracts.runs import RunRecord
from trainer.lab import calls
from trainer.lab.language import _, plural
from trainer.lab.permissions import AccessLevel
from trainer.queue.run_index import RunEntry, matching
from trainer.services.health import Finding, check_data, check_gpu

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

mt_admin = app_commands.Group(
    name="mt-admin",
    description="Manage this installation; for its admins only.",
    allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
    allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
    default_permissions=discord.Permissions(manage_guild=True),
)
"""Discord shows it to managers of a server and in direct messages. That gives no rights: each command checks them."""
_NAME = "name"
_OWNER_DM = {
    "open": Finding("ok", "The owner's are open to this bot."),
    "closed": Finding("warning", f"{OWNER_DM_CLOSED} Then restart the bot."),
    "unknown": Finding("warning", "Not checked: `DISCORD__OWNER_ID` is not set, or Discord did not answer."),
}
"""The finding for each state of the owner's direct messages, as of the start of the bot."""

_SIGNS = {"ok": "✅", "warning": "⚠", "failure": "❌"}
_MAX_WORKERS, _MAX_DEVICES, _MAX_FINDING = 10, 120, 400
TAKES = {"cpu": "runs on the CPU only", "gpu": "runs for GPUs only"}
"""The runs that a worker takes, unless it takes all."""


async def suggested_workers(interaction: discord.Interaction[Bot], typed: str) -> list[app_commands.Choice[str]]:
    """Suggest the running workers and their hosts to an admin who types."""
    bot = interaction.client
    if not bot.lab.permissions.is_admin(interaction.user.id):
        return []
    names = await bot.lab.queue.workers.names()
    fitting = [name for name in matching(typed, names, lambda name: (name,)) if len(name) <= MAX_CHOICE_CHARACTERS]
    return [app_commands.Choice(name=name, value=name) for name in fitting[:MAX_CHOICES]]


@mt_admin.command(description="Show the workers and their runs; pause the queue, drain a worker.")
@app_commands.describe(
    action="pause, resume: the start of runs; drain: no further job for one worker, undrain: jobs again",
    worker="For drain and undrain: the worker, or its host",
)
@app_commands.autocomplete(worker=suggested_workers)
async def workers(
    interaction: discord.Interaction[Bot], action: WorkerAction | None = None, worker: str | None = None
) -> None:
    await respond(interaction, "mt-admin workers", lambda context: _workers(context, action, worker))


@mt_admin.command(description="List the jobs of a kind, and select one to show, cancel or delete it.")
@app_commands.describe(kind="Kind of the jobs")
@app_commands.choices(kind=[app_commands.Choice(name=kind, value=kind) for kind in JOB_ROWS])
async def jobs(interaction: discord.Interaction[Bot], kind: str) -> None:
    row = next(row for row in JOB_ROWS.values() if row.kind == kind)
    await respond(interaction, "mt-admin jobs", lambda context: list_jobs(context, row, 0))


@mt_admin.command(description="Give or take a member's access to this bot.")
@app_commands.describe(member="The member", level="user: may use the bot; none: may not, whatever the settings say")
async def access(interaction: discord.Interaction[Bot], member: discord.User, level: AccessLevel) -> None:
    await respond(interaction, "mt-admin access", lambda context: _access(context, member, level))


@mt_admin.command(description="Delete an ended run with its files; a form asks for its name.")
@app_commands.describe(run="Name or id of the run")
@app_commands.autocomplete(run=suggested_runs("mt-admin delete"))
async def delete(interaction: discord.Interaction[Bot], run: str) -> None:
    await open_form(interaction, "mt-admin delete", lambda context: _delete_form(context, run))


mt_admin.add_command(build_corpora)


@mt_admin.command(name="lock-corpus", description="Lock the test split of each later run on a corpus.")
@app_commands.describe(corpus="Name of the corpus")
@app_commands.autocomplete(corpus=suggested_corpora)
async def lock_corpus(interaction: discord.Interaction[Bot], corpus: str) -> None:
    await respond(interaction, "mt-admin lock-corpus", lambda context: _lock_corpus(context, corpus.strip()))


@mt_admin.command(description="Check Redis, workers, disk, GPU, direct messages and commands.")
async def doctor(interaction: discord.Interaction[Bot]) -> None:
    await respond(interaction, "mt-admin doctor", _doctor)


async def _workers(context: CommandContext, action: WorkerAction | None, name: str | None) -> Answer:
    lab, caller = context.lab, context.caller
    if action is None and name is None:
        state = await lab.call(calls.LIST_WORKERS, caller)
    else:  # a name alone is refused, as it is with `pause`
        state = await lab.call(calls.ORDER_WORKERS, caller, body=WorkerOrder(action=action or "pause", name=name))
        log.info("workers_ordered", admin_id=caller.user_id, task=action, names=name)
    devices = {one.run_id: one.device or "–" for one in await lab.feeds.statuses([*state.runs])}
    return Answer(workers_answer(state, {run.run_id: run for run in lab.index.runs}, devices))


async def _access(context: CommandContext, member: discord.User | discord.Member, level: AccessLevel) -> Answer:
    bot = context.bot
    if context.lab.permissions.is_admin(member.id):
        raise AppError(ErrorCode.INVALID_INPUT, _("Admins are set by the settings only: this member is one."))
    await bot.backend.access.set(member.id, level)
    log.info("access_changed", admin_id=context.caller.user_id, user_id=member.id, level=level)
    await bot.notifier.unwatch_hidden(member.id)
    return Answer(access_answer(member.id, level))


async def _delete_form(context: CommandContext, run_id: str) -> discord.ui.Modal:
    run = await run_for_form(context, "mt-admin delete", run_id)
    label = _("Type the name to delete: {name}", name=run.name)
    return form("delete", run.run_id, _("Delete {name}", name=run.name), Field(_NAME, label))


async def _delete(context: CommandContext, press: ButtonPress) -> Answer:
    run = await find_run(context, "mt-admin delete", press.run_id)
    if press.fields[_NAME].strip() not in (display_name(run.record), run.record.run_id):
        raise AppError(ErrorCode.INVALID_INPUT, _("The name does not match, so the run was not deleted."))
    await context.lab.call(calls.DELETE_RUN, context.caller, RunPath(run_id=run.record.run_id))
    await context.lab.index.refresh()
    return Answer(deleted_answer(run.record))


async def _lock_corpus(context: CommandContext, name: str) -> Answer:
    await context.lab.call(calls.LOCK_CORPUS, context.caller, parse(CorpusPath, {"corpus": name}))
    lines = [_("The test split of each later run on this text stays unread until `/mt unlock`.")]
    return Answer(make_embed(GREY, f"🔒 {_('Locked: {name}', name=plain(name))}", lines))


async def _doctor(context: CommandContext) -> Answer:
    bot = context.bot
    findings = await asyncio.to_thread(lambda: asyncio.run(check_data(bot.settings)))  # it waits for other programs
    findings["gpu"] = await asyncio.to_thread(check_gpu)
    findings["direct messages"] = _OWNER_DM[bot.owner_dm]
    findings["commands"] = await _check_commands(bot)
    if bot.has_rival:
        findings["token"] = Finding("failure", RIVAL)
    return Answer(doctor_answer(findings))


async def _check_commands(bot: Bot) -> Finding:
    """Compare the commands that Discord has with those of this program."""
    known = {command.name for command in await bot.tree.fetch_commands()}
    missing = sorted({command.qualified_name.split()[0] for command in all_commands(bot)} - known)
    if missing:
        return Finding("failure", f"Discord does not have {', '.join(missing)}: restart the bot.")
    return Finding("ok", f"Discord has all {len(known)} commands of this program.")


FORMS = {"delete": ButtonAnswer("mt-admin delete", _delete)}


def workers_answer(state: WorkersState, runs: Mapping[str, RunEntry], devices: Mapping[str, str]) -> discord.Embed:
    """Return each worker with its machine, its state and its runs; `devices` are those of the runs."""
    lines: list[str] = []
    for worker in state.workers[:_MAX_WORKERS]:
        lines += _worker_lines(worker)
        own = state.runs_of(worker)
        for run_id in own:
            name = runs[run_id].name if run_id in runs else run_id
            lines.append(f"🏃 {plain(clamp(name, 64))} · {plain(devices.get(run_id, '–'))} · `{run_id}`")
        if not own:
            lines.append(_("No run."))
    if not lines:
        nobody = said(state.problem or "") or _("No worker is running. Runs wait until one starts.")
        lines.append(_("A worker is starting.") if state.is_starting else nobody)
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
    if worker.is_broken:
        lines += broken_worker_lines(worker)
    return lines


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
        f"{_SIGNS[finding.state]} **{name}** · {clamp(said(finding.message), _MAX_FINDING)}"
        for name, finding in findings.items()
    ]
    n_failed, n_warned = states.count("failure"), states.count("warning")
    summary = _("All checks passed.")
    if n_failed or n_warned:
        failures = plural("{count} check failed", "{count} checks failed", n_failed)
        warnings = plural("{count} warning", "{count} warnings", n_warned)
        summary = f"{failures} · {warnings}"
    return make_embed(colour, f"🩺 {_('Installation')}", [summary, *lines])
