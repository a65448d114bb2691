"""Draws the pictures of docs/page.md: python -m scripts.page_pictures [FOLDER].

A server of its own has runs, a group, an experiment and a development; another one has what some how-tos make. Chromium
opens their pages as a person would.
"""

import asyncio
import base64
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from PIL import Image

from scripts.pictures import TARGET, TEXT
from tests.support import ROOT
from tests.support.browser import Browser, browsing
from tests.support.pages import blocks_of
from tests.support.waiting import wait_until
from trainer.contracts.batteries import BatteryList
from trainer.contracts.experiments import ExperimentList
from trainer.contracts.http_answers import RunPage
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.services.embedded import die_with_parent

_COLOURS = 48
_WIDTH, _PHONE = 1200, 360
_TRAINING = "train --corpus demo --tokenizer char --size tiny --epochs 4"
_COMMANDS = (
    f'{_TRAINING} --model gpt2 --name kazakh-gpt2 --set checkpoint_schedule={{"words":"log2"}} --set log_every_steps=2',
    f"{_TRAINING} --model lstm --name kazakh-lstm --set log_every_steps=2",
    f"{_TRAINING} --model gru --name kazakh-seeds --seeds 3 --set log_every_steps=2",
    "experiment run smoke",
)
_HOW_TOS = ("minimal-pairs", "choose-settings", "reading-times")


