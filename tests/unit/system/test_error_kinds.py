"""An error keeps its kind: one of a record is no sentence about folders, one of a file none about a connection."""

import errno
import ssl
from pathlib import Path

import aiohttp
import pytest

from bot.rest.errors import is_transient
from tests.support.runs import record
from trainer.artifacts.job_folder import unreadable
from trainer.artifacts.runs import RunStore
from trainer.contracts.errors import ErrorCode
from trainer.lab.requests import as_app_error
from trainer.system.files import BrokenFile, UnknownForm, to_app_error


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        (
            errno.ENOENT,
            "models/a/report.json",
            "The file 'report.json' of 'a' cannot be read (No such file or directory).",
        ),
        (errno.EACCES, "models/a/request.json", "The file 'request.json' of 'a' cannot be read (Permission denied)."),
        (errno.ENOENT, "models/gone/x", "The folder of APP__ARTIFACTS_ROOT cannot be used (No such file or directory)"),
        (errno.ENOENT, "", "The folder of APP__ARTIFACTS_ROOT cannot be used (No such file or directory)"),
        (errno.EACCES, "models/a", "The folder of APP__ARTIFACTS_ROOT cannot be used (Permission denied)"),
    ],
)
def test_error_of_a_record__is_none_of_its_folder(tmp_path: Path, number: int, name: str, said: str) -> None:
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "models" / "a" / "request.json").touch()
    error = to_app_error(OSError(number, errno_text(number), str(tmp_path / name)), {"APP__ARTIFACTS_ROOT": tmp_path})
    is_of_record = said.startswith("The file")
    assert error.message.startswith(said)
    assert error.code is (ErrorCode.RECORD_UNREADABLE if is_of_record else ErrorCode.CONFIG_INVALID)


def errno_text(number: int) -> str:
    return {errno.ENOENT: "No such file or directory", errno.EACCES: "Permission denied"}[number]


@pytest.mark.parametrize(
    ("error", "code", "is_of_connection"),
    [
        (UnknownForm("It has another form."), ErrorCode.RECORD_UNREADABLE, False),
        (BrokenFile("It is damaged."), ErrorCode.RECORD_UNREADABLE, False),
        (FileNotFoundError(errno.ENOENT, "No such file", "font.ttf"), ErrorCode.INTERNAL_ERROR, False),
        (PermissionError(errno.EACCES, "Permission denied", "font.ttf"), ErrorCode.INTERNAL_ERROR, False),
        (OSError(errno.ENOSPC, "No space left"), ErrorCode.INSUFFICIENT_STORAGE, False),
        (OSError(errno.EIO, "Input/output error"), ErrorCode.SERVICE_UNAVAILABLE, False),
        (ValueError("x"), ErrorCode.INTERNAL_ERROR, False),
        (ConnectionResetError(errno.ECONNRESET, "Reset"), ErrorCode.INTERNAL_ERROR, True),
        (TimeoutError(), ErrorCode.INTERNAL_ERROR, True),
        (aiohttp.ServerDisconnectedError(), ErrorCode.INTERNAL_ERROR, True),
        (ssl.SSLError(1, "handshake"), ErrorCode.INTERNAL_ERROR, True),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), ErrorCode.INTERNAL_ERROR, True),
    ],
)
def test_error__keeps_its_kind(error: Exception, code: ErrorCode, is_of_connection: bool) -> None:
    assert as_app_error(error).code is code
    assert is_transient(error) == is_of_connection


@pytest.mark.parametrize(
    ("content", "seal", "said"),
    [
        (b"{", False, "The file 'request.json' of 'lstm-1' cannot be read: its content is damaged."),
        (
            b'{"schema_version":9}',
            False,
            "The file 'request.json' of 'lstm-1' has another form: it has schema_version",
        ),
        (b'{"schema_version":9}', True, "A record of 'lstm-1' is damaged: its hash has changed."),
        (None, False, ""),
    ],
)
def test_reason__says_damaged_of_another_form_only_where_a_hash_is_wrong(
    tmp_path: Path, content: bytes | None, seal: bool, said: str
) -> None:
    run = RunStore(tmp_path).create(record("lstm-1", None))
    assert unreadable(run) is None
    if seal:
        run.result.write_bytes(b"{}")
        run.write_seal()
        run.result.unlink()
    if content is not None:
        (run.path / "request.json").write_bytes(content)
    else:
        (run.path / "request.json").unlink()
    found = unreadable(run)
    assert (found.reason if found else "").startswith(said) and (found is None) == (said == "")
