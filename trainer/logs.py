"""Structured logs: one event a line with its values, JSON in prod and text in dev; never a secret or corpus text."""

import logging
import os
import socket
import sys
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor

from trainer.contracts.base import now
from trainer.contracts.settings import Settings

_LOG_FILE_BYTES = 10_000_000
_QUIET = ("arq", "asyncio", "discord", "aiohttp", "urllib3", "httpx", "matplotlib")


class _NewFormatter(Protocol):
    def __call__(
        self, *, foreign_pre_chain: Sequence[Processor], processors: Sequence[Processor]
    ) -> logging.Formatter: ...


_new_formatter: _NewFormatter = structlog.stdlib.ProcessorFormatter


def setup_logging(settings: Settings, service: str, stream: TextIO = sys.stdout) -> None:
    """Send every log line of this process to one stream, in the form that `APP__ENV` asks for."""
    level = logging.getLevelNamesMapping()[settings.logging.level]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(service, as_json=settings.app.env == "prod", colors=stream.isatty()))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[_drop_below_level, *_common(service), _hand_over],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def add_log_file(path: Path, service: str) -> None:
    """Write the same lines as JSON to a run's own `logs.jsonl` too; of a long one the last 10 to 20 MB stay."""
    handler = RotatingFileHandler(path, maxBytes=_LOG_FILE_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(_formatter(service, as_json=True, colors=False))
    logging.getLogger().addHandler(handler)


def _formatter(service: str, *, as_json: bool, colors: bool) -> logging.Formatter:
    renderers: list[Processor] = [_without_record]
    if as_json:
        renderers += [
            structlog.processors.ExceptionRenderer(),
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    else:
        renderers += [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
    return _new_formatter(foreign_pre_chain=_common(service), processors=renderers)


def _common(service: str) -> list[Processor]:
    instance = f"{socket.gethostname()}:{os.getpid()}"

    def identify(logger: logging.Logger | None, method: str, event: EventDict) -> EventDict:
        event["timestamp"] = now().isoformat()
        event["level"] = "error" if method == "exception" else method
        record: object = event.get("_record")  # there for a line of a library
        event["logger"] = record.name if isinstance(record, logging.LogRecord) else logger and logger.name
        event["service"] = service
        event["instance_id"] = instance
        return event

    return [identify]


def _drop_below_level(logger: logging.Logger, method: str, event: EventDict) -> EventDict:
    name = "error" if method == "exception" else method
    if not logger.isEnabledFor(logging.getLevelNamesMapping()[name.upper()]):
        raise structlog.DropEvent
    return event


def _hand_over(
    _logger: logging.Logger, name: str, event: EventDict
) -> tuple[tuple[EventDict], dict[str, dict[str, object]]]:
    """Give the line to the handlers' formatter as it is."""
    return (event,), {"extra": {"_logger": _logger, "_name": name}}


def _without_record(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Take away what structlog's formatter leaves for other processors."""
    for name in ("_record", "_from_structlog"):
        event.pop(name, None)
    return event
