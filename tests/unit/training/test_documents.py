"""Runs with `documents: stream`: a split is one text, whose newlines are tokens."""

import math
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.support.answers import continue_greedily, score, scored_nats, surprisals, write
from tests.support.families import CONTINUING, effective_of, model_of, slow_unless_quick
from tests.support.finished_runs import finished_run
from tests.support.properties import for_all_pairs
from tests.support.refusals import refused
from tests.support.tiny_models import NFC, POEM, Run, integers, make_run, reference, small_model, tokenizer_of
from tests.support.tiny_models import write as write_corpus
from trainer.config.presets import resolve as resolve_request
from trainer.config.validation import parse
from trainer.contracts.chats import ChatRequest
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.predictions import PredictRequest, PredictResponse
from trainer.contracts.runs import EffectiveRequest, TrainRequest
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.data.run_corpora import CorpusPaths
from trainer.data.text import line_blocks
from trainer.export.folders import export_folder, load_export
from trainer.inference.chat import chat_prompt
from trainer.inference.generation import read_prompt
from trainer.inference.prediction import PrefixCache, predict
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Tokenizer, vocabulary_of
from trainer.training.dataset import prepare
from trainer.training.device import resolve
from trainer.training.documents import Documents
from trainer.training.evaluation import evaluate, measure, sample_prompts
from trainer.training.inspect_corpus import inspect_corpus
from trainer.training.selftest import overfit_one_batch

METHODS = ("char", "byte", "bpe", "wordpiece", "word")
PLAY = ["ROMEO:", "He jests at scars.", "", "JULIET:", "Ay me!", "", "She says", "", "She speaks,", "  o speak again."]
TEXT = "".join(f"{line}\n" for line in PLAY)
STREAM: dict[str, object] = {"documents": "stream", "holdout_fraction": 0.2, "test_fraction": 0.3}
every_method = pytest.mark.parametrize("method", METHODS)


def stream_tokenizer(method: str, lines: list[str] = PLAY) -> Tokenizer:
    size = None if method in ("char", "byte", "word") else 80
    return tokenizer_of(method, lines, ("a b",), documents="stream", vocab_size=size)


TOKENIZERS = {method: stream_tokenizer(method) for method in METHODS}
MODELS = {method: small_model(vocabulary_of(tokenizer)) for method, tokenizer in TOKENIZERS.items()}
CHARACTERS, MODEL = TOKENIZERS["char"], MODELS["char"]
NEWLINE = CHARACTERS.encode("\n")[0]


