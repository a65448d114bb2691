"""Logging: one handler per process, the same fields in every line, and libraries from warnings on."""

import ast
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from io import StringIO
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

import pytest
import structlog
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.support import ROOT
from tests.support.properties import for_all_pairs
from trainer.artifacts.kinds import JOB_KINDS
from trainer.config.settings import AppSettings, LoggingSettings, Settings
from trainer.system.logs import LOGGING_EXTRA_NAMES, LogReader, add_log_file, readable_line, setup_logging

Line = dict[str, str | int | float | None]
_line: TypeAdapter[Line] = TypeAdapter(Line)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def logged(
    env: Literal["dev", "prod"] = "prod", level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
) -> StringIO:
    stream = StringIO()
    setup_logging(Settings(app=AppSettings(env=env), logging=LoggingSettings(level=level)), "model-trainer", stream)
    return stream


def lines(stream: StringIO) -> list[Line]:
    return [_line.validate_json(line) for line in stream.getvalue().splitlines()]


def product_logger() -> structlog.stdlib.BoundLogger:
    log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("trainer.something")
    return log


def test_line__has_the_standard_fields_and_its_values() -> None:
    stream = logged()
    product_logger().info("inference_request_ended", run_id="r-1", request_id="q-1")
    [line] = lines(stream)
    moment = datetime.fromisoformat(str(line.pop("timestamp")))
    assert moment.tzinfo is not None
    assert str(line.pop("instance_id")).endswith(f":{os.getpid()}")
    assert line == {
        **{"level": "info", "logger": "trainer.something", "message": "inference_request_ended"},
        **{"event": "inference_request_ended", "category": "trainer", "service": "model-trainer", "run_id": "r-1"},
        "request_id": "q-1",
    }


def test_line__has_its_part_of_the_program_and_bound_values() -> None:
    stream = logged()
    names = ["trainer.worker.jobs", "trainer.http.server", "bot.main", "some.library"]
    with structlog.contextvars.bound_contextvars(run_id="r-2"):
        product_logger().info("ours")
        for name in names:
            logging.getLogger(name).warning("said")
    assert [line["category"] for line in lines(stream)] == ["trainer", "worker", "http", "bot", "library"]
    assert {line["run_id"] for line in lines(stream)} == {"r-2"}


def test_dev__logs_text_for_people() -> None:
    logged()
    stream = logged("dev")
    assert len(logging.getLogger().handlers) == 1, "however often it is set up"
    product_logger().info("worker_ready", slots=1)
    [text] = stream.getvalue().splitlines()
    assert "worker_ready" in text and "slots" in text
    assert not text.startswith("{")


def test_level__holds_for_all_of_our_loggers() -> None:
    stream = logged(level="ERROR")
    product_logger().debug("not even kept for a run's own log")
    product_logger().warning("too quiet to be heard")
    logging.getLogger("bot.main").warning("this one too")
    product_logger().error("heard")
    assert [line["message"] for line in lines(stream)] == ["heard"]


@pytest.mark.parametrize("library", ["arq.worker", "aiohttp.access", "discord.gateway", "httpx", "urllib3", "asyncio"])
def test_libraries__only_warn_even_where_we_debug(library: str) -> None:
    stream = logged(level="DEBUG")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger(library).log(level, logging.getLevelName(level))
    product_logger().debug("ours")
    shown = [(line["logger"], line["message"]) for line in lines(stream)]
    assert shown == [(library, "WARNING"), ("trainer.something", "ours")]


@pytest.mark.parametrize(("level", "kept"), [("DEBUG", 3), ("INFO", 2), ("WARNING", 1), ("CRITICAL", 0)])
@pytest.mark.parametrize("shown", ["WARNING", "ERROR"])
def test_run_log__has_a_level_independent_of_the_terminal(
    tmp_path: Path, level: str, kept: int, shown: Literal["WARNING", "ERROR"]
) -> None:
    """`mt` shows warnings only, but the logs of the runs that it starts hold how they went."""
    stream = logged(level=shown)
    add_log_file(tmp_path / "logs.jsonl", "model-trainer", level)
    product_logger().debug("how")
    product_logger().info("what")
    product_logger().warning("what else")
    assert len(LogReader(tmp_path / "logs.jsonl").last(99)) == kept
    assert [line["message"] for line in lines(stream)] == ["what else"][: shown == "WARNING"]


def test_run_log__holds_the_same_lines_as_json_beside_the_stream(tmp_path: Path) -> None:
    stream = logged("dev")
    add_log_file(tmp_path / "logs.jsonl", "model-trainer")
    try:
        raise ValueError("what happened")
    except ValueError:
        product_logger().exception("run_failed", error_code="MODEL_TRAIN_FAILED")
    [text] = LogReader(tmp_path / "logs.jsonl").last(99)
    line = _line.validate_json(text)
    assert (line["level"], line["service"], line["error_code"]) == ("error", "model-trainer", "MODEL_TRAIN_FAILED")
    assert "ValueError: what happened" in str(line["exception"])
    assert "run_failed" in stream.getvalue()


