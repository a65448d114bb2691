"""Progress bars of `trainer.Client`."""

from io import StringIO

import pytest

from trainer.client.progress import work_bar


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_bar__draws_each_state_of_a_job_once_and_ends_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    show = work_bar("smoke")
    for done in (0, 1000, 1000, 2000, 2000):
        show(done, 2000)
    lines = terminal.getvalue().split("\r")[1:]
    assert [line[:6] for line in lines] == ["smoke "] * 3
    assert [line.split()[-3:] for line in lines] == [[share, "of", "2,000"] for share in ("0%", "50%", "100%")]
    assert terminal.getvalue().count("\n") == 1 and lines[1].count("█") == lines[1].count("·") == 10
