"""The pages of the HTTP API: the codes of errors are complete, links have targets, and the examples work."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from re import DOTALL, MULTILINE, findall, search

import pytest

from scripts.api_page import api_page
from tests.faults.fuzz import end_runs
from tests.faults.prepared import Prepared, prepare
from tests.support import ROOT
from tests.support.api_process import KEY, api_process
from tests.support.lab import Lab
from trainer.contracts.errors import ErrorCode
from trainer.http.operations import HttpOperation
from trainer.http.routes import OPERATIONS

INTRODUCTION = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
CURL_SETTINGS = "fail-with-body\nsilent\nshow-error\nmax-time = 300\n"
"""Of a file that curl reads: an answer that is no success is an error."""


@pytest.fixture(scope="module", name="prepared")
def prepared_fixture(lab: Lab) -> Iterator[Prepared]:
    with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0") as api, prepare(api, lab.folder) as prepared:
        yield prepared
        end_runs(api)


@pytest.fixture(scope="module", name="page")
def page_fixture() -> str:
    return api_page(OPERATIONS)


def example(page: str, operation: HttpOperation, language: str) -> str:
    """The example of an operation on the page."""
    title = f"### {operation.row.method} {operation.row.path}\n"
    found = search(f"```{language}\n(.*?)```", page[page.index(title) :], DOTALL)
    assert found is not None
    return str(found[1])


def test_introduction__lists_every_code_with_its_class() -> None:
    rows: list[tuple[str, str]] = findall(r"^\| `([A-Z_]+)` \| .* \| (\w+) \|$", INTRODUCTION, MULTILINE)
    assert rows == [(code, code.error_class.lower()) for code in ErrorCode]


@pytest.mark.slow
def test_page__every_link_to_a_record_has_a_target(page: str) -> None:
    titles: list[str] = findall("^#+ (.*)$", page, MULTILINE)
    links: list[str] = findall(r"\]\(#([^)]*)\)", page)
    assert set(links) <= {title.lower().replace(" ", "-") for title in titles}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on the PATH")
def test_page__every_example_for_curl_works(page: str, prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text(CURL_SETTINGS)
    for operation in OPERATIONS:
        variables = {"URL": prepared.api.url, "KEY": KEY, "CURL_HOME": str(tmp_path), **prepared.values(operation)}
        words = ["bash", "-c", example(page, operation, "sh")]
        done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, check=False)
        assert done.returncode == 0, (operation.row.name, done.stdout, done.stderr)


@pytest.mark.slow
def test_page__every_example_for_python_works(page: str, prepared: Prepared) -> None:
    client = search("```python\n(.*?)```", INTRODUCTION, DOTALL)
    assert client is not None
    script = [f"URL, KEY = {prepared.api.url!r}, {KEY!r}\n{client[1]}"]
    for operation in OPERATIONS:
        script += [f"{name} = {value!r}" for name, value in prepared.values(operation).items()]
        script.append(example(page, operation, "python"))
    done = subprocess.run([sys.executable, "-c", "\n".join(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
