"""`trainer.load` in a program or a notebook, and `mt export`, `mt import` on the command line."""

import json
import math
from pathlib import Path
from shutil import copytree

import pytest
import torch

import trainer
from tests.support.finished_runs import finished_run
from tests.support.run_shell import Shell, shell_fixture
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateRequest
from trainer.inference.generation import generate
from trainer.inference.model_files import load_run
from trainer.inference.scoring import score_lines

__all__ = ["shell_fixture"]

TEXT = "the sun\n\nshe\u0301 was"


@pytest.mark.parametrize("family", ["char_lstm", "gpt2", "bert"])
def test_surprisal__is_that_of_the_model_with_tokens_and_places(family: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, family, "bpe" if family == "gpt2" else "char")
    model, tokenizer = load_run(run)
    found = trainer.load(run.path).surprisal(TEXT)
    lines = ["the sun", "sh\u00e9 was"]
    expected: list[float] = torch.cat(
        [score_lines(model, [tokenizer.encode(line)])[0].surprisal for line in lines]
    ).tolist()
    assert [token.nats for token in found] == pytest.approx(expected, abs=1e-5)
    normal = "the sun\n\nsh\u00e9 was"
    tokens = [tokenizer.tokens(tokenizer.encode(line)) for line in lines]
    assert [token.token for token in found] == [token for of_line in tokens for token in of_line]
    assert "".join(normal[token.start : token.end] for token in found) == "".join(lines)


