"""docs/extending.md: its changes apply to the named files, and what they add works."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel

from tests.support import ROOT, add_corpus, environment_in, some_text
from tests.support.api_process import api_process
from tests.support.browser import browsing, faults, give, needs_chromium
from tests.support.waiting import PATIENCE_SECONDS

IN_BROWSER, NEEDS_CHROMIUM = needs_chromium

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
_BUILT: Callable[[str, list[str]], set[str]] = shutil.ignore_patterns("__pycache__")
SHOWN_FIELD = "A shown field of a run"
FOLDERS = ("bot", "docs", "tests", "trainer")


class Recipe(NamedTuple):
    """A change as the page has it, and the files that it names beside it."""

    diff: str
    files: set[str]

    def edited(self) -> list[str]:
        """Return the existing files of the product that it changes."""
        return [name for name in self.files if name.startswith(("bot", "trainer")) and (ROOT / name).exists()]


def recipes() -> dict[str, Recipe]:
    """By the title of its section."""
    found: dict[str, Recipe] = {}
    for section in PAGE.split("\n## ")[1:]:
        listed, diff = section.split("\nFiles: ")[1].split(".\n\n", 1)[0], section.split("```diff\n")[1]
        found[section.partition("\n")[0]] = Recipe(diff.split("```")[0], set(listed.split("`")[1::2]))
    return found


class Ended(BaseModel):
    """The fields of a manifest that are read for an unknown architecture."""

    status: str
    steps: int


@pytest.fixture(name="copy")
def copy_fixture(tmp_path: Path) -> Path:
    """A copy of the source, without what was built in it."""
    tree = tmp_path / "tree"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=_BUILT)
    shutil.copy(ROOT / "pyproject.toml", tree / "pyproject.toml")
    return tree


def contents(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def apply(tree: Path, recipe: Recipe) -> set[str]:
    """Apply a change; return the files that are others than before."""
    before = contents(tree)
    words = ["git", "apply", "--unsafe-paths", "--directory", str(tree), "-"]
    done = subprocess.run(words, cwd=tree.parent, input=recipe.diff, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name for name, content in contents(tree).items() if before.get(name) != content}


def run(tree: Path, *words: str) -> str:
    """Run Python in the copy and with its code, and give what it writes."""
    environment = environment_in(tree, PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")
    environment.pop("COVERAGE_PROCESS_CONFIG", None)
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_changes__touch_the_files_that_they_name_and_no_others(copy: Path) -> None:
    found = recipes()
    titles = ("An architecture", "A tokenizer", "A job kind", "A slash command", "A preset", "An event")
    assert tuple(found) == (
        *titles,
        "A hyper-parameter",
        "An inference kind",
        "An operation on a run",
        "A shown field of a run",
    )
    for title, recipe in found.items():
        assert apply(copy, recipe) == recipe.files, title
        for name in recipe.files:
            if name.endswith(".py"):
                ast.parse((copy / name).read_text(encoding="utf-8"), name)


@pytest.mark.slow
def test_architecture_of_the_page__trains_and_keeps_the_contract(copy: Path) -> None:
    apply(copy, recipes()["An architecture"])
    add_corpus(copy, some_text(300))
    words = ("test_mingru_tiny", "--corpus", "text", "--set", "max_steps=3", "--set", "threads=1")
    assert "Valid. Nothing was started." in run(copy, "-m", "trainer", "validate", *words)
    run(copy, "-m", "trainer", "train", *words)
    [manifest] = copy.glob("artifacts/models/*/manifest.json")
    assert Ended.model_validate_json(manifest.read_bytes()) == Ended(status="completed", steps=3)
    quick = "mingru and (state or causality or neighbours or gradient__ or load or fresh)"
    tested = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "tests/unit/models", "-k", quick)
    assert re.search(r"\b[6-9] passed", tested), tested


RESTORED = """
import asyncio
from trainer.artifacts.corpus_stats import CountRecord, CountStore
from trainer.artifacts.kinds import COUNTS
from trainer.config.settings import load_settings
from trainer.contracts.base import now
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.store.store import connect
from trainer.worker.reconciler import reconcile

async def main():
    settings = load_settings()
    services = Services(settings)
    url = await services.start()
    queue, store = await JobQueue.connect(settings, url), await connect(url)
    counts, corpus = CountStore(settings.app.artifacts_root), await queue.corpora.describe("text")
    await queue.jobs.accept(COUNTS, lambda: counts.create(CountRecord(created_at=now(), corpus=corpus)))
    queued = await store.queue_order("corpus_stats")
    await store.redis.flushall()
    await reconcile(settings, store)
    restored = await store.queue_order("corpus_stats")
    assert queued == restored == [one.job_id for one in counts.unfinished()] != [], (queued, restored)
    await store.close()
    await queue.close()
    await services.stop()

