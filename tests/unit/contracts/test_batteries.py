"""Requests to score batteries."""

import pytest

from tests.support.refusals import refused
from trainer.config.validation import parse
from trainer.contracts.batteries import BatteryRequest
from trainer.contracts.errors import ErrorCode


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"runs": ["a"]}, "`batteries` or `files` must name something to score"),
        ({"runs": ["a", "b"], "development": {}}, "`development` is that of one run: give one in `runs`"),
    ],
)
def test_battery_request__needs_items_or_the_development_of_one_run(fields: dict[str, object], sentence: str) -> None:
    with refused(ErrorCode.INVALID_INPUT, sentence):
        parse(BatteryRequest, fields)
