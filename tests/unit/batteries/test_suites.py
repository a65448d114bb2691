"""Test suites of SyntaxGym: their regions, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from tests.support.suites import SUITE
from trainer.batteries.reading import read_battery
from trainer.contracts.batteries import BatteryOptions
from trainer.contracts.errors import AppError

OPTIONS = BatteryOptions()
MANY_REGIONS = ', {"region_number": 4, "content": "x"}' * 1000


def test_regions__are_joined_as_by_syntax_gym(tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(SUITE), encoding="utf-8")
    battery = read_battery(file, OPTIONS)
    suite = battery.info.suites["agreement"]
    assert (suite.regions, len(suite.formulas)) == ({1: "start", 2: "verb", 3: "end"}, 2)
    assert [(one.name, one.conditions) for one in battery.items] == [
        ("suite:1", ("good", "bad")),
        ("suite:2", ("good", "bad")),
    ]
    assert battery.items[0].sequences[0].parts == ("the sun", " was", " shining")
    assert battery.items[1].sequences[1].parts == ("", "on ", " the sea")
    assert battery.items[0].regions[0] == (1, 2, 3)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"metric": "sum"', '"metric": "median"', "it is no test suite of SyntaxGym: `meta.metric`"),
        ('"items"', '"other"', "it is no test suite of SyntaxGym: `items`"),
        ("{", "[", "it is no test suite of SyntaxGym"),
        (
            '"content": "was"',
            '"content": "was\\nis"',
            "Item suite:1, condition 'good': a sentence is one line of at most 10,000 characters in at most 1,000",
        ),
        ('"content": "was"}', f'"content": "was"}}{MANY_REGIONS}', "Item suite:1, condition 'good': a sentence is one"),
        ('"condition_name": "bad"', '"condition_name": "good"', "it has two conditions 'good' in item suite:1."),
        ('"item_number": 2', '"item_number": 1', "it has two items suite:1"),
        ('"region_number": 2', '"region_number": 1', "two regions with the same number in condition 'good' of item"),
        ("(2;%bad%)", "(2;%worse%)", "it has no condition 'worse' in item suite:1, which a formula names"),
        ("(2;%bad%)", "(4;%bad%)", "it has no region 4 of condition 'bad' in item suite:1, which a formula names"),
        ("(2;%bad%)", "(2;%bad%", "cannot be read"),
        ('"conditions": [', '"conditions": [], "others": [', "Item suite:1 must have 1 to 100 conditions."),
    ],
)
def test_wrong_suite__is_refused_in_one_sentence(old: str, new: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(SUITE).replace(old, new), encoding="utf-8")
    with pytest.raises(AppError, match=re.escape(problem)):
        read_battery(file, OPTIONS)


@pytest.mark.parametrize("field", ["items", "predictions"])
def test_suite_without_items_or_predictions__is_refused(field: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    without: dict[str, object] = {**SUITE, field: ()}
    file.write_text(json.dumps(without), encoding="utf-8")
    with pytest.raises(AppError, match=r"^'suite\.json': it has no items, or no predictions\.$"):
        read_battery(file, OPTIONS)