class Lab:
    """A folder with a server, and the commands of `mt` on it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._log = folder, folder / "server.log"
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "APP__DATA_ROOT": str(folder / "data"),
            "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
            "HTTP__PORT": "0",
        }

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Run the server during the block; gives its address."""
        command = [*die_with_parent(), sys.executable, "-m", "bot", "--no-discord"]
        with self._log.open("wb") as log:
            server = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: b"http_started" in self._log.read_bytes())
            port = re.search(r"http_started.*\bport=(\d+)", self._log.read_text(encoding="utf-8"))
            yield f"http://127.0.0.1:{port[1] if port else 0}"
        finally:
            server.terminate()
            server.wait()

    def mt(self, *words: str) -> None:
        """Run a command to its end."""
        command = [sys.executable, "-m", "trainer", *words]
        subprocess.run(command, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    def follow(self, how_to: str) -> None:
        """Type the blocks of a how-to."""
        shutil.copy(BUNDLED_CORPORA / "demo.txt", self._folder / "my.txt")
        blocks = blocks_of(ROOT / "docs" / "how-to" / f"{how_to}.md")
        script = "\n".join(block.text for block in blocks if block.language == "sh")
        command = ["bash", "-e", "-c", script]
        subprocess.run(command, env=self._environment, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)


class Pictures:
    """The pages of a server in a browser."""

    def __init__(self, browser: Browser, address: str, target: Path) -> None:
        self._browser, self._address, self._target = browser, address, target

    async def draw_all(self, runs: dict[str, str], group: str, experiment: str, development: str) -> None:
        """Draw each page; `runs` has the ids of runs by their labels."""
        gpt2, lstm = runs["kazakh-gpt2"], runs["kazakh-lstm"]
        await self._page("page-runs", "/", "document.querySelectorAll('.runs tbody a').length > 3", height=805)
        await self._page("page-runs-phone", "/", "document.querySelector('.runs tbody a')", width=_PHONE, height=640)
        await self._page("page-run", f"/runs/{gpt2}", "document.querySelector('.line')", height=1150)
        await self._page("page-run-dark", f"/runs/{gpt2}", "document.querySelector('.line')", height=1150, dark=True)
        await self._page(
            "page-train", f"/train?from={gpt2}", "document.querySelector('#field-corpus')?.value", height=900
        )
        await self._text("page-text", f"/text/{gpt2},{lstm}")
        await self._generation("page-generation", f"/text/{gpt2}")
        await self._page(
            "page-compare", f"/compare/{gpt2},{lstm},~{group}", "document.querySelector('.line')", height=850
        )
        matrix = "document.querySelector('.heat-table td')"
        await self._page("page-experiment", f"/experiments/{experiment}", matrix, height=940)
        await self._page("page-development", f"/batteries/{development}", "document.querySelector('.line')", height=700)
        await self._page("page-corpora", "/corpora", "document.querySelector('tbody th')", height=560)

    async def draw_jobs(self) -> None:
        """Draw the pages of what the how-tos make."""
        await self._browser.screen(_WIDTH, 900)
        for name, kind in (("battery", "batteries"), ("study", "studies"), ("reading", "readings")):
            await self._browser.open(f"{self._address}/#/{kind}")
            await self._browser.see("document.querySelector('tbody a')")
            await self._browser.evaluate("document.querySelector('tbody a').click()")
            await self._browser.see("document.querySelector('h1') && document.querySelector('main table')")
            await self._save(f"page-{name}")

    async def _page(
        self, name: str, view: str, drawn: str, *, width: int = _WIDTH, height: int = 800, dark: bool = False
    ) -> None:
        await self._browser.screen(width, height, dark=dark)
        await self._browser.open(f"{self._address}/#{view}")
        await self._browser.see(drawn)
        await self._save(name)

    async def _text(self, name: str, view: str) -> None:
        await self._browser.screen(_WIDTH, 1300)
        await self._browser.open(f"{self._address}/#{view}")
        await self._browser.see("document.querySelector('#text')")
        await self._browser.tab_to("#text")
        await self._browser.type(f"{TEXT}\nМен мектепке барамын.")
        await self._press("Score")
        await self._browser.see("document.querySelectorAll('.heat').length > 2")
        await self._save(name)

    async def _generation(self, name: str, view: str) -> None:
        await self._browser.screen(_WIDTH, 1500)
        await self._browser.open(f"{self._address}/#{view}")
        await self._browser.see("document.querySelector('#prompt')")
        await self._browser.tab_to("#prompt")
        await self._browser.type("Бүгін ")
        await self._browser.evaluate("document.querySelector('#stop_on_eos').value = 'false'")
        await self._press("Generate")
        await self._browser.see("document.querySelectorAll('.heat [role=option]').length > 5")
        await self._browser.tab_to(".heat [role=option]")
        await self._browser.evaluate("document.querySelector('#prompt').closest('section').scrollIntoView()")
        await self._save(name)

    async def _press(self, label: str) -> None:
        await self._browser.evaluate(
            f"[...document.querySelectorAll('button')].find((one) => one.textContent === {label!r}).click()"
        )

    async def _save(self, name: str) -> None:
        await asyncio.sleep(1)  # for what is read after the first drawing
        if self._browser.errors:
            raise SystemExit(f"{name}: {self._browser.errors}")
        shot = await self._browser.call("Page.captureScreenshot", format="png")
        picture = Image.open(io.BytesIO(base64.b64decode(str(shot["data"])))).convert("RGB")
        self._target.mkdir(parents=True, exist_ok=True)
        with_few_colours(picture).save(self._target / f"{name}.png", optimize=True)


def with_few_colours(picture: Image.Image) -> Image.Image:
    """Return a picture in its most frequent colours."""
    data = picture.tobytes()
    counted = Counter(zip(data[::3], data[1::3], data[2::3], strict=True))
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour, _ in counted.most_common(_COLOURS) for part in colour])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


async def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lab = Lab(folder / "models")
        with lab.serving() as address, httpx2.Client(base_url=address) as server:
            for command in _COMMANDS:
                lab.mt(*command.split())
            runs = RunPage.model_validate_json(server.get("/runs?search=kazakh").content).runs
            ids = {run.label or "": run.run_id for run in runs}
            (group,) = {run.group.group_id for run in runs if run.group is not None}
            lab.mt("develop", ids["kazakh-gpt2"], "--eval", "validation", "--words")
            (experiment,) = ExperimentList.model_validate_json(server.get("/experiments").content).experiments
            batteries = BatteryList.model_validate_json(server.get("/batteries").content).batteries
            (development,) = [one.battery_id for one in batteries if one.development_of is not None]
            async with browsing(folder) as browser:
                pictures = Pictures(browser, address, target)
                await pictures.draw_all(ids, group, experiment.experiment_id, development)
        lab = Lab(folder / "jobs")
        for how_to in _HOW_TOS:
            lab.follow(how_to)
        with lab.serving() as address:
            async with browsing(folder / "jobs") as browser:
                await Pictures(browser, address, target).draw_jobs()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
