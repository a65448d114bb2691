"""`mt reading`: what the surprisals of runs explain of reading times."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from trainer.commands.arguments import RUN_IDS, Argument, Commands, Options, assign, flag, given_columns, repeatable
from trainer.commands.connection import Installation, accept, settings_for_any, with_services
from trainer.commands.jobs import plain_view
from trainer.commands.terminal import Queued, Terminal
from trainer.config.validation import parse
from trainer.contracts.base import changed
from trainer.contracts.readings import ReadingOptions, ReadingRequest
from trainer.data.rows import read_file
from trainer.lab.calls import START_READING
from trainer.lab.here import Here
from trainer.reading.request import check_sent, reading_request
from trainer.reading.tables import SUFFIXES

_VIEW = plain_view("readings")


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
    fields: dict[str, object] = {"columns": given_columns(options.column, "self_paced=RT_ms")}
    assign(ReadingOptions, fields, options.set)
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
