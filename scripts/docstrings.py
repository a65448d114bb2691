"""Measures the share of docstrings that open with a relative clause; fails from 2 % on.

    python -m scripts.docstrings            # the share, and each place
    python -m scripts.docstrings sample 60  # a seeded sample of docstrings, to be read

A docstring says what a function does or what a thing is: "Return the run", "Settings of the queue". One that opens with
"What", "How" or "Whether" has no noun that a reader could search for.
"""

import ast
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bot", "trainer", "local_discord", "scripts", "benchmarks", "tests")
RELATIVE_OPENING = re.compile(r"(What|How|Whether|Who|Whom|Whose|Where|When|Which)\b")
MAX_SHARE = 0.02
SEED = 8


class Docstring(NamedTuple):
    """A docstring and its place."""

    place: str
    text: str

    @property
    def is_relative(self) -> bool:
        return RELATIVE_OPENING.match(self.text) is not None


def docstrings(folders: tuple[str, ...] = FOLDERS) -> Iterator[Docstring]:
    """Yield the docstrings of modules, classes, functions and attributes."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    for statement in node.body:
                        match statement:
                            case ast.Expr(value=ast.Constant(value=str(text))) if text.strip():
                                yield Docstring(f"{file.relative_to(ROOT)}:{statement.lineno}", text.strip())
                            case _:
                                pass


def main(words: list[str]) -> int:
    if words[:1] == ["sample"]:
        product = list(docstrings(("bot", "trainer")))
        for docstring in random.Random(SEED).sample(product, int(words[1])):  # noqa: S311
            print(f"{docstring.place}\n    {docstring.text}\n")
        return 0
    found = list(docstrings())
    relative = [docstring for docstring in found if docstring.is_relative]
    for docstring in relative:
        print(f"{docstring.place}: {docstring.text.splitlines()[0]}")
    share = len(relative) / len(found)
    print(f"{share:.1%} of {len(found)} docstrings open with a relative clause; less than {MAX_SHARE:.0%} is allowed")
    return 1 if share >= MAX_SHARE else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
