"""The pages of jobs in a browser: lists of every kind, results, starting, cancelling and deleting."""

import json
from collections.abc import Iterator
from math import log
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.support import ROOT
from tests.support.api_process import KEY, api_process
from tests.support.batteries import PAIRS
from tests.support.browser import Browser, browsing, check_looks, faults, give, needs_chromium
from tests.support.checkpoints import keep_checkpoint
from tests.support.development_results import STEPS
from tests.support.experiment_results import CORRELATIONS, EXPERIMENT, LANGUAGES
from tests.support.finished_runs import finished_run
from tests.support.job_kinds import KINDS
from tests.support.lab import Lab
from tests.support.readings import times_table
from tests.support.started_jobs import started_experiment
from tests.support.stored_jobs import (
    finish_battery,
    finished_development,
    finished_experiment,
    waiting_battery,
    waiting_experiment,
)
from tests.support.waiting import until
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.readings import ReadingStore
from trainer.config.experiment_file import read_plan
from trainer.contracts.batteries import DevelopmentOptions
from trainer.contracts.experiments import (
    CurveRow,
    ExperimentRecord,
    ExperimentRequest,
    ExperimentResult,
    LanguageOptions,
    ModelOptions,
    TextOptions,
)
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.studies import StudyRecord, StudyRequest
from trainer.reports.experiment_charts import leaf_order
from trainer.system.files import read_record

pytestmark = needs_chromium

WAITING = "turkic-wait0000"
NAMES = "[...document.querySelectorAll('.jobs tbody tr:not([hidden]) a')].map((link) => link.textContent).join()"
BUTTONS = """[...document.querySelectorAll('section[aria-labelledby=about-status] button')]
.filter((one) => one.checkVisibility()).map((one) => one.innerText).join()"""
CLOSED = "[...document.querySelectorAll('details:not([open])')]"
START, PASTE = ".schema > .bar button", "fieldset fieldset + button, fieldset > .fields > button"
PICTURES = "[...document.images].map((image) => image.src.slice(0, 22) + (image.naturalWidth > 100))"


class Site:
    """The address of a server without workers, and its folder."""

    def __init__(self, address: str, folder: Path, run_id: str) -> None:
        self.address, self.artifacts, self.run_id = address, folder / "artifacts", run_id


@pytest.fixture(name="site", scope="module")
def site_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("jobs")
    artifacts, run_id = folder / "artifacts", finished_run(folder, "lstm").run_id
    finished_experiment(artifacts)
    finish_battery(waiting_battery(artifacts, "words-1a2b3c4d", "lstm-1", "lstm-2"))
    finished_development(artifacts, "grown-1a2b3c4d", run_id)
    with api_process(folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
        yield Site(api.url, folder, run_id)


async def open_details(browser: Browser) -> None:
    """Open all details, also those in others, which are made when the others are opened."""
    while await browser.evaluate(f"{CLOSED}.length"):
        await browser.evaluate(f"{CLOSED}.forEach((one) => (one.open = true))")
        await browser.evaluate("new Promise((done) => setTimeout(done, 100))")


async def check_opened(browser: Browser) -> None:
    """Open all details, and fail for faults."""
    await open_details(browser)
    await check_looks(browser)


async def press_and_answer(browser: Browser, answer: str) -> None:
    """Press the button of a job by the keyboard, and a button of the question that it asks."""
    await browser.see(f"{BUTTONS} !== ''")
    await browser.tab_to("section[aria-labelledby=about-status] button")
    await browser.press("Enter")
    await give(browser, answer)


async def choose(browser: Browser, name: str, place: int) -> None:
    """Choose an option of a list by its place."""
    await browser.evaluate(f"document.querySelector('#{name}').selectedIndex = {place}")
    await browser.evaluate(f"document.querySelector('#{name}').dispatchEvent(new Event('change'))")


async def table(browser: Browser, index: int = 0) -> list[list[str]]:
    """The texts of the cells of a heat table."""
    tables = "[...document.querySelectorAll('.heat-table')]"
    script = f"[...{tables}[{index}].tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText))"
    return TypeAdapter(list[list[str]]).validate_python(await browser.evaluate(script))


async def check_tree(browser: Browser, result: ExperimentResult, files: Path) -> None:
    """Check that the tree has the report's leaves and heights, fits a phone by scrolling, and is saved."""
    texts = "[...document.querySelectorAll('.tree text.{}')].map((text) => text.textContent)"
    joins = result.models[0].tree
    leaves = TypeAdapter(list[str]).validate_python(await browser.evaluate(texts.format("leaf")))
    assert tuple(leaf.split()[0] for leaf in leaves) == leaf_order(result.languages, joins)
    assert leaves[0] == "fi (control)" and "kk (kipchak)" in leaves
    await browser.see_value(texts.format("over"), [f"{join.height / log(2):.3f}" for join in joins])
    await browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(files))
    name = "tree-of-the-languages"
    await browser.evaluate("document.querySelector('.tree button[aria-label^=CSV]').click()")
    await until((files / f"{name}.csv").exists)
    head, *rows = (files / f"{name}.csv").read_text(encoding="utf-8").splitlines()
    assert head == "left,right,height (nats per character)"
    assert rows == [f"{' '.join(join.left)},{' '.join(join.right)},{join.height}" for join in joins]


