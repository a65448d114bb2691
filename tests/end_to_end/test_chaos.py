"""A short campaign of random faults, as `make chaos` runs longer ones."""

from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.__main__ import hold

pytestmark = pytest.mark.slow

SEED, SECONDS, FAULTS = 5, 12.0, 8


async def test_campaign__of_random_faults_loses_nothing_and_tells_everything_once(tmp_path: Path) -> None:
    verdict = await hold(tmp_path, SEED, SECONDS, Console(), number_of_requests=1)
    assert verdict.holds, verdict.failings
    assert verdict.faults >= FAULTS
