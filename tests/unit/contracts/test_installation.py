"""Where an installed program keeps data, and what installs an extra."""

import gc
import os
import runpy
import sys
from pathlib import Path

import pytest

import trainer
from trainer.commands.connection import note_new_place
from trainer.commands.terminal import Terminal
from trainer.config.settings import AppSettings, Settings
from trainer.contracts import installation
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import command_for, default_folder, keep_font_cache, require_extras


@pytest.fixture(name="installed")
def installed_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The program as a wheel installs it: there is no checkout around it."""
    monkeypatch.setattr(installation, "CHECKOUT", None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_data__is_the_users_unless_the_program_runs_from_a_checkout(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = default_folder("artifacts")
    assert installed in root.parents and root.parts[-2:] == ("model-trainer", "artifacts")
    app = AppSettings(artifacts_root=root, data_root=default_folder("data"))
    texts = root.parent / "data" / "corpus"
    place = f"Runs and added corpora are in {root}; text files in {texts} are corpora, too."
    assert app.new_place() == place
    note_new_place(changed(Settings(), app=app), Terminal(as_json=False))
    assert capsys.readouterr().err == f"mt: {place}\n"
    root.mkdir(parents=True)
    assert app.new_place() is None


def test_font_cache__is_kept_with_the_data_unless_it_has_a_place(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", "elsewhere")
    keep_font_cache()
    assert os.environ["MPLCONFIGDIR"] == "elsewhere"
    monkeypatch.delenv("MPLCONFIGDIR")
    keep_font_cache()
    assert installed in Path(os.environ["MPLCONFIGDIR"]).parents


def test_path__of_a_checkout_or_a_setting_is_not_shown(tmp_path: Path) -> None:
    assert default_folder("artifacts") == Path("artifacts")
    assert AppSettings(artifacts_root=Path("artifacts")).new_place() is None
    assert AppSettings(artifacts_root=tmp_path / "elsewhere").new_place() is None


def test_extra__is_installed_by_what_has_installed_the_program(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command_for("train") == "`pip install 'model-trainer[train]'`"
    monkeypatch.setattr(sys, "prefix", str(installed))
    (installed / "uv-receipt.toml").write_text("")
    assert command_for("train") == "`uv tool install 'model-trainer[train]'`"


def test_extra__that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extras("train", "server", "discord")
    monkeypatch.setattr(installation, "EXTRA_MODULES", {"train": "no_such_torch", "server": "aiohttp"})
    require_extras("server")
    with pytest.raises(AppError) as refusal:
        require_extras("server", "train")
    assert refusal.value.code is ErrorCode.UNSUPPORTED_BACKEND
    assert refusal.value.message == "This needs the extra `train`: run `python scripts/setup.py --extra train`."
    monkeypatch.setattr(installation, "EXTRA_MODULES", {"train": "no_such_torch", "discord": "no_such_discord"})
    with pytest.raises(AppError) as refusal:
        require_extras("train", "discord")
    both = "`python scripts/setup.py --extra train --extra discord`"
    assert refusal.value.message == f"This needs the extras `train` and `discord`: run {both}."


def test_load__without_torch_names_the_extra_and_hides_no_other_missing_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trainer.api", None)  # as if an import in it had failed
    with pytest.raises(ModuleNotFoundError):
        trainer.load("last")
    monkeypatch.setattr(installation, "EXTRA_MODULES", {"train": "no_such_torch"})
    with pytest.raises(AppError, match="This needs the extra `train`"):
        trainer.load("last")


@pytest.mark.parametrize(("words", "extra"), [([], "discord"), (["--no-discord"], "server")])
def test_bot__without_an_extra_says_what_installs_it(
    words: list[str], extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "environ", {**os.environ})
    monkeypatch.setattr(sys, "argv", ["bot", *words])
    monkeypatch.setattr(installation, "EXTRA_MODULES", {extra: "no_such_library"})
    try:
        with pytest.raises(SystemExit) as end:
            runpy.run_module("bot", run_name="__main__")
    finally:
        gc.enable()
    said = f"This needs the extra `{extra}`: run `python scripts/setup.py --extra {extra}`.\n"
    assert (end.value.code, capsys.readouterr().err) == (2, said)
