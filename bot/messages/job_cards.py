"""The cards, buttons and lists of jobs of every kind but runs; a kind without words of its own has those of its row."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import discord

from bot.messages.answers import STATE_COLOURS, STATE_SIGNS, unreadable_lines
from bot.messages.buttons import button, button_row, option, run_select
from bot.messages.job_lines import MAX_ERROR, build_lines, step_lines, tokenizer_lines
from bot.messages.report_card import reader_of_names, report_lines, table_select
from bot.messages.text import (
    AMBER,
    BLURPLE,
    GREY,
    byte_size,
    clamp,
    code_block,
    count,
    make_embed,
    plain,
    relative_time,
    rough_time,
    said,
    without_links,
)
from trainer.config.studies import full_runs, total_seconds
from trainer.contracts.base import KindName, RunState
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.corpora import BuildStatus
from trainer.contracts.experiments import ExperimentStatus
from trainer.contracts.job_status import JobStatus, UnreadableJob
from trainer.contracts.operations import JobRow
from trainer.contracts.readings import ReadingStatus
from trainer.contracts.reports import Report
from trainer.contracts.studies import StudyRecord, StudyStatus, equal_settings
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.lab.language import _, numeral, plural
from trainer.reports.study_report import equal_note, setting_text

AGAIN, SURE = "again", "sure"
"""Details of the buttons that refresh a card, and that confirm a deletion."""
_MAX_NAME, _MAX_SETTINGS, _MAX_EQUAL = 100, 1500, 10
TITLES: Mapping[RunState, str] = {
    "queued": "Queued: {kind} {name}",
    "running": "Running: {kind} {name}",
    "paused": "Paused: {kind} {name}",
    "completed": "Completed: {kind} {name}",
    "failed": "Failed: {kind} {name}",
    "cancelled": "Cancelled: {kind} {name}",
}
_COUNTS: Mapping[KindName, Callable[[int], str]] = {
    "tokenizers": lambda total: f"🔤 {count(total, 'tokenizer')}",
    "batteries": lambda total: f"🔎 {plural('{count} battery', '{count} batteries', total)}",
    "experiments": lambda total: f"🧪 {count(total, 'experiment')}",
    "studies": lambda total: f"🎯 {plural('{count} study', '{count} studies', total)}",
    "readings": lambda total: f"📖 {count(total, 'reading')}",
}


def job_id_of(row: JobRow, status: JobStatus) -> str:
    job_id: str = getattr(status, row.id_field)
    return job_id


def job_card(
    row: JobRow, status: JobStatus, report: Report | None = None, corpora: Sequence[str] = ()
) -> discord.Embed:
    """Return the card of a job in its current state, of a completed one with its report if that is given.

    `corpora` are those of a tokenizer.
    """
    lines = [*_lines(row, status, corpora)] if report is None else [*report_lines(report)]
    if status.wait_message is not None:
        lines.append(f"⚠ {without_links(_(status.wait_message))}")
    title = _(TITLES[status.status], kind=_(row.word), name=plain(clamp(_name(row, status), _MAX_NAME)))
    sign, colour = STATE_SIGNS[status.status], STATE_COLOURS.get(status.status, GREY)
    if isinstance(status, ExperimentStatus) and status.status == "completed" and status.is_valid is False:
        sign, colour = "⚠", AMBER
    return make_embed(colour, f"{sign} {title}", lines, job_id_of(row, status))


def _name(row: JobRow, status: JobStatus) -> str:
    """Return the name of a job: of a battery what it scores, of a build its source."""
    match status:
        case BatteryStatus():
            of_run = status.development_of
            names = [] if of_run is None else [_("development of {run_id}", run_id=of_run)]
            return ", ".join([*names, *status.batteries])
        case ExperimentStatus() | StudyStatus() | ReadingStatus():
            return status.name
        case TokenizerStatus():
            return status.label or status.tokenizer_id
        case BuildStatus():
            return status.request.source
        case _:
            return job_id_of(row, status)


def _lines(row: JobRow, status: JobStatus, corpora: Sequence[str]) -> Iterator[str]:
    match status:
        case BatteryStatus() | ExperimentStatus() | StudyStatus() | ReadingStatus():
            yield from step_lines(status)
        case TokenizerStatus():
            yield from tokenizer_lines(status, corpora)
        case BuildStatus():
            yield from build_lines(status)
        case _:
            yield _facts(row, status)
            if status.error is not None:
                yield without_links(clamp(said(status.error.message), MAX_ERROR))


def study_question(record: StudyRecord) -> discord.Embed:
    """Ask whether to start a study: how many trainings it has, how long they take, and of which settings."""
    asked, n_runs, seconds = record.request, full_runs(record), total_seconds(record)
    trainings = plural("**At most {count} training**", "**At most {count} trainings**", n_runs)
    time = _("How long they take is known when the first has ended.")
    if seconds is not None:
        time = _("about {time}", time=rough_time(seconds))
    in_full = _(
        "{settings} are compared on validation text, the best {finalists} in full with {seeds} each.",
        settings=count(len(record.variants), "setting"),
        finalists=numeral(record.n_finalists),
        seeds=count(asked.seeds, "seed"),
    )
    tested = _(
        "The winner is trained with {seeds} more, and measured on the test split.",
        seeds=count(asked.test_seeds, "seed"),
    )
    needs = _(
        "Each needs up to {memory} of memory; all together need {disk} of disk.",
        memory=byte_size(max(one.cost.memory_bytes for one in record.variants)),
        disk=byte_size(n_runs * max(one.cost.disk_bytes for one in record.variants)),
    )
    settings = "\n".join(f"{one.name}: {setting_text(one.setting)}" for one in record.variants)
    equal = [reader_of_names().note(equal_note(*names)) for names in equal_settings(record.variants)]
    lines = [
        f"{trainings} · {time}",
        in_full,
        *([tested] if asked.read_test else []),
        needs,
        *equal[:_MAX_EQUAL],
        code_block(settings, _MAX_SETTINGS),
    ]
    return make_embed(GREY, f"❔ {_('Start the study {name}?', name=plain(asked.name))}", lines)


def job_buttons(row: JobRow, status: JobStatus, report: Report | None = None, *, may_delete: bool) -> discord.ui.View:
    """Return the buttons below a card of a job: the next commands in its state, and the tables of its report."""
    items = [*_items(row, status, job_id_of(row, status), may_delete=may_delete)]
    if report is not None:
        items.insert(0, table_select(row.word, job_id_of(row, status), report))
    return button_row(*items)


def jobs_page(
    row: JobRow, statuses: Sequence[JobStatus], *, total: int, page: str, unreadable: Sequence[UnreadableJob] = ()
) -> discord.Embed:
    """Return a page of the list of jobs of a kind; `page` ends its title."""
    titled = _COUNTS.get(row.kind)
    lines = [*(_line(row, status) for status in statuses), *unreadable_lines(unreadable)]
    title = f"🗂 {row.words}: {numeral(total)}" if titled is None else titled(total)
    return make_embed(BLURPLE, f"{title}{page}", lines or [_none_yet(row.kind)])


def job_select(row: JobRow, statuses: Sequence[JobStatus]) -> discord.ui.Select[discord.ui.View]:
    """Return a list to select the job to show."""
    ids = [job_id_of(row, status) for status in statuses]
    return run_select(f"get_{row.word}", _("Show…"), [option(job_id, job_id) for job_id in ids])


def _items(
    row: JobRow, status: JobStatus, job_id: str, *, may_delete: bool
) -> Iterator[discord.ui.Item[discord.ui.View]]:
    if status.status != "completed":
        yield button(f"get_{row.word}", job_id, _("Refresh"), detail=AGAIN)
    yield from (button(action, job_id, label) for action, label in _own_buttons(status))
    if not status.has_ended:
        yield button(f"cancel_{row.word}", job_id, _("Cancel"), style=discord.ButtonStyle.danger)
        yield button("jobwatch", job_id, _("Watch"), detail=row.word)
        return
    if status.status == "completed":
        yield button("jobfiles", job_id, "ZIP", detail=row.word)
    if may_delete:
        yield button(f"delete_{row.word}", job_id, _("Delete…"), style=discord.ButtonStyle.danger)


def _own_buttons(status: JobStatus) -> Sequence[tuple[str, str]]:
    """Return the actions and labels of the buttons that only a kind has: most send one file of the results."""
    match status:
        case BatteryStatus(status="completed", development_of=of_run):
            return ("batpage", _("Page")), ("batcsv" if of_run is None else "batcurves", "CSV"), ("battex", "LaTeX")
        case ReadingStatus(status="completed"):
            return (("readpage", _("Page")),)
        case ExperimentStatus(status="completed"):
            return ("expcsv", "CSV"), ("exptex", "LaTeX")
        case ExperimentStatus(has_ended=True):
            return (("exprerun", _("Rerun missing")),)
        case _:
            return ()


def _line(row: JobRow, status: JobStatus) -> str:
    job_id, created = job_id_of(row, status), relative_time(status.created_at.timestamp())
    label, facts = "", ""
    match status:
        case BatteryStatus() | ReadingStatus():
            names = plain(clamp(_name(row, status), _MAX_NAME))
            facts = f"{names} · {count(len(status.runs), 'run')} · {_(status.status)}"
        case ExperimentStatus():
            done = _("{done} of {cells}", done=status.cells_done, cells=count(status.n_cells, "cell"))
            facts = f"{_(status.status)} · {done}"
        case StudyStatus():
            done = _("{done} of {cells}", done=status.runs_done, cells=count(status.n_runs, "run"))
            winner = "" if status.winner is None else f" · 🏆 {plain(status.winner)}"
            facts = f"{_(status.status)} · {done}{winner}"
        case TokenizerStatus():
            label = "" if status.label is None else f"**{plain(status.label)}** · "
            facts = _(status.status) if status.vocab_size is None else count(status.vocab_size, "token")
        case _:
            facts = f"{_(status.status)} · {_facts(row, status)}"
    return f"{STATE_SIGNS[status.status]} {label}`{job_id}` · {facts} · {created}"


def _facts(row: JobRow, status: JobStatus) -> str:
    """Return what the columns of a kind say of a job besides its id, state and age."""
    values: dict[str, object] = status.model_dump(mode="json")
    others = [(title, field) for title, field in row.columns if field not in (row.id_field, "status", "created_at")]
    return " · ".join(f"{title} {plain(str(values[field]))}" for title, field in others)


def _none_yet(kind: KindName) -> str:
    match kind:
        case "tokenizers":
            return _("No tokenizers yet. Train one with `/mt tokenizer train`.")
        case "batteries":
            return _("No batteries yet. Start one with `/mt-battery start`.")
        case "experiments":
            return _("No experiments yet. An admin can start one with `/mt-experiment start`.")
        case "studies":
            return _("No studies yet. Start one with `/mt-study start`.")
        case "readings":
            return _("No reading times yet. Start with `/mt-reading start`.")
        case _:
            return _("None yet.")
