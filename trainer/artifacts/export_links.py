"""Signed links under which the HTTP API serves the files of exports without a key."""

import hmac
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from trainer.contracts.errors import AppError, ErrorCode
from trainer.system.files import BrokenFile, read_regular

_KEY_BYTES = 32


def export_link(file: Path, public_url: str, expires_at: int) -> str:
    """Return the address from which anybody can download the file of an export until a Unix time."""
    path = f"{file.parent.name}/{file.name}"
    signature = _signature(_key(file.parents[2]), path, expires_at)
    return f"{public_url.rstrip('/')}/exports/{quote(path)}?expires={expires_at}&signature={signature}"


def linked_file(artifacts_root: Path, path: str, expires: str, signature: str) -> Path:
    """Return the file of a link; raises FORBIDDEN for a wrong or expired link, NOT_FOUND for a deleted file."""
    is_right = hmac.compare_digest(_signature(_key(artifacts_root), path, expires).encode(), signature.encode())
    if not is_right or int(expires) < time.time():
        raise AppError(ErrorCode.FORBIDDEN, "This link has expired, or a part of it is missing. Export again.")
    file = artifacts_root / "exports" / path
    if not file.is_file():
        raise AppError(ErrorCode.NOT_FOUND, "This file has been deleted. Export again.")
    return file


def _key(artifacts_root: Path) -> bytes:
    """Return the key of the links, which their first use creates."""
    path = artifacts_root / "links.key"
    with suppress(FileNotFoundError, BrokenFile):
        key = read_regular(path)
        if len(key) == _KEY_BYTES:
            return key
    key = secrets.token_bytes(_KEY_BYTES)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
    return key


def _signature(key: bytes, path: str, expires: int | str) -> str:
    return hmac.new(key, f"{path}\n{expires}".encode(), "sha256").hexdigest()
