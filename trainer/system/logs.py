"""Structured logs: one event with its fields per line, JSON in prod and text in dev, without secrets or corpus text."""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO, TypedDict

import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from structlog.typing import EventDict, Processor

from trainer.config.settings import Settings
from trainer.system.hardware import process_name

_LOG_FILE_BYTES = 10_000_000
_BLOCK_BYTES = 1 << 16
_COMPARED_BYTES = 256
_OURS = ("trainer", "bot", "local_discord")


class LoggingExtra(TypedDict, total=False):
    """Fields of log lines; a name has the same meaning in every line. Losses are in nats per token."""

    run_id: str
    request_id: str
    tokenizer_id: str
    experiment_id: str
    study_id: str
    battery_id: str
    reading_id: str
    export_id: str
    verification_id: str
    build_id: str
    user_id: int | None
    kind: str
    """Kind of an inference request."""
    status: str
    attempt: int
    epoch: int
    step: int
    steps: int
    texts: int
    """Number of texts of an experiment."""
    split: str
    loss: float | None
    order: int
    """Order of an n-gram model."""
    perplexity: float
    retry_seconds: float
    model_family: str
    model_size: str
    """Size whose speed was measured for a time limit."""
    step_ms: float
    architecture: str
    vocab_size: int
    names: str
    entry_id: str
    event_id: str
    host: str | None
    """Host of a webhook's address, whose path may be a secret."""
    error_code: str
    error: str
    reason: str
    exc_info: BaseException | None
    exit_code: int
    pid: int
    slots: int
    guilds: int
    account_link: str
    server_link: str
    task: str
    admin_id: int
    level: str
    """The access that an admin has given."""
    corpus: str
    digest_id: str
    file: str
    key: str
    """Key of an object in the object store."""
    path: str
    """File or folder that a cleanup removes, relative to the artifacts folder or the data folder."""
    bytes_freed: int
    files_deleted: int
    command: str
    tool: str
    method: str
    route: str
    http_status: int
    seconds: float
    port: int
    connections: int
    """The most connections of the HTTP server."""
    page: str
    """Address of the page."""
    artifacts: str
    """Folder of the runs, which the operator's terminal shows at the start."""
    api_key: str | None
    """Name of a key, not the key."""


LOGGING_EXTRA_NAMES = tuple(sorted(LoggingExtra.__optional_keys__))


class _NewFormatter(Protocol):
    def __call__(
        self, *, foreign_pre_chain: Sequence[Processor], processors: Sequence[Processor]
    ) -> logging.Formatter: ...


_add_level: Processor = structlog.stdlib.add_log_level
_new_formatter: _NewFormatter = structlog.stdlib.ProcessorFormatter


def setup_logging(settings: Settings, service: str, stream: TextIO = sys.stdout) -> None:
    """Write all log lines of this process to one stream, in the format of `APP__ENV`."""
    logging.raiseExceptions = False  # a line that finds no room on a full disk is lost without a word
    level = logging.getLevelNamesMapping()[settings.logging.level or "INFO"]
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    handler.setFormatter(_formatter(service, as_json=settings.app.env == "prod", colors=stream.isatty()))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)  # libraries only warn
    for name in _OURS:
        logging.getLogger(name).setLevel(min(level, logging.INFO))  # for a run's own log, whatever is shown
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_common(service), _hand_over],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def say(settings: Settings, sentence: str) -> None:
    """Write a sentence for people among the log lines, where these are text."""
    if settings.app.env == "dev":
        sys.stdout.write(f"{sentence}\n")
        sys.stdout.flush()


def add_log_file(path: Path, service: str, level: str = "INFO") -> None:
    """Also write lines from a level on as JSON to a run's `logs.jsonl`, which keeps the last 10 to 20 MB."""
    handler = RotatingFileHandler(path, maxBytes=_LOG_FILE_BYTES, backupCount=1, encoding="utf-8")
    handler.setLevel(level)
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.setLevel(min(logger.level, handler.level))
    handler.setFormatter(_formatter(service, as_json=True, colors=False))
    logging.getLogger().addHandler(handler)


_HIDDEN = {
    *("timestamp", "level", "message", "event", "category", "logger", "service", "instance_id"),
    *("run_id", "user_id", "exception"),
}
"""Fields that a readable line leaves out of its values: they start it, follow it, or never change within a run."""


