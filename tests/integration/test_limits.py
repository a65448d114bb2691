"""Limits in the chat: a refused command answers in grey and queues nothing."""

from pathlib import Path

from local_discord import Upload
from tests.support.bot import GREY, TEXT, place
from trainer.config.settings import LimitSettings


async def test_chat__above_a_limit_is_told_in_grey_and_nothing_is_queued(tmp_path: Path) -> None:
    few = LimitSettings(attachment_bytes=5000, runs_per_user=2, requests_per_minute=3)
    async with place(tmp_path, groups={"limits": few}) as here:
        said = [await here.ask(here.bob, "train", {"file": Upload("cats.txt", TEXT)}) for _ in range(3)]
        by_admin = [await here.ask(here.ana, "train", {"file": Upload("cats.txt", TEXT)}) for _ in range(3)]
        asked = [await here.ask(here.bob, "score", {"text": "cat"}) for _ in range(4)]
        public = await here.ask(here.bob, "generate", {"prompt": "a"})
        assert ["Queued" in one.text for one in said] == [True, True, False]
        assert "⏳ Rate limit exceeded" in said[2].text and said[2].colour == GREY and said[2].is_ephemeral
        assert all("Queued" in one.text for one in by_admin)
        assert len(here.runs()) == 5
        assert "no completed run" in asked[2].text
        assert "3 requests per minute" in asked[3].text and "3 requests per minute" in public.text
        assert public.is_ephemeral
