"""Exported folders: others load them without our classes, and get our ids, our logits and our continuations."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tokenizers
import torch
from hypothesis import strategies as st
from pydantic import TypeAdapter

import trainer
from tests.support import ROOT
from tests.support.families import CAUSAL, FAMILIES, slow_unless_quick
from tests.support.finished_runs import LINES, finished_run
from tests.support.languages import LANGUAGES, texts_in
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from tests.support.tiny_models import char_tokenizer, tensor_of, tokenizer_of
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRequest
from trainer.export.folders import export_folder, load_export
from trainer.export.library_folder import library_tokenizer
from trainer.inference.generation import generate, read_prompt
from trainer.inference.model_files import load_run
from trainer.system.destination import RECORD_FILE
from trainer.tokenizers.base import Tokenizer

TEXTS = ["the sun shines", "  his  best SEA", "quokka on the Жsea", ""]
ODD_TEXTS = ["", " ", "  two  spaces ", "a\tb\x1fc", "x\u2581y \u2585", "e\u0301tude", "zz\0 q"]
ODD_TEXTS += ["\u2028 \U0001f600\U0001f600", "<0x41> x<0x0A", " the sun", "   the", "the sun  "]
METHODS_OF = {
    **{"gpt2": "bpe", "gru": "word", "llama": "sentencepiece", "rnn": "wordpiece", "rnn both": "sentencepiece"},
    **{"lstm": "byte", "qwen": "bpe with bytes", "gru both": "sentencepiece with bytes"},
}
"""Every method somewhere; the other families have characters."""


class Loaded(Frozen):
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


@pytest.fixture(scope="module", name="loaded")
def loaded_fixture(runs: dict[str, RunDirectory], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
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
    found = TypeAdapter(dict[str, Loaded]).validate_json((folder / "found.json").read_bytes())
    return {name: found[run.run_id] for name, run in runs.items()}


@pytest.mark.process
@pytest.mark.parametrize("name", slow_unless_quick(FAMILIES))
def test_exported_model__has_our_ids_and_logits(
    runs: dict[str, RunDirectory], loaded: dict[str, Loaded], name: str
) -> None:
    model, tokenizer = load_run(runs[name])
    found, ids = loaded[name], tokenizer.special_ids
    own = [tokenizer.encode(text) for text in TEXTS]
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
@pytest.mark.parametrize("name", slow_unless_quick(CAUSAL))
def test_exported_model__continues_greedily_as_ours_token_by_token(
    runs: dict[str, RunDirectory], loaded: dict[str, Loaded], name: str
) -> None:
    model, tokenizer = load_run(runs[name])
    request = GenerateRequest(prompt_text=TEXTS[0], max_new_tokens=8, temperature=0, stop_on_eos=True)
    answer, greedy = generate(model, tokenizer, request, run_id="run", request_id="request"), loaded[name].greedy
    assert greedy is not None and answer.steps is not None and answer.outputs is not None
    assert greedy["True"] == greedy["False"]
    assert len(greedy["True"]) == answer.steps[0]
    prompt = tokenizer.encode(TEXTS[0])
    assert tokenizer.decode([*prompt, *greedy["True"]]).removeprefix(tokenizer.decode(prompt)) == answer.outputs[0]


EXPORTED = [
    *("char", "byte", "word", "bpe", "bpe with bytes", "wordpiece"),
    *("unigram", "sentencepiece bpe", "unigram with bytes", "sentencepiece bpe with bytes"),
]
PIECES = [
    "the",
    " sun",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "\x1c",
    "\xa0",
    "\u2028",
    "\0",
    "\u2581",
    "\u2585",
    "#",
    "##",
    "'s",
    "\u2019",
]
PIECES += ["\u0416", "e\u0301", "\u0130", "\U0001f600", "12", ".", "[BOS", "</", "<0x41>"]


def trained(method: str, lines: list[str], **fields: object) -> Tokenizer:
    """A tokenizer of a method, by the name that EXPORTED gives it."""
    kind, *more = method.split(" with bytes")
    if more:
        fields = {**fields, "byte_fallback": True}
    if kind in ("unigram", "sentencepiece bpe"):
        kind, fields = "sentencepiece", {**fields, "model_type": kind.split()[-1]}
    if kind not in ("char", "byte", "word"):
        fields = {"vocab_size": 600, **fields}
    return tokenizer_of(kind, lines, ("a b",), **fields)


def exported(ours: Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer of an exported folder."""
    with TemporaryDirectory() as folder:
        ours.save(Path(folder))
        [file] = (path for path in Path(folder).iterdir() if path.name != "manifest.json")
        written = library_tokenizer(file.read_bytes(), ours.manifest, "causal_lm")
    return tokenizers.Tokenizer.from_str(written.decode())


