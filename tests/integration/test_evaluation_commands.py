"""`/mt eval`: its answer, its buttons, and results that come after the bot's restart or after 15 minutes."""

from math import log
from pathlib import Path

from local_discord.driver import shown_text
from local_discord.state import Call, StoredMessage
from local_discord.wire import number, rows, text
from tests.support.bot import AMBER, ORIGINAL, buttons, components
from tests.support.inference import RUN
from tests.support.inference_bot import Place, answer, is_hidden, place, said
from tests.support.lab import Lab
from tests.support.messages import MASKED_EVALUATION
from trainer.contracts.base import changed, now
from trainer.contracts.errors import AppError, ErrorCode, RunError
from trainer.contracts.evaluations import EvalRecord, EvalRequest
from trainer.contracts.events import InferenceCompleted
from trainer.store import keys


async def result(call: Call) -> StoredMessage:
    """The answer that replaces the note."""
    await call.answered()
    message = await call.reply()
    await call.changes.until(lambda: "Evaluating…" not in said(message), 60, "A result")
    return message


async def test_eval__has_the_figures_of_its_metrics(lab: Lab) -> None:
    async with lab.queue() as queue, place(lab.folder) as here, here.bot(workers=0):
        run_id = (await lab.finished_run(queue)).run_id
        of_split = await result(await here.discord.slash(here.bob, "mt eval", {"run": run_id}))
        of_corpus = await result(await here.discord.slash(here.bob, "mt eval", {"run": run_id, "corpus": "tex"}))
        for message, request, measured in (
            (of_split, EvalRequest(), "validation split"),
            (of_corpus, EvalRequest(path_override="text"), "corpus text"),
        ):
            metrics = (await queue.inference.ask(run_id, request)).measured()
            shown = said(message).replace("**", "").replace(" · ", ", ").replace("\u202f", ",")
            unknown = f"{metrics.unknown_char_share:.1%} of the text unknown"
            half = metrics.lines.margin_nats
            margin = "" if half is None else f" ± {half / log(2):.3f} (95 %)"
            figures = f"{metrics.loss / log(2):.3f}{margin} bits/token, {metrics.bits_per_char:.3f} bits/char"
            assert f"{figures}, perplexity {metrics.perplexity:.2f}" in shown
            assert f"Accuracy {metrics.top1_accuracy:.1%}, top-5 {metrics.top5_accuracy:.1%}" in shown
            assert f"{metrics.n_tokens:,} predicted tokens, {unknown}" in shown
            assert measured in shown and is_hidden(message)
        status = await here.ask(here.bob, "status", run=run_id)
        tested = (await queue.inference.ask(run_id, EvalRequest(split="test"))).measured()
        bits = "" if tested.bits_per_char is None else f" · {tested.bits_per_char:.3f} bits/char"
        figures = f"Test **{tested.loss / log(2):.3f}** bits/token{bits} · perplexity {tested.perplexity:.2f}"
        assert figures in said(status), "the card has the digits of `mt eval`"
        choice = await here.click(here.bob, status, "Eval on…")
        [select] = [one for one in components(choice) if "options" in one]
        offered = [text(option["value"]) for option in rows(select["options"])]
        assert offered[:2] == ["/validation", "/test"] and "text" in offered
        of_test, of_text = [
            said(await result(await here.discord.click(here.bob, choice, text(select["custom_id"]), [value])))
            for value in ("/test", "text")
        ]
        assert "its own test split" in of_test and of_text.split(run_id)[0] == said(of_corpus).split(run_id)[0]
        both = await here.ask(here.bob, "eval", run=run_id, corpus="text", split="test")
        assert "Give `corpus` or `split`, not both" in said(both) and number(both.embeds[0]["color"]) == AMBER
        assert "There is no corpus 'nowhere'" in said(await here.ask(here.bob, "eval", run=run_id, corpus="nowhere"))


async def finish(here: Place, note: StoredMessage, **outcome: object) -> None:
    """Be the worker that answers the evaluation which a note is about."""
    request_id = buttons(note)["Show result"].rsplit(":", 1)[1]
    key = keys.inference("evaluate", RUN, request_id)
    event = InferenceCompleted(
        event_id=request_id, ts=now(), job_id=RUN, user_id=None, request_id=request_id, kind="evaluate"
    )
    async with here.store() as store:
        record = EvalRecord.model_validate_json(await store.get(key) or b"")
        done = changed(record, response=changed(record.response, **outcome))
        await store.put_answer(key, request_id, done.model_dump_json(), event, ttl_seconds=60)


async def worker_is_known(here: Place) -> None:
    async with here.store() as store:
        await store.renew_worker(seconds=60)


async def test_result__replaces_the_note_also_for_a_pressed_button(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.bot(workers=0):
        await worker_is_known(here)
        first = await here.discord.slash(here.bob, "mt eval", {})
        note = await answer(first)
        before = len(note.versions)
        waiting = await here.press(here.bob, note, "Show result")
        await waiting.changes.until(lambda: len(note.versions) > before, 60, "The note of the pressed button")
        await finish(here, note, status="completed", metrics=MASKED_EVALUATION)
        await result(waiting)
    figures = said(note).replace("**", "")
    assert "📐 Evaluation of" in figures and f"{2 / log(2):.3f} bits/masked token · perplexity 7.39" in figures
    assert "bits/char" not in figures and buttons(note) == {}
    assert "its own validation split" in shown_text(note.versions[1].payload)


async def test_result__after_15_minutes_is_a_direct_message_and_so_is_an_error(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with here.bot(workers=0):
            await worker_is_known(here)
            calls = [await here.discord.slash(here.bob, "mt eval", {}) for _ in range(2)]
            notes = [await answer(call) for call in calls]
            for call in calls:
                call.created_seconds -= 15 * 60
            dm = here.discord.dm_channel(here.bob)
            here.discord.fail_next("POST", "/channels/{channel_id}/messages", "reply_lost")
            await finish(here, notes[0], status="completed", metrics=MASKED_EVALUATION)
            sent = await here.discord.wait_for_message(dm, "📐 Evaluation of")
            error = RunError.of(AppError(ErrorCode.MODEL_LOAD_FAILED, "Its weights are gone."))
            await finish(here, notes[1], status="failed", error=error)
            failed = await here.discord.wait_for_message(dm, "Its weights are gone.")
            shown = await result(await here.press(here.bob, notes[0], "Show result"))
        kinds = {(violation.kind, violation.where) for violation in here.discord.violations}
        here.discord.violations.clear()
    assert not is_hidden(sent) and "· request" in said(sent)
    assert failed.id > sent.id and "📐 Evaluation of" in said(shown)
    assert len([one for one in here.discord.messages(dm) if one.visible_to is None]) == 2  # each once
    assert kinds == {("interaction", f"PATCH {ORIGINAL}")}  # the clock of the server counts


async def test_eval__without_metrics_in_the_answer_says_so(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.bot(workers=0):
        await worker_is_known(here)
        call = await here.discord.slash(here.bob, "mt eval", {})
        note = await answer(call)
        await finish(here, note, status="completed")
        await result(call)
        assert "No worker has answered" in said(note)
