"""The HTTP API answers as its description says: schemathesis finds no contradiction with its default checks."""

from pathlib import Path

import pytest

from tests.faults.fuzz import fuzz, fuzz_unreached, short_runs, unreached
from tests.faults.prepared import prepare
from tests.support.api_process import api_process
from tests.support.lab import Lab

_FEW = ("--max-examples", "2", "--seed", "1")


@pytest.mark.slow
def test_fuzz__finds_nothing_and_every_operation_succeeds(lab: Lab, tmp_path: Path) -> None:
    with api_process(lab.folder, QUEUE__EMBEDDED_WORKERS="0") as api, prepare(api, lab.folder) as prepared:
        with short_runs(prepared):
            first = fuzz(api, tmp_path, *_FEW)
            others = fuzz_unreached(prepared, tmp_path, *_FEW)
        assert first.is_clean, first.printed
        assert first.cases > 1000
        assert all(one.is_clean for one in others), others
        assert [one.row.name for one in unreached(api)] == []
