"""The ledger `dm.json`: watchers of a run and the messages sent to them, also with concurrent writers."""

import asyncio
from pathlib import Path

import pytest

from bot.people.watchers import Ledger, SentMessage, Watcher, read_ledger
from tests.support.stories import STARTER, Story, run_record

OTHER = STARTER + 1


def test_starter__watches_by_default(tmp_path: Path) -> None:
    started = Story(tmp_path, run_record()).run
    local = Story(tmp_path, run_record("char_lstm-local", user_id=None)).run
    assert read_ledger(started).watchers == (Watcher(user_id=STARTER),)
    assert read_ledger(local).watchers == ()


@pytest.mark.parametrize("data", [b"{", b'{"schema_version":3}'])
def test_broken_file__is_an_error(tmp_path: Path, data: bytes) -> None:
    run = Story(tmp_path, run_record()).run
    run.message_ledger.write_bytes(data)
    with pytest.raises(ValueError, match="validation error"):
        read_ledger(run)


async def test_updates__at_the_same_time_and_cancelled_ones_are_all_stored(tmp_path: Path) -> None:
    run = Story(tmp_path, run_record(user_id=None)).run
    ledger = Ledger(run)
    notes = [asyncio.create_task(ledger.watch(user_id, None)) for user_id in range(40)]
    await asyncio.sleep(0)
    for note in notes[::2]:
        note.cancel()
    await asyncio.gather(*notes, return_exceptions=True)
    await ledger.watch(40, None)
    assert [watcher.user_id for watcher in read_ledger(run).watchers] == list(range(41))


async def test_update__of_a_cancelled_caller_is_on_disk_before_the_caller_ends(tmp_path: Path) -> None:
    run = Story(tmp_path, run_record(user_id=None)).run
    note = asyncio.create_task(Ledger(run).watch(OTHER, None))
    await asyncio.sleep(0)
    note.cancel()
    await asyncio.wait((note,))
    assert note.cancelled()
    assert read_ledger(run).watchers == (Watcher(user_id=OTHER),)


async def test_watching__continues_with_the_same_messages_in_the_same_place_only(tmp_path: Path) -> None:
    ledger = Ledger(Story(tmp_path, run_record()).run)
    card = SentMessage(nonce="1", message_id=1)
    here = await ledger.update(await ledger.watch(OTHER, 5), card=card, watches=False)
    again = await ledger.watch(OTHER, 5)
    elsewhere = await ledger.watch(OTHER, None)
    assert again == here.model_copy(update=WATCHES)
    assert elsewhere == Watcher(user_id=OTHER)


async def test_watching__sends_the_end_once_to_a_watcher(tmp_path: Path) -> None:
    ledger = Ledger(Story(tmp_path, run_record()).run)
    final = SentMessage(nonce="1", message_id=1)
    told = await ledger.update(await ledger.watch(OTHER, 5), final=final)
    assert await ledger.watch(OTHER, None) == told
    assert [watcher.user_id for watcher in ledger.current.pending] == [STARTER]


WATCHES: dict[str, object] = {"watches": True}