def stream_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text behind the newline that it starts from."""
    return [tokenizer.special_ids.start, *tokenizer.encode(text)]


def resolved(path: Path, **values: object) -> EffectiveRequest:
    """The request of a run on a file."""
    request = parse(TrainRequest, {"corpus": path.name, "model_family": "lstm", **STREAM, **values})
    return resolve_request(request, corpus=reference(path))


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    return make_run(tmp_path, PLAY, **STREAM)


_parts = st.sampled_from(["a", "bc d", " ", "\n", "\n\n", "\r\n", "é", "e\u0301"])


@for_all_pairs(st.lists(_parts).map("".join), st.integers(1, 9))
def test_lines__of_a_stream_are_all_lines_at_any_size_of_the_reads(text: str, size: int) -> None:
    expected = text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "corpus.txt"
        path.write_bytes(text.encode())
        patch.setattr("trainer.data.text._CHUNK_BYTES", size)
        assert list(chain.from_iterable(line_blocks(path, "stream"))) == expected
        assert list(chain.from_iterable(line_blocks(path))) == [line for line in expected if line.strip()]


def test_splits__joined_are_the_text_and_files_join_in_their_split(tmp_path: Path) -> None:
    def texts_of(corpus: SplitCorpus) -> list[str]:
        return ["".join(f"{block}\n" for block in corpus.lines(split)) for split in corpus.splits]

    rule = SplitRule(0.2, 0.3, 1, "position")
    texts = texts_of(SplitCorpus(write_corpus(tmp_path, PLAY), NFC, rule, documents="stream"))
    assert [text.count("\n") for text in texts] == [5, 2, 3]
    assert "".join(texts) == TEXT
    corpus, given = tmp_path / "corpus", tmp_path / "given"
    for number, folder in enumerate((corpus, given)):
        folder.mkdir()
        write_corpus(folder, ["a", "", str(number)], "1.txt")
        (folder / "2.txt").write_bytes(b"\r\nb")
    for seed in range(4):
        rule = SplitRule(0.4, 0.0, seed, "file")
        split = SplitCorpus(corpus, NFC, rule, documents="stream", test=given, scratch=tmp_path)
        assert sorted(texts_of(split)) == sorted(["a\n\n0\n", "\nb\n", "a\n\n1\n\nb\n"])


@every_method
def test_tokenizer__encodes_lines_as_their_text_and_decodes_newlines(method: str, tmp_path: Path) -> None:
    tokenizer, text = TOKENIZERS[method], "She,\n\n \nHe  jests quickly\n\n"
    assert integers(tokenizer.encode_documents(text.removesuffix("\n"))) == tokenizer.encode(text)
    assert tokenizer.encode(text).count(tokenizer.special_ids.line_end) == 5
    spans = tokenizer.spans(text)
    assert len(spans) == len(tokenizer.encode(text))
    assert [a for a, b in spans if text[a:b] == "\n"] == [4, 5, 7, 25, 26]
    shown, decoded = TEXT, TEXT
    if method == "word":
        shown, decoded = '" Ay me ! "\n\nHe jests at scars.\n', '"Ay me!"\n\nHe jests at scars.\n'
    tokenizer = stream_tokenizer(method, [*PLAY, '" Ay me ! "'])
    assert tokenizer.decode(tokenizer.encode(shown)) == decoded
    tokenizer.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in (TEXT, "\n", "\n\nHe quickly", "Ay me!"):
        assert library.encode(text).ids == tokenizer.encode(text)


def test_statistics__count_newlines_as_characters() -> None:
    tokenizer = tokenizer_of("char", ["ab", "", "b"], ["ab", "c", ""], documents="stream")
    stats = tokenizer.manifest.stats
    assert tokenizer.manifest.corpus[0].chars == len("ab\n\nb\n")
    assert (stats.token_count, stats.holdout_lines, stats.avg_tokens_per_char) == (6, 3, 1.0)
    assert stats.oov_rate == pytest.approx(1 / 6)
    assert stats.char_coverage == pytest.approx(2 / 3)
    assert tokenizer_of("word", ["a b", "c"], documents="stream").manifest.corpus[0].chars == len("a b\nc\n")


def test_ids_and_rows__are_the_text_of_each_split_shifted_by_one(run: Run) -> None:
    texts = ["".join(f"{line}\n" for line in lines) for lines in (PLAY[:5], PLAY[5:7], PLAY[7:])]
    assert list(map(integers, run.corpus.ids.values())) == list(map(run.tokenizer.encode, texts))
    for text, sizes, words in zip(texts, run.corpus.sizes.values(), run.corpus.words.values(), strict=True):
        assert (sizes.lines, sizes.chars, sizes.tokens) == (text.count("\n"), len(text), len(text))
        assert (sizes.bytes, words) == (len(text.encode()), len(text.split()))
    ids = integers(run.corpus.ids["train"])
    for length in (8, 11, 100):
        rows = run.corpus.rows("train", length)
        batch = rows.batch(np.arange(len(rows)))
        inputs, targets = integers(batch.inputs), integers(batch.targets)
        assert targets[: len(ids)] == ids
        assert set(targets[len(ids) :]) <= {-100}
        assert inputs[: len(ids)] == [NEWLINE, *ids[:-1]]
        assert batch.tokens == len(ids)


@pytest.mark.parametrize("family", slow_unless_quick(CONTINUING))
def test_evaluation__reads_the_split_as_one_text(family: str) -> None:
    text, model = TEXT * 3, model_of(family, vocabulary_of(CHARACTERS))
    documents = Documents(CHARACTERS.encode_documents(text.removesuffix("\n")), CHARACTERS.special_ids)
    found = evaluate(model, documents, resolve(effective_of(family)))
    ids, expected, begin = stream_of(CHARACTERS, text), list[float](), 0
    window = model.context_tokens or len(text)
    while len(expected) < len(text):
        end = min(begin + window, len(text))
        expected += surprisals(model, ids[begin : end + 1])[len(expected) - begin :]
        begin = end - window // 4
    assert found.tokens == len(expected) == len(text)
    assert found.loss_nats == pytest.approx(sum(expected) / len(text), abs=1e-5)
    lengths = [len(line) for line in text.splitlines(keepends=True)]
    assert found.group_tokens == tuple(lengths)
    by_line = [sum(expected[sum(lengths[:n]) :][:length]) for n, length in enumerate(lengths)]
    assert found.group_nats == pytest.approx(by_line, abs=1e-4)


def test_metrics_and_prompts__are_those_of_a_text_with_newlines(run: Run) -> None:
    model, text = small_model(vocabulary_of(run.tokenizer)), "".join(f"{line}\n" for line in PLAY[7:])
    metrics, samples = measure(model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r")
    losses = surprisals(model, stream_of(run.tokenizer, text))
    assert (metrics.n_chars, metrics.n_tokens, metrics.tokens_per_char) == (len(text), len(text), 1)
    assert metrics.bits_per_char == pytest.approx(sum(losses) / math.log(2) / len(text), abs=1e-5)
    unknown = sum(character not in "".join(PLAY[:5]) for character in text.replace("\n", ""))
    assert metrics.unknown_share == unknown / len(text)
    assert (metrics.seq_len.min, metrics.seq_len.max) == (1, 17)
    assert metrics.lines.chars == tuple(len(line) + 1 for line in PLAY[7:])
    assert not metrics.lines.is_drawn, "the lines of a stream are neighbours"
    assert samples[0].prompt == ""
    assert set(sample_prompts(run.corpus, run.tokenizer, run.effective)) <= {"", *"ROMEO: He JULIET: Ay She o".split()}


@pytest.mark.parametrize("family", slow_unless_quick(CONTINUING))
def test_score__equals_one_pass_over_the_text(family: str) -> None:
    model, text = model_of(family, vocabulary_of(CHARACTERS)), "Ay me!\n\nShe"
    found, alone = (score(model, CHARACTERS, text, context=context) for context in ("bos", "none"))
    expected, size = surprisals(model, stream_of(CHARACTERS, text)), len(text)
    assert found.surprisal == pytest.approx(expected, abs=1e-5)
    assert found.tokens == tuple(text)
    assert found.char_spans == tuple((i, i + 1) for i in range(size))
    assert (found.n_tokens, found.n_chars, found.n_ends, found.end_nats) == (size, size, 0, None)
    assert found.loss == pytest.approx(sum(expected) / size, abs=1e-5)
    assert found.bits_per_char == pytest.approx(sum(expected) / math.log(2) / size, abs=1e-5)
    assert [(line.number, line.span, line.end_nats) for line in found.lines or ()] == [(1, (0, size), None)]
    assert [word.text for word in found.words or ()] == text.split()
    assert [text[start:end] for start, end in (word.span for word in found.words or ())] == text.split()
    assert (alone.surprisal or ())[0] is None
    assert scored_nats(alone) == pytest.approx(surprisals(model, CHARACTERS.encode(text)), abs=1e-5)
    assert (alone.n_scored, alone.n_chars) == (size - 1, size - 1)


def test_score__of_newlines_is_theirs_and_of_no_tokens_refused() -> None:
    assert score(MODEL, CHARACTERS, "\n\n").surprisal == pytest.approx(surprisals(MODEL, [NEWLINE] * 3), abs=1e-5)
    with pytest.raises(AppError, match=r"^`text` has nothing to score: it is blank\.$"):
        score(MODELS["word"], TOKENIZERS["word"], "  ")
    assert score(MODELS["word"], TOKENIZERS["word"], " \n ").n_scored == 1


@every_method
@pytest.mark.parametrize("prompt", ["", "Ay me!\n\nShe"])
def test_text__continues_with_the_likeliest_tokens_and_newlines(method: str, prompt: str) -> None:
    tokenizer = TOKENIZERS[method]
    model = small_model(vocabulary_of(tokenizer))
    with torch.no_grad():  # a newline now and then
        bias = next(weight for weight in model.parameters() if weight.shape == (tokenizer.vocab_size,))
        bias[tokenizer.special_ids.line_end] += 3 if method != "byte" else 5
    found = write(model, tokenizer, prompt_text=prompt, temperature=0, max_new_tokens=12)
    before = tokenizer.encode(prompt)
    written = continue_greedily(model, tokenizer, stream_of(tokenizer, prompt), 12)
    assert tokenizer.special_ids.line_end in written
    text = tokenizer.decode([*before, *written])[len(tokenizer.decode(before)) :]
    assert "\n" in text
    assert (found.outputs, found.stop_reason, found.steps) == ((text,), ("max_new_tokens",), (12,))
    assert found.prompt_tokens == len(before)


def test_sampling__writes_no_special_tokens_and_obeys_its_options() -> None:
    values: dict[str, object] = {"temperature": 5, "max_new_tokens": 200, "seed": 3}
    many = write(MODEL, CHARACTERS, **values, num_return_sequences=5).outputs or ()
    letters = write(MODEL, CHARACTERS, **values, alphabet="aeio").outputs or ()
    line = write(MODEL, CHARACTERS, **values, stop_sequences=("\n",))
    assert all(len(text) == 200 for text in many)
    assert "\n" in "".join(many)
    assert set("".join(letters)) == set("aeio")
    assert line.stop_reason == ("stop_sequence",)
    assert "\n" not in "".join(line.outputs or ())


def test_chat_and_prediction__read_all_lines_as_one_text() -> None:
    queued = PredictResponse(request_id="request", run_id="run", status="queued")
    suggested = predict(MODEL, CHARACTERS, PredictRequest(text="Ay\n\nm", k=3), queued, PrefixCache()).suggestions or ()
    likeliest = continue_greedily(MODEL, CHARACTERS, stream_of(CHARACTERS, "Ay\n\nm"), 1)
    assert [suggestion.token for suggestion in suggested][:1] == CHARACTERS.tokens(likeliest)
    found, _ = chat_prompt(MODEL, CHARACTERS, ChatRequest(message="Ay me!", stop_sequences=("x",)), ())
    assert (found.prompt_text, found.stop_sequences) == ("Ay me!\n", ("x", "\n"))
    assert read_prompt(CHARACTERS, "Ay me!\n").ids == stream_of(CHARACTERS, "Ay me!\n")
    with pytest.raises(AppError, match="stop_sequences"):
        chat_prompt(MODEL, CHARACTERS, ChatRequest(message="a", stop_sequences=tuple("abcdefgh")), ())


def test_request__is_split_by_position_unless_by_file() -> None:
    assert effective_of("lstm").split_by == "line"
    assert effective_of("lstm", documents="stream").split_by == "position"
    assert effective_of("lstm", documents="stream", split_by="file").split_by == "file"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("split_by", "line", "'stream' needs `split_by` 'position' or 'file': lines drawn at random are no stream"),
        ("objective", "masked_lm", "must be 'line' for masked_lm: 'stream' is for causal_lm"),
        ("tokenizer", {"method": "sentencepiece"}, "'stream' needs a newline token, which 'sentencepiece' has not"),
    ],
)
def test_request__that_makes_no_stream_is_refused(field: str, value: object, sentence: str) -> None:
    code = ErrorCode.INVALID_INPUT if field == "split_by" else ErrorCode.MODEL_INCOMPATIBLE
    with refused(code, f"`documents` {sentence}"):
        effective_of("lstm", documents="stream", **{field: value})


@pytest.mark.parametrize("documents", ["line", "stream"])
def test_tokenizer__of_other_documents_is_refused(documents: str) -> None:
    request = parse(TrainRequest, {"corpus": "text", "model_family": "lstm", "documents": documents})

    def documents_with(tokenizer: Tokenizer) -> str:
        corpus, manifest = effective_of("lstm").corpus, tokenizer.manifest
        return resolve_request(request, corpus=corpus, tokenizer=manifest).documents

    of_lines = tokenizer_of("char", PLAY)
    right, wrong = (of_lines, CHARACTERS) if documents == "line" else (CHARACTERS, of_lines)
    assert documents_with(right) == documents
    with pytest.raises(AppError, match=f"^`documents` is '{documents}', but the tokenizer .* was trained") as caught:
        documents_with(wrong)
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE


def test_text_or_vocabulary_without_newline__is_refused(tmp_path: Path) -> None:
    blank = write_corpus(tmp_path, ["a", "b", " ", ""], "blank.txt")
    with refused(ErrorCode.CORPUS_EMPTY, "The test split has only blank lines."):
        SplitCorpus(blank, NFC, SplitRule(0.2, 0.5, 1, "position"), documents="stream")
    with refused(ErrorCode.INVALID_INPUT, "leave the newline out of the vocabulary"):
        make_run(tmp_path, ["aaa", "aaa"] * 3, tokenizer={"method": "char", "vocab_size": 5}, **STREAM)
    with pytest.raises(AppError, match="needs a newline token"):
        stream_tokenizer("sentencepiece")
    tokenizer_of("char", PLAY).save(tmp_path)
    manifest = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace('"documents": "line"', '"documents": "stream"'))
    with refused(ErrorCode.TOKENIZER_LOAD_FAILED, "has no newline"):
        load_tokenizer(tmp_path)


def test_cache__keeps_streams_and_lines_apart(tmp_path: Path) -> None:
    path, found = write_corpus(tmp_path, PLAY), dict[str, list[int]]()
    for documents in ("line", "stream", "line"):
        effective = resolved(path, documents=documents, split_by="position", tokenizer={"method": "word"})
        tokenizer, corpus = prepare(effective, CorpusPaths(path), tmp_path / "cache")
        ids = integers(corpus.ids["train"])
        assert found.setdefault(documents, ids) == ids
        assert tokenizer.documents == documents
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert found["stream"].count(1) > found["line"].count(1)


def test_training__learns_a_stream_and_its_newlines(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["ab", "", "c"] * 40, num_epochs=20, **STREAM)
    model = run.fresh_model()
    run.train(model)
    found = write(model.eval(), run.tokenizer, prompt_text="ab\n\nc\n", temperature=0, max_new_tokens=12)
    assert found.outputs == ("ab\n\nc\nab\n\nc\n",)


@pytest.mark.slow
def test_self_test_and_corpus_inspection__read_a_stream(tmp_path: Path) -> None:
    path = write_corpus(tmp_path, POEM)
    learned = overfit_one_batch(effective_of("lstm", documents="stream", learning_rate=0.02), path)
    assert learned.ok
    assert (learned.rows, learned.tokens) == (8, 8 * 24)
    found = inspect_corpus(resolved(path, model_family="char_lstm", max_seq_len=40), CorpusPaths(path), None)
    assert found.sample == "\n".join(POEM)[:39]
    assert found.longest_line_tokens == max(map(len, POEM[:5])) + 1
    held_out = "".join(f"{line}\n" for line in POEM[5:7])
    assert found.unknown_share == sum(c not in "\n".join(POEM[:5]) for c in held_out) / len(held_out)


@pytest.mark.parametrize(("family", "method"), [("gpt2", "char"), ("gru", "word"), ("lstm", "bpe")])
def test_exported_folder__starts_from_a_newline_and_has_no_end(family: str, method: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_folder(finished_run(tmp_path, family, method, documents="stream"), "hf", out)
    _, model, tokenizer = load_export(out)
    newline, suppressed = tokenizer.special_ids.newline, tokenizer.special_ids.never_sampled
    config, generation, library = (
        TypeAdapter(dict[str, object]).validate_json((out / name).read_bytes())
        for name in ("config.json", "generation_config.json", "tokenizer_config.json")
    )
    assert config["bos_token_id"] == generation["bos_token_id"] == newline is not None
    assert config["eos_token_id"] is generation["eos_token_id"] is None
    assert generation["suppress_tokens"] == suppressed
    assert newline not in suppressed
    assert not {"bos_token", "eos_token"} & library.keys()
    assert tokenizer.documents == "stream"
    card = (out / "README.md").read_text()
    assert 'tokenizer("\\n" + "text"' in card and "Start every text with a newline" in card
    assert "bos_token" not in card
    read = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    assert read.encode("the sun\n\nmight").ids == tokenizer.encode("the sun\n\nmight")
    assert model.vocabulary.special_ids.newline == newline
