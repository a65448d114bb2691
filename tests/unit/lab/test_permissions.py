"""Permissions: who is known, the words of a refusal, and the stored access; who may do what is in test_rights."""

from pathlib import Path

import pytest

from tests.support.batteries import battery_record
from tests.support.refusals import refused
from tests.support.stories import STARTER, run_record
from trainer.config.settings import DiscordSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import Role
from trainer.lab.permissions import AccessList, Caller, Owned, Permissions, no_member

OWNER, ADMIN, OTHER, MEMBER, STRANGER = 1, 2, 3, 4, 5
GUILD = 90


class Guilds:
    """Discord's answers to member requests, with a count of the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def is_member(self, guild_id: int, user_id: int) -> bool:
        self.asked.append((guild_id, user_id))
        return (guild_id, user_id) == (GUILD, MEMBER)


def permissions(*, private_runs: bool = False, guilds: Guilds | None = None) -> Permissions:
    settings = DiscordSettings(
        owner_id=OWNER,
        admin_ids=(ADMIN,),
        allowed_user_ids=(STARTER, OTHER),
        allowed_guild_ids=(80, GUILD),
        private_runs=private_runs,
    )
    return Permissions(settings, (guilds or Guilds()).is_member)


@pytest.mark.parametrize(
    ("user_id", "guild_id", "is_admin"),
    [
        (OWNER, None, True),
        (ADMIN, 77, True),
        (STARTER, None, False),
        (MEMBER, None, False),
        (MEMBER, 77, False),
        (STRANGER, GUILD, False),  # who calls from an allowed guild is in it
    ],
)
async def test_caller__by_id_and_by_guild(user_id: int, guild_id: int | None, is_admin: bool) -> None:
    assert await permissions().caller(user_id, guild_id) == Caller(user_id, is_admin)


async def test_stranger__is_refused_and_sees_a_person_to_ask() -> None:
    of_guild, of_user = DiscordSettings(allowed_guild_ids=(GUILD,)), DiscordSettings(allowed_user_ids=(OTHER,))
    for guild_id in (None, 77):
        with refused(ErrorCode.FORBIDDEN, f"Ask <@{OWNER}> to add you"):
            await permissions().caller(STRANGER, guild_id)
    with refused(ErrorCode.FORBIDDEN, "Ask the operator of this bot"):
        await Permissions(of_user, Guilds().is_member).caller(STRANGER, None)
    with refused(ErrorCode.FORBIDDEN):  # without Discord, nobody is known as a member
        await Permissions(of_guild, no_member).caller(MEMBER, None)


@pytest.mark.parametrize("user_id", [MEMBER, STRANGER])
async def test_membership__is_cached(user_id: int) -> None:
    guilds = Guilds()
    rights = permissions(guilds=guilds)
    for _ in range(3):
        try:
            await rights.caller(user_id, None)
        except AppError:
            assert user_id == STRANGER
    assert guilds.asked == [(80, user_id), (GUILD, user_id)]


SCORED = changed(battery_record("lstm-1")[0], user_id=STARTER)


@pytest.mark.parametrize(
    ("private_runs", "role", "owned", "http", "chat"),
    [
        (False, Role.ADMIN, None, "Only admins may do this.", f"`/mt cancel` is only for admins. Ask <@{OWNER}>."),
        (
            False,
            Role.OWNER,
            SCORED,
            "Only the owner of this battery and admins may do this.",
            f"`/mt cancel` is only for the run's owner and admins. Ask <@{STARTER}>.",
        ),
        (
            True,
            Role.USER,
            SCORED,
            "Only the owner of this battery and admins may do this.",
            f"This battery is private. Ask its owner or <@{OWNER}>.",
        ),
        *(
            (
                False,
                Role.OWNER,
                run_record(user_id=starter),
                "Only the owner of this run and admins may do this.",
                f"`/mt cancel` is only for the run's owner and admins. Ask <@{contact}>.",
            )
            for starter, contact in ((None, OWNER), (STARTER, STARTER))
        ),
        (
            True,
            Role.OWNER,
            run_record(),
            "Only the owner of this run and admins may do this.",
            f"This run is private. Ask its owner or <@{OWNER}>.",
        ),
    ],
)
def test_refusal__names_a_person_to_ask_in_discord_only(
    private_runs: bool, role: Role, owned: Owned | None, http: str, chat: str
) -> None:
    rights = permissions(private_runs=private_runs)
    with pytest.raises(AppError) as refused:
        rights.check(role, Caller(OTHER), owned, "battery" if owned is SCORED else "run")
    worded = rights.worded(refused.value, "cancel")
    assert (refused.value.message, worded.message) == (http, chat)
    assert refused.value.code is worded.code is ErrorCode.FORBIDDEN


@pytest.mark.parametrize("private_runs", [False, True])
def test_private_run__sends_messages_to_its_starter_and_admins_only(private_runs: bool) -> None:
    rights = permissions(private_runs=private_runs)
    receivers = [user_id for user_id in (OWNER, ADMIN, OTHER, STARTER) if rights.can_receive(user_id, run_record())]
    assert receivers == ([OWNER, ADMIN, STARTER] if private_runs else [OWNER, ADMIN, OTHER, STARTER])


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
