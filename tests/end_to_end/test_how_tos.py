"""README, the tutorial, the how-to pages and some others: a reader who types their blocks gets what they say.

They work in one folder, one after the other, as a reader goes through them. A page that trains nothing is also tested
alone. A block `sh` is a script, and a block
`python` a program. A block `console` has commands after `$ ` and lines that they print. A title says where a block is
typed:

- "install": into an environment; `test_wheel` installs the wheel.
- "in a terminal of its own": it runs until the end of the page.
- "on …": on another machine, which has an installation of its own; a server there runs until the end of the page.
"""

import os
import shlex
import shutil
import signal
import sys
import tomllib
from asyncio import create_subprocess_exec, timeout
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from local_discord import LocalDiscord
from tests.support import ROOT, environment_in, gone
from tests.support.hub_server import hub_server
from tests.support.lab import running_worker
from tests.support.pages import INTERRUPTED, SHELLS, Block, blocks_of, find, is_printed, tolerance
from tests.support.waiting import ANSWER_SECONDS, PATIENCE_SECONDS
from tests.unit.test_packaging import PyProject
from trainer.contracts.installation import BUNDLED_CORPORA, DISTRIBUTION

INDEX = ROOT / "docs" / "how-to" / "index.md"
HOW_TOS = sorted(set(INDEX.parent.glob("*.md")) - {INDEX})
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
OTHERS = [ROOT / "docs" / f"{name}.md" for name in ("segmentation", "reading")]
"""The last one begins with the table and the run of a how-to."""
SERVER = "mt up"
ADDRESSES = ("http://127.0.0.1:8000", "http://gpu-box:8000")
"""Where the pages look for a server; the walker's listens on a free port of this machine."""
TOKEN = "the-token-of-the-application"  # noqa: S105  (that of the page)
HUB_TOKEN = "hf_walker"  # noqa: S105
INSTALL, TERMINAL = "install", "in a terminal of its own"
FAILURE = "trap 'echo \"exit code $?: $BASH_COMMAND\"' ERR\n"
SERVED = """rm -f server.log
(
{}) > server.log 2>&1 &
until grep -qs http_started server.log; do kill -0 $!; sleep 0.1; done
SERVER_PORT=$(grep -o 'port=[0-9]*' server.log | cut -d= -f2)"""
INTERRUPTION = """set -m
touch begun
{} &
until find "$APP__ARTIFACTS_ROOT"/models/*/checkpoints/* -newer begun 2> /dev/null | grep -q .; do
  kill -0 %%
  sleep 0.1
done
kill -INT %%
wait %% || [ $? = 130 ]
set +m"""
"""The script of a command that is interrupted once it has a checkpoint."""


def blocks_in(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.language in SHELLS or block.language == "python"]


def script_of(page: Path) -> str:
    return "\n".join(part for number, block in enumerate(blocks_in(page)) for part in parts_of(block, number))


def parts_of(block: Block, number: int) -> Iterator[str]:
    """Yield the lines of a script for a block; what a command of a dialogue prints goes to a file."""
    text = block.text
    for address in ADDRESSES:
        text = text.replace(address, "http://127.0.0.1:$SERVER_PORT")
    if block.title.startswith("on "):
        text = f"export APP__DATA_ROOT=$OTHER/data APP__ARTIFACTS_ROOT=$OTHER/artifacts\n{text}"
    if block.language == "python":
        yield f"cat > {number}.py <<'END OF PROGRAM'\n{text}END OF PROGRAM\npython {number}.py"
    elif block.language == "console":
        for place, (command, shown) in enumerate(block.dialogue()):
            to_file = f"{command} > {number}-{place}.out 2>&1"
            yield INTERRUPTION.format(to_file) if INTERRUPTED in shown else to_file
    elif SERVER in text:
        yield SERVED.format(text)
    elif block.title != INSTALL:
        yield f"(\n{text})" if block.title else text


def has_commands(page: Path) -> bool:
    return any(block.language in SHELLS for block in blocks_of(page))


ORDER = find(r"^\| \[.+\]\((.+\.md)\) \|", INDEX.read_text(encoding="utf-8"))
PAGES = {
    page.stem: page
    for page in (README, TUTORIAL, *(INDEX.with_name(name) for name in ORDER), *OTHERS)
    if has_commands(page)
}