def readable_line(line: str) -> str:
    """Return a readable form of a line of `logs.jsonl`: time, level, event and fields, with the traceback below."""
    try:
        record = _record_adapter.validate_json(line)
    except ValidationError:
        return _printable(line)
    time, level, message = (_printable(record.get(name, "")) for name in ("timestamp", "level", "message"))
    shown = {name: value for name, value in record.items() if name not in _HIDDEN and value is not None}
    values = "".join(f" {name}={_printable(value)}" for name, value in shown.items())
    exception = record.get("exception")
    below = f"\n{exception}" if isinstance(exception, str) else ""
    return f"{time[:19].replace('T', ' ')} {level:<8} {message}{values}{below}".lstrip()


_record_adapter = TypeAdapter(dict[str, object])


def _printable(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else to_json(value).decode()


class LogReader:
    """Reads new lines of a run's log, also after the file was rotated or replaced by a longer copy."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._before = b""
        """The last bytes before the offset, which show if a file is the one that was read."""

    def last(self, count: int) -> list[str]:
        """Return the last lines; `read_new` continues after them."""
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            lines = _last_lines(file, count)
            self._move_to(file, file.tell())
        if len(lines) < count:
            with contextlib.suppress(FileNotFoundError), self._backup.open("rb") as file:
                lines = _last_lines(file, count - len(lines)) + lines
        return lines

    def read_new(self) -> list[str]:
        """Return the complete lines added since the last call; all lines if the log is another one."""
        lines: list[str] = []
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:  # not begun, or being replaced
            if not self._was_read(file):
                with contextlib.suppress(FileNotFoundError), self._backup.open("rb") as rotated:
                    if self._was_read(rotated):
                        lines = self._read_on(rotated)
                self._move_to(file, 0)
            lines += self._read_on(file)
        return lines

    @property
    def _backup(self) -> Path:
        return self._path.with_name(f"{self._path.name}.1")

    def _was_read(self, file: BinaryIO) -> bool:
        file.seek(self._offset - len(self._before))
        return file.read(len(self._before)) == self._before

    def _read_on(self, file: BinaryIO) -> list[str]:
        file.seek(self._offset)
        lines, size = _whole_lines(file.read())
        self._move_to(file, self._offset + size)
        return lines

    def _move_to(self, file: BinaryIO, offset: int) -> None:
        start = max(0, offset - _COMPARED_BYTES)
        file.seek(start)
        self._offset, self._before = offset, file.read(offset - start)


def _last_lines(file: BinaryIO, count: int) -> list[str]:
    """Return the last complete lines of a file, reading only its end; leaves the file position after the last one."""
    start = file.seek(0, os.SEEK_END)
    data = b""
    while start > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK_BYTES, start)
        start = file.seek(start - size)
        data = file.read(size) + data
    lines, size = _whole_lines(data)
    file.seek(start + size)
    return lines[max(0, len(lines) - count) :]


def _whole_lines(data: bytes) -> tuple[list[str], int]:
    """Return the complete lines of a block and their size in bytes; the first may begin in mid-character."""
    *lines, rest = data.split(b"\n")
    return [line.decode(errors="replace") for line in lines], len(data) - len(rest)


def _formatter(service: str, *, as_json: bool, colors: bool) -> logging.Formatter:
    renderers: list[Processor] = [_without_record]
    if as_json:
        renderers += [
            structlog.processors.ExceptionRenderer(),
            _repeat_event,
            structlog.processors.JSONRenderer(),
        ]
    else:
        renderers += [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
    return _new_formatter(foreign_pre_chain=_common(service), processors=renderers)


def _common(service: str) -> list[Processor]:
    def identify(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        event["instance_id"] = process_name()
        event["category"] = _category(str(event["logger"]))
        return event

    return [
        structlog.contextvars.merge_contextvars,
        _add_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
        identify,
    ]


def _category(logger: str) -> str:
    """Return the part of the program that logs, such as `worker` or `http`; `library` for other packages."""
    first, *others = logger.split(".")
    if first not in _OURS:
        return "library"
    return others[0] if len(others) > 1 else first


def _repeat_event(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Add the event under the standard name `message`, too."""
    event["message"] = event["event"]
    return event


def _hand_over(
    _logger: logging.Logger, name: str, event: EventDict
) -> tuple[tuple[EventDict], dict[str, dict[str, object]]]:
    """Pass the line unchanged to the handlers' formatter."""
    return (event,), {"extra": {"_logger": _logger, "_name": name}}


def _without_record(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Remove the keys that structlog's formatter leaves for other processors."""
    for name in ("_record", "_from_structlog"):
        event.pop(name, None)
    return event
