"""docs/tokenizers.md: its commands run, and its Python code gives the product's ids."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import mt
from tests.support.tiny_models import tokenizer_of
from trainer.contracts.tokenizers import METHODS

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[2] / "docs" / "tokenizers.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_commands_of_the_page__run(tmp_path: Path) -> None:
    [commands] = blocks("sh")
    for command in commands.splitlines():
        done = mt(tmp_path, *command.split()[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    assert "bpe-" in mt(tmp_path, "tokenizer", "list").stdout


def test_python_of_the_page__gives_the_ids_of_the_program(tmp_path: Path) -> None:
    [program] = blocks("python")
    made = [tokenizer_of(method, ["a text of a few words", "a text"] * 3) for method in ("bpe", "sentencepiece")]
    for tokenizer in made:
        tokenizer.save(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.splitlines() == [str(tokenizer.encode("a text")) for tokenizer in made]


def test_page__names_every_method_and_its_special_tokens() -> None:
    for method in METHODS:
        specials = " ".join(tokenizer_of(method, ["a text"] * 3).manifest.special_tokens)
        assert re.search(rf"^\| `{method}` \|.*`{re.escape(specials)}`", PAGE, re.MULTILINE), specials
