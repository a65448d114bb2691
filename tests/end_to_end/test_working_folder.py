"""No command runs code of the folder that it is typed in, or of the data folder."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx2
import pytest
from pydantic import TypeAdapter

from local_discord import LocalDiscord
from local_discord.driver import shown_text
from tests.support import ROOT, add_corpus, environment_in, some_text
from tests.support.bot import TOKEN, environment_on
from tests.support.run_shell import TINY
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from trainer.artifacts.runs import RunStore

_OWN = {"trainer", "bot", "local_discord", "sitecustomize", "usercustomize"}
_PROGRAMS = (
    "setpriv valkey-server redis-server cc gcc clang nvidia-smi git ldconfig uname fc-list latex lscpu sh mt".split()
)
_BF16 = ("--model", "gru", "--tokenizer", "char", "--set", "precision=bf16")


class Trap:
    """A working folder and a data folder full of modules and programs that write down their names when they run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ran = folder / "work", folder / "ran"
        data = self.folder / "data"
        data.mkdir(parents=True)
        note = f"with open({str(self._ran)!r}, 'a') as file:\n    file.write(__name__ + ' ')\n"
        for name in filter(str.isidentifier, {*sys.stdlib_module_names, *packages_distributions(), *_OWN}):
            for place in (self.folder, data):
                (place / f"{name}.py").write_text(note, encoding="utf-8")
        for name in ("trainer", "bot", "torch"):
            (self.folder / name).mkdir()
            (self.folder / name / "__init__.py").write_text(note, encoding="utf-8")
            (self.folder / name / "__main__.py").write_text(note, encoding="utf-8")
        for name in _PROGRAMS:
            program = self.folder / name
            program.write_text(f"#!/bin/sh\necho {name} >> {self._ran}\nexit 1\n", encoding="ascii")
            program.chmod(0o755)
        (self.folder / "matplotlibrc").write_text("text.usetex: True\n", encoding="ascii")
        self._mt = folder / "bin" / "mt"  # as an installer writes it
        self._mt.parent.mkdir()
        self._mt.write_text("import sys\nfrom trainer.commands.main import main\nsys.exit(main())\n", encoding="ascii")

    def start(self, *words: str, log: Path, **settings: str) -> "subprocess.Popen[bytes]":
        path = os.pathsep.join([".", "", os.environ["PATH"], ""])
        more = {"HTTP__PORT": "0", "APP__CLEANUP__ENABLED": "true", "DISCORD__TOKEN": "", **settings}
        environment = environment_in(self.folder, PATH=path, PYTHONPATH=str(ROOT), **more)
        command = [sys.executable, str(self._mt), *words]
        with log.open("wb") as output:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)

    def run(self, *words: str) -> str:
        log = self.folder.parent / "command.log"
        command = self.start(*words, log=log)
        try:
            code = command.wait(PATIENCE_SECONDS)
        finally:
            command.terminate()
        assert (self.ran(), code) == ("", 0), (words, log.read_text(encoding="utf-8"))
        return log.read_text(encoding="utf-8")

    def ran(self) -> str:
        return self._ran.read_text(encoding="utf-8") if self._ran.exists() else ""