@pytest.mark.slow
async def test_experiment__shows_its_report_with_intervals_on_focus(site: Site, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/experiments")
        await browser.see(f"{NAMES}.includes('{EXPERIMENT}')")
        await browser.see_text("56 of 56 cells\tno", ".jobs tbody")
        await browser.tab_to(f"a[href='#/experiments/{EXPERIMENT}']")
        await browser.press("Enter")
        await browser.see("document.querySelector('.heat-table')")
        await browser.see_text("completed checks failed", "main p")
        result = read_record(site.artifacts / "experiments" / EXPERIMENT / "result.json", ExperimentResult)
        shown = await table(browser)
        assert [row[0] for row in shown] == [*LANGUAGES]
        rows = {(row.listener_language, row.text_language): row for row in reversed(result.models[0].tables.matrix)}
        for listener, *cells in shown:
            for text, cell in zip(LANGUAGES, cells, strict=True):
                assert float(cell) == pytest.approx(rows[listener, text].excess_cross_entropy / log(2), abs=0.00051)
        await browser.tab_to(".heat-table td")
        await browser.press("ArrowRight")
        row = rows[LANGUAGES[0], LANGUAGES[1]]
        interval = f"({row.interval_low / log(2):.3f} to {row.interval_high / log(2):.3f})"
        await browser.see_text(interval, ".details")
        await browser.see(f"document.activeElement.ariaLabel.includes({interval!r})")
        await browser.press("End")
        await browser.see_start(f"{LANGUAGES[0]}, {LANGUAGES[-1]}: ", ".details")
        await browser.see("document.querySelector('[aria-labelledby=about-validity] li').checkVisibility()")
        bottom = await browser.evaluate(
            "document.querySelector('.heat-table').getBoundingClientRect().bottom + scrollY"
        )
        assert float(str(bottom)) < 800  # the answer is on the first screen
        await browser.evaluate("document.querySelector('[aria-labelledby=about-curves-of-trainings] details').remove()")
        await open_details(browser)
        await browser.see(f"{PICTURES}.join() === Array(3).fill('data:image/png;base64,true').join()")
        await browser.see("[...document.images].every((image) => image.alt)")
        text = await browser.text()
        primary = next(one for one in CORRELATIONS if one.is_primary)
        assert f"{primary.r:.3f}".replace("-", "−") in text and "✗ failed, shuffled" in text and "90.0" in text
        assert "words-1a2b3c4d" in text and "heat_map.pdf" in text
        await check_tree(browser, result, tmp_path)
        await choose(browser, "choice-matrix", 4)
        gru = {(one.listener_language, one.text_language): one for one in reversed(result.models[2].tables.matrix)}
        await browser.see_text("2 seeds per language: the intervals cover seeds and sections of the text.")
        excess = gru["tr", "az"].excess_cross_entropy / log(2)
        assert float((await table(browser))[0][2]) == pytest.approx(excess, abs=0.00051)
        await choose(browser, "choice-matrix", 8)
        caption = "[aria-labelledby=about-excess-surprisal] .quiet"
        await browser.see_text("The trigram baseline has no seeds: its intervals cover sections of the text.", caption)
        assert "the intervals cover seeds" not in await browser.text(caption)
        await check_opened(browser)
        assert browser.errors == []
        assert browser.hosts == {site.address.removeprefix("http://")}


@pytest.mark.slow
async def test_experiment__is_followed_and_cancelled_after_a_question(site: Site, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/experiments")
        await browser.see(f"{NAMES}.length > 0")
        stored = waiting_experiment(site.artifacts, WAITING)
        await browser.see(f"{NAMES}.startsWith('{WAITING}')")
        await browser.evaluate("document.querySelector('#search').focus()")
        await browser.type("wait0")
        await browser.see(f"{NAMES} === '{WAITING}'")
        await browser.see_text("0 of 56 cells", ".jobs tbody")
        choices = "[...document.querySelector('#status').options].map((option) => option.value).join(' ')"
        await browser.see_value(choices, " queued running paused completed failed cancelled")
        assert await faults(browser) == []
        await browser.open(f"{site.address}/#/experiments/{WAITING}")
        await browser.see_text("0 of 56 cells")
        await check_opened(browser)
        for answer, wanted in (("No", "queued"), ("Cancel the experiment", "cancelled")):
            await press_and_answer(browser, answer)
            await browser.see(f"document.querySelector('.badge').innerText === '{wanted}'")
            assert stored.state() == wanted
        await browser.see_value(BUTTONS, "Delete")
        assert browser.errors == []


@pytest.mark.slow
async def test_job_of_each_kind__is_listed_then_cancelled_then_deleted(site: Site, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        for kind, row in JOB_ROWS.items():
            job = KINDS[kind].create(site.artifacts, 7)
            await browser.open(f"{site.address}/#/jobs")
            for link in (f"#/{kind}", f"#/{kind}/{job.job_id}"):
                await browser.see(f"document.querySelector('main a[href=\"{link}\"]')")
                await check_opened(browser)
                await browser.tab_to(f"main a[href='{link}']")
                await browser.press("Enter")
            await browser.see_value("document.querySelector('main .badge')?.innerText", "queued")
            await check_opened(browser)
            await press_and_answer(browser, f"Cancel the {row.word}")
            await browser.see_value("document.querySelector('.badge').innerText", "cancelled")
            await browser.see("document.activeElement.matches('h1')")
            await press_and_answer(browser, f"Delete the {row.word}")
            await browser.see_value("location.hash", f"#/{kind}")
            await browser.see_text(f"The {row.word} is deleted.", "#news")
            assert not job.path.exists()
        assert browser.errors == []


@pytest.mark.slow
async def test_list__has_the_newest_jobs_and_the_older_ones_for_a_button_or_a_search(
    site: Site, tmp_path: Path
) -> None:
    for number in range(10, 130):
        KINDS["verifications"].create(site.artifacts, number)
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/verifications")
        await browser.see_text("100 of 100 shown, 100 unfinished; 120 in all")
        await browser.evaluate("document.querySelector('main > div > button').focus()")
        await browser.press("Enter")
        await browser.see_text("120 of 120 shown, 120 unfinished")
        await browser.see("document.activeElement.closest('tr')?.rowIndex === 101")
        await browser.open(f"{site.address}/#/verifications")
        await browser.see_text("100 of 100 shown")
        await browser.evaluate("document.querySelector('#search').focus()")
        await browser.type("verification-11")
        await browser.see_text("11 of 120 shown")
        await browser.see(f"{NAMES}.includes('verification-11,')")
        assert browser.errors == []


@pytest.mark.slow
async def test_user__reads_how_to_start_jobs_and_loses_a_button_that_only_others_may_use(tmp_path: Path) -> None:
    job = KINDS["batteries"].create(tmp_path / "artifacts", 1)
    with api_process(tmp_path, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS=f"page:user:{KEY}") as api:
        async with browsing(tmp_path) as browser:
            await browser.open(f"{api.url}/docs")
            await browser.evaluate(f"sessionStorage.setItem('api-key', {KEY!r})")
            for kind, command in (("experiments", "mt experiment run"), ("exports", "mt export RUN")):
                await browser.open(f"{api.url}/#/{kind}")
                await browser.see_text(command)
                assert await faults(browser) == []
            await browser.open(f"{api.url}/#/batteries/{job.job_id}")
            await press_and_answer(browser, "Cancel the battery")
            await browser.see("document.querySelector('main .error')")
            await browser.see_value(BUTTONS, "")


@pytest.mark.slow
async def test_battery__shows_accuracies_when_it_ends_without_a_reload(site: Site, tmp_path: Path) -> None:
    battery = waiting_battery(site.artifacts, "later-1a2b3c4d", "lstm-1", "lstm-2")
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/batteries/later-1a2b3c4d")
        await browser.see_text("Cancel the battery")
        await check_opened(browser)
        summary = finish_battery(battery)
        await browser.see("document.querySelector('.heat-table')")
        assert await table(browser) == [
            ["all items\na&b", "5", "75.0 %", "75.0 %"],
            ["mean over paradigms", "", "50.0 %", "50.0 %"],
            ["x\nparadigm", "5", "75.0 %", "75.0 %"],
            ["empty\nparadigm", "5", "–", "–"],
        ]
        await browser.tab_to(".heat-table td")
        right = summary.runs[0].groups[0].accuracies[0]
        assert right.low is not None and right.high is not None
        await browser.press("ArrowRight")
        await browser.see_text(f"({100 * right.low:.1f} to {100 * right.high:.1f})", ".details")
        await open_details(browser)
        text = await browser.text()
        assert "NOT at chance" in text and "−25.0 % to +75.0 %" in text and "eight words in a row" in text
        await browser.see(f"{PICTURES}.join() === Array(2).fill('data:image/png;base64,true').join()")
        await choose(browser, "choice-accuracy", 1)
        assert [row[2] for row in await table(browser)] == ["–"] * 4
        await check_opened(browser)
        await browser.open(f"{site.address}/#/batteries")
        await browser.see(f"{NAMES}.split(',').length >= 3")
        await check_opened(browser)
        assert browser.errors == []


@pytest.mark.slow
async def test_development__shows_curves_with_checkpoints_and_ages(site: Site, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/batteries/grown-1a2b3c4d")
        await browser.see("document.querySelectorAll('path.line').length === 2")
        await open_details(browser)
        development = BatteryStore(site.artifacts).get("grown-1a2b3c4d").development()
        assert development is not None
        text = await browser.text()
        for row in development.curves:
            scale, digits, unit = (100, 1, " %") if row.measure == "accuracy" else (1, 3, "")
            assert row.low is not None and row.high is not None
            value, low, high = (f"{scale * number:.{digits}f}{unit}" for number in (row.value, row.low, row.high))
            assert f"{value} ({low} to {high})" in text
        links = "[...document.querySelectorAll('[aria-labelledby=about-over-the-checkpoints] tbody a')]"
        addresses = await browser.evaluate(f"{links}.map((link) => link.hash)")
        assert addresses == [f"#/text/{site.run_id}@{step}" for step in STEPS]
        for word in development.acquisitions:
            assert word.word in text
        assert "3 of 4 words have an age" in text and "Not in the text: moon" in text
        await browser.see(f"{PICTURES}.join() === 'data:image/png;base64,true'")
        await browser.see_value("document.querySelectorAll('path.band').length", 2)
        drawn = "document.querySelector('path.line').getAttribute('d')"
        before = await browser.evaluate(drawn)
        await choose(browser, "axis-accuracy", 2)
        await browser.evaluate("document.querySelector('#log-accuracy').click()")
        await browser.see(f"{drawn} !== {before!r}")
        await check_opened(browser)
        assert browser.errors == []


@pytest.mark.slow
async def test_form__starts_a_battery_and_a_development_that_run_to_their_end(lab: Lab, tmp_path: Path) -> None:
    run = finished_run(lab.folder, "lstm", corpus=lab.folder / "data" / "corpus" / "text.txt")
    for step in (4, 8):
        keep_checkpoint(run, step)
    with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
        async with browsing(tmp_path) as browser:
            await browser.open(f"{api.url}/#/batteries/new?runs={run.run_id}@4")
            await browser.see(f"document.querySelector('#field-runs')?.value === '{run.run_id}@4'")
            await check_opened(browser)
            await browser.tab_to(START)
            await browser.press("Enter")
            await browser.see_text("must name something to score")
            await paste_items(browser)
            await browser.open(f"{api.url}/#/batteries/new?runs={run.run_id}@4")
            await browser.see("document.querySelector('#field-files-0-content')?.value.includes('shinnig')")
            await browser.tab_to(START)
            await browser.press("Enter")
            await browser.see("document.querySelector('.heat-table')")
            stored = BatteryStore(lab.settings.app.artifacts_root)
            battery = stored.get(await identifier(browser))
            assert [one.name for one in battery.record().runs] == [f"{run.run_id}@4"]
            titles = [one[0] for one in await table(browser)]
            assert [f"{one.name}\n{one.level}" for one in battery.summary().runs[0].groups[1:]] == titles[2:]
            await browser.open(f"{api.url}/#/batteries/new?runs={run.run_id}")
            await paste_items(browser)
            await choose(browser, "field-development-has_words", 1)
            await fill(browser, "development-words", "sun, sea")
            await browser.tab_to(START)
            await browser.press("Enter")
            await browser.see("document.querySelectorAll('path.line').length > 1")
            development = stored.get(await identifier(browser)).development()
            assert development is not None and [one.step for one in development.points] == [4, 8]
            options = stored.get(await identifier(browser)).record().options.development
            assert options == DevelopmentOptions(has_words=True, words=("sun", "sea"))
            assert len(browser.errors) == 1 and " 422 " in browser.errors[0]


@pytest.mark.slow
async def test_form__starts_an_analysis_of_a_chosen_table_of_reading_times(lab: Lab, tmp_path: Path) -> None:
    run = finished_run(lab.folder, "lstm", corpus=lab.folder / "data" / "corpus" / "text.txt")
    table, western = tmp_path / "times.csv", tmp_path / "western.csv"
    table.write_text(times_table(), encoding="utf-8")
    western.write_bytes("text,position,word,rt\n1,1,café,300\n".encode("cp1252"))
    with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
        async with browsing(tmp_path) as browser:
            await browser.open(f"{api.url}/#/readings")
            await browser.tab_to("a[href='#/readings/new']")
            await browser.press("Enter")
            await fill(browser, "runs", run.run_id)
            await browser.choose_file("#field-file", western)
            await browser.see_text("'western.csv' is not UTF-8. Save the text as UTF-8.", "#field-file-content-problem")
            await browser.choose_file("#field-file", table)
            await browser.see(f"document.querySelector('#field-file-content').value === {json.dumps(times_table())}")
            await browser.see_value("document.querySelector('#field-file-content-problem').innerText", "")
            await choose(browser, "field-scale", 2)
            await open_details(browser)
            await fill(browser, "spillover", "0")
            await check_opened(browser)
            await browser.tab_to(START)
            await browser.press("Enter")
            await browser.see("location.hash.startsWith('#/readings/times-csv-')")
            await browser.see_text("What surprisal explains")
            record = ReadingStore(lab.settings.app.artifacts_root).get(await identifier(browser)).record()
            assert [one.name for one in record.runs] == [run.run_id]
            assert (record.options.scale, record.options.spillover, record.data.name) == ("log", 0, "times.csv")
            await browser.see(f"document.querySelector('a[href^=\"#/runs/{run.run_id}\"]')")
            await check_opened(browser)
            assert browser.errors == []


async def paste_items(browser: Browser) -> None:
    """Paste the text of a file of items into the form."""
    await browser.see(f"document.querySelector({PASTE!r})")
    await browser.tab_to(PASTE)
    await browser.press("Enter")
    await fill(browser, "files-0-name", "items.csv")
    await fill(browser, "files-0-content", PAIRS)


async def fill(browser: Browser, field: str, text: str) -> None:
    """Type into a field of a form."""
    await browser.see(f"document.querySelector('#field-{field}')")
    await browser.evaluate(f"document.querySelector('#field-{field}').focus()")
    await browser.type(text)


@pytest.mark.slow
async def test_form__starts_an_experiment_with_the_fields_that_were_given(site: Site, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/experiments")
        await browser.tab_to("a[href='#/experiments/new']")
        await browser.press("Enter")
        await fill(browser, "name", "page")
        await browser.tab_to(START)
        await browser.press("Enter")
        await browser.see_text("languages", "#field-languages-problem")
        for field, name in (("languages", "kk"), ("languages", "tr"), ("languages", "fi"), ("models", "lstm")):
            await fill(browser, field, name)
            await browser.press("Enter")
        await check_opened(browser)
        await browser.evaluate(
            "[...document.querySelectorAll('button')].find((one) => one.innerText === 'Remove fi').click()"
        )
        await fill(browser, "corpora", "udhr_ipa")
        await fill(browser, "languages-kk-branch", "kipchak")
        await fill(browser, "models-lstm-train-max_steps", "2")
        await browser.evaluate("document.querySelector('#field-models-lstm-train-model_size').value = 'tiny'")
        await choose(browser, "field-texts-shuffled", 2)
        await fill(browser, "seeds", "1, 2")
        await browser.tab_to(START)
        await browser.press("Enter")
        await browser.see_value("document.activeElement.id", "field-models-lstm-train-split_by")
        await choose(browser, "field-models-lstm-train-split_by", 3)
        await browser.evaluate(f"document.querySelector({START!r}).focus()")
        await browser.press("Enter")
        await browser.see("location.hash.startsWith('#/experiments/page-')")
        await browser.see_text("0 of ")
        record = read_record(
            site.artifacts / "experiments" / await identifier(browser) / "request.json", ExperimentRecord
        )
        assert record.request == ExperimentRequest(
            name="page",
            languages={"kk": LanguageOptions(branch="kipchak"), "tr": LanguageOptions()},
            models={"lstm": ModelOptions(train={"max_steps": 2, "model_size": "tiny", "split_by": "position"})},
            corpora="udhr_ipa",
            texts=TextOptions(shuffled=False),
            seeds=(1, 2),
        )


async def test_form__starts_a_study_of_named_settings(site: Site, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        await browser.open(f"{site.address}/#/studies")
        await browser.tab_to("a[href='#/studies/new']")
        await browser.press("Enter")
        await fill(browser, "name", "page")
        for name in ("low", "high"):
            await fill(browser, "settings", name)
            await browser.press("Enter")
        await browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        await fill(browser, "train-corpus", "demo")
        await browser.evaluate("document.querySelector('#field-train-model_family').value = 'lstm'")
        await browser.evaluate("document.querySelector('#field-train-model_size').value = 'tiny'")
        for name, rate in (("low", "0.001"), ("high", "0.01")):
            await fill(browser, f"settings-{name}-learning_rate", rate)
        await browser.evaluate(f"document.querySelector({START!r}).focus()")
        await browser.press("Enter")
        await browser.see("location.hash.startsWith('#/studies/page-')")
        await browser.see_text("0 of 11 runs")
        record = read_record(site.artifacts / "studies" / await identifier(browser) / "request.json", StudyRecord)
        assert record.request == StudyRequest(
            name="page",
            train={"corpus": "demo", "model_family": "lstm", "model_size": "tiny"},
            settings={"low": {"learning_rate": 0.001}, "high": {"learning_rate": 0.01}},
        )


@pytest.mark.slow
async def test_experiment__is_followed_to_its_matrix_and_loss_curves(lab: Lab, tmp_path: Path) -> None:
    plan = read_plan(ROOT / "configs" / "experiment_smoke.yaml", {"name": "page", "seeds": [1, 2]})
    async with lab.queue() as queue, browsing(tmp_path) as browser:
        with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
            experiment_id = (await started_experiment(queue, plan)).experiment_id
            await browser.open(f"{api.url}/#/experiments/{experiment_id}")
            await browser.see("document.querySelector('.states a, .heat-table')")
            await browser.see("document.querySelector('.heat-table')")
            result = read_record(queue.experiments.get(experiment_id).result, ExperimentResult)
            rows = [row for row in result.models[0].tables.matrix if row.scoring_mode == result.modes[0]]
            shown = [float(cell) for row in await table(browser) for cell in row[1:]]
            assert shown == pytest.approx([row.excess_cross_entropy / log(2) for row in rows], abs=0.00051)
            await open_details(browser)
            await browser.see("document.querySelectorAll('path.line').length === 2")
            await browser.see_value("document.querySelectorAll('path.band').length", 2)
            links = "[...document.querySelectorAll('.states a')].map((link) => link.hash)"
            await browser.see_value(links, [f"#/runs/{row.run_id}" for row in by_language(result)])
            await check_opened(browser)
            assert browser.errors == []


def by_language(result: ExperimentResult) -> list[CurveRow]:
    """The trainings in the order of the table of cells: a row for each language, a column for each seed."""
    return [row for language in result.languages for row in result.curves if row.language == language]


async def identifier(browser: Browser) -> str:
    """The id in the address of the page."""
    return str(await browser.evaluate("location.hash.split('/').pop()"))
