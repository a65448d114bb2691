"""A walk through bot, HTTP and command line that notes all that programs can see, and no message.

`python -m tests.support.message_walk FOLDER FILE` writes the notes of a prepared folder to a file.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue
from pydantic_core import to_json

from bot.messages.run_card import run_card
from local_discord import Upload
from local_discord.state import StoredMessage
from local_discord.wire import mapping, rows
from tests.support import ROOT, add_corpus, environment_in, settings_in
from tests.support.bot import Place, place, read
from tests.support.http import site, with_api
from tests.support.stories import Story, run_record
from trainer.artifacts.attempts import record_end
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.commands.terminal import Terminal
from trainer.commands.training import note_waiting_for_storage
from trainer.contracts.base import StopCause, changed
from trainer.contracts.errors import ErrorBody
from trainer.contracts.runs import RunStatus
from trainer.lab.here import with_disk
from trainer.lab.permissions import typed_command

_STATES = ("queued", "running", "evaluating", "completed", "failed", "cancelled", "paused")
_CAUSES: tuple[StopCause, ...] = ("crashed", "killed", "disk_full", "disk_unwritable")
_RUNS = [f"char_lstm-{name.replace('_', '-')}" for name in (*_STATES, *_CAUSES)]
_TYPED = ("status", "reachable", "waits_for", "phase", "stopped_by", "progress", "step", "attempt")
_FILE = "model_family: char_lstm\ncorpus: missing\nnum_epochs: 0\nseed: x\nnothing: 1\n"
_NEW = r"-[0-9a-f]{8}"
"""The end of the id of a run that a walk starts."""
Notes = dict[str, object]


def prepare(folder: Path) -> None:
    """Write a corpus, and a run in each state and after each end of an attempt."""
    add_corpus(folder, "the cat sat\non the mat\n" * 40, "seed")
    (folder / "wrong.yaml").write_text(_FILE, encoding="utf-8")
    for state in _STATES:
        story = _story(folder, state)
        if state != "queued":
            story.start().step(10, 2.0).checkpoint(10)
        match state:
            case "evaluating":
                story.evaluate()
            case "completed":
                story.complete()
            case "failed":
                story.fail()
            case "cancelled":
                story.cancel()
            case "paused":
                story.pause()
            case _:
                pass
    for cause in _CAUSES:
        record_end(_story(folder, cause).start().run, cause, ())


def _story(folder: Path, name: str) -> Story:
    return Story(folder / "artifacts", run_record(f"char_lstm-{name.replace('_', '-')}"))


async def walk(folder: Path) -> Notes:
    notes: Notes = {f"attempts after {cause}": _attempts(folder, cause) for cause in _CAUSES}
    notes |= {f"card of {run.run_id}": _card(run) for run in RunStore(folder / "artifacts").all()}
    async with place(folder, private_runs=False) as here:
        asked: list[tuple[str, dict[str, str | int | float | Upload]]] = [
            ("status", {"run": f"char_lstm-{state}"})
            for state in _STATES  # the others have just moved, so their workers may be alive
        ]
        asked += [("resume", {"run": run}) for run in ("char_lstm-completed", "nothing")]
        asked += [("runs", {}), ("queue", {}), ("score", {"run": "char_lstm-failed", "text": "a"})]
        asked += [("mt-admin build-corpora", {"source": "oscar", "languages": "kk,en"})]
        wrong: list[dict[str, str | int | float | Upload]] = [
            {"corpus": "label"},
            {"corpus": "seed", "size": "paper"},
            {"corpus": "seed", "init_from": "nothing"},
            {"corpus": "seed", "tokenizer": "bpe"},
            {"corpus": "seed", "freeze_embeddings": True},
            {"config": Upload("wrong.yaml", _FILE.encode())},
            {"corpus": "seed", "notify": "off"},
        ]
        for command, options in [*asked, *(("train", options) for options in wrong)]:
            key = f"/mt {command} {sorted(options.items(), key=str)}"
            notes[key] = await _asked(here, command, options)
    async with site(with_api(settings_in(folder, embedded_workers=0), keys="")) as server:
        for run in _RUNS:
            notes[f"GET {run}"] = _states(RunStatus.model_validate_json((await server.get(f"/runs/{run}")).body))
        for number_of_body, body in enumerate(_BODIES):
            got = await server.post("/runs/train", body)
            notes[f"POST {number_of_body}"] = (got.status, _problems(got.body))
    for words in _COMMANDS:
        notes[" ".join(words)] = await asyncio.to_thread(_typed, folder, words)
    return notes


_BODIES: tuple[dict[str, object], ...] = (
    {"model_family": "char_lstm", "corpus": "missing"},
    {"model_family": "char_lstm", "corpus": "../seed"},
    {"model_family": "gpt2", "corpus": "seed", "num_epochs": 0, "batch_size": "many", "optimizer": {"betas": [0.9, 1]}},
    {"model_family": "gpt2", "corpus": "seed", "model_size": "huge"},
    {"model_family": "gpt2", "corpus": "seed", "validation_corpus": "seed"},
    {"model_family": "gpt2", "corpus": "seed", "tokenizer_id": "bpe-0123456789abcdef"},
    {"model_family": "lstm", "corpus": "seed", "init_from_run_id": "char_lstm-failed"},
    {"model_family": "morse", "corpus": "seed", "device": "tpu"},
)
_COMMANDS = (
    ("validate", "wrong.yaml", "--json"),
    ("validate", "--corpus", "seed", "--set", "learning_rate=5", "--json"),
    ("validate", "--corpus", "seed", "--size", "huge", "--json"),
    ("status", "char_lstm-disk-full", "--json"),
    ("corpus", "build", "--source", "oscar", "--langs", "kk,en"),
    ("train", "--nothing"),
)


def _attempts(folder: Path, cause: StopCause) -> list[object]:
    """The waits after further ends of the same cause, the state then, and how often a terminal says what it awaits."""
    story = _story(folder, f"more-{cause}").start()
    waits: list[object] = [record_end(story.run, cause, ()) for _ in range(4)]
    status, terminal = story.follower().refresh(), _Counting(as_json=True)
    for _ in range(2):
        note_waiting_for_storage(with_disk(folder, status), terminal)
    return [*waits, _states(status), terminal.notes]


def _card(run: RunDirectory) -> list[object]:
    """The colour and the sign of a run's card while its worker answers, and how often a terminal notes its disk."""
    status, terminal = changed(run.follow().refresh(), reachable=True), _Counting(as_json=True)
    note_waiting_for_storage(status, terminal)
    embed = run_card(run.record(), status, [])
    return [terminal.notes, None if embed.colour is None else embed.colour.value, (embed.title or "")[:1]]


