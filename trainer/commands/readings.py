"""`mt reading`: what the surprisals of runs explain of reading times."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel
from rich.text import Text

from trainer.commands.arguments import RUN_IDS, Argument, Commands, Options, assign, flag, repeatable
from trainer.commands.connection import Installation, accept, settings_for_any, with_services
from trainer.commands.jobs import JobView, plain_view
from trainer.commands.terminal import Queued, Terminal
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.readings import ReadingOptions, ReadingRequest, ReadingStatus
from trainer.data.rows import read_file
from trainer.lab.calls import READINGS, START_READING
from trainer.lab.here import Here
from trainer.reading.tables import SUFFIXES, check_sent, reading_request


class _Options(Options):
    record: ClassVar[type[BaseModel] | None] = ReadingRequest
    runs = Argument[list[str]](
        "RUN", nargs="+", completion=RUN_IDS, help="runs, groups over seeds, or checkpoints as RUN@1200"
    )
    data = Argument[Path](
        "--data",
        metavar="FILE",
        type=Path,
        required=True,
        help="table of times with the columns text, position, word, person and rt, or of a public data set",
    )
    column = repeatable("--column KNOWN=NAME", "the name of a column in your table: `--column self_paced=RT_ms`")
    checkpoints = flag("--checkpoints", "also take the checkpoints that the runs have kept")
    set = repeatable("--set KEY=VALUE", "set another option: scale=log, measures=[gaze,total], exclude=[punctuation]")


def add_to(commands: Commands) -> None:
    commands.add("reading", _Options, _run)


def _run(options: _Options, terminal: Terminal) -> int:
    fields = dict[str, object]()
    assign(ReadingOptions, fields, options.set)
    assign(ReadingOptions, fields, [f"columns.{one}" for one in options.column])
    request = reading_request(parse(ReadingOptions, fields), options.runs, read_file(options.data, SUFFIXES))
    for text in request.file.notes:
        terminal.note(text)
    request = changed(request, has_checkpoints=options.checkpoints)
    terminal.continues_when_repeated = True

    async def run(installation: Installation) -> int:
        if not isinstance(installation, Here):
            check_sent(request)
        starting = installation.call(START_READING, body=request)
        accepted = await accept(starting, lambda one: Queued(one.reading_id, word="reading"), terminal)
        if accepted.status == "completed":
            return await _VIEW.show_job(accepted.reading_id, installation, terminal)
        return await _VIEW.follow(accepted.reading_id, installation, terminal)

    return with_services(settings_for_any(), terminal, run)


async def _note(reading_id: str, status: ReadingStatus, installation: Installation, terminal: Terminal) -> None:
    percent = 100 * status.done / max(1, status.total)
    terminal.progress_of(f"reading {reading_id}", reading_id, percent, status.message)


async def _show(reading_id: str, status: ReadingStatus, installation: Installation, terminal: Terminal) -> None:
    """Show the report of a job that has completed, and the state of others in two lines."""
    if status.status == "completed":
        await plain_view("readings").show(reading_id, status, installation, terminal)
    else:
        terminal.show(status, Text(f"{reading_id}: {status.status}\n{status.message}"))


_VIEW = JobView("readings", READINGS, _show, _note)
