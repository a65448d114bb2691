"""What a run has written of itself, as people in the chat read it: without anything of the machine it runs on."""

import json
import re
from collections.abc import Mapping

from trainer.artifacts.runs import RunDirectory
from trainer.system.files import BrokenFile
from trainer.system.logs import LogReader

_HIDDEN = {"timestamp", "level", "message", "exception", "logger", "service", "instance_id", "run_id", "user_id"}
_ADDRESS = re.compile(r"\w+://[^\s\"']+")
_PATH = re.compile(r"(?<![\w.<>/\\])(?:[A-Za-z]:)?[/\\]+(?:[^\s\"'<>:/\\]+[/\\]+)*([^\s\"'<>:/\\]+)")


def last_lines(run: RunDirectory, count: int) -> list[str]:
    """The last lines of a run's log; where its process crashed, the last lines of that one's error output."""
    lines = [readable(line) for line in LogReader(run.logs).last(count)]
    try:
        manifest = run.manifest()
    except BrokenFile:
        manifest = None
    crash = () if manifest is None else manifest.last_lines
    return [*lines, *(without_places(line.rstrip("\n")) for line in crash)][-count:]


def readable(line: str) -> str:
    """A line of a log as a person reads it: when, how grave, what, and the values."""
    try:
        parsed: object = json.loads(line)
    except ValueError:
        parsed = line
    if not isinstance(parsed, dict):
        return without_places(line)
    values: Mapping[str, object] = parsed
    when = str(values.get("timestamp", ""))[:19].replace("T", " ")
    shown = [f"{name}={value}" for name, value in values.items() if name not in _HIDDEN and value is not None]
    text = " ".join([when, str(values.get("level", "")).upper(), str(values.get("message", "")), *shown])
    exception = values.get("exception")
    return without_places(f"{text}\n{exception}" if exception else text)


def without_places(text: str) -> str:
    """The same without addresses, and with no more of a path than the name of its file."""
    return _PATH.sub(_shortened, _ADDRESS.sub("…", text))


def _shortened(path: re.Match[str]) -> str:
    last: str = path[1]
    return f"…/{last}" if "." in last else "…"
