"""What is imported where the working folder is left out."""

import os
import sys
from pathlib import Path

import pytest

from trainer.system.python import leave_out_working_folder


def test_working_folder__that_was_deleted_leaves_imports_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deleted"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    monkeypatch.setattr(sys, "path", ["", "/a", "/b"])
    for name, value in (("PYTHONPATH", ":/a:"), ("PATH", "/bin:programs"), ("PYTHONSAFEPATH", "")):
        monkeypatch.setenv(name, value)
    leave_out_working_folder()
    assert sys.path == ["", "/a", "/b"]
    names = ("PYTHONPATH", "PATH", "PYTHONSAFEPATH")
    assert [os.environ[name] for name in names] == ["/a", "/bin", "1"]
