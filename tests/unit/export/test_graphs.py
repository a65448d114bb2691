"""Exports of graphs: batch and length are open, state goes in and comes out, the numbers are ours."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional

from tests.support.families import CAUSAL, FAMILIES, MASKED, TRANSFORMERS, model_of, slow_unless_quick
from tests.support.finished_runs import finished_run
from tests.support.markers import slow_except
from tests.support.refusals import refused
from tests.support.tiny_models import doubles, tensor_of
from trainer.contracts.errors import AppError, ErrorCode
from trainer.export import graphs
from trainer.export.folders import export_folder, load_export
from trainer.inference.model_files import load_run
from trainer.models.base import LanguageModel

Ask = Callable[[list[Tensor]], list[Tensor]]
SIZES = [(1, 1, 0), (3, 9, 0), (1, 1, 5), (4, 6, 4), (5, 1, 1)]
"""Batch, length, and how many tokens were read before."""


class Loaded(Protocol):
    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]: ...


class Session(Protocol):
    def run(self, outputs: None, inputs: dict[str, object]) -> list[list[float]]: ...
    def get_inputs(self) -> "list[Input]": ...


class Input(Protocol):
    @property
    def name(self) -> str: ...


def scripted(folder: Path, model: LanguageModel) -> Ask:
    graphs.write_torchscript(folder, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Callable[[str], Loaded] = import_module("torch.jit").load
        return answering(load(str(folder / "model.pt")))


def answering(loaded: Loaded) -> Ask:
    def ask(inputs: list[Tensor]) -> list[Tensor]:
        found = loaded(*inputs)
        return list(found) if isinstance(found, tuple) else [found]

    return ask


def graphed(folder: Path, model: LanguageModel) -> Ask:
    graphs.write_onnx(folder, model)
    make: Callable[[str], Session] = import_module("onnxruntime").InferenceSession
    session = make(str(folder / "model.onnx"))
    names = [given.name for given in session.get_inputs()]

    def ask(inputs: list[Tensor]) -> list[Tensor]:
        found = session.run(None, {name: doubles(part) for name, part in zip(names, inputs, strict=True)})
        return [torch.tensor(part) for part in found]

    return ask


def loaded_program(folder: Path) -> Ask:
    load: Callable[[str], ExportedProgram] = import_module("torch.export").load
    return answering(load(str(folder / "model.pt2")).module())


def check_causal(ask: Ask, model: LanguageModel, *, unread: int = 0) -> None:
    """The answers are those of the model; a format without empty states gets `unread` positions of zeros instead."""
    for batch, length, read in SIZES:
        with torch.inference_mode():
            ids, state = torch.randint(5, 13, (batch, length)), model.initial_state(batch)
            if read:
                _, state = model.forward_with_state(torch.randint(5, 13, (batch, read)), state)
            expected, after = model.forward_with_state(ids, state)
            fill = 0 if read else unread
            given = [functional.pad(part, [0, 0] * (part.dim() - 3) + [0, fill]) if fill else part for part in state]
            logits, *state_after = ask([ids, *given])
        assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5)
        for found, own in zip(state_after, after, strict=True):
            assert torch.allclose(found[:, :, fill:].float(), own.float(), rtol=1e-5, atol=1e-5)


def check_masked(ask: Ask, model: LanguageModel) -> None:
    for batch, length, _ in SIZES:
        ids, lengths = torch.randint(5, 13, (batch, length)), torch.randint(1, length + 1, (batch,))
        lengths[0] = length
        with torch.inference_mode():
            expected = model.forward(ids, lengths)
            [logits] = ask([ids, lengths])
        read = torch.arange(length) < lengths.unsqueeze(-1)
        assert torch.allclose(logits[read], expected[read], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_graph__gives_our_numbers_for_every_size(
    name: str, form: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = model_of(name)
    ask = scripted(tmp_path, model) if form == "torchscript" else graphed(tmp_path, model)
    assert capfd.readouterr() == ("", "")
    if name in MASKED:
        check_masked(ask, model)
    else:
        check_causal(ask, model, unread=int(form == "onnx" and name in TRANSFORMERS))


@pytest.mark.parametrize("name", slow_except(TRANSFORMERS, "gpt2"))
def test_program__gives_our_logits_of_complete_texts_of_every_size(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = model_of(name)
    graphs.write_pt2(tmp_path, model)
    assert capfd.readouterr() == ("", "")
    ask = loaded_program(tmp_path)
    if name in MASKED:
        check_masked(ask, model)
    else:
        for batch, length, _ in SIZES:
            ids = torch.randint(5, 13, (batch, length))
            with torch.inference_mode():
                [logits], expected = ask([ids]), model.forward(ids)
            assert torch.allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.process
def test_exports_to_torch__load_without_our_classes_and_have_the_same_top_5(tmp_path: Path) -> None:
    runs = {name: finished_run(tmp_path, name) for name in ("char_lstm", "gpt2")}
    for name, run in runs.items():
        assert export_folder(run, "torchscript", tmp_path / name).format == "torchscript"
    assert export_folder(runs["gpt2"], "pt2", tmp_path / "program").format == "pt2"
    nothing = "torch.zeros(1, 1, 0, dtype=torch.bool), *[torch.zeros(1, 1, 0, 2, 8)] * 4"
    states = {"char_lstm": "torch.zeros(2, 1, 16), torch.zeros(2, 1, 16)", "gpt2": nothing}
    lines = [
        f"print(torch.jit.load('{name}/model.pt')(ids, {state})[0][0, -1].topk(5).indices.tolist())"
        for name, state in states.items()
    ]
    lines += ["print(torch.export.load('program/model.pt2').module()(ids)[0, -1].topk(5).indices.tolist())"]
    program = "; ".join(["import sys, torch", "ids = torch.tensor([[2, 5, 6, 7]])", *lines])
    program += "; assert not {'trainer', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        models = [load_run(run)[0] for run in runs.values()]
        top = [model.forward(tensor_of([[2, 5, 6, 7]]))[0, -1].topk(5).indices for model in models]
    expected: list[list[int]] = [list(map(int, ids)) for ids in (*top, top[-1])]
    assert done.stdout == "".join(f"{ids}\n" for ids in expected)
    card = (tmp_path / "gpt2" / "README.md").read_text(encoding="utf-8")
    assert "TorchScript is a legacy format" in card and "license: unknown" in card
    with pytest.raises(AppError, match="what can be loaded here is `--format hf`"):
        load_export(tmp_path / "gpt2")


@pytest.mark.parametrize("name", [*CAUSAL[1:4], "gru both"])
def test_onnx_export__holds_model_tokenizer_and_a_card_with_the_inputs(name: str, tmp_path: Path) -> None:
    export_folder(finished_run(tmp_path, name, "word"), "onnx", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("model.onnx", "tokenizer.json", "tokenizer_config.json", "tokenizer"),
        *("README.md", "CITATION.cff", "export.json"),
    }
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert ("`lengths`" in card) == (name in MASKED)
    assert ("`hidden` and `cell`, each (2, batch, 16)" in card) == (name == "lstm")


def test_onnx_without_the_extra__says_which_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path, "rnn")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with refused(ErrorCode.UNSUPPORTED_BACKEND, "`python scripts/setup.py --extra onnx`."):
        export_folder(run, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
