"""`mt demo` shows and checks the complete program; after an interrupt nothing is left running."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support import gone, mt, processes
from tests.support.run_shell import Shell
from tests.support.waiting import PATIENCE_SECONDS, wait_until


@pytest.mark.slow
def test_demo__every_step_holds_and_the_chart_is_saved(tmp_path: Path) -> None:
    more = {"DISCORD__TOKEN": "", "OMP_NUM_THREADS": "2", "MT_URL": "http://127.0.0.1:1"}  # not for this command
    done = mt(tmp_path, "demo", timeout=3 * PATIENCE_SECONDS, **more)  # it waits for five steps
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("▶ /mt train", "Completed", "unigram entropy", "▶ /mt generate", "▶ /mt score", "All checks passed"):
        assert step in done.stdout
    for mark in ("No worker", "**", "`", "\\", "](", "<t:"):
        assert mark not in done.stdout
    warned = [line for line in done.stdout.splitlines() if "⚠" in line]
    assert all("Completed: demo-char_lstm" in line or "This model is " in line for line in warned)
    [chart] = (tmp_path / "data" / "demo").glob("*.png")
    assert chart.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert asyncio.run(gone(tmp_path))


@pytest.mark.slow
def test_demo__interrupted_leaves_nothing_running(shell: Shell) -> None:
    demo = shell.start("demo", DISCORD__TOKEN="")
    wait_until(lambda: processes(shell.folder / "data" / "demo", "train-child") != [])
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    assert (demo.wait(), "The bot and its services have stopped." in out) == (130, True)
    assert asyncio.run(gone(shell.folder))