def test_loaded_run__scores_and_continues_as_mt_does(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lstm")
    loaded = trainer.load(str(run.path))

    scored = loaded.score("the sea", top_k=2)
    assert scored.run_id == run.run_id and scored.mean_surprisal is not None and scored.surprisal is not None
    assert scored.mean_surprisal == pytest.approx(math.fsum(nats for nats in scored.surprisal if nats) / 7)
    assert [len(expected) for expected in scored.topk or ()] == [2] * 7

    with pytest.raises(AppError, match="for masked models only"):
        loaded.score("the", pll_within_word=True)

    request = GenerateRequest(prompt_text="the", max_new_tokens=5, num_return_sequences=2, seed=3)
    answer = generate(*load_run(run), request, run_id="run", request_id="request")
    assert loaded.generate("the", max_new_tokens=5, num_return_sequences=2, seed=3) == list(answer.outputs or ())
    with pytest.raises(AppError, match="temperatur"):
        loaded.generate("the", temperatur=2)
    with pytest.raises(AppError, match="Give the prompt once"):
        loaded.generate("the", prompt_text="a")
    assert loaded.generate(prompt_text="the", seed=3) == loaded.generate("the", seed=3)
    with pytest.raises(AppError, match="cannot generate text"):
        trainer.load(finished_run(tmp_path, "bert").path).generate("the")


def test_loaded_run__predicts_by_the_softmax_of_a_whole_forward_pass(tmp_path: Path) -> None:
    loaded = trainer.load(finished_run(tmp_path, "lstm").path)
    special_ids = loaded.tokenizer.special_ids
    for prefix in ("t", "th", "the"):
        ids = [special_ids.start, *loaded.tokenizer.encode(prefix)]
        log_p = loaded.model.forward(torch.tensor(ids).unsqueeze(0))[0, -1].double().log_softmax(-1)
        by_logp: list[int] = log_p.argsort(descending=True).tolist()
        order = [i for i in by_logp if i not in special_ids.all]
        likeliest: list[float] = log_p[order[:3]].tolist()
        found = loaded.predict_next(prefix, 3)
        assert [each.token for each in found] == loaded.tokenizer.tokens(order[:3])
        assert [each.logp for each in found] == pytest.approx(likeliest, abs=1e-5)
    assert loaded.predict_next("") == []
    with pytest.raises(AppError, match="cannot generate text"):
        trainer.load(finished_run(tmp_path, "bert").path).predict_next("the")


def test_load__takes_a_run_by_id_and_says_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path, "gru")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(tmp_path / "artifacts"))

    assert trainer.load(run.run_id).surprisal("a") == trainer.load(run.path).surprisal("a")
    assert trainer.load(run.run_id[:3]).run_id == run.run_id
    copytree(run.path, tmp_path / "My Run (copy)")
    assert trainer.load("My Run (copy)").score("a").run_id == run.run_id
    for name in ("nothing", "no/such/folder", "", "n" * 300):
        with pytest.raises(AppError) as caught:
            trainer.load(name)
        assert (caught.value.code, caught.value.message) == (
            ErrorCode.RUN_NOT_FOUND,
            f"There is no run '{name[:64]}' in '{tmp_path}/artifacts', and no such folder: check its id, or list the"
            " runs.",
        )
    monkeypatch.setenv("APP__CONFIG_FILE", "none.toml")
    with pytest.raises(AppError) as caught:
        trainer.load(run.run_id)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_mt_export__writes_a_folder_that_trainer_loads(shell: Shell) -> None:
    run = finished_run(shell.folder, "rnn")
    words = ("export", run.run_id, "--format", "hf", "--out", "out", "--license", "mit", "--json")
    answer: dict[str, object] = json.loads(shell.type(*words))
    exported = [path for path in (shell.folder / "out").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in exported)
    whole = {"run_id": run.run_id, "format": "hf", "path": "out", "files": len(exported), "bytes": size}
    assert answer == whole
    assert trainer.load("out").surprisal("the sea") == trainer.load(run.path).surprisal("the sea")
    config: dict[str, object] = json.loads((shell.folder / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["cell"] == "rnn"
    told = shell.type("export", run.run_id, "--format", "torchscript", "--out", "script")
    assert f"{run.run_id} is in script" in told and "PyTorch has deprecated TorchScript" in told


def test_mt_import__restores_what_mt_export_wrote(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished_run(shell.folder, "gpt2")
    before = trainer.load(run.path).surprisal("the sea")
    told = shell.type("export", run.run_id, "--format", "archive", "--out", "run.tar")
    size = (shell.folder / "run.tar").stat().st_size
    assert told == f"{run.run_id} is in run.tar (1 file, {size:,} bytes).\n"
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(tmp_path / "elsewhere"))
    restored: dict[str, object] = json.loads(shell.type("import", "run.tar", "--json"))
    assert restored == {"run_id": run.run_id}
    assert trainer.load(run.run_id).surprisal("the sea") == before
    assert trainer.load(tmp_path / "elsewhere" / "models" / run.run_id).run_id == run.run_id
    assert shell.error("import", "run.tar").code is ErrorCode.CONFLICT
    assert shell.error("import", "none.tar").message == "There is no file 'none.tar'."


def test_mt_export__refuses_what_it_cannot_do(shell: Shell) -> None:
    run: RunDirectory = finished_run(shell.folder, "rnn")
    assert shell.error("export", "none", "--format", "hf", "--out", "out").code is ErrorCode.RUN_NOT_FOUND
    assert shell.error("export", run.run_id, "--format", "keras", "--out", "out").code is ErrorCode.INVALID_INPUT
    wrong = shell.error("export", run.run_id, "--format", "hf", "--out", "out", "--license", "a: b")
    assert wrong.message == "`--license` must be an identifier such as cc0-1.0 or mit."
    (shell.folder / "file").touch()
    for name in ("hf", "archive"):
        below = shell.error("export", run.run_id, "--format", name, "--out", "file/below")
        assert below.message in (f"'file/below' cannot be used: {why}." for why in ("File exists", "Not a directory"))
    assert shell.error("import", "file/below").message == "'file/below' cannot be used: Not a directory."
    assert shell.error("export", run.run_id, "--format", "archive", "--out", ".").code is ErrorCode.CONFLICT
    waiting = shell.add_interrupted_run()
    assert shell.error("export", waiting.run_id, "--format", "archive", "--out", "out").code is ErrorCode.RUN_NOT_READY
    assert not (shell.folder / "out").exists()
