"""Resources of agents: the pages of the documentation, with a title and a sentence each."""

import pytest

from tests.support import ROOT
from trainer.mcp.resources import listed_pages, page_of, pages


def test_pages__are_those_of_the_documentation() -> None:
    assert [*pages()] == sorted(
        file.relative_to(ROOT / "docs").with_suffix("").as_posix() for file in ROOT.glob("docs/**/*.md")
    )
    listed = {page["uri"]: page for page in listed_pages()}
    assert listed["docs://agents"]["title"] == "Agents"
    assert all(page["description"] for page in listed.values())


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("# A\n\nFirst sentence. Second.\n", "First sentence."),
        ("# A\n\n| a |\n|---|\n\n## B\n\n```sh\nx\n```\n\nA [link](b.md) of\ntwo lines", "A link of two lines"),
        ("# A\n\n![picture](a.png)\n\n`mt` trains. It scores.", "`mt` trains."),
        ("# A\n", ""),
    ],
)
def test_page__has_its_first_sentence_as_plain_text(text: str, about: str) -> None:
    page = page_of("a", text)
    assert (page.name, page.title, page.about, page.text) == ("a", "A", about, text)
