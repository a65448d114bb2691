"""Log lines of a run for Discord, without addresses and paths of the machine."""

import re

from trainer.artifacts.runs import RunDirectory
from trainer.system.files import BrokenFile
from trainer.system.logs import LogReader, readable_line

_ADDRESS = re.compile(r"\w+://[^\s\"']+")
_PATH = re.compile(r"(?<![\w.<>/\\])(?:[A-Za-z]:)?[/\\]+(?:[^\s\"'<>:/\\]+[/\\]+)*([^\s\"'<>:/\\]+)")


def last_lines(run: RunDirectory, count: int) -> list[str]:
    """Return the last lines of a run's log, followed by the error output of a process that crashed."""
    lines = [without_paths(readable_line(line)) for line in LogReader(run.logs).last(count)]
    try:
        manifest = run.manifest()
    except BrokenFile:
        manifest = None
    crash = () if manifest is None else manifest.last_lines
    return [*lines, *(without_paths(line.rstrip("\n")) for line in crash)][-count:]


def without_paths(text: str) -> str:
    """Remove addresses, and reduce paths to file names."""
    return _PATH.sub(_file_name, _ADDRESS.sub("…", text))


def _file_name(path: re.Match[str]) -> str:
    last: str = path[1]
    return f"…/{last}" if "." in last else "…"