@pytest.mark.slow
def test_extra_names__are_those_that_the_product_logs() -> None:
    files = [file for folder in ("trainer", "bot") for file in (ROOT / folder).rglob("*.py")]
    ids = {name for kind in JOB_KINDS for name in kind.store(ROOT).directory("one").log_id}
    assert sorted(ids.union(*map(names_in, files))) == list(LOGGING_EXTRA_NAMES)


def names_in(file: Path) -> Iterator[str]:
    """The keywords of the calls of `log` in a file, and of what it binds to its context."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of_log = isinstance(node.func.value, ast.Name) and node.func.value.id in {"log", "bound"}
            if of_log or node.func.attr == "bind_contextvars":
                yield from (keyword.arg for keyword in node.keywords if keyword.arg)


def test_last__takes_so_many_finished_lines_and_reads_no_more(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    path.write_text("a\nb\nc\nunfinished", encoding="utf-8")
    reader = LogReader(path)
    for count in (0, 1, 2, 3, 7):
        assert LogReader(path).last(count) == ["a", "b", "c"][max(0, 3 - count) :]
    assert reader.last(1) == ["c"]
    with path.open("a", encoding="utf-8") as file:
        file.write(" no more\nd\n")
    assert reader.read_new() == ["unfinished no more", "d"]
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole that nobody can read through in the time of a test
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\n" + "é".encode() * 100_000 + b"\n")
    assert LogReader(path).last(2) == ["last but one", "é" * 100_000]


def test_new_log__is_read_after_the_rotated_one(tmp_path: Path) -> None:
    path = tmp_path / "logs.jsonl"
    reader = LogReader(path)
    assert (reader.last(5), reader.read_new()) == ([], [])
    path.write_text("first\n", encoding="utf-8")
    assert (reader.read_new(), reader.read_new()) == (["first"], [])
    path.with_name("logs.jsonl.1").write_text("a\nb\nc\n", encoding="utf-8")
    assert LogReader(path).last(3) == ["b", "c", "first"]


def test_reader__continues_in_a_longer_copy_of_the_log(tmp_path: Path) -> None:
    path, lines = tmp_path / "logs.jsonl", [f"line {number}" for number in range(100)]

    def replace_by(written: list[str]) -> None:
        (tmp_path / "copy").write_text("".join(f"{line}\n" for line in written), encoding="utf-8")
        (tmp_path / "copy").replace(path)

    replace_by(lines[:40])
    reader = LogReader(path)
    assert reader.last(1) == lines[39:40]
    for begin, end in ((40, 40), (40, 41), (41, 100)):
        replace_by(lines[:end])
        assert reader.read_new() == lines[begin:end]
    (tmp_path / "logs.jsonl.1").write_text("".join(f"{line}\n" for line in [*lines, "100"]), encoding="utf-8")
    replace_by(["101"])
    assert reader.read_new() == ["100", "101"]
    replace_by(["of", "another", "attempt"])
    assert reader.read_new() == ["of", "another", "attempt"]


@for_all_pairs(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(0, 20))
def test_reader__sees_each_line_once_in_order_while_files_rotate(lengths: list[int], tail: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logs.jsonl"
        handler = RotatingFileHandler(path, maxBytes=60, backupCount=1, encoding="utf-8")
        written = [f"{number} {'x' * length}" for number, length in enumerate(lengths)]
        begun = len(written) // 2
        for line in written[:begun]:
            handler.emit(logging.makeLogRecord({"msg": line}))
        reader = LogReader(path)
        seen = reader.last(tail)
        files = [file for file in (Path(f"{path}.1"), path) if file.exists()]
        kept = [line for file in files for line in file.read_text().splitlines()]
        assert seen == kept[max(0, len(kept) - tail) :]
        for line in written[begun:]:
            handler.emit(logging.makeLogRecord({"msg": line}))
            seen += reader.read_new()
        handler.close()
        assert seen[min(tail, len(kept)) :] == written[begun:]


def test_readable_line__has_time_level_event_and_values() -> None:
    line: dict[str, object] = {
        **{"timestamp": "2026-11-20T12:34:56.789012+00:00", "level": "warning", "logger": "trainer.training.loop"},
        **{"service": "trainer-child", "instance_id": "my-host:4711", "message": "validation", "event": "validation"},
        **{"category": "training", "run_id": "lstm-1", "user_id": 7, "loss": 1.5, "device": None},
    }
    assert readable_line(json.dumps(line)) == "2026-11-20 12:34:56 warning  validation loss=1.5"


@pytest.mark.parametrize("line", ["no json", '"text"', "17", "[]", "null"])
def test_readable_line__of_another_program_stays_as_it_is(line: str) -> None:
    assert readable_line(line) == line
