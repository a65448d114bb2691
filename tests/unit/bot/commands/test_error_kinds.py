"""Errors of commands keep their kind: only those of Discord and of services are said to be theirs."""

import errno
import socket
import ssl
from pathlib import Path

import aiohttp
import discord
import pytest
from pydantic import BaseModel, ValidationError

from bot.commands.responses import _as_app_error
from trainer.contracts.errors import ErrorCode


class _Number(BaseModel):
    number: int


def refused_record() -> Exception:
    """The error of a record that cannot be read."""
    try:
        _Number.model_validate_json('{"number": "x"}')
    except ValidationError as error:
        return error
    raise AssertionError


ARTIFACTS = Path("/nowhere/artifacts")
_SERVICE, _LOG = "Discord or a service did not respond.", "The log has the details under the number of the request."
KINDS: list[tuple[Exception, ErrorCode, str]] = [
    (aiohttp.ClientConnectionError(), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (aiohttp.ClientPayloadError(), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (discord.RateLimited(60.0), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (TimeoutError(), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (ConnectionResetError(errno.ECONNRESET, "reset"), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (socket.gaierror(socket.EAI_AGAIN, "no name"), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (ssl.SSLError("certificate"), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (OSError(errno.EHOSTUNREACH, "No route to host"), ErrorCode.SERVICE_UNAVAILABLE, _SERVICE),
    (OSError(errno.ENOSPC, "No space left"), ErrorCode.INSUFFICIENT_STORAGE, "The disk is full: free some space."),
    (OSError(errno.EIO, "Input/output error"), ErrorCode.SERVICE_UNAVAILABLE, "The disk failed (Input/output error)"),
    (OSError("cannot open resource"), ErrorCode.INTERNAL_ERROR, f"A file cannot be used (OSError). {_LOG}"),
    (
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/fonts/a.ttf"),
        ErrorCode.INTERNAL_ERROR,
        f"A file cannot be used (No such file or directory). {_LOG}",
    ),
    (
        PermissionError(errno.EACCES, "Permission denied", f"{ARTIFACTS}/models/.new.tmp"),
        ErrorCode.CONFIG_INVALID,
        "The folder of APP__ARTIFACTS_ROOT cannot be used (Permission denied): let this user write there",
    ),
    (refused_record(), ErrorCode.INTERNAL_ERROR, f"A stored record cannot be read (_Number). {_LOG}"),
    (KeyError("run"), ErrorCode.INTERNAL_ERROR, f"The bot failed to run this command. {_LOG}"),
    (RuntimeError("/secret"), ErrorCode.INTERNAL_ERROR, f"The bot failed to run this command. {_LOG}"),
]


@pytest.mark.parametrize("row", KINDS, ids=[repr(row[0])[:40] for row in KINDS])
def test_error__keeps_its_kind(row: tuple[Exception, ErrorCode, str]) -> None:
    error, code, message = row
    found = _as_app_error(error, {"APP__ARTIFACTS_ROOT": ARTIFACTS})
    assert (found.code, found.message.startswith(message)) == (code, True), found.message
    assert "/fonts" not in found.message and "secret" not in found.message
