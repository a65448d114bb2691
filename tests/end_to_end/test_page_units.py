"""The unit of the page, bits or nats: every view has the figures of the chosen one, and nothing in the other."""

from collections.abc import Iterator
from math import log
from pathlib import Path

import pytest

from tests.support.api_process import api_process
from tests.support.baselines import BETTER
from tests.support.browser import browsing, faults, needs_chromium, see_both_units
from tests.support.experiment_results import EXPERIMENT, GAP
from tests.support.groups import GROUP, group_stories
from tests.support.stored_jobs import finish_battery, finished_development, finished_experiment, waiting_battery
from tests.support.stories import Story, run_record

pytestmark = needs_chromium

RUN, BATTERY, DEVELOPMENT = "lstm-1", "words-1a2b3c4d", "grown-1a2b3c4d"
NOTE = "The parent has 2.00 nats per token."
CHARS = BETTER.bits_per_char * log(2)
"""Nats per character of the test split."""
VIEWS: dict[str, list[tuple[str, *tuple[float, ...]]]] = {
    "/": [
        ("losses in {unit} per token",),
        ("\nTest, {unit} per character",),
        ("\t{:.3f}\t{:.3f}\t{:.3f}\t{:.3f}", 1.5, 1.75, 1.0, CHARS),
        ("\t{:.3f} ± {:.3f}\t", 1.0, 0.0),
        ("loss, {unit} per token by step: kk-ipa from {:.3f} at 1 to {:.3f} at 2", 2.5, 1.5),
    ],
    f"/runs/{RUN}": [
        ("split\t{unit} per token\t{unit} per character\tperplexity",),
        ("Training\t{:.3f}\t–\t4.48", 1.5),
        ("Best validation\t{:.3f} ({:.3f} to {:.3f})\t{:.3f}", 1.75, 1.72, 1.78, 3.5),
        ("Test\t{:.3f}\t{:.3f}\t2.72", 1.0, CHARS),
        ("5-gram: {:.3f} {unit} per character; this model {:.3f} (", BETTER.ngram_bits_per_char * log(2), CHARS),
        ("The parent has {:.2f} {unit} per token", 2.0),
        ("loss, {unit} per token by step: train from {:.3f} at 1 to {:.3f} at 2;", 2.5, 1.5),
        ("step 2: train {:.3f}, validation {:.3f}", 1.5, 1.75),
        ("Loss, {unit} per token by step",),
    ],
    f"/groups/{GROUP}": [
        ("test, {unit} per token\t{:.3f}\t{:.3f}\t", 1.0, 0.0),
        ("test, {unit} per character\t{:.3f}\t", CHARS),
        ("100 %\t{:.3f}\t{:.3f}\t{:.3f}", 1.75, 1.0, CHARS),
    ],
    f"/experiments/{EXPERIMENT}": [
        ("above that of the text's own model, in {unit} per character.",),
        (
            "The mean distance is {:.3f} {unit} within branches and {:.3f} across branches: a gap of {:.3f}",
            *(GAP.within, GAP.across, GAP.gap),
        ),
        ("kk\tky\t{:.3f}", 0.36),
        ("area under the training loss in {unit} · steps",),
    ],
    f"/batteries/{BATTERY}": [
        ("what\tregion\titems\t{unit}\t95 % interval",),
        ("\tc\t1 verb\t4\t{:.2f}\t{:.2f} to {:.2f}\n", 2.5, 2.0, 3.0),
    ],
    f"/batteries/{DEVELOPMENT}": [
        ("test: {unit} per character",),
        ("{:.3f} ({:.3f} to {:.3f})", 5 * log(2), 4.95 * log(2), 5.05 * log(2)),
        ("Loss, {unit} per character by words that the model has read",),
        ("from {unit}\tto {unit}",),
    ],
}


@pytest.fixture(name="address", scope="module")
def address_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server without workers, whose jobs are written by hand."""
    folder = tmp_path_factory.mktemp("units")
    artifacts = folder / "artifacts"
    for story in (Story(artifacts, run_record(RUN)), *group_stories(artifacts, (1, 2))):
        story.start(notes=(NOTE,)).step(1, 2.5).step(2, 1.5, 1.75, 0.03).complete(1.5, BETTER)
    finished_experiment(artifacts)
    finish_battery(waiting_battery(artifacts, BATTERY, "lstm-1", "lstm-2"))
    finished_development(artifacts, DEVELOPMENT, RUN)
    with api_process(folder, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:
        yield api.url


@pytest.mark.slow
async def test_views__have_one_unit(address: str, tmp_path: Path) -> None:
    async with browsing(tmp_path) as browser:
        for view, figures in VIEWS.items():
            await browser.open(f"{address}/#{view}")
            await browser.see("document.querySelector('main td')")
            await browser.see_value("document.querySelector('#unit').value", "bits")
            if "experiments" in view:  # whose runs are not here: their curves stay closed
                await browser.see("document.getElementById('about-curves-of-trainings')")
                await browser.evaluate("document.getElementById('about-curves-of-trainings').parentNode.remove()")
            await browser.evaluate("document.querySelectorAll('main details').forEach((one) => (one.open = true))")
            await see_both_units(browser, *figures)
            assert await faults(browser) == []
        assert all(" 409 " in error for error in browser.errors), browser.errors
