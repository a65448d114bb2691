"""Inference commands on Discord: scores, reports for admins, generations and buttons, across restarts of the bot."""

import multiprocessing
import re
import shutil
from pathlib import Path

import pytest

from local_discord import LocalDiscord, Upload
from local_discord.limits import walk
from local_discord.state import StoredMessage
from local_discord.wire import number, text
from tests.support.bot import AMBER, GREY, TOKEN, buttons, ended, start_bot
from tests.support.inference import RUN, finished_run
from tests.support.inference_bot import answer, is_hidden, place, said
from tests.support.stories import Story, run_record
from tests.support.waiting import ANSWER_SECONDS
from trainer.contracts.scores import ScoreResponse
from trainer.reports.surprisal_report import MAX_REPORT_CHARACTERS
from trainer.store import keys
from trainer.system.files import try_lock

PURPLE = 0x9B59B6
VERSE = "the sun was shining on the sea"


async def test_score__in_every_way_and_the_report_for_admins(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        summary = await here.ask(here.ana, "score", text=VERSE)
        in_nats = await here.ask(here.bob, "score", text=VERSE, unit="nats")
        in_file = await here.ask(here.bob, "score", file=Upload("verse.txt", b"\xef\xbb\xbf" + VERSE.encode()))
        in_table = await here.ask(here.bob, "score", file=Upload("verse.csv", f"id,text\n1,{VERSE}\n".encode()))
        refused = await here.ask(here.bob, "score", text=VERSE, detail="per_char")
        report = await here.ask(here.ana, "score", text=VERSE + "\nЖ !", detail="per_char", top_k=2)
        of_button = await here.click(here.ana, summary, "Detail")
        of_csv = await here.click(here.ana, summary, "CSV")
        strange = await here.ask(here.bob, "score", text="the Ж sun Ж")
        blank = await here.ask(here.bob, "score", text=" ")
        assert re.search(r"\*\*\d\.\d{3}\*\* bits/token · \d\.\d{3} bits/char · perplexity", said(summary))
        assert f"📏 Score of {len(VERSE)} characters" in said(summary) and is_hidden(summary)
        assert re.search(r"\*\*\d\.\d{3}\*\* nats/token · \d\.\d{3} nats/char", said(in_nats))
        assert said(in_file).split("request")[0] == said(summary).split("request")[0]
        assert f"Score of {len(VERSE) + 1} characters" in said(in_table)
        assert "1 text read from the field" in said(in_table)
        assert list(buttons(summary)) == ["Score another…", "Detail", "CSV"]
        assert list(buttons(in_nats)) == ["Score another…"]
        assert "📏 Score of" in said(refused) and refused.attachments == []
        assert f"`/mt score detail:per_char` is only for admins. Ask <@{here.ana.id}>." in said(refused)
        assert is_hidden(report) and number(report.embeds[0]["color"]) == PURPLE
        suffixes = ("png", "html", "csv", "json")
        assert [text(file["filename"]) for file in report.attachments] == [f"surprisal.{one}" for one in suffixes]
        picture, page, table, numbers = (here.discord.read(file) for file in report.attachments)
        assert page.startswith(b"<!DOCTYPE html>")
        parsed = ScoreResponse.model_validate_json(numbers)
        assert picture.startswith(b"\x89PNG") and "highest" in text(report.attachments[0]["description"])
        assert len(table.decode().splitlines()) == 1 + len(VERSE) + 3
        assert parsed.topk is not None and "".join(parsed.tokens or ()) == VERSE + "[UNK] [UNK]"
        assert [len(expected) for expected in parsed.topk] == [2] * (len(VERSE) + 3)
        assert "Most surprising, and the expected tokens" in said(report)
        [alone] = of_csv.attachments
        assert text(alone["filename"]) == "surprisal.csv" and is_hidden(of_csv)
        assert here.discord.read(alone).decode().count("\n") == 1 + len(VERSE)
        assert "2 unknown characters (Ж ×2)" in said(strange)
        assert "🔬 Surprisal report" in said(of_button) and is_hidden(of_button)
        assert number(blank.embeds[0]["color"]) == AMBER and "blank" in said(blank)


async def test_segmentation__answers_with_the_report_of_a_text_file(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        upload = Upload("verses.txt", b"\xef\xbb\xbf" + f"{VERSE}\r\n".encode() * 10)
        found = await answer(await here.discord.slash(here.bob, "mt-reading segment", {"file": upload}))
        short = Upload("verse.txt", VERSE.encode())
        refused = await answer(await here.discord.slash(here.bob, "mt-reading segment", {"file": short}))
        spoken = Upload("verses.cha", f"*MOT:\t{VERSE} .\n%mor:\tn|x\n".encode() * 10)
        of_transcript = await answer(await here.discord.slash(here.bob, "mt-reading segment", {"file": spoken}))
        assert "✂ Word segmentation of verses.txt" in said(found) and is_hidden(found)
        assert "tropy" in said(found) and "10 lines without their spaces: 26.1%" in said(found)
        assert "10 lines read without codes, by speakers MOT 10" in said(of_transcript)
        assert "10 lines without their spaces" in said(of_transcript)
        assert number(refused.embeds[0]["color"]) == AMBER
        assert "The text has 1 line of two characters or more. Give 10 or more." in said(refused)


@pytest.mark.slow
async def test_report__of_a_long_text_names_the_part_that_is_left_out(answers: Path) -> None:
    lines = (VERSE + "\n") * (1 + MAX_REPORT_CHARACTERS // len(VERSE))
    async with place(answers) as here, here.bot(workers=0):
        upload = Upload("long.txt", lines.encode())
        report = await here.ask(here.ana, "score", file=upload, detail="per_char", top_k=0)
        strange = await here.ask(here.ana, "score", file=Upload("long.txt", (lines + "Ж").encode()))
        [child] = multiprocessing.active_children()
        child.kill()
        lost = await here.ask(here.ana, "score", text=VERSE, detail="per_char")
        rest = f"{len(lines) - MAX_REPORT_CHARACTERS:,}".replace(",", "\u202f")
        assert f"The report leaves out the last {rest} characters" in said(report)
        assert "The picture shows the first 750 characters" in said(report)
        parsed = ScoreResponse.model_validate_json(here.discord.read(report.attachments[3]))
        assert parsed.n_tokens == len(lines[:MAX_REPORT_CHARACTERS].replace("\n", ""))
        assert parsed.topk is None
        assert "1 unknown character" in said(strange) and "Ж" not in said(strange), "in a long text, none are named"
        assert number(lost.embeds[0]["color"]) == GREY and "could not be created" in said(lost)


async def test_chat__continues_by_its_button_until_it_has_expired(answers: Path) -> None:
    async with place(answers) as here, here.store() as store:
        starting = try_lock(answers / "data" / "services" / "worker.lock")
        assert starting is not None
        with starting:  # as a worker of this folder that has not told anybody of itself yet
            async with here.bot(workers=0):
                await store.delete(keys.WORKER)
                first = await here.ask(here.bob, "chat", message="the sun")
        await store.put(keys.WORKER, b"1", ttl_seconds=ANSWER_SECONDS)  # which the worker tells again in its time
        async with here.bot(workers=0):
            opened = await here.press(here.bob, first, "Reply…")
            form = await opened.form()
            second = await answer(await here.discord.submit_modal(opened, {"message": "the sea"}))
            await store.delete(keys.chat(RUN, session(second)))
            expired = await answer(await here.press(here.bob, second, "Reply…"))
        assert is_hidden(first) and "the sun" in said(first) and "token" in said(first)
        assert text(form["title"]).startswith("Reply to")
        assert "the sea" in said(second) and list(buttons(second)) == ["Reply…"]
        assert buttons(first) == buttons(second), "it is the same chat"
        assert "expired" in said(expired)


async def test_chat__continues_in_the_callers_session_until_a_new_one(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        first = await here.ask(here.bob, "chat", message="the sun")
        second = await here.ask(here.bob, "chat", message="the sea")
        of_ana = await here.ask(here.ana, "chat", message="the sea")
        new = await here.ask(here.bob, "chat", message="the sea", session="new")
        named = await here.ask(here.bob, "chat", message="on", session=session(first))
        last = await here.ask(here.bob, "chat", message="on")
        unknown = await here.ask(here.bob, "chat", message="on", session="0123456789abcdef")
        wrong = await here.ask(here.bob, "chat", message="on", session="É")
    assert session(first) == session(second) == session(named) == session(last)
    assert len({session(first), session(of_ana), session(new)}) == 3
    assert "expired" in said(unknown) and "`session_id`" in said(wrong)


def session(message: StoredMessage) -> str:
    found = re.search(r"session `([0-9a-f]{16})`", said(message))
    assert found is not None
    return found[1]


async def test_predict__shows_the_likeliest_next_tokens(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        three = await here.ask(here.bob, "predict", text="the su", k=3)
        usual = await here.ask(here.bob, "predict", text="the su")
        empty = await here.ask(here.bob, "predict", text="\n")
    assert is_hidden(three) and said(three).count("%") == 3
    assert said(usual).count("%") == 5
    assert "`text` has no token for this model. Give at least one word." in said(empty)


async def test_generation_form__opens_without_a_prompt_and_keeps_the_options(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        options: dict[str, float] = {"temperature": 0.5, "max_new_tokens": 7, "seed": 3}
        opened = await here.discord.slash(here.bob, "mt generate", options)
        form = await opened.form()
        made = await answer(await here.discord.submit_modal(opened, {"prompt": "the "}))
        too_long = await here.ask(here.bob, "generate", max_new_tokens=101)
        nowhere = await here.ask(here.bob, "generate", run="nowhere")
    assert text(form["title"]) == f"Generate with {RUN}"
    assert "T 0.5 · seed 3" in said(made) and not is_hidden(made)
    assert "at most 100 here" in said(too_long) and "There is no run" in said(nowhere)


@pytest.mark.slow
async def test_score_form__takes_long_texts_and_keeps_the_options(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0):
        opened = await here.discord.slash(here.ana, "mt score", {"detail": "per_char", "unit": "nats", "top_k": 1})
        form = await opened.form()
        report = await answer(await here.discord.submit_modal(opened, {"text": VERSE * 100}))
        again = await here.press(here.ana, report, "Score another…")
        second = await answer(await here.discord.submit_modal(again, {"text": VERSE}))
        assert text(form["title"]).startswith("Score with")
        assert number(report.embeds[0]["color"]) == number(second.embeds[0]["color"]) == PURPLE
        assert f"of {len(VERSE)} characters" in said(second) and "nats · median" in said(second)


async def test_buttons_of_a_generation__repeat_change_and_score_it(answers: Path) -> None:
    options: dict[str, str | float] = {"prompt": "the ", "seed": 5, "temperature": 0.1, "samples": 2}
    async with place(answers) as here, here.store() as store:
        async with here.bot(workers=0):
            first = await here.ask(here.bob, "generate", **options, max_new_tokens=9)
            again = await here.click(here.bob, first, "Again")
            edited_form = await here.press(here.bob, again, "Edit…")
            form = await edited_form.form()
        async with here.bot(workers=0):  # another process, the same buttons
            hotter = await here.click(here.ana, first, "Hotter")
            cooler = await here.click(here.bob, first, "Cooler")
            scored = await here.click(here.bob, first, "Score this")
            changed = {"prompt": "on ", "settings": "temperature: 2\nmax_new_tokens: 3\nseed: 7"}
            edited = await answer(await here.discord.submit_modal(edited_form, changed))
            wrong_form = await here.press(here.bob, first, "Edit…")
            wrong = await answer(await here.discord.submit_modal(wrong_form, {"settings": "max_new_tokens: 101"}))
            by_stranger = await here.click(here.eve, first, "Again")
            form_for_stranger = await here.click(here.eve, first, "Edit…")
            request_id = buttons(first)["Again"].rsplit(":", 1)[1]
            await store.delete(keys.inference("generate", RUN, request_id))  # as when its time has passed
            for label in ("Again", "Hotter", "Score this", "Edit…"):
                late = await here.click(here.bob, first, label)
                assert "have expired: send the request again." in said(late)
                assert number(late.embeds[0]["color"]) == AMBER and is_hidden(late)
        assert "T 0.1 · seed 5" in said(first) and not is_hidden(first)
        assert list(buttons(first)) == ["Again", "Edit…", "Hotter", "Cooler", "Score this"]
        assert "the" not in "".join(buttons(first).values()).split(RUN)[1]
        assert "T 0.1 · seed" in said(again) and "seed 5 " not in said(again)
        assert "T 0.3 · seed 5" in said(hotter) and not is_hidden(hotter)
        assert "T 0 · seed 5" in said(cooler) and "Cooler" not in buttons(cooler)
        assert "📏 Score of" in said(scored) and is_hidden(scored)
        fields = {
            text(found["custom_id"]): found.get("value") for _, found in walk(form["components"]) if "style" in found
        }
        assert fields["prompt"] == "the "
        assert "temperature: 0.1" in text(fields["settings"]) and "samples: 2" in text(fields["settings"])
        assert "T 2 · seed 7" in said(edited) and said(edited).count("```") == 2 and "Hotter" not in buttons(edited)
        assert "`max_new_tokens` may be at most 100 here, you gave 101" in said(wrong) and is_hidden(wrong)
        for refused in (by_stranger, form_for_stranger):
            assert "Forbidden" in said(refused) and is_hidden(refused)


async def test_final_message__has_buttons_for_inference(answers: Path) -> None:
    async with place(answers) as here, here.bot(workers=0, private_runs=True) as bot:
        finished_run(answers, "char_lstm-2", here.bob.id)
        bot.notifier.follow("char_lstm-2")
        final = await here.discord.wait_for_message(here.discord.dm_channel(here.bob), "· result")
        made = await here.click(here.bob, final, "Generate")
        opened = await here.press(here.bob, final, "Score…")
        scored = await answer(await here.discord.submit_modal(opened, {"text": VERSE}))
        refused = await here.ask(here.bob, "score", text="x", run=RUN)
        assert "T 1 · seed" in said(made) and "char_lstm-2" in said(made)
        assert f"Score of {len(VERSE)} characters" in said(scored)
        assert "private" in said(refused) and is_hidden(refused)
    shutil.rmtree(answers / "artifacts" / "models" / "char_lstm-2")


@pytest.mark.slow
async def test_bot_process__stays_small_while_it_shows_a_hundred_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # the measurement takes 7 MB
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as server:
        ana = server.add_user("ana")
        story = Story(tmp_path / "artifacts", run_record("char_lstm-1", user_id=ana.id)).start()
        story.step(10, 3.0).step(20, 2.0).complete()
        environment = {"TOKEN": TOKEN, "OWNER_ID": str(ana.id)}
        environment |= {"API_BASE_URL": server.api_base_url, "GATEWAY_URL": server.gateway_url}
        environment = {f"DISCORD__{name}": value for name, value in environment.items()}
        bot = await start_bot(tmp_path, environment | {"QUEUE__EMBEDDED_WORKERS": "0"})
        await server.connected()
        await server.synced()
        idle = anonymous_mb(bot.pid)
        for _ in range(20):
            calls = [await server.slash(ana, "mt status", {}) for _ in range(5)]
            replies = [await call.reply() for call in calls]
            assert all(server.read(reply.attachments[0]).startswith(b"\x89PNG") for reply in replies)
        after = anonymous_mb(bot.pid)
        bot.terminate()
        code, _ = await ended(bot)
    assert code == 0
    assert idle <= 77 and after <= 82


def anonymous_mb(pid: int) -> float:
    """Return the anonymous memory of a process; pages of files depend on the machine."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    kilobytes = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert kilobytes is not None
    return int(kilobytes[1]) * 1024 / 1e6
