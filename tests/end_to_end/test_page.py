"""The page in a browser: runs, live curve, comparison, surprisals and the API key; without a mouse, small and dark."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.support import ended, tiny_request, wait_for_status
from tests.support.api_process import api_process
from tests.support.browser import Browser, browsing, check_looks, faults, needs_chromium, see_both_units
from tests.support.faulty_proxy import free_port
from tests.support.lab import Lab
from tests.support.many_runs import write_runs
from tests.support.reverse_proxy import PREFIX, reverse_proxy
from tests.support.served_page import KEY, finish, served
from tests.support.stories import BEGIN, Story, run_record
from tests.support.waiting import until
from tests.support.worker_runs import LONG, training
from trainer.artifacts.runs import RunStore
from trainer.contracts.base import changed
from trainer.reports.comparison import Comparison

pytestmark = needs_chromium

TEXT = "abc\tcab\nئۇيغۇر\nx\u0301 ʃ"
LABELS = "[...document.querySelectorAll('tbody a')].map((link) => link.textContent)"
CURVE = "document.querySelector('.line')?.getAttribute('d')"


async def test_page__lists_follows_and_compares_runs_by_the_keyboard(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        for label, seed in (("alpha one", 1), ("alpha two", 2)):
            await finish(queue, label, seed=seed)
        live = (await queue.train(tiny_request(label="alpha live", **LONG), user_id=None)).run_id
        await wait_for_status(queue, live, training)
        await browser.open(f"{address}/")
        await browser.see(f"{LABELS}.length >= 3")
        await browser.press("Tab")
        await browser.see_value("document.querySelector(':focus')?.innerText", "Skip to the content")
        await browser.press("Enter")
        await browser.see_value("document.activeElement.id", "main")
        await browser.tab_to("#search")
        await browser.type("alpha")
        await browser.see(f"{LABELS}.join() === 'alpha live,alpha two,alpha one'")
        assert await faults(browser) == []
        await browser.tab_to(f"a[href='#/runs/{live}']")
        await browser.press("Enter")
        await browser.see("document.querySelector('h1')?.textContent === 'alpha live'")
        await browser.see_value("document.activeElement.localName", "h1")
        await browser.see(CURVE)
        drawn = await browser.evaluate(CURVE)
        await browser.see(f"{CURVE} !== {drawn!r}")
        assert await faults(browser) == []
        await queue.states.cancel(live)
        await browser.see("document.querySelector('.badge')?.textContent === 'cancelled'")
        await browser.evaluate("history.back()")
        await browser.see(f"{LABELS}.join() === 'alpha live,alpha two,alpha one'")
        await browser.see_value("document.querySelector('#search').value", "alpha")
        for label in ("alpha two", "alpha one"):
            await browser.tab_to(f"input[aria-label='Compare {label}']")
            await browser.press(" ")
        await browser.see("document.querySelector('[role=status]').textContent === 'Compare 2 runs'")
        await browser.evaluate("document.querySelector('#search').focus()")
        await browser.tab_to("div.above button")
        await browser.press("Enter")
        await browser.see_text("loss per character")
        await browser.see_text("Settings that differ")
        await browser.see_value("document.querySelectorAll('path.line').length", 4)
        assert re.search(r"seed\s+2\s+1", await browser.text("[aria-labelledby=about-settings]"))
        await browser.see_text(" against ", "[aria-labelledby=about-verdict]")
        assert await faults(browser) == []
        assert browser.errors == []
        assert browser.hosts == {address.removeprefix("http://")}


@pytest.mark.slow
async def test_page__shows_a_group_in_one_row_that_opens_and_in_a_page(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        char = (await lab.finished_run(queue)).run_id
        request = tiny_request(label="page group", num_epochs=3, seeds=2, init_from_run_id=char)
        accepted = await queue.train(request, user_id=None)
        alone = await finish(queue, "page group alone", num_epochs=3)
        for run_id in accepted.run_ids:
            await wait_for_status(queue, run_id, ended)
        group_id = accepted.run_ids[0].removesuffix("-s42")
        await browser.open(f"{address}/")
        await browser.see("document.querySelector('#search')")
        await browser.tab_to("#search")
        await browser.type("page group")
        await browser.see(f"{LABELS}.join() === 'page group alone,page group'")
        row = await browser.text(".runs tbody")
        assert "2 of 2 completed" in row and " ± " in row
        await browser.tab_to("tbody button[aria-expanded]")
        await browser.press("Enter")
        await browser.see(f"{LABELS}.length === 4")
        await browser.see_value("document.querySelectorAll('.member a[href*=\"-s4\"]').length", 2)
        assert await faults(browser) == []
        await browser.tab_to("tbody button[aria-expanded]")
        await browser.press("Enter")
        await browser.see(f"{LABELS}.length === 2")
        for name in ("the group page group", "page group alone"):
            await browser.evaluate(f"document.querySelector('input[aria-label=\"Compare {name}\"]').click()")
        await browser.tab_to("div.above button")
        await browser.press("Enter")
        await browser.see_text("2 runs against 1 (interval of one more run of the group)")
        await browser.see_value("document.querySelectorAll('path.line').length", 4)
        words: dict[str, object] = {"model_family": "gru", "tokenizer": {"method": "word"}}
        gru = await finish(queue, "page group other", num_epochs=3, **words)
        await check_comparison(browser, f"{address}/#/compare/{alone},{char},{gru},~{group_id}")
        child = await finish(queue, "page group child", init_from_run_id=accepted.run_ids[0])
        await browser.open(f"{address}/#/runs/{child}")
        await browser.see(f"document.querySelector('p a[href=\"#/runs/{accepted.run_ids[0]}\"]')")
        await browser.open(f"{address}/#/groups/{group_id}")
        await browser.see(f"document.querySelector('[aria-labelledby^=about-runs-that] a[href=\"#/runs/{child}\"]')")
        await browser.see(f"document.querySelector('p a[href=\"#/runs/{char}\"]')")
        await browser.see_text("Numbers of the completed runs (2 of 2)")
        await browser.see("document.querySelectorAll('path.band').length === 2")
        await browser.see("document.querySelector('h1')?.textContent === 'page group'")
        await browser.see_text("2 runs: 2 completed.")
        await browser.see("[...document.querySelectorAll('main td')].some((cell) => cell.textContent === '43')")
        await check_looks(browser)
        assert browser.errors == []


async def check_comparison(browser: Browser, address: str) -> None:
    """Check a comparison of three runs, the third of another family, and a group: order, settings and looks."""
    await browser.open(address)
    await browser.see("document.querySelectorAll('path.line').length === 8")
    titles = "[...document.querySelectorAll('main h2')].map((title) => title.textContent).join()"
    await browser.see_value(titles, "Verdict,Metrics,Settings,Curves")
    verdicts = await browser.text("[aria-labelledby=about-verdict]")
    n_few_lines = len(re.split(r": no interval: loss [+−][\d.]+ %\n", verdicts)) - 1
    assert n_few_lines == 2 and ": not comparable" in verdicts, "a run and a group on the same few lines"
    await browser.see("document.querySelector('[aria-labelledby=about-settings] tbody tr')")
    rows = "[...document.querySelectorAll('[aria-labelledby=about-settings] tbody tr')]"
    cells = await browser.evaluate(f"{rows}.map((row) => [...row.cells].map((cell) => cell.innerText))")
    settings = {name: values for name, *values in TypeAdapter(list[list[str]]).validate_python(cells)}
    assert settings["model_family"] == ["char_lstm", "char_lstm", "gru", "char_lstm"]
    assert settings["tokenizer.mask_token"] == ["false", "false", "", "false"]
    assert "null" not in await browser.text("[aria-labelledby=about-settings]")
    compared = f"{address.partition('/#')[0]}/compare?runs={address.rpartition('/')[2].replace('~', '')}"
    text = await browser.evaluate(f"fetch({compared!r}).then((answer) => answer.text())")
    comparison = Comparison.model_validate_json(str(text))
    losses = [run.loss for run in comparison.runs if run.loss is not None]
    over_seeds = comparison.against[2].over_seeds
    assert len(losses) == 4 and over_seeds is not None
    await see_both_units(
        browser,
        ("losses in {unit}",),
        ("{:.3f}", losses[0]),
        (": {:+.3f} {unit} per token.", over_seeds.difference),
        ("loss, {unit} per character by step",),
    )
    await check_looks(browser)


ROWS = "[...document.querySelectorAll('.runs tbody small')].map((one) => one.textContent)"


def newest(count: int) -> list[str]:
    """Ids of runs without a group, newest first, as the list shows them."""
    return [f"run-{number}" for number in range(count - 1, -1, -1) if number % 50 >= 5]


@pytest.mark.slow
async def test_list_of_many_runs__has_pages_in_the_order_of_the_address(tmp_path: Path) -> None:
    write_runs(tmp_path / "artifacts", 120)
    losses = {
        run.run_id: run.completed_manifest().metrics.test or 0.0 for run in RunStore(tmp_path / "artifacts").all()
    }
    best = min((loss, run_id) for run_id, loss in losses.items() if int(run_id[4:]) % 50 >= 5)[1]
    async with browsing(tmp_path) as browser:
        with api_process(tmp_path, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
            await browser.screen(1200, 800)
            await browser.open(f"{api.url}/")
            await browser.see_text("108 runs (a group over seeds counts as one)")
            await browser.see_value(ROWS, newest(120)[:24])
            await browser.see("document.querySelectorAll('path.line').length === 25")
            for pressed, curves in (("true", 24), ("false", 25)):
                await browser.tab_to(f".curve-button[aria-pressed={pressed}]")
                await browser.press("Enter")
                await browser.see_value("document.querySelectorAll('path.line').length", curves)
            hidden = "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)"
            assert await browser.evaluate(f"{hidden}(document.querySelector('.runs').parentElement)") == 0
            assert await faults(browser) == []
            await browser.tab_to("a[href='#/?page=2']")
            await browser.press("Enter")
            await browser.see_value(ROWS, newest(120)[24:49])
            await browser.see_text("Page 2 of 5")
            await browser.tab_to("[data-column=test_loss] button")
            await browser.press("Enter")
            await browser.see(f"{ROWS}[0] === {best!r}")
            await browser.see_value("document.activeElement.textContent", "Test loss")
            await browser.see_value("document.querySelector('[aria-sort]').ariaSort", "ascending")
            await browser.see_value("location.hash", "#/?sort=test_loss&order=asc")
            await browser.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
            assert await faults(browser) == []
            await browser.evaluate("document.querySelector('#where').focus()")
            await browser.type("test_loss<oops")
            await browser.see_text("'test_loss<oops' is none")
            await browser.see("!document.querySelector('.runs').checkVisibility()")
            assert await faults(browser) == []
            await browser.evaluate("document.querySelector('#where').select()")
            await browser.type("test_loss>3.9")
            high = {run_id for run_id, loss in losses.items() if loss > 3.9}
            await browser.see(f"!document.querySelector('.error') && {ROWS}.length <= {len(high)}")
            await browser.evaluate("document.querySelector('.columns input[value=model_family]').focus()")
            await browser.press(" ")
            await browser.see("!document.querySelector('[data-column=model_family]')")
            await browser.see_value("document.activeElement.value", "model_family")
            link = str(await browser.evaluate("location.href"))
            assert "where=test_loss%3E3.9" in link and "columns=status,owner" in link
            shown = await browser.evaluate(ROWS)
            await browser.open(link)
            await browser.see_value(ROWS, shown)
            await browser.see_value("document.querySelector('#where').value", "test_loss>3.9")
            await browser.evaluate("document.querySelector('[data-column=label] button').click()")
            await browser.see("document.querySelector('[aria-sort]')?.dataset.column === 'label'")
            await browser.evaluate("history.back()")
            await browser.see("document.querySelector('[aria-sort]')?.dataset.column === 'test_loss'")
            await browser.see_value(ROWS, shown)
            assert len(browser.errors) == 1, "it is not asked for again and again"
            assert "422" in browser.errors[0]


@pytest.mark.slow
async def test_list__has_settings_as_columns_conditions_and_groups(tmp_path: Path) -> None:
    rates: dict[str, tuple[float, tuple[str, ...]]] = {"a": (0.1, ("big", "new")), "b": (0.02, ()), "c": (0.1, ())}
    for number, (name, (rate, tags)) in enumerate(rates.items()):
        record = run_record(f"run-{name}", label=f"set {name}")
        effective = changed(record.effective, learning_rate=rate, tags=tags)
        created = BEGIN + timedelta(hours=number)
        story = Story(tmp_path / "artifacts", changed(record, effective=effective, created_at=created), created)
        story.start().step(1, 3.0).step(2, 2.0).complete(2.0)
    async with browsing(tmp_path) as browser:
        with api_process(tmp_path, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
            await browser.screen(1200, 800)
            await browser.open(f"{api.url}/")
            await browser.see_value(ROWS, ["run-c", "run-b", "run-a"])
            await browser.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
            for name in ("learning_rate", "tags"):
                await browser.evaluate(f"document.querySelector('.columns input[value={name}]').click()")
            cells = "[...document.querySelector('.runs').tBodies[0].rows].map((row) => [...row.cells].slice(-2))"
            cells = f"{cells}.map((pair) => pair.map((cell) => cell.textContent))"
            await browser.see_value(cells, [["0.1", "–"], ["0.02", "–"], ["0.1", "big new"]])
            await browser.evaluate("document.querySelector('#group').value = 'learning_rate'")
            await browser.evaluate("document.querySelector('#group').dispatchEvent(new Event('change'))")
            await browser.see_value("document.querySelectorAll('.runs tr.value').length", 2)
            await browser.see_value(ROWS, ["1 run", "run-b", "2 runs", "run-a", "run-c"])
            colours = "[...document.querySelectorAll('.runs .swatch')].map((one) => one.className.split(' ')[1])"
            await browser.see_value(colours, ["run0", "run1", "run1"])
            curves = "[...document.querySelectorAll('path.line')].map((one) => one.classList[1])"
            await browser.see_value(curves, ["run0", "run1", "run1"])
            assert await faults(browser) == []
            point = "({left, top, width}) => [left + width - 30, top + 60]"
            place = await browser.evaluate(f"({point})(document.querySelector('.chart').getBoundingClientRect())")
            x, y = TypeAdapter(tuple[float, float]).validate_python(place)
            await browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            await browser.see_text("step 2", ".readout:not([hidden])")
            await browser.see_text("set b 2.885", ".readout")
            await browser.evaluate("document.querySelector(\"a[href*='where=tags']\").focus()")
            await browser.press("Enter")
            await browser.see_value(ROWS, ["1 run", "run-a"])
            await browser.see_value("document.querySelector('#where').value", "tags=big")
            await browser.open(f"{api.url}/#/?search=new")
            await browser.see_value(ROWS, ["run-a"])
            await browser.open(f"{api.url}/#/?search=nothing")
            await browser.see_text("No run is found. Show all runs")
            assert browser.errors == []


@pytest.mark.slow
async def test_open_list__shows_new_runs_and_numbers_and_keeps_the_focus(tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        with api_process(tmp_path, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
            await browser.screen(320, 700)
            await browser.open(f"{api.url}/")
            await browser.see_text("There are no runs yet.")
            assert await faults(browser) == []
            write_runs(tmp_path / "artifacts", 40)
            await browser.see_value(ROWS, newest(40)[:25])
            assert await faults(browser) == []
            await browser.evaluate("document.querySelector('a[href=\"#/runs/run-30\"]').focus()")
            record = run_record("run-young", label="young")
            told = Story(tmp_path / "artifacts", changed(record, created_at=BEGIN + timedelta(days=1))).start()
            await browser.see(f"{ROWS}[0] === 'run-young'")
            await browser.see_value("document.activeElement.getAttribute('href')", "#/runs/run-30")
            told.step(50, 2.125)
            await browser.see("document.querySelector('.runs').textContent.includes('3.066')")
            boxes = "document.querySelectorAll('.runs tbody input')"
            await browser.evaluate(f"[...{boxes}].slice(0, 10).forEach((box) => box.click())")
            await browser.see_text("Compare 10 runs")
            await browser.see(f"{boxes}[10].disabled && !{boxes}[9].disabled")
            assert browser.errors == []


@pytest.mark.slow
async def test_page__shows_the_surprisal_of_each_token_in_every_script(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab) as address:
        run_id = await finish(queue, "page scores")
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see("document.querySelector('#text')")
        await browser.tab_to("#text")
        await browser.type(TEXT)
        await browser.press("Tab")
        await browser.press("Enter")
        await browser.see("document.querySelectorAll('.heat [role=option]').length === 16")  # x has its mark
        await browser.see_value("document.querySelector('.heat div div')?.innerText", "abc→\u200bcab")
        directions = (
            "[...document.querySelectorAll('.heat div div')].map((line) => getComputedStyle(line).direction).join()"
        )
        await browser.see_value(directions, "ltr,rtl,ltr")
        await browser.tab_to(".heat [role=option]")
        for key, wanted in (("ArrowRight", "b: "), ("ArrowDown", "c: "), ("ArrowRight", "tab: "), ("End", "ʃ: ")):
            await browser.press(key)
            await browser.see_start(wanted, ".details")
            await browser.see(f"document.activeElement.ariaLabel.startsWith({wanted!r})")
        details = await browser.text(".details")
        assert re.search(r"[\d.]+ bits ", details) and "nats" not in details
        assert "unknown to the model" in details and "rank" in details and "expected" in details
        await browser.evaluate("[...document.querySelectorAll('details')].forEach((one) => (one.open = true))")
        await browser.see_text("model_family: char_lstm")
        await browser.see_text("run_ended status=completed")
        await browser.see_value("document.querySelectorAll('table').length", 4)
        await browser.see_text("manifest.json")
        await check_looks(browser)
        await browser.open(f"{address}/docs")
        await browser.evaluate("[...document.querySelectorAll('details')].forEach((one) => (one.open = true))")
        await browser.see_text("POST /runs/{run_id}/score")
        await browser.screen(320, 800)
        assert await faults(browser) == []
        assert browser.errors == []
        assert browser.hosts == {address.removeprefix("http://")}


@pytest.mark.slow
async def test_page__asks_for_the_key_of_a_server_that_has_one(lab: Lab, tmp_path: Path) -> None:
    async with lab.queue() as queue, browsing(tmp_path) as browser, served(lab, f"page:admin:{KEY}") as address:
        run_id = await finish(queue, "page key")
        await browser.open(f"{address}/#/runs/{run_id}")
        await browser.see("document.querySelector('dialog').open")
        await browser.see_value("document.activeElement.id", "key-field")
        assert await faults(browser) == []
        await browser.type("wrong-key-0123456789")
        await browser.press("Enter")
        await browser.see_text("does not know this key")
        await browser.see("document.querySelector('#key-field').value === ''")
        await browser.type(KEY)
        await browser.press("Enter")
        await browser.see("document.body.textContent.includes('model.safetensors')")
        await browser.see_value("document.cookie + JSON.stringify(localStorage)", "{}")
        await browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await browser.evaluate("[...document.querySelectorAll('a')].find((a) => a.text === 'config.json').click()")
        await until((tmp_path / "config.json").exists)
        assert (tmp_path / "config.json").read_bytes() == (queue.runs.get(run_id).path / "config.json").read_bytes()
        await browser.evaluate("document.querySelector('#forget').click()")
        await browser.see("document.querySelector('dialog')?.open")
        await browser.see_value("sessionStorage.length", 0)
        assert [error for error in browser.errors if "401" not in error] == []


@pytest.mark.slow
async def test_page__goes_on_by_itself_when_the_server_is_back(lab: Lab, tmp_path: Path) -> None:
    port = free_port()
    async with lab.queue() as queue, browsing(tmp_path) as browser:
        run_id = await finish(queue, "page away")
        async with served(lab, port=port) as address:
            await browser.open(f"{address}/")
            await browser.see(f"{LABELS}.includes('page away')")
        await queue.train(tiny_request(label="page meanwhile", num_epochs=1), user_id=None)
        await browser.see("document.querySelector('.notice')")
        assert await faults(browser) == []
        async with served(lab, port=port) as address:
            await browser.see(f"!document.querySelector('.notice') && {LABELS}.includes('page meanwhile')")
            await browser.open(f"{address}/#/runs/{run_id}")
            await browser.see("document.querySelector('#text')")
            await browser.evaluate("document.querySelector('#text').focus()")
            await browser.type("abc")
        await browser.press("Tab")
        await browser.press("Enter")
        await browser.see("document.querySelector('.notice')")
        async with served(lab, port=port):
            await browser.see("document.querySelectorAll('.heat [role=option]').length === 3")
            await browser.see("!document.querySelector('.notice')")


@pytest.mark.slow
async def test_page__works_below_a_path_of_a_proxy_and_tells_its_answers_from_the_servers(
    lab: Lab, tmp_path: Path
) -> None:
    async with (
        lab.queue() as queue,
        browsing(tmp_path) as browser,
        served(lab, f"page:admin:{KEY}") as address,
        reverse_proxy(address) as proxy,
    ):
        run_id = await finish(queue, "page below")
        live = (await queue.train(tiny_request(label="page below live", **LONG), user_id=None)).run_id
        await wait_for_status(queue, live, training)
        await browser.open(f"{proxy.url}/docs")
        await browser.evaluate(f"sessionStorage.setItem('api-key', {KEY!r})")
        await browser.see_text("ErrorBody")
        links = "[...document.querySelectorAll('a')].map((link) => new URL(link.href).pathname)"
        assert all(
            str(one).startswith(PREFIX) for one in TypeAdapter(list[str]).validate_python(await browser.evaluate(links))
        )
        await browser.open(f"{proxy.url}/#/runs/{live}")
        await browser.see(CURVE)
        drawn = await browser.evaluate(CURVE)
        await browser.see(f"{CURVE} !== {drawn!r}")
        await queue.states.cancel(live)
        await browser.see("document.querySelector('.badge')?.textContent === 'cancelled'")
        await browser.open(f"{proxy.url}/#/runs/{run_id}")
        await browser.see("document.body.textContent.includes('model.safetensors')")
        await browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await browser.evaluate("[...document.querySelectorAll('a')].find((a) => a.text === 'config.json').click()")
        await until((tmp_path / "config.json").exists)
        await browser.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        await browser.evaluate("document.querySelector('#export-format').value = 'csv'")
        await browser.evaluate("[...document.querySelectorAll('button')].find((b) => b.innerText === 'Export').click()")
        await browser.see(f"document.activeElement.textContent === '{run_id}-csv.zip'")
        await browser.press("Enter")
        await until((tmp_path / f"{run_id}-csv.zip").exists)
        await browser.evaluate("document.querySelector('#text').focus()")
        await browser.type("abc")
        await browser.press("Tab")
        await browser.press("Enter")
        await browser.see("document.querySelectorAll('.heat [role=option]').length === 3")
        assert (proxy.outside, browser.errors) == ([], [])
        proxy.status = 503
        await browser.evaluate("location.hash = '#/corpora'")
        await browser.see("document.querySelector('.notice')")
        proxy.status = None
        await browser.see("!document.querySelector('.notice') && document.body.innerText.includes('udhr_ipa')")
        for status, said in FOREIGN:
            proxy.status = status
            await browser.evaluate("location.hash = location.hash === '#/batteries' ? '#/experiments' : '#/batteries'")
            await browser.see_text(said)
        await browser.see_value("sessionStorage.getItem('api-key')", KEY)


FOREIGN = [
    (200, "A proxy or a portal before the server asks for a login."),
    (302, "A proxy or a portal before the server asks for a login."),
    (401, "A proxy before the server answered 401 (Unauthorized)."),
    (403, "A proxy before the server answered 403 (Forbidden)."),
    (413, "A proxy before the server answered 413 (Request Entity Too Large)."),
    (500, "A proxy before the server answered 500 (Internal Server Error)."),
]
