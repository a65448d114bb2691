"""`mt export` and `mt import`."""

import json

import pytest

import trainer
from tests.support.finished_runs import finished_run
from tests.support.run_shell import Shell
from trainer.contracts.errors import ErrorCode


def test_export__writes_a_folder_that_trainer_loads(shell: Shell) -> None:
    run = finished_run(shell.folder, "rnn")
    words = ("export", run.run_id, "--format", "hf", "--out", "out", "--license", "mit", "--json")
    answer: dict[str, object] = json.loads(shell.type(*words))
    exported = [path for path in (shell.folder / "out").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in exported)
    assert answer == {"run_id": run.run_id, "format": "hf", "path": "out", "files": len(exported), "bytes": size}
    assert trainer.load("out").surprisal("the sea") == trainer.load(run.path).surprisal("the sea")
    config: dict[str, object] = json.loads((shell.folder / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["cell"] == "rnn"
    shown = shell.type("export", run.run_id, "--format", "torchscript", "--out", "script")
    assert f"{run.run_id} is in script" in shown and "PyTorch has deprecated TorchScript" in shown


@pytest.mark.parametrize(
    ("form", "hint"),
    [
        ("csv", ""),
        ("tensorboard", "See it with: tensorboard --logdir out\n"),
        pytest.param("trackio", "See it with: TRACKIO_DIR=out trackio show\n", marks=pytest.mark.process),
    ],
)
def test_curve__of_a_run_that_still_trains_says_what_shows_it(shell: Shell, form: str, hint: str) -> None:
    run = shell.add_interrupted_run()
    shown = shell.type("export", run.run_id, "--format", form, "--out", "out")
    files = [path for path in (shell.folder / "out").iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    assert shown == f"{run.run_id} is in out ({len(files)} files, {size:,} bytes).\n{hint}"
    refusal = shell.error("export", run.run_id, "--format", form, "--out", "other", "--license", "mit")
    assert refusal.message == "`--license` is for the card of a model, which a curve does not have."
    refusal = shell.error("export", f"{run.run_id}@17", "--format", "csv", "--out", "other")
    assert refusal.message == f"`--format csv` has the whole run: name the run itself, `{run.run_id}`."


def test_export_and_import__refuse_what_they_cannot_do(shell: Shell) -> None:
    run = finished_run(shell.folder, "rnn")
    waiting = shell.add_interrupted_run()
    (shell.folder / "file").touch()
    for words, code, part in [
        ("export none --format hf --out out", ErrorCode.RUN_NOT_FOUND, "none"),
        (f"export {run.run_id} --format keras --out out", ErrorCode.INVALID_INPUT, "keras"),
        (f"export {run.run_id} --format hf --out out --license a:", ErrorCode.INVALID_INPUT, "`--license` must be"),
        (f"export {run.run_id} --format hf --out file/below", None, "'file/below' cannot be used: "),
        (f"export {run.run_id} --format archive --out file/below", None, "'file/below' cannot be used: "),
        (f"export {run.run_id} --format archive --out .", ErrorCode.CONFLICT, ""),
        (f"export {waiting.run_id} --format archive --out out", ErrorCode.RUN_NOT_READY, ""),
        ("import file/below", None, "'file/below' cannot be used: Not a directory"),
        ("import none.tar", None, "There is no file 'none.tar'."),
    ]:
        error = shell.error(*words.split())
        assert code in (None, error.code), words
        assert part in error.message, words
    assert not (shell.folder / "out").exists()
