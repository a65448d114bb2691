"""Calls of tools: arguments become the inputs of an operation, and its answer a text and a record."""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from time import monotonic
from typing import NamedTuple

import structlog
from pydantic import BaseModel
from pydantic_core import to_json

from trainer.artifacts.job_folder import REPORT_FILE
from trainer.config.validation import parse, safe_name
from trainer.contracts.base import Frozen, changed, narrowed
from trainer.contracts.errors import AppError, ErrorBody, ErrorCode, field_error, new_request_id
from trainer.contracts.job_status import JobStatus
from trainer.contracts.looks import Unlocked
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.parameters import ArtifactPath, GroupPath, NoBody, WaitQuery
from trainer.contracts.reports import Report
from trainer.contracts.runs import Accepted
from trainer.lab.calls import CALLS, GET_GROUP, JOB_CALLS, AnyCall
from trainer.lab.requests import MAX_BODY_BYTES, as_app_error, body_of, path_of, whole_numbers
from trainer.lab.waits import Status
from trainer.mcp.answers import (
    PART_CHARACTERS,
    SHORT_CHARACTERS,
    complete_text,
    cut,
    is_in_bound,
    marked,
    parts_in,
    report_lines,
    text_for_models,
)
from trainer.mcp.installations import Installation, files_of
from trainer.mcp.tools import CALLS_OF_TOOLS, KEY_ARGUMENT, PART_ARGUMENT, PartQuery, has_parts
from trainer.reports.unlock_report import unlock_report

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

