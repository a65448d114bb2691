"""The page of a run in a browser: actions, log, the form that trains it again, exports, checkpoints and samples."""

from hashlib import sha256
from math import log
from pathlib import Path

import pytest

from tests.support import tiny_request, wait_for_status
from tests.support.browser import Browser, browsing, check_looks, faults, needs_chromium
from tests.support.lab import Lab
from tests.support.served_page import KEY, finish, served
from tests.support.waiting import until
from tests.support.worker_runs import LONG, training
from trainer.artifacts.looks import LookLedger
from trainer.artifacts.run_files import run_files
from trainer.contracts.base import changed

pytestmark = needs_chromium

LOG = ".log"
IS_AT_END = "((one) => one.scrollHeight - one.scrollTop - one.clientHeight < 8)(document.querySelector('.log'))"
ROWS = "[...document.querySelectorAll('[aria-label=\"Text by checkpoint\"] tbody tr')].map((row) => row.innerText)"
STATUS = "document.querySelector('.badge')?.textContent"
BUTTONS = "[...document.querySelectorAll('main button:not([hidden])')].map((one) => one.textContent).slice(0, 2).join()"


async def press_button(browser: Browser, name: str) -> None:
    """Give the focus to a button by the keyboard, and press it."""
    await browser.evaluate("document.querySelector('h1').focus()")
    for _ in range(100):
        if await browser.evaluate(f"document.activeElement.textContent === {name!r}"):
            await browser.press("Enter")
            return
        await browser.press("Tab")
    raise AssertionError(f"Tab never reaches {name}")


