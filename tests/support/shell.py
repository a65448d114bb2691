"""The `mt` command in a folder of its own, with a lab whose worker does the work."""

from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.run_shell import Shell, enter


@pytest.fixture(name="lab_shell")
def lab_shell_fixture(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """Its settings name the lab."""
    return enter(monkeypatch, capsys, tmp_path, lab.folder, QUEUE__EMBEDDED_WORKERS="0")
