"""The documentation site: two builders make every page once without a warning, and its reference is complete."""

import os
import re
import subprocess
import sys
from collections import Counter
from html import unescape
from pathlib import Path

import pytest

from scripts.site_pages import SITE, SOURCE, with_site_links, write_source
from tests.support import ROOT
from trainer.client.client import Client
from trainer.client.notebook import NotebookModel
from trainer.config.settings import PLAIN_NAMES, environment_names
from trainer.contracts.operations import COMMANDS
from trainer.http.routes import OPERATIONS

PAGES = sorted(file.relative_to(ROOT / "docs").with_suffix("").as_posix() for file in ROOT.glob("docs/**/*.md"))
REFERENCE = {f"reference/{name}/" for name in ("mt", "http", "tools", "python", "settings")}
MARKDOWN = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in PAGES)]
FENCED = r"(?ms)^ *```.*?^ *```$"
SHALLOW = r"(?m)^ {1,3}(?:[-*|] |\d+\. |```).*|(?<=\n\n) {1,3}\S.*"


@pytest.fixture(name="source", scope="module")
def source_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages with mkdocs.yml, which makes each warning an error."""
    source = tmp_path_factory.mktemp("source")
    write_source(source)
    return source


@pytest.fixture(name="site", scope="module")
def site_fixture(source: Path) -> Path:
    return (
        built(source, "mkdocs", "build", "--site-dir", "by-mkdocs") / "by-mkdocs"
    )  # with --quiet, it counts no warnings


def built(source: Path, *command: str) -> Path:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    words = [sys.executable, "-m", *command]
    done = subprocess.run(words, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return source


def found(pattern: str, text: str) -> list[str]:
    matches: list[str] = re.findall(pattern, text)
    return matches


def page(site: Path, name: str) -> str:
    return unescape((site / name / "index.html").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.process
def test_site__has_every_page_once_in_its_navigation(site: Path) -> None:
    links = found(r'<a href="([^"#]+)" class="md-nav__link', page(site, "."))
    names = {*(f"{name.removesuffix('/index')}/" for name in PAGES), *REFERENCE, "changelog/", "contributing/", "."}
    assert Counter(links) == Counter(names)


@pytest.mark.slow
@pytest.mark.process
def test_zensical__builds_the_pages_that_mkdocs_builds(source: Path, site: Path) -> None:
    pages = [page.relative_to(site) for page in sorted(site.rglob("*.html"))]
    by_zensical = built(source, "zensical", "build", "--strict") / "site"
    assert [page.relative_to(by_zensical) for page in sorted(by_zensical.rglob("*.html"))] == pages


@pytest.mark.slow
@pytest.mark.process
def test_site__loads_no_file_of_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        tags = found(r"<(?:script|img|iframe)[^>]*src=\"?https?:[^>]*|<link[^>]*https?:[^>]*", text)
        assert [tag for tag in tags if 'rel="canonical"' not in tag] == [], file
        assert all((file.parent / name).is_file() for name in found(r'<img [^>]*src="([^":]+)"', text)), file


@pytest.mark.process
def test_site__shows_no_list_and_no_table_as_text(site: Path) -> None:
    for file in site.rglob("index.html"):
        text = re.sub(r"(?s)<(pre|code|script)\b.*?</\1>", "", file.read_text(encoding="utf-8"))
        assert found(r"\n(?:[-*|] |\d+\. ).{9}", text) == [], file


@pytest.mark.process
def test_reference__names_everything_that_a_user_can_type(site: Path) -> None:
    titles = {name: set(found(r'<h[23] id="[^"]*">(.*?)<a', page(site, name))) for name in REFERENCE}
    assert {f"mt {name}" for name in COMMANDS} <= titles["reference/mt/"]
    assert {f"{one.row.method} {one.row.path}" for one in OPERATIONS} <= titles["reference/http/"]
    methods = [name for shown in (Client, NotebookModel) for name in dir(shown) if not name.startswith("_")]
    assert {"trainer.load", *methods} <= titles["reference/python/"]
    settings = re.sub("<[^>]+>", "", page(site, "reference/settings/"))
    assert all(
        re.search(rf"\b{name}=", settings) for name in {*environment_names(), "HF_TOKEN"} - set(PLAIN_NAMES.values())
    )


def test_llms_text__lists_every_page_once_with_a_sentence_by_the_sections_of_the_navigation(source: Path) -> None:
    title, blank, about, *lines = (source / "docs" / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert (title, blank, about[:2]) == ("# Model Trainer", "", "> ")
    entries = [
        re.fullmatch(r"- \[[^]]+\]\((?P<url>[^)]+)\): \S.+", line) for line in lines if line[:1] not in ("", "#")
    ]
    assert all(entries)
    names = {*(f"{name.removesuffix('index')}/".replace("//", "/") for name in PAGES), *REFERENCE}
    expected = [SITE, *(f"{SITE}{name}" for name in {*names, "changelog/", "contributing/"})]
    assert sorted(one["url"] for one in entries if one) == sorted(expected)
    sections = [line for line in lines if line.startswith("#")]
    assert sections == [f"## {name}" for name in ("Start", "Discord", "How-to", "Reference", "Explanation", "Project")]


@pytest.mark.parametrize(
    ("page_of_site", "written", "adapted"),
    [
        ("index.md", "[a](docs/api.md#keys)", "[a](api.md#keys)"),
        ("index.md", '<img src="docs/a.png" width="420">', '<img src="a.png" width="420">'),
        ("api.md", '<img src="pictures/a.png">', '<img src="../pictures/a.png">'),
        (
            "index.md",
            '<a href="docs/api.md#keys"><a href="LICENSE">',
            f'<a href="api/#keys"><a href="{SOURCE}LICENSE">',
        ),
        ("how-to/a.md", '<a href="../../README.md">', '<a href="../../">'),
        ("index.md", "[a](.env.example)", f"[a]({SOURCE}.env.example)"),
        ("api.md", "[a](../README.md)", "[a](index.md)"),
        ("api.md", "[a](../CHANGELOG.md#unreleased)", "[a](changelog.md#unreleased)"),
        ("api.md", "[a](../deploy/slurm)", f"[a]({SOURCE}deploy/slurm)"),
        ("how-to/a.md", "[a](../api.md)", "[a](../api.md)"),
        ("how-to/a.md", f"[a]({SITE}reference/mt/#train)", "[a](../reference/mt.md#train)"),
        ("api.md", f"[a]({SITE})", "[a](index.md)"),
        ("api.md", "[a](https://example.org) [b](#keys)", "[a](https://example.org) [b](#keys)"),
        ("api.md", "`[a](../README.md)`\n\n```\n[a](../README.md)\n```", None),
    ],
)
def test_links__lead_to_pages_of_the_site_or_to_the_source(
    page_of_site: str, written: str, adapted: str | None
) -> None:
    assert with_site_links(written, page_of_site) == (written if adapted is None else adapted)


@pytest.mark.parametrize("name", MARKDOWN)
def test_pages__indent_lists_by_four_spaces_as_the_site_needs(name: str) -> None:
    assert found(SHALLOW, re.sub(FENCED, "", (ROOT / name).read_text(encoding="utf-8"))) == []
