"""API keys: the client of a key, and what stands for a client elsewhere."""

import pytest
from pydantic import SecretStr

from trainer.config.settings import ApiKey
from trainer.http.api import ApiKeys
from trainer.lab.permissions import Caller
from trainer.lab.requests import ApiClient
from trainer.queue.run_index import owner_number

KEYS = ApiKeys(
    [
        ApiKey("ana", "user", SecretStr("ana-0123456789abcdef")),
        ApiKey("700", "admin", SecretStr("700-0123456789abcdef")),
    ]
)


def client(key: str) -> ApiClient:
    return KEYS.client({"X-Api-Key": key})


def test_name__of_a_discord_user_stands_for_that_user() -> None:
    ana, person = client("ana-0123456789abcdef"), client("700-0123456789abcdef")
    assert (ana.caller.discord_id, person.caller.discord_id) == (None, 700)
    assert person.caller == Caller(700, is_admin=True, key_name="700")
    assert ana.caller.user_id < 0
    assert (ana.caller.owner, person.caller.owner, Caller(7).owner, Caller(0).owner) == ("ana", 700, 7, None)


@pytest.mark.parametrize("name", ["0", "007", "0700", "1" * 20, "7e2", "-700", "ana", "a7"])
def test_name__that_is_no_id_of_discord_stands_for_nobody_there(name: str) -> None:
    assert ApiClient(name, is_admin=False).caller.discord_id is None
    assert owner_number(name) < 0


def test_names__stand_for_different_owners() -> None:
    names = [*map(str, range(200)), *(f"key-{number}" for number in range(200)), "007", "7"]
    assert len({owner_number(name) for name in names}) == len(set(names))


def test_idempotency__depends_on_secret_path_and_key() -> None:
    ana, person = client("ana-0123456789abcdef"), client("700-0123456789abcdef")
    known = {one.idempotency(path, key) for one in (ana, person) for path in ("/a", "/b") for key in ("1", "2")}
    assert len(known) == 8
    assert ana.idempotency("/a", "1") in known
    assert ApiClient("ana", is_admin=False).idempotency("/a", "1") not in known
