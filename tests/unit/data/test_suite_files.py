"""Test suites of SyntaxGym: their regions, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from tests.support.suites import SUITE
from trainer.contracts.errors import AppError
from trainer.data.suite_files import read_suite

MANY_REGIONS = ', {"region_number": 4, "content": "x"}' * 1000


def test_regions__are_joined_as_by_syntax_gym(tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(SUITE), encoding="utf-8")
    suite = read_suite(file)
    assert (suite.name, suite.region_names, len(suite.formulas)) == ("agreement", {1: "start", 2: "verb", 3: "end"}, 2)
    assert [(one.item, one.name) for one in suite.conditions] == [(1, "good"), (1, "bad"), (2, "good"), (2, "bad")]
    assert suite.conditions[0].sequence.parts == ("the sun", " was", " shining")
    assert suite.conditions[3].sequence.parts == ("", "on ", " the sea")
    assert suite.conditions[0].regions == (1, 2, 3)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"metric": "sum"', '"metric": "median"', "is no test suite of SyntaxGym: `meta.metric`"),
        ('"items"', '"other"', "is no test suite of SyntaxGym: `items`"),
        ("{", "[", "is no test suite of SyntaxGym"),
        (
            '"content": "was"',
            '"content": "was\\nis"',
            "Item 1, condition 'good': a sentence is one line of text in at most 1,000",
        ),
        ('"content": "was"}', f'"content": "was"}}{MANY_REGIONS}', "Item 1, condition 'good': a sentence is one line"),
        ('"condition_name": "bad"', '"condition_name": "good"', "has two conditions 'good' in item 1."),
        ('"item_number": 2', '"item_number": 1', "has two items with the same number"),
        ('"region_number": 2', '"region_number": 1', "two regions with the same number in condition 'good' of item 1"),
        ("(2;%bad%)", "(2;%worse%)", "has no condition 'worse' in item 1, which a formula names"),
        ("(2;%bad%)", "(4;%bad%)", "has no region 4 in condition 'bad' of item 1, which a formula names"),
        ("(2;%bad%)", "(2;%bad%", "cannot be read"),
    ],
)
def test_wrong_suite__is_refused_in_one_sentence(old: str, new: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    file.write_text(json.dumps(SUITE).replace(old, new), encoding="utf-8")
    with pytest.raises(AppError, match=re.escape(problem)):
        read_suite(file)


@pytest.mark.parametrize("field", ["items", "predictions"])
def test_suite_without_items_or_predictions__is_refused(field: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.json"
    without: dict[str, object] = {**SUITE, field: ()}
    file.write_text(json.dumps(without), encoding="utf-8")
    with pytest.raises(AppError, match=r"^'suite\.json' has no items, or no predictions\.$"):
        read_suite(file)
