"""The stored access: durable, and refused if its file is damaged."""

from pathlib import Path

import pytest

from trainer.contracts.errors import AppError, ErrorCode
from trainer.people.permissions import AccessList


async def test_levels__are_stored_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    access = AccessList(path)
    await access.set(7, "user")
    await access.set(5, "user")
    await access.set(7, "none")
    stored = AccessList(path)
    assert [stored.of(user_id) for user_id in (5, 7, 9)] == ["user", "none", None]


def test_damaged_file__is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "access.json"
    path.write_text('{"members": [{"user_id": 1, "level": "admin"}]}', encoding="utf-8")
    with pytest.raises(AppError, match="Restore or delete it") as refused:
        AccessList(path)
    assert refused.value.code is ErrorCode.CONFIG_INVALID and str(tmp_path) not in refused.value.message
