"""The page of texts in a browser: units, two models, generated text, drafts, and a key with few rights."""

import json
import math
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.support.api_process import ApiProcess, api_process
from tests.support.browser import Browser, browsing, faults, needs_chromium, see_both_units
from tests.support.lab import Lab
from tests.support.served_page import finish
from trainer.contracts.generations import GenerateResponse
from trainer.contracts.scores import ScoreResponse

pytestmark = needs_chromium

USER_KEY = "text-user-0123456789"
OPEN = {"QUEUE__EMBEDDED_WORKERS": "0", "SECURITY__API_KEYS": ""}
TEXT = "abc\tcab bca\nئۇيغۇر abc\nx\u0301 ʃ 𝔸😀 cab"
N_MARKS = 1
"""Characters that are shown with the letter before them."""
OPTIONS = "[...document.querySelectorAll('.heat')].map((map) => map.querySelectorAll('[role=option]').length).join()"


@pytest.mark.slow
async def test_text__is_shown_by_tokens_words_and_characters_and_with_two_models(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser:
        char = await finish(queue, "text page char", checkpoint_schedule={"steps": [1]})
        bpe = await finish(queue, "text page bpe", model_family="lstm", tokenizer={"method": "bpe", "vocab_size": 300})
        with api_process(lab.folder, **OPEN) as api:
            await browser.open(f"{api.url}/#/text/{char}")
            await browser.see("document.querySelector('#text')")
            await browser.tab_to("#second-model")
            await browser.type("text page b")
            await browser.see(f"[...document.querySelectorAll('datalist option')].some((o) => o.value === '{bpe}')")
            await browser.evaluate("document.activeElement.value = ''")
            await browser.tab_to("#text")
            await browser.type(TEXT)
            await browser.press("Tab")
            await browser.press("Enter")
            n_tokens = len(score(api, char).tokens or ())
            await browser.see(f"{OPTIONS} === '{n_tokens - N_MARKS}'")
            steps = "document.querySelectorAll('.scale span').length"
            await browser.see(f"{steps} >= 4 && {steps} < 12")
            words = score(api, char).words or ()
            await choose(browser, "#segments", "words")
            await browser.see(f"{OPTIONS} === '{len(words)}'")
            await browser.tab_to(".heat [role=option]")
            await browser.press("End")
            nats = words[-1].surprisal
            assert nats is not None
            await browser.see_start(f"cab: {nats / math.log(2):.2f} bits", ".details")
            whole, of_first = score(api, char), words[0].surprisal
            assert whole.nats is not None and whole.mean_surprisal is not None and of_first is not None
            assert whole.bits_per_char is not None
            await browser.evaluate("document.querySelector('.score details').open = true")
            await see_both_units(
                browser,
                ("{:.2f} {unit}\n", whole.nats),
                ("{Unit} per character\n{:.3f} ⚠", whole.bits_per_char * math.log(2)),
                ("Mean per token\n{:.3f} {unit} ⚠", whole.mean_surprisal),
                ("\tSurprisal, {unit}",),
                ("\t0\t{:.2f}\n", of_first),
                ("): {:.2f} {unit}", of_first),
                ("\ncab: {:.2f} {unit}", nats),
                ("whole {unit}",),
            )
            await browser.see_value("document.activeElement.ariaPosInSet", str(len(words)))
            await choose(browser, "#segments", "characters")
            await browser.see(f"{OPTIONS} === '{sum(map(len, TEXT.splitlines())) - N_MARKS}'")
            await choose(browser, "#scale", "fixed")
            await browser.see("document.querySelector('.scale').innerText.includes('7+')")

            await browser.tab_to("#second-model")
            await browser.type(bpe)
            await browser.tab_to("#text")
            await browser.press("Tab")
            await browser.press("Enter")
            await browser.see("document.querySelectorAll('.heat').length === 3")
            await browser.see_value("location.hash", f"#/text/{char},{bpe}")
            first, second = score(api, char), score(api, bpe)
            assert first.bits_per_char is not None and second.bits_per_char is not None
            difference = f"{second.bits_per_char - first.bits_per_char:+.3f}".replace("-", "−")
            await browser.see_text(difference, ".score table")
            await browser.evaluate("document.querySelectorAll('.score details')[2].open = true")
            await browser.see("document.querySelectorAll('.score table').length === 2")
            of_rows = "[...document.querySelectorAll('.score details tbody tr')]"
            rows = await browser.evaluate(f"{of_rows}.map((row) => [...row.cells].map((cell) => cell.textContent))")
            cells = TypeAdapter(list[list[str]]).validate_python(rows)
            assert len(cells) == sum(map(len, TEXT.splitlines()))
            assert first.nats is not None and second.nats is not None
            await see_both_units(
                browser,
                ("Total without line ends, {unit}\t{:.2f}\t{:.2f}\t", first.nats, second.nats),
                ("\tA, {unit}\tB, {unit}\tB − A, {unit}\n",),
            )
            for column, model in ((2, first), (3, second)):
                assert model.nats is not None
                bits = sum(float(row[column]) for row in cells if row[column] != "–")
                assert bits == pytest.approx(model.nats / math.log(2), abs=0.01 * len(cells))
            for width, dark in ((320, False), (1200, False), (1200, True)):
                await browser.screen(width, 800, dark=dark)
                assert await faults(browser) == []
            await browser.open(f"{api.url}/#/text/{char}@1,{bpe}")
            await browser.see("document.querySelector('#text')")
            kept = "[...document.querySelectorAll('#text, #model, #second-model')].map((field) => field.value)"
            await browser.see_value(kept, [f"{char}@1", bpe, TEXT])
        assert browser.errors == []


@pytest.mark.slow
async def test_long_text__has_options_in_view_and_all_of_its_characters(lab: Lab, tmp_path: Path) -> None:
    text = "\n".join(f"abc {number} cab{'bc' * (number % 20)}" for number in range(400))
    async with lab.queue() as queue, browsing(tmp_path) as browser:
        run_id = (await lab.finished_run(queue)).run_id
        with api_process(lab.folder, **OPEN) as api:
            await browser.screen(1200, 800)
            await browser.open(f"{api.url}/#/text/{run_id},{run_id}")
            await browser.see("document.querySelector('#text')")
            await browser.evaluate(f"document.querySelector('#text').value = {json.dumps(text)}")
            await browser.evaluate("document.querySelector('#text').form.requestSubmit()")
            of_map = r"map.textContent.replace(/[\s\u200b·]/g, '')"
            shown = f"[...document.querySelectorAll('.heat')].map((map) => {of_map}).join()"
            await browser.see(f"{shown} === '{','.join([''.join(text.split())] * 3)}'")
            tokens = len(text) - text.count("\n")
            options = "document.querySelectorAll('.heat [role=option]').length"
            await browser.see(f"{options} > 600 && {options} < {tokens}")

            await browser.evaluate("document.querySelector('.score details').open = true")
            await browser.see("document.querySelector('.score details tbody')")
            await browser.tab_to(".heat [role=option]")
            await browser.press("End")
            place = "[document.activeElement.ariaPosInSet, document.activeElement.ariaSetSize]"
            await browser.see_value(place, [str(tokens)] * 2)
            # the block of the focus keeps its options; others get and lose theirs for some frames after the key
            block = "document.activeElement.closest('.pair .heat > div')"
            classes = f"[...{block}.querySelectorAll('[role=option]')].map((option) => option.className).join()"
            fitted = await browser.evaluate(classes)
            await choose(browser, "#scale", "fixed")
            await browser.see(f"{classes} !== {json.dumps(fitted)}")
            await choose(browser, "#scale", "quantiles")
            await browser.see(f"{classes} === {json.dumps(fitted)}")
            await browser.see("document.querySelector('.score details').open")
            await browser.see_value(place, [str(tokens)] * 2)
            assert await faults(browser) == []
        assert browser.errors == []


@pytest.mark.slow
async def test_generation__shows_the_likeliest_tokens_that_the_server_gives(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser:
        run_id = await finish(queue, "text page generates")
        with api_process(lab.folder, **OPEN) as api:
            await browser.open(f"{api.url}/#/text/{run_id}")
            await browser.see("document.querySelector('#prompt')")
            await browser.tab_to("#prompt")
            await browser.type("abc")
            await browser.tab_to("#top_k")
            await fill(browser, "4")
            await browser.tab_to("#seed")
            await browser.type("7")
            await browser.tab_to("#stop_on_eos")
            await browser.press("Tab")
            await browser.press("Enter")
            await browser.see("document.querySelector('figure blockquote')")
            wanted = generate(api, run_id, prompt_text="abc", top_k=4, seed=7)
            assert wanted.outputs is not None and wanted.tokens is not None and wanted.top_logprobs is not None
            await browser.see_value("document.querySelector('blockquote').textContent", "abc" + wanted.outputs[0])
            await browser.see_value(OPTIONS, str(len(wanted.tokens[0])))
            await browser.tab_to(".heat [role=option]")
            await browser.press("End")
            await browser.see_text("likeliest", ".details")
            likeliest = wanted.top_logprobs[0][-1]
            shown: list[str] = re.findall(r"([\d.]+) %", (await browser.text(".details")).partition("likeliest")[2])
            assert [float(share) for share in shown] == [round(100 * math.exp(value), 1) for _, value in likeliest]
            assert wanted.logprobs is not None
            await see_both_units(browser, ("{unit}:",), (" % = {:.2f} {unit} · likeliest: ", -wanted.logprobs[0][-1]))
            assert await faults(browser) == []
            await browser.tab_to("figure ~ .bar button")
            await browser.press("Enter")
            await browser.see(f"document.querySelector('#prompt').value === {json.dumps('abc' + wanted.outputs[0])}")
            await browser.see("document.querySelector('figure blockquote')")
            await browser.evaluate("document.querySelector('figure ~ .bar').lastChild.focus()")
            await browser.press("Enter")
            await browser.see("document.querySelector('#seed').value !== '7'")
            await browser.see("document.querySelector('figure blockquote')")
            drafts = "['prompt', 'top_k', 'seed'].map((id) => document.getElementById(id).value)"
            typed = await browser.evaluate(drafts)
            await browser.open(f"{api.url}/#/text/{run_id}")
            await browser.see("document.querySelector('#prompt')")
            await browser.see_value(drafts, typed)
        assert browser.errors == []


@pytest.mark.slow
async def test_text__of_a_run_of_somebody_else_has_totals_only(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser:
        run_id = await finish(queue, "text page foreign")
        with api_process(lab.folder, **OPEN | {"SECURITY__API_KEYS": f"user:user:{USER_KEY}"}) as api:
            await browser.open(f"{api.url}/#/text/{run_id}")
            await browser.see("document.querySelector('dialog').open")
            await browser.type(USER_KEY)
            await browser.press("Enter")
            await browser.see("document.querySelector('#text')")
            await browser.tab_to("#text")
            await browser.type("abc\ncab")
            await browser.press("Tab")
            await browser.press("Enter")
            await browser.see_text("Only the owner of this run and admins get surprisals")
            await browser.see_text("Bits per character")
            await browser.evaluate("document.querySelector('.score details').open = true")
            await browser.see("document.querySelectorAll('.score tbody tr').length === 2")
            await browser.tab_to("#prompt")
            await browser.type("abc")
            await browser.tab_to("#stop_on_eos")
            await browser.press("Tab")
            await browser.press("Enter")
            await browser.see("document.querySelector('figure blockquote')?.textContent.startsWith('abc')")
            await browser.see_text("Others get the probabilities of the 10 likeliest next tokens")
            assert not await browser.evaluate("document.querySelector('.heat')")
            await browser.tab_to("#temperature")
            await fill(browser, "0")
            await browser.press("Enter")
            await browser.see("document.querySelector('.heat')")
            assert await faults(browser) == []


async def choose(browser: Browser, selector: str, value: str) -> None:
    """Choose an option of a list, as a person with a keyboard does."""
    await browser.evaluate(f"document.querySelector('{selector}').value = '{value}'")
    await browser.evaluate(f"document.querySelector('{selector}').dispatchEvent(new Event('change'))")


async def fill(browser: Browser, value: str) -> None:
    """Replace the content of the field with the focus."""
    await browser.evaluate("document.activeElement.select()")
    await browser.type(value)


def score(api: ApiProcess, model: str) -> ScoreResponse:
    body = {"text": TEXT, "detail_level": "per_char"}
    return api.post(f"/runs/{model}/score?wait=60", ScoreResponse, body)


def generate(api: ApiProcess, model: str, **request: object) -> GenerateResponse:
    return api.post(f"/runs/{model}/generate?wait=60", GenerateResponse, {**request, "top_logprobs": 5})
