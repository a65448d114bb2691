"""No program reads a message: with every message changed at random, bot, HTTP API and command line do the same."""

import ast
import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from random import Random
from string import ascii_lowercase

import pytest
from pydantic import TypeAdapter
from pydantic_core import to_json

from tests.support import ROOT, message_walk

ROOMS = ("artifacts", "commands", "config", "contracts", "data", "http", "lab", "queue", "services", "worker")
"""The rooms whose texts are for people; the scripts of the store are for Redis."""
_PROSE = re.compile(r"[A-Za-z`'}]+[,:;]? [a-z`'{]+[,:;]? [a-z`'{]+|^[A-Z][a-z ]+\.$")
_WORD = re.compile(r"`[^`]*`|\{[^}]*\}|'[^']*'|[A-Za-z]{2,}")
_CATALOGUE_FUNCTIONS = ("_", "plural")
_notes: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])


class Nonsense(ast.NodeTransformer):
    """Changes every word of every message; names in backticks, values in quotes and placeholders stay."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.changed = 0

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        is_docstring = isinstance(node.value, ast.Constant)
        return node if is_docstring else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _CATALOGUE_FUNCTIONS:
            node.args = [self._changed(each) if isinstance(each, ast.Constant) else each for each in node.args]
        is_pattern = isinstance(node.func, ast.Attribute) and node.func.attr in ("compile", "fullmatch", "sub")
        return node if is_pattern else self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        parts = [part for part in node.values if isinstance(part, ast.Constant)]
        if _PROSE.search("{}".join(str(part.value) for part in parts)):
            node.values = [self._changed(each) if isinstance(each, ast.Constant) else each for each in node.values]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        is_message = isinstance(node.value, str) and _PROSE.search(node.value)
        return self._changed(node) if is_message else node

    def _changed(self, node: ast.Constant) -> ast.Constant:
        if not isinstance(node.value, str):
            return node
        self.changed += 1
        return ast.copy_location(ast.Constant(_WORD.sub(self._word, node.value)), node)

    def _word(self, found: re.Match[str]) -> str:
        word = found[0]
        if not word.isalpha():
            return word
        return "".join(self._random.choice(ascii_lowercase) for _ in word)


def nonsense(folder: Path, seed: int) -> int:
    """Write a copy of the program whose messages are nonsense; return how many they are."""
    changer = Nonsense(seed)
    for room in ("bot", *(f"trainer/{room}" for room in ROOMS)):
        for path in sorted((folder / room).rglob("*.py")):
            changed: ast.AST = changer.visit(ast.parse(path.read_text(encoding="utf-8")))
            path.write_text(ast.unparse(changed), encoding="utf-8")
    return changer.changed


def caches(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__"]


@pytest.fixture(name="program")
def program_fixture(tmp_path: Path) -> Iterator[Path]:
    """A copy of the program."""
    program = tmp_path / "program"
    for name in ("bot", "trainer", "local_discord", "tests/support", "docs"):
        shutil.copytree(ROOT / name, program / name, ignore=caches)
    (program / "tests" / "__init__.py").touch()
    yield program
    shutil.rmtree(program)


async def walk_of(program: Path, folder: Path) -> dict[str, object]:
    """The notes of a walk by a copy of the program."""
    notes = folder.with_suffix(".json")
    environment = {**os.environ, "PYTHONPATH": str(program), "PYTHONDONTWRITEBYTECODE": ""}
    words = (sys.executable, "-m", message_walk.__name__, str(folder), str(notes))
    done = await asyncio.create_subprocess_exec(*words, cwd=program, env=environment, stderr=PIPE)
    _, errors = await done.communicate()
    assert done.returncode == 0, errors.decode()[-3000:]
    return _notes.validate_json(notes.read_bytes())


@pytest.mark.slow
async def test_every_message_changed_at_random__changes_no_behaviour(program: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    message_walk.prepare(here)
    shutil.copytree(here, there)
    assert nonsense(program, seed=20261124) > 1000
    walks = asyncio.gather(message_walk.walk(here), walk_of(program, there))
    expected, found = (_notes.validate_json(to_json(notes)) for notes in await walks)
    assert {key: (expected[key], found[key]) for key in expected if found.get(key) != expected[key]} == {}
