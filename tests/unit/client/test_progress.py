"""Progress bars of `trainer.Client`."""

import sys
from io import StringIO

import pytest

from trainer.client.progress import transfer_bar, work_bar


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_bar__draws_each_state_once_and_ends_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    show = work_bar("smoke")
    for done in (500, 500, 2000, 2000):
        show(done, 2000)
    assert terminal.getvalue() == f"\rsmoke {'█' * 5}{'·' * 15}  25% of 2,000\rsmoke {'█' * 20} 100% of 2,000\n"


def test_bar__is_drawn_in_a_notebook_and_not_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", output := StringIO())
    transfer_bar("a.txt")(1, 4)
    assert output.getvalue() == ""
    monkeypatch.setitem(sys.modules, "ipykernel", pytest)
    transfer_bar("b.txt")(0, 0)
    assert output.getvalue() == f"\rb.txt {'█' * 20} 100% of 0.0 MB\n"