@pytest.fixture(name="trap")
def trap_fixture(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


@pytest.fixture(name="url")
def url_fixture(trap: Trap, tmp_path: Path) -> Iterator[str]:
    """The HTTP API of `mt up`, beside which every command works."""
    log = tmp_path / "up.log"
    server = trap.start("up", "--no-discord", log=log)
    try:
        wait_until(lambda: server.poll() is not None or "http_started" in log.read_text(encoding="utf-8"))
        found = re.search(r"\bport=(\d+)", log.read_text(encoding="utf-8"))
        assert found is not None, (trap.ran(), log.read_text(encoding="utf-8"))
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


@pytest.mark.slow
def test_code_of_the_working_folder_and_of_the_data_folder__never_runs(trap: Trap, url: str) -> None:
    name = add_corpus(trap.folder, some_text())
    (trap.folder / "texts").mkdir()
    for language in ("kk", "tr"):
        text = "\n".join(f"{'bedel' * 8}{'d' * number}" for number in range(20))
        (trap.folder / "texts" / f"{language}.txt").write_text(text, encoding="utf-8")
    trap.run("train", *_BF16, *TINY, "--corpus", name)
    [run] = RunStore(trap.folder / "artifacts").all()
    trap.run("train", *TINY, "--corpus", name, "--devices", "2", "--set", "threads=2")
    trap.run("tokenizer", "train", "--method", "bpe", "--corpus", name, "--set", "vocab_size=60")
    trap.run("score", run.run_id, "abc", "--heatmap", "heat.png")
    trap.run("generate", run.run_id, "abc", "--max-new-tokens", "3")
    trap.run("export", run.run_id, "--format", "torchscript", "--out", "exported")
    trap.run("export", run.run_id, "--format", "onnx", "--out", "graph")
    trap.run("export", run.run_id, "--format", "trackio", "--out", "curves")
    trap.run("corpus", "build", "--source", "texts", "--from-ipa", "--langs", "kk,tr")
    trap.run("experiment", "run", "smoke")
    trap.run("doctor")
    json = {"Content-Type": "application/json"}
    posted = httpx2.post(
        f"{url}/runs/{run.run_id}/export", content='{"format": "hf"}', headers=json, timeout=PATIENCE_SECONDS
    )
    assert (trap.ran(), posted.is_success) == ("", True), posted.text
    verified = httpx2.post(f"{url}/runs/{run.run_id}/verify", timeout=PATIENCE_SECONDS)
    assert (trap.ran(), verified.is_success) == ("", True), verified.text


async def test_code_of_the_working_folder__never_runs_in_the_bot(trap: Trap, tmp_path: Path) -> None:
    name = add_corpus(trap.folder, some_text())
    async with LocalDiscord(token=TOKEN) as server:
        ana = server.add_user("ana")
        more = {"DISCORD__OWNER_ID": str(ana.id), "DISCORD__CDN_BASE_URL": server.cdn_base_url}
        environment = environment_on(server, **more, QUEUE__EMBEDDED_WORKERS="1")
        bot = trap.start("up", "--port", "0", log=tmp_path / "up.log", **environment)
        try:
            await server.synced(PATIENCE_SECONDS)
            await server.connected(PATIENCE_SECONDS)
            await server.slash(ana, "mt train", {"corpus": name, "model": "gru", "size": "tiny", "max_steps": 30})
            channel = server.dm_channel(ana)
            final = await server.wait_for_message(channel, "Completed|Failed", timeout=PATIENCE_SECONDS)
            [run] = RunStore(trap.folder / "artifacts").all()
            call = await server.slash(ana, "mt status", {"run": run.run_id})
            status = await call.reply(PATIENCE_SECONDS)
        finally:
            bot.terminate()
            await asyncio.to_thread(bot.wait, PATIENCE_SECONDS)
    assert (trap.ran(), "Completed" in shown_text(final.payload)) == ("", True)
    assert [file["filename"] for file in status.attachments] == ["loss.png"]
    assert "Discord: connected as model-trainer.\n" in (tmp_path / "up.log").read_text(encoding="utf-8")


_CASES = [
    ("", []),
    ("{ours}", ["ours"]),
    (":{ours}::", ["ours"]),
    (".:{ours}", ["work", "ours"]),
    ("{work}", ["work"]),
]


@pytest.mark.parametrize(("given", "folders"), _CASES, ids=[given or "none" for given, _ in _CASES])
def test_python_path__keeps_the_folders_that_it_names(tmp_path: Path, given: str, folders: list[str]) -> None:
    """An empty entry names none. The program itself is found in any case, also in a checkout that is not installed."""
    work = tmp_path / "work"
    work.mkdir()
    program = "import os, sys; from trainer.system.python import leave_out_working_folder as leave_out; leave_out()"
    shown = "import json; print(json.dumps([sys.path, os.environ['PATH'].split(':')]))"
    environment = {
        "PYTHONPATH": given.format(ours=tmp_path / "ours", work=work),
        "PATH": ".::/bin:bin",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(ROOT)!r}); {program}; {shown}"],
        cwd=work,
        env=environment,
        capture_output=True,
        check=True,
    )
    found, paths = TypeAdapter(list[list[str]]).validate_json(done.stdout)
    known = [Path(folder).name for folder in found if folder.startswith(str(tmp_path))]
    assert (known, paths, "" in found, str(ROOT) in found) == (folders, ["/bin"], False, True)
