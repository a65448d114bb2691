"""The built wheel in an empty folder: the whole program, the client alone, its types, and messages about extras."""

import math
import subprocess
import sys
import venv
from pathlib import Path
from shutil import copy, unpack_archive
from zipfile import ZipFile

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from tests.support import ROOT
from tests.support.api_process import KEY, api_process
from tests.support.extras import link_libraries
from trainer.contracts.installation import DISTRIBUTION
from trainer.native.build import compiler

pytestmark = pytest.mark.slow  # the hosted workflow installs the wheel at each push

_TINY = ("--model", "gru", "--size", "tiny", "--tokenizer", "char", "--set", "max_steps=3", "--set", "threads=1")

_TYPED_PROGRAM = """
from pathlib import Path
from typing import assert_type

import bot
import local_discord
import trainer
from trainer.api import Model, Surprisal
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.predictions import Suggestion
from trainer.contracts.scores import ScoreRequest, ScoreResponse
from trainer.contracts.runs import RunStatus, TrainRequest


def train(request: TrainRequest) -> RunStatus | ErrorCode:
    with trainer.Client("http://localhost:8000", key="key") as client:
        assert_type(list(client.runs(status="completed")), list[RunStatus])
        run = client.train(request, max_steps=3)
        assert_type(client.load(run.run_id).score("a text").loss, float | None)
        try:
            return client.wait(run.run_id)
        except AppError as error:
            return error.code


model = trainer.load(Path("run"))
assert_type(model, Model)
assert_type(model.surprisal("a text"), list[Surprisal])
assert_type(model.generate("a prompt", max_new_tokens=5), list[str])
assert_type(model.predict_next("a prompt"), list[Suggestion])
assert_type(model.ask(ScoreRequest(text="a text")), ScoreResponse)
"""


@pytest.fixture(name="site", scope="module")
def site_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, as pip does: its files as they are, made of those of the archive."""
    folder = tmp_path_factory.mktemp("wheel")
    [archive] = SdistBuilder(str(ROOT)).build(directory=str(folder))
    unpack_archive(archive, folder / "source", filter="data")
    [source] = (folder / "source").iterdir()
    [wheel] = map(Path, WheelBuilder(str(source)).build(directory=str(folder), versions=["standard"]))
    checked = subprocess.run([sys.executable, "-m", "check_wheel_contents", wheel], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    with ZipFile(wheel) as files:
        files.extractall(folder / "site")
    for path in [folder / "site", *(folder / "site").rglob("*")]:  # of another user
        path.chmod(0o555 if path.is_dir() else 0o444)
    return folder / "site"


class User:
    """A user with an empty home, an empty working folder, and the libraries of some extras."""

    def __init__(self, home: Path, site: Path, *extras: str) -> None:
        self.folder, self.data = home / "work", home / "share" / DISTRIBUTION
        self._libraries = home / "libraries"
        for folder in (self.folder, self._libraries):
            folder.mkdir()
        link_libraries(self._libraries, *extras)
        self._environment = {
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "share"),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{site}:{self._libraries}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "300",
        }

    def run(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run Python, without the libraries of these tests."""
        command = [sys.executable, "-S", *words]
        environ = self._environment | environment
        return subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True)

    def mt(self, *words: str, **environment: str) -> str:
        """Run a command of `mt`, which has to succeed; return what it prints."""
        done = self.run("-m", "trainer", *words, **environment)
        assert done.returncode == 0, done.stderr
        return done.stderr + done.stdout

    def refusal(self, *words: str, **environment: str) -> str:
        """Run a module that has to end with a mistake of the user; return its message."""
        done = self.run("-m", *words, **environment)
        assert done.returncode == 2, done.stderr
        return done.stderr


def needed(extra: str) -> str:
    return f"This needs the extra `{extra}`: run `pip install 'model-trainer[{extra}]'`."


def test_wheel__trains_in_an_empty_folder_and_keeps_data_with_the_user(tmp_path: Path, site: Path) -> None:
    user = User(tmp_path, site, "train")
    (user.folder / "mine.txt").write_text("ab ba\nba ab ba\n" * 200)
    printed = user.mt("train", "test_rnn_tiny", "--corpus", "mine.txt", "--set", "max_steps=3")
    texts = user.data / "data" / "corpus"
    place = f"Runs and added corpora are in {user.data / 'artifacts'}; text files in {texts} are corpora, too."
    assert (place in printed, "completed" in printed) == (True, True)
    [run] = (user.data / "artifacts" / "models").iterdir()
    answer = user.mt("generate", run.name, "ab", "--max-new-tokens", "3", "--json")
    assert f'"decode_step":"{"torch" if compiler() is None else "compiled"}"' in answer
    assert place not in user.mt("tokenizer", "train", "--method", "word", "--corpus", "demo")
    assert [path.name for path in user.folder.iterdir()] == ["mine.txt"]
    copy(ROOT / ".env.example", user.folder / ".env")
    assert run.name in user.mt("runs")
    pages = user.run("-c", "from trainer.mcp.resources import pages; print(pages()['agents'].title)")
    assert pages.stdout == "Agents\n", pages.stderr
    assert needed("agents") in user.refusal("trainer", "mcp")
    assert needed("discord") in user.refusal("trainer", "demo") and needed("discord") in user.refusal("bot")


def test_client__works_with_the_libraries_of_the_base(tmp_path: Path, site: Path) -> None:
    for name in ("user", "server"):
        (tmp_path / name).mkdir()
    user = User(tmp_path / "user", site)
    (user.folder / "mine.txt").write_text("ab ba\nba ab ba\n" * 200)
    with api_process(tmp_path / "server") as api:
        server = {"MT_URL": api.url, "MT_KEY": KEY}
        assert "completed" in user.mt("train", "--corpus", "demo", *_TINY, **server)
        program = (
            "import trainer; [run] = trainer.Client().runs(); print(trainer.Client().load(run.run_id).score('ab').loss)"
        )
        done = user.run("-c", program, **server)
        assert (done.returncode, math.isfinite(float(done.stdout))) == (0, True), done.stderr
    assert needed("train") in user.refusal("trainer", "train", "mine.txt")
    assert needed("server") in user.refusal("bot", "--no-discord")
    loading = user.run("-c", "import trainer; trainer.load('lstm')")
    assert loading.stderr.splitlines()[-1].endswith(needed("train"))
    assert "without the extras train, server, discord" in user.mt("doctor")
    assert not user.data.exists()


def test_types__hold_in_a_program_with_the_libraries_of_the_base(tmp_path: Path, site: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    [packages] = environment.glob("lib/*/site-packages")
    link_libraries(packages)
    (packages / "wheel.pth").write_text(str(site))
    (tmp_path / "program.py").write_text(_TYPED_PROGRAM)
    options = ["--strict", "--disallow-any-expr", "--config-file=", "--cache-dir=cache"]
    command = [sys.executable, "-m", "mypy", *options, "--python-executable", str(environment / "bin/python")]
    done = subprocess.run([*command, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stderr