asyncio.run(main())
"""
"""Queues a job without a worker, and loses Redis."""


ROUTES = """
from trainer.http.routes import OPERATIONS
print(*(one.row.route for one in OPERATIONS if "corpus_stats" in one.row.path), sep="\\n")
"""
TABLES = """
from trainer.http.page_tables import PageTables
print(*(one.title for one in PageTables().jobs if one.kind == "corpus_stats"))
"""


@pytest.mark.slow
def test_job_kind_of_the_page__is_restored_then_run_by_a_worker(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipes()["A job kind"]
    apply(copy, recipe)
    assert len(recipe.edited()) <= 8
    routes = run(copy, "-c", ROUTES).splitlines()
    one = "/corpus_stats/{count_id}"
    assert {*routes} == {"POST /corpus_stats", "GET /corpus_stats", f"GET {one}", f"POST {one}/cancel", f"DELETE {one}"}
    add_corpus(copy, "ab\ncde\n")
    with monkeypatch.context() as without_worker:
        without_worker.setenv("QUEUE__EMBEDDED_WORKERS", "0")
        run(copy, "-c", RESTORED)
    assert "lines 2, characters 5" in run(copy, "-m", "trainer", "corpus", "count", "text")
    listed = run(copy, "-m", "trainer", "job", "list", "corpus_stats").splitlines()
    assert [line.split()[-1] for line in listed] == ["corpus", "text"]
    assert run(copy, "-c", TABLES) == "Corpus stats\n"


@pytest.mark.slow
@IN_BROWSER
@NEEDS_CHROMIUM
async def test_job_kind_of_the_page__is_listed_shown_and_deleted_in_the_browser(copy: Path) -> None:
    apply(copy, recipes()["A job kind"])
    add_corpus(copy, "ab\ncde\n")
    run(copy, "-m", "trainer", "corpus", "count", "text")
    with api_process(copy, QUEUE__EMBEDDED_WORKERS="0", SECURITY__API_KEYS="") as api:  # the code of its folder
        async with browsing(copy) as browser:
            await browser.open(f"{api.url}/#/jobs")
            for link in ("a[href='#/corpus_stats']", "a[href^='#/corpus_stats/count-']"):
                await browser.see(f"document.querySelector(`main {link}`)")
                await browser.tab_to(f"main {link}")
                await browser.press("Enter")
            await browser.see_text("Files")
            facts = "[...document.querySelectorAll('dd')].map((one) => one.innerText).join(' ')"
            assert str(await browser.evaluate(facts)).endswith(" text 2 5")
            assert await faults(browser) == []
            await browser.tab_to("main button")
            await browser.press("Enter")
            await give(browser, "Delete the count")
            await browser.see_text("0 of 0 shown")
            assert browser.errors == []


@pytest.mark.slow
def test_recipe_of_an_inference_kind__is_answered_everywhere(copy: Path) -> None:
    recipe = recipes()["An inference kind"]
    apply(copy, recipe)
    words = ("-q", "-p", "no:cacheprovider", "-n0", "tests/integration/test_entropy.py")
    contract = "tests/integration/test_inference_queue.py::test_requests__of_each_kind_are_answered_once_under_their_id"
    assert re.search(r"\b2 passed", run(copy, "-m", "pytest", *words, contract))
    assert len(recipe.edited()) <= 4


@pytest.mark.slow
def test_operation_of_the_page__is_for_owners_over_http_and_in_the_terminal(copy: Path) -> None:
    recipe = recipes()["An operation on a run"]
    apply(copy, recipe)
    words = ("-q", "-p", "no:cacheprovider", "-n0", "tests/integration/test_log_levels.py")
    assert re.search(r"\b2 passed", run(copy, "-m", "pytest", *words))
    assert len(recipe.edited()) <= 3


@pytest.mark.slow
def test_slash_command_of_the_page__has_its_texts_and_fits_into_discord_in_every_language(copy: Path) -> None:
    recipe = recipes()["A slash command"]
    apply(copy, recipe)
    words = ("-q", "-p", "no:cacheprovider", "-n0", "tests/unit/lab/test_language.py")
    tested = run(copy, "-m", "pytest", *words, "-k", "catalogue or commands__")
    assert re.search(r"\b[3-9] passed", tested), tested
    assert len(recipe.edited()) <= 4


@pytest.mark.slow
def test_shown_field_of_the_page__stands_in_the_status_of_a_run(copy: Path) -> None:
    recipe = recipes()[SHOWN_FIELD]
    apply(copy, recipe)
    assert len(recipe.edited()) == len(recipe.files) == 4
    add_corpus(copy, some_text(300))
    run(copy, "-m", "trainer", "train", "--corpus", "text", "--set", "max_steps=3", "--set", "threads=1")
    assert re.search(r"Processor time +│ \d+ s", run(copy, "-m", "trainer", "status", "last"))
