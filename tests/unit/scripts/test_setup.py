"""The set-up script: pip's settings for uv, the stamp of an environment, and what it refuses."""

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from scripts.setup import known_extras, stamp, stamped_extras, uv_settings
from tests.support import ROOT

FILES = ("pyproject.toml", "constraints.txt")
SOURCES = ":env:.index-url='https://env.example'\ninstall.index-url='https://install.example'\n"


@pytest.mark.parametrize(
    ("pip", "environ", "expected"),
    [
        (
            "global.cert='/certs/ca.pem'\n"
            "global.disable-pip-version-check='1'\n"
            "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'\n"
            "global.find-links='/wheels /more wheels'\n"
            "global.index-url='https://user:word@c.example/simple?x=1'\n",
            {},
            {
                "SSL_CERT_FILE": "/certs/ca.pem",
                "UV_INDEX": "https://a.example/simple https://b.example/simple",
                "UV_INDEX_STRATEGY": "unsafe-best-match",
                "UV_FIND_LINKS": "/wheels,/more,wheels",
                "UV_DEFAULT_INDEX": "https://user:word@c.example/simple?x=1",
            },
        ),
        (SOURCES, {}, {"UV_DEFAULT_INDEX": "https://env.example"}),
        ("global.cert='/global'\n" + SOURCES, {"UV_DEFAULT_INDEX": "mine"}, {"SSL_CERT_FILE": "/global"}),
        ("", {}, {}),
        ("global.index-url=''\n", {}, {}),
    ],
)
def test_uv_settings__are_those_of_pip_in_its_order_of_sources(
    pip: str, environ: dict[str, str], expected: dict[str, str]
) -> None:
    assert uv_settings(pip, environ) == expected


def test_stamp__changes_with_each_of_its_inputs(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("one", encoding="utf-8")
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path, moved)
    more_extras = stamp(tmp_path, "cpu", "3.11.7", ["corpora", "dev"])
    stamps = [stamp(folder, "cpu", "3.11.7", ["dev"]) for folder in (tmp_path, moved)]
    stamps += [more_extras, stamp(tmp_path, "cu130", "3.11.7", ["dev"]), stamp(tmp_path, "cpu", "3.12.1", ["dev"])]
    for name in FILES:
        (tmp_path / name).write_text("two", encoding="utf-8")
        stamps.append(stamp(tmp_path, "cpu", "3.11.7", ["dev"]))
    assert len(set(stamps)) == len(stamps) == 7
    assert stamps[-1] == stamp(tmp_path, "cpu", "3.11.7", ["dev"])
    assert stamped_extras(more_extras) == ["corpora", "dev"]
    assert stamped_extras("incomplete") == stamped_extras("") == []


@pytest.mark.process
@pytest.mark.parametrize("words", [("tset",), ("--extra", "corpora", "--extra", "tset")])
def test_unknown_word__is_refused_before_anything_is_done(words: tuple[str, ...]) -> None:
    command = [sys.executable, f"{ROOT}/scripts/setup.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'tset'" in done.stderr


def test_extras__are_all_known() -> None:
    assert {"all", "compiler", "corpora", "server", "train"} <= {*known_extras()}


@pytest.mark.process
def test_environment_of_another_user__is_refused_in_one_sentence() -> None:
    as_other = "import os, setup\nif os.geteuid() == 0: os.setuid(65534)  # every folder is open to root\nsetup.main()"
    with TemporaryDirectory() as name:  # other users cannot enter a folder of pytest
        folder = Path(name)
        shutil.copytree(ROOT / "scripts", folder / "scripts")
        for file in FILES:
            shutil.copy(ROOT / file, folder)
        (folder / ".venv").mkdir(mode=0o555)
        folder.chmod(0o755)
        command = [sys.executable, "-c", as_other]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder / "scripts")
    first_line, *_ = done.stderr.splitlines()  # coverage, which cannot write its file, says so behind it
    assert done.returncode == 1
    assert first_line.startswith(f"{folder.resolve() / '.venv'} belongs to another user: ")
