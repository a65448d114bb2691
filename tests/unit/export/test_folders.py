"""Exported folders: others load them without our classes, and get our ids, our logits and our continuations."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from pydantic import TypeAdapter

import trainer
from tests.support import ROOT
from tests.support.families import CAUSAL, FAMILIES
from tests.support.finished_runs import finished_run
from tests.support.languages import LANGUAGES, texts_in
from tests.support.refusals import refused
from tests.support.tiny_models import tensor_of, tokenizer_of
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateRequest
from trainer.export.folders import export_folder, load_export
from trainer.export.library_folder import library_tokenizer
from trainer.inference.generation import generate
from trainer.inference.model_files import load_run
from trainer.system.destination import RECORD_FILE

TEXTS = ["the sun shines", "  his  best SEA", "quokka on the Жsea", ""]
ODD_TEXTS = ["", " ", "  two  spaces ", "a\tb\x1fc", "x\u2581y \u2585", "e\u0301tude", "zz\0 q"]
ODD_TEXTS += ["\u2028 \U0001f600\U0001f600", "<0x41> x<0x0A"]
METHODS_OF = {
    **{"gpt2": "bpe", "gru": "word", "llama": "sentencepiece", "rnn": "wordpiece", "rnn both": "sentencepiece"},
    **{"lstm": "byte", "qwen": "bpe with bytes", "gru both": "sentencepiece with bytes"},
}
"""Every method somewhere; the other families have characters."""


class Looked(Frozen):
    """The output of a process that loaded an exported folder."""

    ids: list[list[int]]
    decoded: list[str]
    started: list[list[int]]
    """The ids of a tokenizer loaded with `add_bos_token=True`."""
    logits: list[list[float]]
    greedy: dict[str, list[int]] | None = None


@pytest.fixture(scope="module", name="runs")
def runs_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDirectory]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: finished_run(folder, name, METHODS_OF.get(name, "char")) for name in FAMILIES}


@pytest.fixture(scope="module", name="looked")
def looked_fixture(runs: dict[str, RunDirectory], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Looked]:
    """All families, exported and loaded by the Hugging Face library in an interpreter of its own, without a network."""
    folder = tmp_path_factory.mktemp("exported")
    for run in runs.values():
        export_folder(run, "hf", folder / run.run_id)
    program = [sys.executable, "-P", str(ROOT / "tests" / "fixtures" / "load_exports.py.txt")]
    done = subprocess.run(
        [*program, str(folder / "found.json"), *(str(folder / run.run_id) for run in runs.values())],
        env={**os.environ, "HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = TypeAdapter(dict[str, Looked]).validate_json((folder / "found.json").read_bytes())
    return {name: found[run.run_id] for name, run in runs.items()}


@pytest.mark.process
@pytest.mark.parametrize("name", FAMILIES)
def test_exported_model__has_our_ids_and_logits(
    runs: dict[str, RunDirectory], looked: dict[str, Looked], name: str
) -> None:
    model, tokenizer = load_run(runs[name])
    found, ids = looked[name], tokenizer.special_ids
    without_space = " " if tokenizer.manifest.method == "sentencepiece" else ""
    own = [tokenizer.encode(text.removeprefix(without_space)) for text in TEXTS]
    whole = [[ids.start, *of_text, ids.eos] for of_text in own]
    is_causal = model.objective == "causal_lm"
    assert found.ids == (own if is_causal else whole)
    assert found.started == [[ids.start, *of_text] for of_text in own]
    read = [ids.start, *own[0]] if is_causal else whole[0]
    with torch.inference_mode():
        expected = model.forward(tensor_of([read]))[0]
    # bit-equal in one process; elsewhere the weights lie otherwise in memory, which these wild ones make larger
    assert torch.allclose(torch.tensor(found.logits), expected, rtol=0, atol=3e-6)
    if tokenizer.manifest.method != "word":
        assert found.decoded == [tokenizer.decode(of_text) for of_text in own]


@pytest.mark.process
@pytest.mark.parametrize("name", CAUSAL)
def test_exported_model__continues_greedily_as_ours_token_by_token(
    runs: dict[str, RunDirectory], looked: dict[str, Looked], name: str
) -> None:
    model, tokenizer = load_run(runs[name])
    request = GenerateRequest(prompt_text=TEXTS[0], max_new_tokens=8, temperature=0, stop_on_eos=True)
    answer, greedy = generate(model, tokenizer, request, run_id="run", request_id="request"), looked[name].greedy
    assert greedy is not None and answer.steps is not None and answer.outputs is not None
    assert greedy["True"] == greedy["False"]
    assert len(greedy["True"]) == answer.steps[0]
    prompt = tokenizer.encode(TEXTS[0])
    assert tokenizer.decode([*prompt, *greedy["True"]]).removeprefix(tokenizer.decode(prompt)) == answer.outputs[0]


@pytest.mark.parametrize(
    "method",
    [
        *("char", "byte", "word", "bpe", "bpe with bytes", "wordpiece"),
        *("unigram", "sentencepiece bpe", "unigram with bytes", "sentencepiece bpe with bytes"),
    ],
)
@pytest.mark.parametrize("language", ["kk", "ug", "ipa"])
def test_exported_tokenizer__has_our_ids_for_texts_of_all_languages(method: str, language: str, tmp_path: Path) -> None:
    lines = texts_in(language)
    kind, has_fallback = method.removesuffix(" with bytes"), method.endswith(" with bytes")
    fields: dict[str, object] = {} if method in ("char", "byte", "word") else {"vocab_size": 400}
    if has_fallback:
        fields, lines = {**fields, "byte_fallback": True}, lines[:1]
    if kind in ("unigram", "sentencepiece bpe"):
        kind, fields = "sentencepiece", {**fields, "model_type": kind.split()[-1]}
    ours = tokenizer_of(kind, lines, ("a b",), **fields)
    ours.save(tmp_path)
    [file] = (path for path in tmp_path.iterdir() if path.name != "manifest.json")
    library = tokenizers.Tokenizer.from_str(library_tokenizer(file.read_bytes(), ours.manifest, "causal_lm").decode())
    for text in [*ODD_TEXTS, *(line for other in LANGUAGES for line in texts_in(other))]:
        if ours.manifest.method == "sentencepiece" and text.startswith(" "):
            assert [library.encode("▁").ids[0], *library.encode(text).ids] == ours.encode(text), text
        else:
            assert library.encode(text).ids == ours.encode(text), text


@pytest.mark.parametrize("name", ["char_lstm", "qwen", "bert", "gru both"])
def test_exported_folder__is_loaded_back_bit_for_bit(runs: dict[str, RunDirectory], name: str, tmp_path: Path) -> None:
    written = export_folder(runs[name], "hf", tmp_path / "out")
    before, tokenizer = load_run(runs[name])
    for edited in ("README.md", "CITATION.cff"):
        (tmp_path / "out" / edited).write_text("names of people", encoding="utf-8")
    record, after, same_tokenizer = load_export(tmp_path / "out")
    ids = tensor_of([tokenizer.encode("the sea")])
    with torch.inference_mode():
        assert torch.equal(before.forward(ids), after.forward(ids))
    assert record == written
    assert same_tokenizer.manifest == tokenizer.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_load__says_what_is_wrong_with_a_folder(runs: dict[str, RunDirectory], tmp_path: Path) -> None:
    out, foreign, keras, changed = (tmp_path / name for name in ("out", "foreign", "keras", "changed"))
    export_folder(runs["char_lstm"], "hf", out)
    shutil.copytree(out, changed)
    (changed / "tokenizer.json").write_text("{}", encoding="utf-8")
    (changed / "config.json").unlink()
    for folder in (foreign, keras):
        folder.mkdir()
    (keras / RECORD_FILE).write_text('{"format": "keras"}', encoding="utf-8")
    foreigner = (ErrorCode.MODEL_LOAD_FAILED, "Not a recognized export format")
    for path, (code, words) in {
        tmp_path / "none": (ErrorCode.DATA_NOT_FOUND, "There is no"),
        **dict.fromkeys((foreign, keras, out / "README.md"), foreigner),
        changed: (ErrorCode.MODEL_LOAD_FAILED, "differs from its export: config.json, tokenizer.json has changed"),
    }.items():
        with refused(code, words):
            load_export(path)


def test_export__overwrites_an_earlier_export_if_forced_and_nothing_else(
    runs: dict[str, RunDirectory], tmp_path: Path
) -> None:
    out, empty, file, link, mine = (tmp_path / name for name in ("out", "empty", "file", "link", "mine"))
    for folder in (empty, mine):
        folder.mkdir()
    for path in (file, mine / "letter"):
        path.write_text("mine", encoding="utf-8")
    link.symlink_to(empty)
    export_folder(runs["rnn"], "torchscript", out)
    export_folder(runs["rnn"], "hf", empty)
    before = sorted(tmp_path.rglob("*"))
    for taken in (out, file, link):
        with refused(ErrorCode.CONFLICT, "already exists: give `--out` another name"):
            export_folder(runs["rnn"], "hf", taken)
    for taken in (mine, tmp_path):
        with pytest.raises(AppError, match="`--force` replaces an earlier export only"):
            export_folder(runs["gru"], "hf", taken, force=True)
    with pytest.raises(OSError):
        export_folder(runs["rnn"], "hf", file / "below")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left half made"
    assert export_folder(runs["gru"], "hf", out, force=True).run_id == runs["gru"].run_id
    assert trainer.load(out).run_id == runs["gru"].run_id
    assert not list(out.glob("*.pt"))


def test_export__of_a_changed_run_is_refused(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "gru")
    weights = run.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "changed or deleted after its training: model.safetensors"):
        export_folder(run, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
