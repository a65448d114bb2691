"""Notifications go to the watchers of a run as long as they may see it."""

import pytest

from tests.support.stories import STARTER, run_record
from trainer.config.settings import DiscordSettings
from trainer.people.permissions import Permissions

OWNER, ADMIN, OTHER = 1, 2, 3


@pytest.mark.parametrize("private_runs", [False, True])
def test_private_run__is_told_to_its_starter_and_admins_only(private_runs: bool) -> None:
    rights = Permissions(DiscordSettings(owner_id=OWNER, admin_ids=(ADMIN,), private_runs=private_runs), is_member)
    told = [user_id for user_id in (OWNER, ADMIN, OTHER, STARTER) if rights.can_receive(user_id, run_record())]
    assert told == ([OWNER, ADMIN, STARTER] if private_runs else [OWNER, ADMIN, OTHER, STARTER])


async def is_member(guild_id: int, user_id: int) -> bool:
    return False
