"""Writes the source of the documentation site: mkdocs.yml and all pages, with links that work on the site.

The pages are those of docs/, README, CONTRIBUTING, CHANGELOG and the reference, which is made from the code. `llms.txt`
lists them for language models. MkDocs and Zensical both build the folder as it is: `make docs` builds it into `site/`.

    python -m scripts.site_pages FOLDER
"""

import posixpath
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.api_page import api_page
from scripts.mt_page import mt_page
from scripts.python_page import python_page
from scripts.tools_page import tools_page
from trainer.http.routes import OPERATIONS
from trainer.mcp.resources import page_of

ROOT = Path(__file__).resolve().parent.parent
SITE = "https://model-trainer.github.io/model-trainer/"
SOURCE = "https://github.com/model-trainer/model-trainer/blob/main/"
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the root of the repository, with their names on the site."""
_LINK = re.compile(
    r"(?ms)^```.*?^```|`[^`\n]+`|(?<=\]\()(?P<link>[^)\s]+)"
    r'|(?:(?<= src=")|(?<=srcset=")|(?<=href="))(?P<attribute>[^"]+)'
)
"""Code, which stays as it is, or the target of a link or an attribute of HTML."""


def write_source(folder: Path) -> None:
    """Write the source of the site to a folder; an earlier one there is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    docs = folder / "docs"
    shutil.copytree(ROOT / "docs", docs)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    (docs / "reference").mkdir()
    made = {site: (ROOT / name).read_text(encoding="utf-8") for name, site in ROOT_PAGES.items()} | reference()
    kept = {page.relative_to(docs).as_posix(): page.read_text(encoding="utf-8") for page in docs.rglob("*.md")}
    pages = {name: with_site_links(text, name) for name, text in {**kept, **made}.items()}
    for name, text in pages.items():
        (docs / name).write_text(text, encoding="utf-8", newline="\n")
    (docs / "llms.txt").write_text(llms_text(pages), encoding="utf-8", newline="\n")


def reference() -> dict[str, str]:
    """Return the pages that are written from the code, by their names."""
    http = api_page(OPERATIONS)
    records: list[str] = re.findall(r"^### (\w+)$", http, re.MULTILINE)
    return {
        "reference/mt.md": mt_page(),
        "reference/http.md": http,
        "reference/tools.md": tools_page(),
        "reference/python.md": python_page(set(records)),
        "reference/settings.md": settings_page((ROOT / ".env.example").read_text(encoding="utf-8")),
    }


def llms_text(pages: Mapping[str, str]) -> str:
    """Return `llms.txt`, the pages for language models as llmstxt.org has it, by the sections of the navigation."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    about = page_of("index", pages["index.md"]).about
    lines = ["# Model Trainer", "", f"> {about}"]
    for entry in navigation.splitlines():
        name = entry.rpartition(" ")[2]
        if name not in pages:
            lines += ["", f"## {entry.strip(' -:')}", ""]
            continue
        page, place = page_of(name, pages[name]), f"{SITE}{name.removesuffix('.md').removesuffix('index')}"
        lines.append(f"- [{page.title}]({place.rstrip('/')}/): {page.about}")
    return "\n".join([*lines, ""])


def settings_page(example: str) -> str:
    """Return the page of settings: .env.example with its titles as headings and its comments as text."""
    titled = re.sub(r"(?m)^# --- (.+?) -+$", r"## \1", example)
    fenced = re.sub(r"(?m)(?:^#?[A-Z_]+=.*\n)+", r"\n```ini\n\g<0>```\n\n", titled)
    return f"# Settings\n\n{re.sub('(?m)^# ', '', fenced)}"


def with_site_links(markdown: str, name: str) -> str:
    """Return the text of a page with links that work on the site: to its pages, else to the file on GitHub."""
    sources = {site: source for source, site in ROOT_PAGES.items()}
    source = sources.get(name, f"docs/{name}")

    def adapted(found: re.Match[str]) -> str:
        link: str | None = found["link"]
        attribute: str | None = found["attribute"]
        if link is not None:
            return _site_link(link, source, name)
        return found[0] if attribute is None else _site_link(attribute, source, name, is_html=True)

    return _LINK.sub(adapted, markdown)


def _site_link(target: str, source: str, name: str, *, is_html: bool = False) -> str:
    address, hash_sign, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), address))
    if address.startswith(SITE):
        page = f"{address.removeprefix(SITE).strip('/') or 'index'}.md"
    elif not address or ":" in address:
        return target
    elif path in ROOT_PAGES or path.startswith("docs/"):
        page = ROOT_PAGES.get(path, path.removeprefix("docs/"))
    else:
        return f"{SOURCE}{path}" if (ROOT / path).exists() else target
    if is_html:  # MkDocs turns names of pages into addresses in links of Markdown only
        is_page, page, name = page.endswith(".md"), _address(page), _address(name)
        return f"{posixpath.relpath(page, name)}{'/' if is_page else ''}{hash_sign}{anchor}"
    return f"{posixpath.relpath(page, posixpath.dirname(name) or '.')}{hash_sign}{anchor}"


def _address(name: str) -> str:
    """Return the address of a page or a file of the site."""
    return "." if name == "index.md" else name.removesuffix(".md")


if __name__ == "__main__":
    write_source(Path(sys.argv[1]))
