"""Draws the pictures of README.md and docs/discord.md: python -m scripts.pictures [--answers] [FOLDER].

They show a conversation with the real bot. The bot, its Valkey and its worker use a local Discord. A person types the
commands; each picture is a message that Discord has received from the bot. `shown.json` beside the pictures has the
words of each, so that tests notice a picture that is older than the bot. `--answers` draws those that need no training.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from html import escape
from pathlib import Path

from pydantic import TypeAdapter

from local_discord import LocalDiscord, Upload, limits
from local_discord.client import OptionValue
from local_discord.driver import shown_text
from local_discord.state import Call, StoredMessage, User
from local_discord.wire import Json, text
from scripts.message_picture import draw, form_html, message_html, shown_lines
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.services.embedded import die_with_parent

TARGET, SHOWN_FILE = Path("docs/pictures"), "shown.json"
SHOWN: TypeAdapter[dict[str, list[str]]] = TypeAdapter(dict[str, list[str]])
"""The words of each picture of a message, by its name."""
TOKEN = "picture-token"  # noqa: S105
PATIENCE_SECONDS = 900.0
TEXT = "Бүгін ауа райы жақсы."
LONG, WAITING = "kazakh-long", 5
"""The name of a long run, and the number of runs that wait for it."""
FEW_CHECKPOINTS = Upload("few-checkpoints.yaml", b"checkpoint_every_steps: 20\n")
LONG_TEST = Upload("long-test.yaml", b"test_corpus: long\n")
LONG_TEST_COPIES = 60
"""So many times the demo corpus takes many seconds to evaluate, on a fast machine too."""
Options = Mapping[str, OptionValue]


class Pictures:
    """A conversation with the bot, with a picture of each step.

    Every wait is for a state that lasts, or for a version of a message: a fast machine misses none.
    """

    def __init__(self, discord: LocalDiscord, target: Path, folder: Path, drawing: asyncio.TaskGroup) -> None:
        self._discord, self._target, self._drawing = discord, target, drawing
        self._data = folder / "data"
        self._runs = RunStore(folder / "artifacts")
        self._one_at_a_time = asyncio.Semaphore()
        self._shown = target / SHOWN_FILE
        self.owner, self.reader = discord.add_user("aigul"), discord.add_user("elif", locale="tr")
        self._guild = discord.add_guild("Lab", [self.owner, self.reader])
        self._channel = discord.dm_channel(self.owner)
        self._names = {str(user.id): user.name for user in (self.owner, self.reader)}

    async def draw_all(self, bot: Process) -> None:
        """Hold the conversation: train, use and compare models, see failures, and run an experiment."""
        await self.draw_answers()
        card = await self._message_of("kazakh")
        await self._draw("training", card, r"[4-8]\d %")
        await self._ask("status", "mt status", {}, until="Validation")
        await self._draw("completed", await self._message_of("Completed: kazakh"))
        await self._use_model()
        await self._ask("", "mt train", {"corpus": "demo", "name": "tiny", "size": "tiny", "epochs": 3})
        await self._message_of("Completed: tiny")
        tiny, kazakh = (run.run_id for run in self._runs.all())
        await self._ask("compare", "mt compare", {"a": kazakh, "b": tiny})
        await self._ask("runs", "mt runs", {})
        await self._ask("corpus", "mt corpus show", {"corpus": "demo"})
        options: Options = {"corpora": "demo", "method": "bpe", "vocab_size": 500, "name": "kazakh-bpe"}
        await self._ask("", "mt tokenizer train", options)
        await self._draw("tokenizer", await self._message_of("Completed: tokenizer kazakh-bpe"))
        await self._evaluating()
        await self._crash_and_resume(bot)
        await self._crowd()
        await self._experiment()

    async def draw_answers(self) -> None:
        """Begin the conversation: the answers that come at once."""
        await self._discord.synced(PATIENCE_SECONDS)
        await self._discord.connected(PATIENCE_SECONDS)
        await self._ask("train", "mt train", {"corpus": "demo", "name": "kazakh"})
        await self._ask("help", "mt help", {})
        for name, person in (("settings", self.owner), ("settings-turkish", self.reader)):
            await self._form(name, await self._discord.slash(person, "mt settings", {}))
        await self._ask("mistake", "mt train", {"corpus": "demo", "init_from": "no-such-run"})
        await self._ask("corpora", "mt corpus list", {})

    async def _use_model(self) -> None:
        score = await self._ask("score", "mt score", {"text": TEXT})
        await self._press("score-table", score, "CSV")
        await self._ask("report", "mt score", {"text": TEXT, "detail": "per_char"})
        generated = await self._ask("generate", "mt generate", {"prompt": "Мен ", "max_new_tokens": 80, "seed": 7})
        await self._form("generate-form", await self._click(generated, "Edit…"))
        await self._ask("predict", "mt predict", {"text": "Бүгін ауа рай"})
        await self._ask("chat", "mt chat", {"message": "Сен кімсің?"})
        await self._ask("eval", "mt eval", {"split": "validation"}, until="perplexity")

    async def _evaluating(self) -> None:
        """Draw the card of a run that is evaluated on a long text."""
        corpus = (BUNDLED_CORPORA / "demo.txt").read_text(encoding="utf-8")
        folder = self._data / "corpus"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "long.txt").write_text(corpus * LONG_TEST_COPIES, encoding="utf-8")
        options: Options = {"corpus": "demo", "config": LONG_TEST, "name": "measured", "max_steps": 6}
        await self._ask("", "mt train", options)
        card = await self._message_of("measured")
        await self._draw("evaluating", card, "Evaluating")
        await self._ask("", "mt cancel", {"run": self._runs.all()[0].run_id})
        await self._message_of("(Cancelled|Completed): measured", after=card)

    async def _crash_and_resume(self, bot: Process) -> None:
        """Draw a long run while it trains, after crashes, resumed, and while its worker is silent."""
        options: Options = {
            "corpus": "demo",
            "name": LONG,
            "size": "tiny",
            "epochs": 400,
            "early_stopping": 50,
            "config": FEW_CHECKPOINTS,
        }
        await self._ask("", "mt train", options)
        card = await self._message_of(LONG)
        await self._edited(card, "checkpoint at step")
        await self._crash(bot, self._runs.all()[0])
        failed = await self._message_of(f"Failed: {LONG}", after=card)
        await self._draw("failed", failed)
        await self._press("resume", failed, "Resume")
        card = await self._message_of(LONG, after=failed)
        await self._version(card, r"epoch ([4-9]\d|\d{3})/.*checkpoint at step")
        stopped = [pid for pid, _ in processes_below(bot.pid, "worker") + processes_below(bot.pid, "train-child")]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        await self._draw("unreachable", card, "not responding")
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        await self._edited(card, "Training")

    async def _crash(self, bot: Process, run: RunDirectory) -> None:
        """Let each attempt of a run crash, after its first checkpoint, until the run has failed."""
        follower = run.follow()
        crashed: set[int] = set()
        while not (now := await asyncio.to_thread(follower.refresh)).has_ended:
            if now.last_checkpoint_step is not None:
                for pid, files in processes_below(bot.pid, "train-child"):
                    if pid not in crashed and run.run_id in files:
                        crashed.add(pid)
                        os.kill(pid, signal.SIGALRM)  # a crash; SIGKILL would count as a kill from outside
            await asyncio.sleep(0.05)

    async def _crowd(self) -> None:
        """Draw what people see while many runs wait for the long one."""
        for seed in range(1, WAITING + 1):
            answer = await self._ask("", "mt train", {"corpus": "demo", "name": f"kazakh-seed-{seed}", "seed": seed})
            if seed == 1:
                await self._draw("queued", await self._message_of("seed-1", after=answer), "in the queue · requested")
        digest = await self._message_of(f"Watching {WAITING + 1} runs")
        await self._draw("digest", digest, f"position {WAITING}")
        await self._ask("queue", "mt queue", {})
        await self._ask("workers", "mt-admin workers", {})
        await self._ask("doctor", "mt-admin doctor", {})
        for run in self._runs.all()[: WAITING + 1]:  # the newest first, so that none of them starts
            await self._ask("", "mt cancel", {"run": run.run_id})
        await self._draw("cancelled", await self._message_of(f"Cancelled: {LONG}"))

    async def _experiment(self) -> None:
        answer = await self._ask("", "mt-experiment start", {"recipe": "smoke"})
        card = await self._message_of("experiment", after=answer)
        final = await self._message_of("Completed: experiment", after=card)
        await self._draw("experiment-running", card, r"Running.*[0-3] of 4")
        await self._draw("experiment", final)

    async def _message_of(self, pattern: str, *, after: StoredMessage | None = None) -> StoredMessage:
        return await self._discord.wait_for_message(self._channel, pattern, after=after, timeout=PATIENCE_SECONDS)

    async def _version(self, message: StoredMessage, pattern: str) -> Json:
        """Wait until a version of a message has a text; return the newest such version."""
        what = f"A version like {pattern!r}"

        def found() -> Json | None:
            shown = (version.payload for version in reversed(message.versions))
            return next((payload for payload in shown if re.search(pattern, shown_text(payload), re.DOTALL)), None)

        return await self._discord.changes.until(found, PATIENCE_SECONDS, what)

    async def _edited(self, message: StoredMessage, pattern: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._discord.wait_for_edit(message, pattern)

    async def _ask(self, name: str, command: str, options: Options, *, until: str = "") -> StoredMessage:
        """Type a command, and draw its answer, once it has the text `until`."""
        guild = self._guild if command.startswith("mt-admin") else None
        call = await self._discord.slash(self.owner, command, options, guild=guild)
        answer = await call.reply(PATIENCE_SECONDS)
        if until:
            await self._edited(answer, until)
        typed = " ".join(f"{option}:{value}" for option, value in options.items())
        if name:
            await self._draw(name, answer, asked=f"{self.owner.name} used <b>/{command}</b> {escape(typed)}")
        return answer

    async def _press(self, name: str, message: StoredMessage, label: str) -> None:
        """Press a button by its label, and draw the answer."""
        answer = await (await self._click(message, label)).reply(PATIENCE_SECONDS)
        await self._draw(name, answer, asked=f"{self.owner.name} pressed <b>{label}</b>")

    async def _click(self, message: StoredMessage, label: str) -> Call:
        items = [item for _, item in limits.walk([*message.components])]
        [custom_id] = [text(item["custom_id"]) for item in items if text(item.get("label")) == label]
        return await self._discord.click(self.owner, message, custom_id)

    async def _form(self, name: str, call: Call) -> None:
        self._start_drawing(name, form_html(await call.form()))

    async def _draw(self, name: str, message: StoredMessage, pattern: str = "", *, asked: str = "") -> None:
        """Draw the newest version of a message that has a text, once there is one."""
        payload = await self._version(message, pattern)
        self._start_drawing(name, message_html(payload, self._discord.read, asked=asked, names=self._names))

    def _start_drawing(self, name: str, html: str) -> None:
        async def finish() -> None:
            async with self._one_at_a_time:
                await asyncio.to_thread(draw, html, self._target / f"{name}.png")
                shown = SHOWN.validate_json(self._shown.read_bytes()) if self._shown.exists() else {}
                text_of_all = SHOWN.dump_json(dict(sorted({**shown, name: shown_lines(html)}.items())), indent=1)
                self._shown.write_bytes(text_of_all + b"\n")
            print(f"{name}.png", flush=True)

        self._drawing.create_task(finish())


def processes_below(pid: int, word: str) -> list[tuple[int, str]]:
    """Return the processes below one that have a word in name or command line, each with the paths of its files."""
    return [(child, files) for child, command, files in _descendants(pid) if word in command]


def _descendants(pid: int) -> Iterator[tuple[int, str, str]]:
    with contextlib.suppress(OSError):  # the process ends meanwhile
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, children.read_text(encoding="ascii").split()):
                process = Path(f"/proc/{child}")
                command = (process / "comm").read_text(encoding="utf-8", errors="replace")
                command += (process / "cmdline").read_text(encoding="utf-8", errors="replace")
                files = " ".join(str(file.readlink()) for file in (process / "fd").iterdir())
                yield child, command, files
                yield from _descendants(child)


@contextlib.asynccontextmanager
async def running_bot(discord: LocalDiscord, folder: Path, owner: User, reader: User) -> AsyncIterator[Process]:
    """Run the bot as a process, and stop it at the end."""
    environment = {
        "DISCORD__TOKEN": TOKEN,
        "DISCORD__OWNER_ID": str(owner.id),
        "DISCORD__ALLOWED_USER_IDS": str(reader.id),
        "DISCORD__API_BASE_URL": discord.api_base_url,
        "DISCORD__GATEWAY_URL": discord.gateway_url,
        "DISCORD__CDN_BASE_URL": discord.cdn_base_url,
        "DISCORD__EDIT_INTERVAL_SECONDS": "1",
        "QUEUE__LEASE_SECONDS": "3",
        "APP__DATA_ROOT": str(folder / "data"),
        "APP__ARTIFACTS_ROOT": str(folder / "artifacts"),
        "HTTP__PORT": "0",
    }
    bot = await asyncio.create_subprocess_exec(
        *(*die_with_parent(), sys.executable, "-m", "bot"),
        env={**os.environ, **environment},
        stdout=DEVNULL,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        yield bot
    finally:
        bot.send_signal(signal.SIGTERM)
        await bot.wait()


async def main(target: Path, *, only_answers: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with LocalDiscord(token=TOKEN) as discord, asyncio.TaskGroup() as drawing:
            pictures = Pictures(discord, target, Path(folder), drawing)
            async with running_bot(discord, Path(folder), pictures.owner, pictures.reader) as bot:
                await (pictures.draw_answers() if only_answers else pictures.draw_all(bot))


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--answers"]
    asyncio.run(main(Path(*words) if words else TARGET, only_answers="--answers" in sys.argv))