class _Counting(Terminal):
    notes = 0

    def note(self, text: str) -> None:
        self.notes += 1


async def _asked(here: Place, command: str, options: Mapping[str, str | int | float | Upload]) -> Notes:
    """What an answer is besides its words: colour, signs, buttons, and the names in it, which are no words."""
    call = await here.discord.slash(here.ana, typed_command(command).removeprefix("/"), options)
    found = await read(call)
    message: StoredMessage = call.followups[0] if call.followups else await call.reply()
    ids = [text for row in rows(message.payload["components"]) for text in map(_custom_id, rows(row["components"]))]
    signs = [sign for sign in found.text if ord(sign) > 0x2000]
    names: list[str] = re.findall(r"`[^`]+`", found.text)
    named = [name for name in names if not _is_new(name)]
    return {"colour": found.colour, "hidden": found.is_ephemeral, "ids": ids, "signs": signs, "names": named}


def _custom_id(component: JsonValue) -> str:
    return re.sub(_NEW, "", str(mapping(component).get("custom_id")))


def _is_new(name: str) -> bool:
    return re.search(_NEW, name) is not None


def _states(status: RunStatus) -> Notes:
    fields: Notes = status.model_dump(include=set(_TYPED))
    return fields | {"code": None if status.error is None else status.error.code}


def _problems(body: bytes) -> list[object]:
    error = ErrorBody.model_validate_json(body)
    return [error.code, [(one.path, one.value) for one in error.details]]


def _typed(folder: Path, words: tuple[str, ...]) -> list[object]:
    """The exit code of a command with its error or status, or the names in its sentence."""
    given = [str(folder / word) if word.endswith(".yaml") else word for word in words]
    command = (sys.executable, "-m", "trainer", *given)
    environment = environment_in(folder, PYTHONPATH=str(ROOT))
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if "--json" not in words:
        names: list[str] = re.findall(r"`[^`]+`", done.stderr.decode())
        return [done.returncode, names]
    if done.returncode:
        return [done.returncode, _problems(done.stdout)]
    return [done.returncode, _states(RunStatus.model_validate_json(done.stdout))]


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(to_json(asyncio.run(walk(Path(sys.argv[1]))), indent=1))