async def test_page__its_blocks_run_and_print_what_they_show(tmp_path: Path) -> None:
    await walk([PAGES["discord-bot"]], tmp_path)


@pytest.mark.slow
async def test_pages__run_one_after_the_other_in_one_folder(tmp_path: Path) -> None:
    await walk(PAGES.values(), tmp_path)


async def walk(pages: Iterable[Path], root: Path) -> None:
    """Type the blocks of pages in one folder, and check what they print."""
    folder = root / "folder"
    shutil.copytree(BUNDLED_CORPORA / "udhr_ipa", folder / "texts")
    shutil.copy(BUNDLED_CORPORA / "demo.txt", folder / "my.txt")
    async with LocalDiscord(token=TOKEN, answer_seconds=ANSWER_SECONDS) as discord:
        with hub_server(root / "hub", HUB_TOKEN) as hub:
            environment = {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(root / "home"),
                "OTHER": str(root / "other"),
                "COLUMNS": "120",
                "OMP_NUM_THREADS": "1",  # threads that wait for each other take the time of the other tests
                "HTTP__PORT": "0",
                "DISCORD__API_BASE_URL": discord.api_base_url,
                "DISCORD__GATEWAY_URL": discord.gateway_url,
                "HF_ENDPOINT": hub,
                "HF_TOKEN": HUB_TOKEN,
                "HF_HUB_DISABLE_XET": "1",
            }
            for page in pages:
                script = script_of(page)
                with worker_for(script, root):
                    async with typed(script, folder, environment_in(root, **environment)):
                        if f"{SERVER}\n" in script:
                            await discord.synced()
                check_printed(page, folder)
    assert await gone(root)


def check_printed(page: Path, folder: Path) -> None:
    """Check that the commands of a page have printed the lines that it shows."""
    for number, block in enumerate(blocks_in(page)):
        for place, (command, shown) in enumerate(block.dialogue() if block.language == "console" else ()):
            printed = (folder / f"{number}-{place}.out").read_text(encoding="utf-8")
            lines = [line for line in shown if line != INTERRUPTED]
            if " generate " not in command:  # one letter that differs changes all that follow
                assert [] == [line for line in lines if not is_printed(line, printed, tolerance(command))], printed


def worker_for(script: str, root: Path) -> AbstractContextManager[None]:
    """Return a worker that the commands of a page share, unless its server brings one."""
    return nullcontext() if SERVER in script else running_worker(root)


@asynccontextmanager
async def typed(script: str, folder: Path, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Run a script to its end; its servers run until the end of the block."""
    log = folder / "script.log"
    words = ("bash", "-Eeuo", "pipefail", "-c", FAILURE + script)
    with log.open("wb") as output:
        shell = await create_subprocess_exec(
            *words, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        async with timeout(4 * PATIENCE_SECONDS):
            assert await shell.wait() == 0, log.read_text(encoding="utf-8")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)


def test_pages__have_only_blocks_that_tests_run() -> None:
    for page in (TUTORIAL, *HOW_TOS):
        for block in blocks_of(page):
            assert block.language in (*SHELLS, "python", "r"), page
            assert not block.title or block.title.startswith("on ") or block.title in (INSTALL, TERMINAL), page
            assert (block.title == TERMINAL or block.title.startswith("on ")) or SERVER not in block.text, page
        assert page.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks_of(page)), page


def test_installations__name_the_project_and_its_extras() -> None:
    content: object = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = PyProject.model_validate(content).project.extras
    blocks = [block for page in (README, TUTORIAL, *HOW_TOS) for block in blocks_of(page) if block.title == INSTALL]
    words = [word for block in blocks for word in shlex.split(block.text, comments=True)]
    named = [Requirement(word) for word in words if word.startswith(DISTRIBUTION)]
    assert named and all(one.name == DISTRIBUTION and one.extras <= extras.keys() for one in named)


def test_index__has_every_how_to_with_its_title_and_number_of_commands() -> None:
    rows = find(r"^\| (\[.+\]\(.+\) \| \d+) \|$", INDEX.read_text(encoding="utf-8"))
    counted = []
    for page in HOW_TOS:
        [title] = find("^# (.+)$", page.read_text(encoding="utf-8").split("```")[0])
        number = sum(len(block.commands()) for block in blocks_of(page) if block.language in SHELLS)
        counted.append(f"[{title}]({page.name}) | {number}")
    assert sorted(rows) == sorted(counted)
