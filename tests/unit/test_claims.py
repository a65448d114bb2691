"""What the pages claim of the program is not older than the program: commands, options, settings, classes and files."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest

from scripts.pictures import SHOWN, SHOWN_FILE
from tests.support import ROOT
from tests.support.pages import find
from tests.unit.test_packaging import PyProject
from trainer.config.settings import environment_names
from trainer.contracts.base import KindName
from trainer.contracts.operations import CHAT_COMMANDS, COMMANDS
from trainer.lab.permissions import typed_command

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXTENDING = ROOT / "docs" / "extending.md"
"""It makes commands of its own."""
DECISIONS, ROADMAP = ROOT / "docs" / "decisions.md", ROOT / "docs" / "roadmap.md"
_CODE = r"`([^`\n]+)`"
_SAID = r"/mt(?:-[a-z]+)? [a-z-]+(?: [a-z]+\b(?!:))?"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def beginnings(names: Mapping[str, object]) -> set[str]:
    """The names and their groups: `mt battery run`, `mt battery`, `mt`."""
    return {" ".join(words[:count]) for words in map(str.split, names) for count in range(1, len(words) + 1)}


TYPED = beginnings({f"mt {name}": None for name in COMMANDS})
SAID = beginnings({typed_command(name): None for name in CHAT_COMMANDS})


def commands_in(page: Path) -> Iterator[str]:
    """Yield what follows `mt` or `/mt` in the code of a page, up to the first word that is no name."""
    lines = find(_CODE, text_of(page)) + find(r"^(?:\$ )?(mt .+)$", text_of(page))
    for line in lines:
        if found := re.match(r"/?mt(?:-[a-z]+)?(?: [a-z][a-z-]*(?![\w.:/=@]))*", line):
            yield found[0]


def stem(page: Path) -> str:
    return page.stem


def unknown(command: str) -> bool:
    """Return whether a command is none: it may have an operand behind a name, but not behind a group."""
    known, words = (SAID if command.startswith("/") else TYPED), command.split()
    depth = next(count for count in range(len(words), -1, -1) if " ".join(words[:count]) in known or not count)
    is_group = any(name.startswith(" ".join(words[:depth]) + " ") for name in known)
    return depth < min(2, len(words)) or (is_group and depth < len(words))


@pytest.mark.parametrize("page", sorted({*PAGES} - {EXTENDING}), ids=stem)
def test_page__names_commands_that_exist(page: Path) -> None:
    assert [command for command in commands_in(page) if unknown(command)] == []


@pytest.mark.parametrize(
    "command", ["mt bench architectures", "/mt corpus build", "mt corpus", "/mt-lab show", "mt corpora"]
)
def test_command__that_is_gone_is_noticed(command: str) -> None:
    assert unknown(command) == (command != "mt corpus")


def test_pictures__show_commands_that_exist() -> None:
    pictures = ROOT / "docs" / "pictures"
    shown = SHOWN.validate_json((pictures / SHOWN_FILE).read_bytes())
    assert [name for name in shown if not (pictures / f"{name}.png").exists()] == []
    said = {command for lines in shown.values() for command in find(_SAID, "\n".join(lines))}
    assert "/mt train" in said
    assert [command for command in said if unknown(command)] == []


def code_of(page: Path, pattern: str) -> set[str]:
    return {found for span in find(_CODE, text_of(page)) for found in find(pattern, span)}


@pytest.mark.parametrize("page", [DECISIONS, ROADMAP], ids=stem)
def test_decision__names_options_settings_classes_and_files_that_exist(page: Path) -> None:
    source = "".join(text_of(file) for folder in ("trainer", "bot") for file in (ROOT / folder).rglob("*.py"))
    options = set(find(r'"(--[a-z-]+)"', source)) | {
        f"--{name.replace('_', '-')}" for name in find(r"^    (\w+) = ", source)
    }
    classes = set(find(r"^class (\w+)", source))
    assert code_of(page, r"^--[a-z-]+|(?<= )--[a-z-]+") - options == set()
    assert code_of(page, r"^[A-Z]+(?:__[A-Z_]+)+") - {*environment_names()} == set()
    assert {name for name in code_of(page, r"^(?:[A-Z][a-z]+){2,}$") if name not in classes} == set()
    files = code_of(page, r"^(?:trainer|bot|scripts|benchmarks|docs|deploy)/[\w./-]+$")
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_decisions__are_each_told_once() -> None:
    topics = Counter(find(r"^\| ([^|]+) \|", text_of(DECISIONS)))
    assert [topic for topic, count in topics.items() if count > 1] == []


def test_roadmap__plans_nothing_that_is_there() -> None:
    settings: dict[str, object] = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    kinds: tuple[str, ...] = get_args(KindName)
    there = {*kinds, *PyProject.model_validate(settings).project.extras, *(page.stem for page in PAGES)}
    there |= {word for name in COMMANDS for word in name.split()}
    planned = text_of(ROADMAP).split("## Planned\n")[1].split("\n## ")[0]
    titles = find(r"^- \*\*(.+?)\*\*", planned)
    words = {word for title in titles for word in find(r"\w+", title.casefold())}
    assert titles
    assert words & (there | {f"{name}s" for name in there} | {name.removesuffix("s") for name in there}) == set()
