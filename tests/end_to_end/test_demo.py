"""`mt demo` shows and checks the complete program; after an interrupt nothing is left running."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environment_in, gone, mt, processes
from tests.support.waiting import PATIENCE_SECONDS


@pytest.mark.slow
def test_demo__every_step_holds_and_the_chart_is_saved(tmp_path: Path) -> None:
    done = mt(tmp_path, "demo", timeout=PATIENCE_SECONDS, DISCORD__TOKEN="", OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("▶ /mt train", "Completed", "unigram entropy", "▶ /mt generate", "▶ /mt score", "All checks passed"):
        assert step in done.stdout
    for mark in ("⚠", "**", "`", "bf16"):
        assert mark not in done.stdout
    [chart] = (tmp_path / "demo-out").glob("*.png")
    assert chart.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert asyncio.run(gone(tmp_path))


def test_demo__interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "trainer", "demo"],
        cwd=tmp_path,
        env=environment_in(tmp_path, DISCORD__TOKEN=""),
        stdout=subprocess.PIPE,
        text=True,
    )
    asyncio.run(training(tmp_path / "demo-out"))
    demo.send_signal(signal.SIGINT)
    out, _ = demo.communicate(timeout=PATIENCE_SECONDS)
    code: int = demo.returncode
    assert code == 130
    assert "The bot and its services have stopped." in out
    assert asyncio.run(gone(tmp_path))


async def training(folder: Path) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not processes(folder, "train-child"):
            await asyncio.sleep(0.1)