@pytest.mark.parametrize("method", EXPORTED)
@pytest.mark.parametrize("language", ["kk", "ug", "ipa"])
def test_exported_tokenizer__has_our_ids_for_texts_of_all_languages(method: str, language: str) -> None:
    lines = texts_in(language)
    ours = trained(method, lines[:1] if method.endswith(" with bytes") else lines, vocab_size=400)
    library = exported(ours)
    for text in [*ODD_TEXTS, *(line for other in LANGUAGES for line in texts_in(other))]:
        assert library.encode(text).ids == ours.encode(text), text


@pytest.fixture(scope="module", name="pairs")
def pairs_fixture() -> dict[str, tuple[Tokenizer, tokenizers.Tokenizer]]:
    """Tokenizers as they are trained and exported, for lines and for streams."""
    lines = [*LINES, *texts_in("kk")]
    ours = {method: trained(method, lines) for method in EXPORTED}
    ours |= {
        f"{kind} stream": trained(kind, lines, documents="stream") for kind in ("char", "word", "bpe", "wordpiece")
    }
    return {name: (tokenizer, exported(tokenizer)) for name, tokenizer in ours.items()}


def test_exported_tokenizer__reads_every_text_as_a_prompt_with_its_lines(
    pairs: dict[str, tuple[Tokenizer, tokenizers.Tokenizer]],
) -> None:
    @for_all_pairs(st.sampled_from(sorted(pairs)), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
    def check(name: str, text: str) -> None:
        ours, library = pairs[name]
        prompt = read_prompt(ours, text).ids
        start = "\n" if ours.documents == "stream" else ours.names[ours.special_ids.start]
        assert library.encode(start + text).ids == prompt
        is_word = ours.manifest.method == "sentencepiece" and re.fullmatch(" [^ \n]+", text)
        # word-by-word tools read a word after a space as it is inside a line
        assert library.encode(text).ids == (ours.encode(text[1:]) if is_word else prompt[1:])

    check()


@pytest.mark.parametrize("method", ["char", *(name for name in EXPORTED if name not in ("char", "byte", "word"))])
@pytest.mark.parametrize("lowercase", [False, True])
def test_exported_tokenizer__has_a_mask_in_the_place_of_one_token(method: str, lowercase: bool) -> None:
    lines = [line for line in texts_in("kk") if line.isprintable()]
    text = [line.lower() if lowercase else line for line in lines]
    if method == "char":
        ours = char_tokenizer(text, mask_token=True)
    else:
        ours = trained(method, text, special_style="bert", normalization={"lowercase": lowercase})
    library, masked = exported(ours), 0
    for line in lines:
        ids = ours.encode(line)
        for place, (begin, end) in enumerate(ours.spans(line)):
            before, token, after = line[:begin], line[begin:end], line[end:]
            is_word = token.strip() and (token[0] == " " or begin == 0) and after[:1] in (" ", "")
            if is_word or method == "char":
                space = " " if token[0] == " " and method != "char" else ""
                expected = [*ids[:place], ours.special_ids.mask, *ids[place + 1 :]]
                found = library.encode(f"{before}{space}[MASK]{after}").ids
                assert found == expected, (line, token)
                masked += 1
    assert masked > 5


@pytest.mark.parametrize("method", ["bpe", "wordpiece", "sentencepiece"])
@pytest.mark.parametrize("lowercase", [False, True, "tr"])
def test_exported_tokenizer__has_the_lower_case_of_the_language(method: str, lowercase: bool | str) -> None:
    names: dict[str, object] = {"bos_token": "<|INIT|>", "eos_token": "<|LINE|>"}
    ours = trained(method, ["ışık izmir IŞIK İZMİR"], special_tokens=names, normalization={"lowercase": lowercase})
    library, (first, second) = exported(ours), ("IŞIK", "İzmir I\u0307Z")
    ids = [ours.encode(text) for text in (first, second)]
    assert [library.encode(text).ids for text in (first, second)] == ids
    assert library.encode(f"{first}\n{second}").ids == [*ids[0], ours.special_ids.eos, ours.special_ids.start, *ids[1]]
    assert (ids[0] == ours.encode("ışık")) == (lowercase == "tr")


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