async def test_run__is_cancelled_resumed_and_deleted_by_the_keyboard(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        run_id = (await queue.train(tiny_request(label="page action", **LONG), user_id=None)).run_id
        await wait_for_status(queue, run_id, training)
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see(f"{BUTTONS}.startsWith('Cancel,')")
        await press_button(browser, "Cancel")
        await browser.see(f"{STATUS} === 'cancelled' && {BUTTONS} === 'Resume,Delete'")
        await check_looks(browser)
        await press_button(browser, "Resume")
        await browser.see(f"!location.hash.includes({run_id!r}) && {STATUS} && {BUTTONS}.startsWith('Cancel,')")
        resumed = str(await browser.evaluate("location.hash.split('/').pop()"))
        assert queue.runs.get(resumed).record().resumed_from_run_id == run_id
        await browser.see_text(f"Resumed from {run_id}")
        await browser.see("document.querySelector('.line')")
        await press_button(browser, "Cancel")
        await browser.see(f"{STATUS} === 'cancelled'")
        await browser.tab_to(f"a[href='#/runs/{run_id}']")
        await browser.press("Enter")
        child = f"section a[href='#/runs/{resumed}']"
        await browser.see(f"document.querySelector({child!r})")
        await browser.tab_to(child)
        await check_looks(browser)
        await browser.press("Enter")
        await browser.see(f"location.hash.includes({resumed!r}) && {BUTTONS} === 'Resume,Delete'")
        await press_button(browser, "Delete")
        await browser.see("document.querySelector('dialog[open]')?.textContent.includes('Delete the run')")
        assert await faults(browser) == []
        await browser.see_value("document.querySelector(':focus')?.innerText", "No")
        await browser.press("Enter")
        await browser.see("!document.querySelector('#question')")  # before, the button does nothing
        assert queue.runs.find(resumed) is not None
        await press_button(browser, "Delete")
        await browser.see_value("document.querySelector(':focus')?.innerText", "No")
        await browser.press("Tab")
        await browser.press("Enter")
        await browser.see("location.hash === '#/' && document.querySelector('#search')")
        assert queue.runs.find(resumed) is None
        on_their_way = [error for error in browser.errors if "404" in error and f"/runs/{resumed}/" in error]
        assert browser.errors == on_their_way, (
            "requests for the page that were sent before the deletion may come too late"
        )


@pytest.mark.slow
async def test_log__follows_new_lines_and_leaves_the_reader_where_it_reads(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        run_id = (await queue.train(tiny_request(label="page log", **LONG), user_id=None)).run_id
        await wait_for_status(queue, run_id, training)
        log = queue.runs.get(run_id).logs
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see(f"{BUTTONS}.startsWith('Cancel,')")
        await press_button(browser, "Log")
        await browser.see(f"document.querySelector({LOG!r})?.textContent.includes('attempt_started')")
        with log.open("a", encoding="utf-8") as file:
            file.writelines(f"line {number}\n" for number in range(5000))
        await browser.see(f"document.querySelector({LOG!r}).textContent.includes('line 4999')")
        await browser.see(IS_AT_END)
        await browser.see_text("The last 2,000 lines are shown.")
        await browser.evaluate("document.querySelector('.log').scrollTop = 100")
        with log.open("a", encoding="utf-8") as file:
            file.write("one more line\n")
        await browser.see(f"document.querySelector({LOG!r}).textContent.includes('one more line')")
        assert not await browser.evaluate(IS_AT_END)
        await press_button(browser, "Jump to the end")
        await browser.see(IS_AT_END)
        await press_button(browser, "Pause")
        await queue.states.cancel(run_id)
        await browser.see("/Paused: [1-9]/.test(document.body.innerText)")
        assert "run_ended" not in await browser.text(LOG)
        await check_looks(browser)
        await press_button(browser, "Pause")
        await browser.see(f"document.querySelector({LOG!r}).textContent.includes('run_ended status=cancelled')")
        assert browser.errors == []


@pytest.mark.slow
async def test_run__is_trained_again_with_changes_that_the_server_checks(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        run_id = await finish(queue, "page again")
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see(f"{STATUS} === 'completed'")
        await press_button(browser, "Name, note and tags")
        await browser.tab_to("#label")
        await browser.evaluate("document.querySelector('#label').select()")
        await browser.type("renamed")
        await browser.tab_to("#tags")
        await browser.type("pilot, new")
        await browser.tab_to("#note")
        await browser.type("one more time")
        await check_looks(browser)
        await press_button(browser, "Save")
        await browser.see("document.querySelector(\"a[href='#/?where=tags%3Dpilot']\")")
        await browser.see_text("new one more time")
        await browser.see("document.querySelector('h1').textContent === 'renamed'")
        annotations = queue.runs.get(run_id).annotations()
        assert (annotations.label, annotations.note) == ("renamed", "one more time")
        assert annotations.tags == ("pilot", "new")
        await browser.tab_to("a[href^='#/train?']")
        await browser.press("Enter")
        await browser.see("document.querySelector('#field-corpus')?.value === 'text'")
        await check_looks(browser)
        await browser.tab_to("#field-max_steps")
        await browser.type("0")
        await browser.press("Enter")
        await browser.see("document.querySelector('#field-max_steps').ariaInvalid === 'true'")
        await browser.see_value("document.activeElement.id", "field-max_steps")
        await browser.see_text("max_steps must be greater than 0", "#field-max_steps-problem")
        await check_looks(browser)
        await browser.open(f"{address}/#/train?from={run_id}")
        await browser.see("document.querySelector('#field-max_steps')?.value === '0'")
        await browser.evaluate("document.querySelector('#field-max_steps').select()")
        await browser.tab_to("#field-max_steps")
        await browser.type("3")
        await browser.evaluate("document.querySelector('#field-optimizer-betas').closest('details').open = true")
        await browser.tab_to("#field-optimizer-betas")
        await browser.type("0.8, 0.9")
        await browser.press("Enter")
        await browser.see("location.hash.startsWith('#/runs/')")
        again = queue.runs.get(str(await browser.evaluate("location.hash.split('/').pop()"))).record().request
        before = queue.runs.get(run_id).record().request
        assert again.optimizer.betas == (0.8, 0.9)
        assert again == changed(before, label=again.label, max_steps=3, optimizer=again.optimizer)
        assert again.label != "page again"  # which would then name two runs
        assert again.model_fields_set == {*before.model_fields_set, "max_steps", "optimizer"}
        await browser.see_value("sessionStorage.length", 0)
        assert [error for error in browser.errors if "422" not in error] == []


@pytest.mark.slow
async def test_form__shows_what_the_server_chooses_for_the_architecture(lab: Lab, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser, served(lab) as address:
        await browser.open(f"{address}/#/train")
        await browser.see("document.querySelector('#field-corpus')")
        await browser.evaluate("document.querySelector('#field-corpus').focus()")
        await browser.type("tamil")
        await browser.see_text("There is no corpus 'tamil'", "#field-corpus-problem")
        await browser.evaluate("document.querySelector('#field-corpus').select()")
        await browser.type("demo")
        await browser.see_value("document.querySelector('#field-corpus-problem').innerText", "")
        await browser.see_value("document.querySelector('#field-corpus').ariaInvalid", None)
        for family, optimizer in (("gru", "adamw"), ("gpt2", "muon")):
            await browser.evaluate(f"document.querySelector('#field-model_family').value = '{family}'")
            changing = "dispatchEvent(new Event('change', { bubbles: true }))"
            await browser.evaluate(f"document.querySelector('#field-model_family').{changing}")
            for field, value in (("model-architecture", family), ("optimizer-name", optimizer)):
                chosen = f"document.querySelector('#field-{field}').options[0].text"
                await browser.see_value(chosen, f"default: {value}")
            await browser.see_value(
                "document.querySelector('#field-tokenizer-method').options[0].text", "default: char"
            )
            assert await browser.evaluate("document.querySelector('#field-model-hidden_size').value") == ""
            await browser.see_text("memory", "[aria-labelledby=about-what-will-be-trained]")
        await check_looks(browser)
        assert [error for error in browser.errors if "/runs/check" not in error] == []


@pytest.mark.slow
async def test_export__is_downloaded_from_a_server_with_keys(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab, f"page:admin:{KEY}") as address:
        run_id = await finish(queue, "page export")
        await browser.open(f"{address}/docs")
        await browser.evaluate(f"sessionStorage.setItem('api-key', {KEY!r})")
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see("document.querySelector('#export-format option')")
        await browser.evaluate("document.querySelector('#export-format').value = 'csv'")
        await press_button(browser, "Export for other programs")
        await press_button(browser, "Export")
        await browser.see(f"document.activeElement.textContent === '{run_id}-csv.zip'")
        await check_looks(browser)
        await browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await browser.press("Enter")
        file = tmp_path / f"{run_id}-csv.zip"
        await until(file.exists)
        assert sha256(file.read_bytes()).hexdigest() in await browser.text("form li")
        assert browser.errors == []


@pytest.mark.slow
async def test_checkpoints__have_links_and_texts_over_the_training(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        run_id = await finish(queue, "page kept", checkpoint_schedule=[0, 2], sample_every_steps=5)
        await browser.open(f"{address}/#/runs/{run_id}")
        kept = [one.step for one in run_files(queue.runs.get(run_id)).kept]
        for step in kept:
            for view in ("text/", "batteries/new?runs="):
                await browser.see(f"document.querySelector(\"a[href='#/{view}{run_id}@{step}']\")")
        await browser.see_text("bits per character; this model")
        await browser.see_text("Samples that continue")
        await browser.tab_to("#sample-prompt")
        await browser.type("ab")
        await browser.press("Enter")
        await browser.see(f"{ROWS}.length === {len(kept)}")
        await browser.see(f"{ROWS}.every((text) => text.includes('ab'))")
        await check_looks(browser)
        assert browser.errors == []


async def test_test_split__is_read_once_after_a_question(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        run_id = await finish(queue, "page unlock", test="locked")
        ledger, effective = LookLedger.of(lab.settings), queue.runs.get(run_id).record().effective
        before = ledger.count(effective)
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see_text("The test split is locked, so this run has no loss on it")
        await press_button(browser, "Read the test split")
        await browser.see("document.querySelector('dialog[open]')?.textContent.includes('cannot be taken back')")
        await check_looks(browser)
        await browser.press("Enter")
        await browser.see("!document.querySelector('#question')")
        assert ledger.count(effective) == before, "the first button says no"
        await press_button(browser, "Read the test split")
        await browser.see_value("document.querySelector(':focus')?.innerText", "No")
        await browser.press("Tab")
        await browser.press("Enter")
        await browser.see(f"{BUTTONS} === 'Delete,Save'")
        measured = queue.runs.get(run_id).completed_manifest().metrics.test
        assert measured is not None and before is not None
        await browser.see_text(f"{measured / log(2):.3f}")
        await browser.see_text(f"{before.looks + 1} look{'s' if before.looks else ''} at this test text")
        assert await faults(browser) == []
