"""The cards, buttons and lists of jobs of every kind but runs; a kind without words of its own has those of its row."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import discord

from bot.messages.answers import STATE_SIGNS
from bot.messages.battery_card import battery_card, battery_facts, battery_items
from bot.messages.buttons import button, button_row, option, run_select
from bot.messages.experiment_card import experiment_card, experiment_facts, experiment_items
from bot.messages.report_card import table_select
from bot.messages.run_card import progress_bar
from bot.messages.text import (
    BLURPLE,
    GREEN,
    GREY,
    RED,
    clamp,
    code_block,
    count,
    make_embed,
    percent,
    plain,
    relative_time,
    without_links,
)
from trainer.contracts.base import KindName, RunState
from trainer.contracts.batteries import BatteryStatus
from trainer.contracts.corpora import BuildProgress, BuildStatus, CorpusManifest
from trainer.contracts.experiments import ExperimentStatus
from trainer.contracts.job_status import JobStatus
from trainer.contracts.operations import JobRow
from trainer.contracts.reports import Report
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.lab.language import _, numeral, plural

AGAIN, SURE = "again", "sure"
"""Details of the buttons that refresh a card, and that confirm a deletion."""
_MAX_ERROR, _MAX_TABLE, _MAX_CORPORA = 1500, 3000, 500
_COLOURS: Mapping[RunState, int] = {"running": BLURPLE, "completed": GREEN, "failed": RED}
_TITLES: Mapping[KindName, Callable[[int], str]] = {
    "tokenizers": lambda total: f"🔤 {count(total, 'tokenizer')}",
    "batteries": lambda total: f"🔎 {plural('{count} battery', '{count} batteries', total)}",
    "experiments": lambda total: f"🧪 {count(total, 'experiment')}",
}


def job_id_of(row: JobRow, status: JobStatus) -> str:
    job_id: str = getattr(status, row.id_field)
    return job_id


def job_card(row: JobRow, status: JobStatus, report: Report | None = None) -> discord.Embed:
    """Return the card of a job in its current state, with the report of a completed one if it is given."""
    match status:
        case BatteryStatus():
            return battery_card(status, report)
        case ExperimentStatus():
            return experiment_card(status, report)
        case TokenizerStatus():
            return tokenizer_card(status)
        case BuildStatus() if status.status != "cancelled":
            return corpus_build_card(status.build_id, status)
        case _:
            lines = [_facts(row, status)]
            lines += [] if status.error is None else [without_links(clamp(status.error.message, _MAX_ERROR))]
            title = f"{STATE_SIGNS[status.status]} {row.word.capitalize()}: {_(status.status)}"
            return make_embed(_COLOURS.get(status.status, GREY), title, lines, job_id_of(row, status))


def job_buttons(row: JobRow, status: JobStatus, report: Report | None = None, *, may_delete: bool) -> discord.ui.View:
    """Return the buttons below a card of a job: the next commands in its state, and the tables of its report."""
    items = [*_items(row, status, job_id_of(row, status), may_delete=may_delete)]
    if report is not None:
        items.insert(0, table_select(row.word, job_id_of(row, status), report))
    return button_row(*items)


def jobs_page(row: JobRow, statuses: Sequence[JobStatus], *, total: int, page: str) -> discord.Embed:
    """Return a page of the list of jobs of a kind; `page` ends its title."""
    titled = _TITLES.get(row.kind)
    title = f"🗂 {row.words}: {numeral(total)}" if titled is None else titled(total)
    return make_embed(BLURPLE, f"{title}{page}", [_line(row, status) for status in statuses] or [_none_yet(row.kind)])


def job_select(row: JobRow, statuses: Sequence[JobStatus]) -> discord.ui.Select[discord.ui.View]:
    """Return a list to select the job to show."""
    ids = [job_id_of(row, status) for status in statuses]
    return run_select(f"get_{row.word}", _("Show…"), [option(job_id, job_id) for job_id in ids])


def _items(
    row: JobRow, status: JobStatus, job_id: str, *, may_delete: bool
) -> Iterator[discord.ui.Item[discord.ui.View]]:
    if status.status != "completed":
        yield button(f"get_{row.word}", job_id, _("Refresh"), detail=AGAIN)
    if isinstance(status, ExperimentStatus):
        yield from experiment_items(status)
    elif isinstance(status, BatteryStatus) and status.status == "completed":
        yield from battery_items(status)
    if not status.has_ended:
        yield button(f"cancel_{row.word}", job_id, _("Cancel"), style=discord.ButtonStyle.danger)
        yield button("jobwatch", job_id, _("Watch"), detail=row.word)
        return
    if status.status == "completed":
        yield button("jobfiles", job_id, "ZIP", detail=row.word)
    if may_delete:
        yield button(f"delete_{row.word}", job_id, _("Delete…"), style=discord.ButtonStyle.danger)


def _line(row: JobRow, status: JobStatus) -> str:
    job_id, created = job_id_of(row, status), relative_time(status.created_at.timestamp())
    label, facts = "", ""
    match status:
        case BatteryStatus():
            facts = battery_facts(status)
        case ExperimentStatus():
            facts = experiment_facts(status)
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
            return _("No batteries yet. Start one with `/mt battery start`.")
        case "experiments":
            return _("No experiments yet. An admin can start one with `/mt experiment start`.")
        case _:
            return _("None yet.")


def tokenizer_card(status: TokenizerStatus, corpora: Sequence[str] = ()) -> discord.Embed:
    """Return the card of a tokenizer, with its corpora if they are given, and in the end its fit to held-out lines."""
    lines = [status.method]
    if corpora:
        names = ", ".join(plain(corpus) for corpus in corpora)
        lines = [f"{status.method} · {_('corpus') if len(corpora) == 1 else _('corpora')} {clamp(names, _MAX_CORPORA)}"]
    if status.stats is None:
        code = "" if status.error is None else f"`{status.error.code}` "
        lines.append(f"{code}{without_links(clamp(status.message, _MAX_ERROR))}")
    else:
        stats = status.stats
        lines += [
            _("Vocabulary {tokens}", tokens=count(status.vocab_size or 0, "token")),
            _(
                "Known in {lines} of {tokens}: {share}, of distinct characters {characters}",
                lines=count(stats.holdout_lines, "held-out line"),
                tokens=count(stats.token_count, "token"),
                share=percent(stats.coverage),
                characters=percent(stats.char_coverage),
            ),
            _(
                "Held-out text: {share} unknown characters · {per_char} tokens/character · {per_word} tokens/word",
                share=percent(stats.unknown_char_share or 0.0),
                per_char=numeral(stats.avg_tokens_per_char, ".3f"),
                per_word=numeral(stats.avg_tokens_per_word, ".3f"),
            ),
            _("Next: {commands}", commands=f"`/mt train tokenizer:{status.tokenizer_id}`"),
        ]
    name = plain(status.label or status.tokenizer_id)
    title = f"{STATE_SIGNS[status.status]} {_('Tokenizer {name}: {state}', name=name, state=_(status.status))}"
    return make_embed(_COLOURS.get(status.status, GREY), title, lines, status.tokenizer_id)


def corpus_build_card(build_id: str, status: BuildStatus) -> discord.Embed:
    """Return the card of a build in its current state."""
    source = status.request.source
    if status.error is not None:
        return make_embed(
            RED,
            f"❌ {_('Corpora not built: {source}', source=source)}",
            [without_links(status.error.message), *_lines(status)],
            build_id,
        )
    if status.manifest is not None:
        corpus = next(iter(status.manifest.languages.values())).file.path.removesuffix(".txt")
        lines = [
            code_block("\n".join(_table(status.manifest)), _MAX_TABLE),
            *_warnings(status.manifest),
            _("Next: {commands}", commands=f"`/mt train corpus:{corpus}`"),
        ]
        return make_embed(GREEN, f"✅ {_('Corpora built: {source}', source=source)}", lines, build_id)
    lines = [*_lines(status)]
    if status.status == "queued":
        return make_embed(GREY, f"⏳ {_('Queued: corpora from {source}', source=source)}", lines, build_id)
    return make_embed(BLURPLE, f"🏗 {_('Building corpora: {source}', source=source)}", lines, build_id)


def _lines(status: BuildStatus) -> Iterator[str]:
    """Yield the progress of each language."""
    progress = {one.language: one for one in status.progress}
    for language in status.request.languages:
        yield f"**{language}** {_progress(progress[language], status) if language in progress else _('· waiting')}"


def _progress(one: BuildProgress, status: BuildStatus) -> str:
    most = status.request.characters
    bar = "" if most is None else f"{progress_bar(min(100.0, 100 * one.characters / most))} "
    counts = _(
        "{documents}, {rejected} rejected · kept {lines}, {characters}",
        documents=count(one.documents, "document"),
        rejected=count(one.rejected_documents),
        lines=count(one.lines, "line"),
        characters=count(one.characters, "character"),
    )
    return f"{bar}{counts}"


def _warnings(manifest: CorpusManifest) -> Iterator[str]:
    """Yield a line for each filter that removed much of a language."""
    for language, built in manifest.languages.items():
        for each in built.removed:
            if each.is_large:
                switch = "threshold:0" if each.step == "language_identification" else f"keep:{each.step}"
                text = _(
                    "**{language}**: `{filter}` removed {share} of the characters; `{switch}` leaves it out.",
                    language=language,
                    filter=each.step,
                    share=percent(each.share),
                    switch=switch,
                )
                yield f"⚠ {text}"


def _table(manifest: CorpusManifest) -> list[str]:
    rows = [("", _("documents"), _("rejected"), _("lines"), _("characters"))]
    for language, built in manifest.languages.items():
        numbers = (
            numeral(built.documents),
            percent(built.rejected_share),
            numeral(built.lines),
            numeral(built.characters),
        )
        rows.append((language, *numbers))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
