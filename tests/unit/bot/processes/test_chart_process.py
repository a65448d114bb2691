"""The chart process: it draws, ends when idle or with the bot, and is restarted after a crash."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from textwrap import dedent

import pytest

from bot.processes.chart_process import ChartProcess
from tests.support import ROOT, is_running, servers_of_this_test
from tests.support.scores import score_of
from tests.support.waiting import until
from trainer.contracts.scores import ScoreRecord, ScoreRequest
from trainer.reports.heatmap_html import heatmap_html
from trainer.reports.surprisal_report import ReportFiles, score_csv, summarize

pytestmark = pytest.mark.process

CURVE = [(1, 3.0), (2, 2.0)]
PNG = b"\x89PNG"
TEXT = "ab c"
SCORED = score_of(TEXT, [1.0, 2.0, 3.0, 4.0], unknown="c", expected=(("a", 0.5),))
RECORD = ScoreRecord(request=ScoreRequest(text=TEXT, detail_level="per_char", top_k=1), response=SCORED)


@pytest.fixture(autouse=True)
def _server_without_the_modules_of_the_worker() -> None:
    """As in the bot: with those that a test has set before, the server ends with the thread that started it."""
    multiprocessing.set_forkserver_preload([])


@pytest.fixture(name="charts")
async def charts_fixture() -> AsyncIterator[ChartProcess]:
    charts = ChartProcess()
    yield charts
    charts.close()
    await until(lambda: not multiprocessing.active_children())


async def test_process__draws_a_chart_once_for_several_callers_and_builds_reports(charts: ChartProcess) -> None:
    assert await charts.loss_chart(CURVE[:1], [], "bits") is None
    assert await charts.comparison_chart({"a": CURVE[:1], "b": []}, "nats/token") is None
    assert await charts.group_chart([CURVE[:1], []], [], "bits") is None
    assert multiprocessing.active_children() == [], "a chart needs two losses of a run"
    png = await charts.comparison_chart({"a": CURVE, "b": []}, "nats/token")
    assert png is not None and png.startswith(PNG)
    assert len(multiprocessing.active_children()) == 1, "drawn in another process"
    drawn = await asyncio.gather(*(charts.loss_chart(CURVE, [], "bits") for _ in range(3)))
    later, of_chars = await charts.loss_chart(CURVE, [], "bits"), await charts.loss_chart(CURVE, [], "bits", 0.5)
    assert drawn[0] is not None and drawn[0].startswith(PNG)
    assert drawn[1] is drawn[0] and drawn[2] is drawn[0]
    assert later == drawn[0] and later is not drawn[0], "it is not kept"
    assert of_chars is not None and of_chars != drawn[0], "it has a second axis"
    assert await charts.loss_chart(CURVE, [], "nats") != drawn[0]
    made = await charts.report(RECORD.model_dump_json().encode(), TEXT, "nats")
    assert made is not None and made.files["surprisal.png"].startswith(PNG)
    page, numbers = heatmap_html(SCORED, TEXT, "nats").encode(), SCORED.model_dump_json().encode()
    files = {"surprisal.html": page, "surprisal.csv": score_csv(SCORED, TEXT), "surprisal.json": numbers}
    summary = summarize(SCORED, TEXT)
    assert made == ReportFiles(summary, 4, {"surprisal.png": made.files["surprisal.png"], **files})


@pytest.mark.slow
async def test_process__ends_when_idle_and_starts_again() -> None:
    charts = ChartProcess(idle_seconds=0.05)
    assert await charts.loss_chart(CURVE, [], "bits") is not None
    await until(lambda: not multiprocessing.active_children())
    again = await charts.loss_chart([*CURVE, (3, 1.0)], [], "bits")
    charts.close()
    assert again is not None


@pytest.mark.slow
async def test_process__killed_while_drawing_costs_one_chart(charts: ChartProcess) -> None:
    assert await charts.loss_chart(CURVE, [], "bits") is not None
    for child in multiprocessing.active_children():
        child.kill()
    longer = [*CURVE, (3, 1.0)]
    assert await charts.loss_chart(longer, [], "bits") is None
    assert await charts.loss_chart(longer, [], "bits") is not None


@pytest.mark.slow
async def test_server_of_the_process__killed_at_its_start_costs_one_chart() -> None:
    before = ChartProcess()
    assert await before.loss_chart(CURVE, [], "bits") is not None
    before.close()
    await until(lambda: not multiprocessing.active_children())
    [server] = servers_of_this_test()
    charts = ChartProcess()
    os.kill(server, signal.SIGSTOP)  # it takes the request, and does not answer
    known = connections_to_server()
    starting = asyncio.create_task(charts.loss_chart(CURVE, [], "bits"))
    await until(lambda: connections_to_server() > known)
    os.kill(server, signal.SIGKILL)
    assert await starting is None
    await until(lambda: not is_running(server))  # while it is dying, no other one is started
    assert await charts.loss_chart(CURVE, [], "bits") is not None
    charts.close()


def connections_to_server() -> int:
    """The sockets of this process's fork server, with those that it has not accepted yet."""
    return Path("/proc/net/unix").read_text(encoding="utf-8").count(f"{get_temp_dir()}/listener-")


def test_process__draws_for_the_bot_after_its_terminal_is_closed() -> None:
    program = """
        import asyncio, os, signal
        from bot.processes.chart_process import ChartProcess

        async def draw():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: None)
            charts = ChartProcess()
            before = await charts.loss_chart([(1, 3.0), (2, 2.0)], [], "bits")
            os.killpg(0, signal.SIGHUP)
            after = await charts.loss_chart([(1, 3.0), (2, 1.0)], [], "bits")
            charts.close()
            print(before is not None, after is not None)

        asyncio.run(draw())
    """
    words = [sys.executable, "-c", dedent(program)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, start_new_session=True, check=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_process__ends_with_a_killed_bot_and_keeps_the_bot_small() -> None:
    program = """
import asyncio, multiprocessing, sys, time
from bot.processes.chart_process import ChartProcess

async def main():
    charts = ChartProcess()
    await charts.loss_chart([(1, 3.0), (2, 2.0)], [], "bits")
    await charts.report(sys.argv[1].encode(), sys.argv[2], "nats")
    print(multiprocessing.active_children()[0].pid, "matplotlib" in sys.modules, flush=True)
    time.sleep(60)

asyncio.run(main())
"""
    words = [sys.executable, "-c", program, RECORD.model_dump_json(), TEXT]
    bot = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert bot.stdout is not None
    child, has_matplotlib = bot.stdout.readline().split()
    bot.kill()
    bot.wait()
    bot.stdout.close()
    assert has_matplotlib == "False"
    asyncio.run(until(lambda: not is_running(int(child))))