MAX_WAIT_SECONDS = 30.0
"""The longest wait of one call: clients and proxies give up after a minute."""
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""All but tab and the ends of lines."""
_SIZES = ("limit", "points", "tail", "detail_level", "top_k", "top_logprobs", "k", "text", "sequences")
"""Arguments that decide how long an answer is."""
_REPORTS: Mapping[str, AnyCall] = {
    call.operation.route.removesuffix("/report"): call
    for call in CALLS.values()
    if call.operation.path.endswith("/report")
}
"""The report of what an operation answers with, by its route."""


class ToolAnswer(NamedTuple):
    """The answer to a call of a tool."""

    text: str
    record: Frozen | None
    """The structured content; None for an answer that is a text, a part of one, or nothing, or too large."""
    is_error: bool = False


class Inputs(NamedTuple):
    """The inputs of an operation."""

    path: BaseModel
    query: BaseModel
    body: BaseModel
    key: str | None
    """The Idempotency-Key; None without one."""
    part: int | None = None
    """The part of the complete answer; None for its short form."""


async def answer(installation: Installation, call: AnyCall, arguments: Mapping[str, object]) -> ToolAnswer:
    """Call a tool; an error is an answer, too, with the body that HTTP sends."""
    started, name = monotonic(), call.operation.name
    code: str | None = None
    try:
        return await _done(installation, call, await asyncio.to_thread(inputs_of, call, arguments))
    except Exception as error:  # noqa: BLE001  (each is logged or of a known code)
        body = error_body(error)
        code = body.code
        return ToolAnswer(f"{body.code}: {body.message}", body, is_error=True)
    finally:
        log.info("tool_called", tool=name, error_code=code, seconds=round(monotonic() - started, 4))


def error_body(error: Exception) -> ErrorBody:
    """Return the body of an error; one that is not foreseen is logged under its request id."""
    request_id = new_request_id()
    if not isinstance(error, AppError):
        log.error("tool_failed", request_id=request_id, exc_info=error)
        error = as_app_error(error)
    body, left = ErrorBody.of(error, request_id), len(error.message) - SHORT_CHARACTERS
    if left <= 0:
        return body
    message = f"{body.message[:SHORT_CHARACTERS]} … {left:,} more characters, without details"
    return changed(body, message=message, details=())


def inputs_of(call: AnyCall, arguments: Mapping[str, object]) -> Inputs:
    """Return the inputs of an operation; raises PAYLOAD_TOO_LARGE, or INVALID_INPUT for a wrong argument."""
    if len(to_json(arguments)) > MAX_BODY_BYTES:
        message = f"The arguments have more than {MAX_BODY_BYTES:,} bytes. Send less at a time."
        raise AppError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    for name in _with_control_characters(arguments):
        message = "has control characters: send text, with line ends and tabs only."
        raise field_error(ErrorCode.INVALID_INPUT, safe_name(name), message)
    given = dict(arguments)
    key = given.pop(KEY_ARGUMENT, None) if call.operation.method == "POST" else None
    if key is not None and not isinstance(key, str):
        raise field_error(ErrorCode.INVALID_INPUT, KEY_ARGUMENT, "must be text.")
    part = None
    if has_parts(call) and PART_ARGUMENT in given:
        part = parse(PartQuery, whole_numbers({PART_ARGUMENT: given.pop(PART_ARGUMENT)})).part
    path = {name: given.pop(name) for name in call.path.model_fields if name in given}
    query = {name: given.pop(name) for name in call.query.model_fields if name in given}
    if call.body is NoBody:
        query |= given
        given = {}
    return Inputs(parse(call.path, path), parse(call.query, whole_numbers(query)), body_of(call.body, given), key, part)


def _with_control_characters(value: object, name: str = "arguments") -> Iterator[str]:
    """Yield the names of arguments with signs that could hide or change what people read in a terminal."""
    match value:
        case str():
            if _CONTROL_CHARACTER.search(value):
                yield name
        case list():
            items: list[object] = value
            for item in items:
                yield from _with_control_characters(item, name)
        case dict():
            fields: dict[str, object] = value
            for field, item in fields.items():
                yield from _with_control_characters(field)
                yield from _with_control_characters(item, field)
        case _:
            pass


async def _done(installation: Installation, call: AnyCall, given: Inputs) -> ToolAnswer:
    """Do an operation, wait as long as it says, and return its answer as a text and a record."""
    reading, path, query = _following(call) or call, given.path, given.query
    is_start, wait = reading is not call, 0.0
    if isinstance(query, WaitQuery):
        wait = min(query.wait, MAX_WAIT_SECONDS)
        query = changed(query, wait=0.0 if is_start else wait)
    with installation.waiting() if wait else nullcontext():
        found = await installation.call(call, path, query, given.body, given.key)
        if isinstance(found, str):
            return await asyncio.to_thread(_in_bound, call, given, call, path, found, None)
        if not isinstance(found, Frozen):
            return ToolAnswer(f"{call.operation.answer}.", None)
        if is_start:
            group = found.group if isinstance(found, Accepted) else None
            reading = reading if group is None else GET_GROUP
            path = path_of(reading, found) if group is None else GroupPath(group_id=group.group_id)
            if wait and group is None:
                query, is_start = WaitQuery(wait=wait), False
                found = narrowed(Frozen, await installation.call(reading, path, query, NoBody(), None))
    report = None if is_start else await _report(installation, reading, path, query, found)
    answered = await asyncio.to_thread(_in_bound, call, given, reading, path, found, report)
    if given.part is None and _is_unfinished(reading, found, is_start=is_start):
        return answered._replace(text=f"{_how_to_wait(reading, path)}\n{answered.text}")
    return answered


def _in_bound(
    call: AnyCall, given: Inputs, reading: AnyCall, path: BaseModel, found: Frozen | str, report: Report | None
) -> ToolAnswer:
    """Return an answer, or the given part of it, within the bound; its text says what it leaves out."""
    complete = complete_text(found, report)
    count = parts_in(len(complete), PART_CHARACTERS)
    if given.part is not None:
        part = cut(complete, given.part, PART_CHARACTERS)
        return ToolAnswer(f"Part {given.part} of {count} ({len(complete):,} characters in all).\n{marked(part)}", None)
    text = text_for_models(found, report, complete)
    record = found if isinstance(found, Frozen) and is_in_bound(found, text) else None
    is_complete = text == complete or (record is not None and report is not None and text == report_lines(report))
    if is_complete:
        return ToolAnswer(marked(text), record)
    left = f"This is shortened: the complete answer has {len(complete):,} characters"
    left += "." if record is None else ", and is in the structured content."
    return ToolAnswer(" ".join([left, *_how_to_read(call, reading, path, count)]) + f"\n{marked(text)}", record)


def _how_to_read(call: AnyCall, reading: AnyCall, path: BaseModel, count: int) -> Iterator[str]:
    """Yield how to read the rest of an answer in parts, and how to get a shorter one."""
    if not has_parts(reading):
        same = (one for one in CALLS_OF_TOOLS.values() if (one.path, one.answer) == (call.path, call.answer))
        reading = next(filter(has_parts, same), reading)
    last = f" to {count}" if count > 1 else ""
    if reading is call:
        yield f"Call it again with the same arguments and part 1{last}."
    elif has_parts(reading):
        yield f"Read it with the tool `{reading.operation.name}`: {_named(path)}part 1{last}."
    else:
        yield f"{call.operation.route} of the HTTP API answers with all of it."
    starts = [one for one in CALLS.values() if one.operation.follows == reading.operation.name]
    arguments = {name for one in (call, *starts) for model in (one.query, one.body) for name in model.model_fields}
    if shorter := [f"`{name}`" for name in _SIZES if name in arguments]:
        yield f"These arguments make it shorter: {', '.join(shorter)}."


def _named(path: BaseModel) -> str:
    names: dict[str, object] = path.model_dump()
    return "".join(f'{name} "{value}", ' for name, value in names.items())


def _following(call: AnyCall) -> AnyCall | None:
    """Return the operation that reads the status of what another one starts; None for one that starts nothing.

    Nor for one that is asked again for its status.
    """
    row = call.operation
    if row.follows:
        return CALLS[row.follows]
    if row.method == "POST" and issubclass(call.query, WaitQuery):
        return next((one.get for one in JOB_CALLS.values() if one.get.answer is call.answer), None)
    return None


def _is_unfinished(reading: AnyCall, found: Frozen, *, is_start: bool) -> bool:
    has_ended = found.has_ended if isinstance(found, Status) else not is_start
    return issubclass(reading.query, WaitQuery) and not has_ended


def _how_to_wait(reading: AnyCall, path: BaseModel) -> str:
    if reading.operation.method == "POST":
        return f"It has not ended. Call it again with the same arguments and wait {MAX_WAIT_SECONDS:g}."
    tool = f"the tool `{reading.operation.name}`"
    return f"It has not ended. Wait with {tool}: {_named(path)}wait {MAX_WAIT_SECONDS:g}."


async def _report(
    installation: Installation, reading: AnyCall, path: BaseModel, query: BaseModel, found: Frozen
) -> Report | None:
    """Return what an answer says to people; None for an answer without a report."""
    if isinstance(found, Report):
        return found
    if isinstance(found, Unlocked):
        return unlock_report(found)
    row, call = reading.operation, _REPORTS.get(reading.operation.route)
    if call is not None:
        fields: dict[str, object] = query.model_dump(include=set(call.query.model_fields))
        asked = call.query.model_validate(fields)
        return narrowed(Report, await installation.call(call, path, asked, NoBody(), None))
    if row.kind is None or not isinstance(found, JobStatus) or found.status != "completed":
        return None
    names: dict[str, str] = path.model_dump()
    place = ArtifactPath(kind=row.kind, item_id=names[JOB_ROWS[row.kind].id_field])
    stored = next((one for one in (await files_of(installation, place)).files if one.path == REPORT_FILE), None)
    return None if stored is None else Report.model_validate_json(await installation.read(place, stored))
