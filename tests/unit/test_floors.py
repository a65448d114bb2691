"""The import floors of the folders, and the modules that the bot loads at its start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import floors

ROOT = Path(__file__).parents[2]


def test_floors__import_only_from_floors_below() -> None:
    assert floors.faults() == []
    assert floors.circle() == ""


def test_floors__hold_every_module_of_the_product() -> None:
    rooms = {room for floor in floors.FLOORS for room in floor}
    assert rooms == {room for _, _, room in floors.product_modules()}
    assert {path.name for path in (ROOT / "trainer").glob("*.py")} == {"__init__.py", "__main__.py", "api.py"}


@pytest.mark.slow
def test_picture__of_the_floors_is_up_to_date() -> None:
    remake = "make it again: python -m scripts.floors docs/floors.svg"
    assert floors.drawing() == (ROOT / "docs" / "floors.svg").read_text(encoding="utf-8"), remake


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bot.app", {"torch", "transformers", "matplotlib"}),
        pytest.param("trainer.http.server", {"torch", "transformers", "matplotlib", "discord"}, marks=pytest.mark.slow),
        ("bot.main", {"torch", "transformers", "matplotlib", "discord"}),  # of `mt up --no-discord`
    ],
)
def test_import__loads_no_heavy_library(module: str, heavy: set[str]) -> None:
    program = f"import {module}, json, sys; print(json.dumps(sorted(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    loaded: list[str] = json.loads(finished.stdout)
    assert heavy.isdisjoint(loaded)
