"""Runs with `documents: stream`: a split is one text, whose newlines are tokens."""

import math
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.support import families
from tests.support.families import CAUSAL, effective_of, model_of
from tests.support.finished_runs import finished_run
from tests.support.properties import for_all_pairs
from tests.support.reference import windows_by_hand
from tests.support.tiny_models import (
    NFC,
    POEM,
    Run,
    floats,
    make_run,
    reference,
    small_model,
    tensor_of,
    tokenizer_of,
    write,
)
from tests.unit.inference.test_scoring import score_text
from tests.unit.test_evaluation import windows_by_hand
from trainer.config.presets import resolve as resolve_request
from trainer.config.validation import parse
from trainer.contracts.completions import CompletionRequest, CompletionResponse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import (
    ChatRequest,
    GenerateRequest,
    GenerateResponse,
    PredictRequest,
    PredictResponse,
    ScoreRequest,
)
from trainer.contracts.runs import TrainRequest
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.data.text import line_blocks
from trainer.export.folders import export_folder, load_export
from trainer.inference.chat import chat_prompt
from trainer.inference.completion import CompletionJob, complete_together
from trainer.inference.generation import generate, read_prompt
from trainer.inference.prediction import PrefixCache, predict
from trainer.models.base import LanguageModel
from trainer.tokenizers import load_tokenizer
from trainer.tokenizers.base import Ids, Tokenizer, vocabulary_of
from trainer.training.corpus_check import check_corpus
from trainer.training.dataset import CorpusPaths, prepare
from trainer.training.device import resolve
from trainer.training.documents import Documents
from trainer.training.evaluation import evaluate, measure, sample_prompts
from trainer.training.selftest import overfit_one_batch

METHODS = ("char", "byte", "bpe", "wordpiece", "word")
PLAY = ["ROMEO:", "He jests at scars.", "", "JULIET:", "Ay me!", "", "She says", "", "She speaks,", "  o speak again."]
TEXT = "".join(f"{line}\n" for line in PLAY)
STREAM: dict[str, object] = {"documents": "stream", "holdout_fraction": 0.2, "test_fraction": 0.3}


def stream_tokenizer(method: str, lines: list[str] = PLAY) -> Tokenizer:
    size: dict[str, object] = {} if method in ("char", "byte", "word") else {"vocab_size": 80}
    return tokenizer_of(method, lines, ("a b",), documents="stream", **size)


TOKENIZERS = {method: stream_tokenizer(method) for method in METHODS}
CHARACTERS = TOKENIZERS["char"]
NEWLINE = CHARACTERS.encode("\n")[0]


def ids_of(ids: Ids) -> list[int]:
    values: list[int] = ids.tolist()
    return values


def stream_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text behind the newline that it starts from."""
    return [tokenizer.special_ids.start, *tokenizer.encode(text)]


def surprisals_by_hand(model: LanguageModel, ids: list[int]) -> list[float]:
    """-ln p of every id but the first, from one pass over all."""
    with torch.inference_mode():
        log_p = model.forward(tensor_of([ids[:-1]]))[0].log_softmax(-1)
    return [-float(log_p[position, target]) for position, target in enumerate(ids[1:])]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    return make_run(tmp_path, PLAY, **STREAM)


_parts = st.sampled_from(["a", "bc d", " ", "\n", "\n\n", "\r\n", "é", "e\u0301"])


@for_all_pairs(st.lists(_parts, min_size=1).map("".join), st.integers(1, 9))
def test_lines__of_a_stream_are_all_lines_whatever_the_size_of_the_reads(text: str, size: int) -> None:
    expected = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "corpus.txt"
        path.write_bytes(text.encode())
        patch.setattr("trainer.data.text._CHUNK_BYTES", size)
        assert list(chain.from_iterable(line_blocks(path, "stream"))) == expected
        assert list(chain.from_iterable(line_blocks(path))) == [line for line in expected if line.strip()]


def test_empty_file__has_no_line(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(b"")
    assert not list(line_blocks(tmp_path / "corpus.txt", "stream"))


def test_splits__joined_are_the_text(tmp_path: Path) -> None:
    rule = SplitRule(0.2, 0.3, 1, "position")
    corpus = SplitCorpus(write(tmp_path, PLAY), NFC, rule, documents="stream")
    texts = {split: "".join(f"{block}\n" for block in corpus.lines(split)) for split in corpus.splits}
    assert [text.count("\n") for text in texts.values()] == [5, 2, 3]
    assert "".join(texts.values()) == TEXT


def test_files__are_joined_within_their_split(tmp_path: Path) -> None:
    corpus, given = tmp_path / "corpus", tmp_path / "given"
    for number, folder in enumerate((corpus, given)):
        folder.mkdir()
        write(folder, ["a", "", str(number)], "1.txt")
        (folder / "2.txt").write_bytes(b"\r\nb")
    for seed in range(4):
        split = SplitCorpus(
            corpus, NFC, SplitRule(0.4, 0.0, seed, "file"), documents="stream", test=given, scratch=tmp_path
        )
        held_out = ["".join(f"{block}\n" for block in split.lines(name)) for name in split.splits]
        assert sorted(held_out) == sorted(["a\n\n0\n", "\nb\n", "a\n\n1\n\nb\n"])


def test_split_of_blank_lines__is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ["a", "b", " ", ""])
    with pytest.raises(AppError, match=r"^The test split has only blank lines\.$") as caught:
        SplitCorpus(path, NFC, SplitRule(0.2, 0.5, 1, "position"), documents="stream")
    assert caught.value.code is ErrorCode.CORPUS_EMPTY


@pytest.mark.parametrize("method", METHODS)
def test_encoding_line_by_line__is_that_of_the_whole_text(method: str) -> None:
    tokenizer = TOKENIZERS[method]
    text = "She,\n\n \nHe  jests quickly\n\n"
    assert ids_of(tokenizer.encode_documents(text.removesuffix("\n"))) == tokenizer.encode(text)
    assert tokenizer.encode(text).count(tokenizer.special_ids.line_end) == 5
    spans = tokenizer.spans(text)
    assert len(spans) == len(tokenizer.encode(text))
    assert [a for a, b in spans if text[a:b] == "\n"] == [4, 5, 7, 25, 26]


@pytest.mark.parametrize("method", METHODS)
def test_decoding__gives_the_text_with_its_newlines(method: str) -> None:
    text = '"Ay me!"\n\nHe jests at scars.\n' if method == "word" else TEXT
    tokenizer = stream_tokenizer(method, [*PLAY, '" Ay me ! "'])
    if method == "word":
        tokens = tokenizer.encode('" Ay me ! "\n\nHe jests at scars.\n')
    else:
        tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize("method", METHODS)
def test_file_of_the_tokenizer__has_our_ids_in_the_library(method: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[method]
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


def test_ids__are_the_text_of_each_split(run: Run) -> None:
    texts = ["".join(f"{line}\n" for line in lines) for lines in (PLAY[:5], PLAY[5:7], PLAY[7:])]
    assert list(map(ids_of, run.corpus.ids.values())) == list(map(run.tokenizer.encode, texts))
    for text, sizes, words in zip(texts, run.corpus.sizes.values(), run.corpus.words.values(), strict=True):
        assert (sizes.lines, sizes.chars, sizes.tokens) == (text.count("\n"), len(text), len(text))
        assert (sizes.bytes, words) == (len(text.encode()), len(text.split()))


@pytest.mark.parametrize("length", [8, 11, 100])
def test_rows__predict_each_token_once_from_the_one_before_it(run: Run, length: int) -> None:
    rows = run.corpus.rows("train", length)
    batch = rows.batch(np.arange(len(rows)))
    inputs: list[int] = batch.inputs.flatten().tolist()
    targets: list[int] = batch.targets.flatten().tolist()
    text = ids_of(run.corpus.ids["train"])
    assert targets[: len(text)] == text
    assert set(targets[len(text) :]) <= {-100}
    assert inputs[: len(text)] == [NEWLINE, *text[:-1]]
    assert batch.tokens == len(text)


def losses_in_windows(model: LanguageModel, ids: list[int], most: int) -> Iterator[float]:
    """-ln p of every id but the first, from the window that scores it."""
    for start, end, positions in windows_by_hand(len(ids) - 1, most, both_sides=False):
        in_window = surprisals_by_hand(model, ids[start : end + 1])
        yield from (in_window[position - start] for position in positions)


@pytest.mark.parametrize("family", CAUSAL)
def test_evaluation__reads_the_split_as_one_text(family: str) -> None:
    text = TEXT * 3
    model = model_of(family, vocabulary_of(CHARACTERS))
    documents = Documents(CHARACTERS.encode_documents(text.removesuffix("\n")), CHARACTERS.special_ids)

    found = evaluate(model, documents, resolve(effective_of(family)))

    ids = stream_of(CHARACTERS, text)
    if model.context_tokens is None:
        expected = surprisals_by_hand(model, ids)
    else:
        expected = list(losses_in_windows(model, ids, model.context_tokens))
    assert found.tokens == len(expected) == len(text)
    assert found.loss_nats == pytest.approx(sum(expected) / len(text), abs=1e-5)
    lengths = [len(line) for line in text.splitlines(keepends=True)]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    assert found.group_tokens == tuple(lengths)
    by_line = [sum(expected[start : start + n]) for start, n in zip(starts, lengths, strict=True)]
    assert found.group_nats == pytest.approx(by_line, abs=1e-4)


def test_metrics__count_newlines_as_characters(run: Run) -> None:
    model = small_model(vocabulary_of(run.tokenizer))
    text = "".join(f"{line}\n" for line in PLAY[7:])
    metrics, samples = measure(model, run.tokenizer, run.corpus, "test", run.effective, run.compute, run_id="r")
    losses = surprisals_by_hand(model, stream_of(run.tokenizer, text))
    unknown = sum(character not in "".join(PLAY[:5]) for character in text.replace("\n", ""))
    assert (metrics.n_chars, metrics.n_tokens, metrics.tokens_per_char) == (len(text), len(text), 1)
    assert metrics.bits_per_char == pytest.approx(sum(losses) / math.log(2) / len(text), abs=1e-5)
    assert metrics.unknown_share == unknown / len(text)
    assert (metrics.seq_len.min, metrics.seq_len.max) == (1, 17)
    assert metrics.lines is not None and metrics.lines.chars == tuple(len(line) + 1 for line in PLAY[7:])
    assert [sample.prompt for sample in samples][:1] == [""]


def test_prompts_of_samples__are_first_words_of_lines(run: Run) -> None:
    assert set(sample_prompts(run.corpus, run.tokenizer, 1)) <= {"", *"ROMEO: He JULIET: Ay She o".split()}


@pytest.mark.parametrize("family", CAUSAL)
def test_score__is_that_of_one_pass_over_the_text(family: str) -> None:
    text = "Ay me!\n\nShe"
    model = model_of(family, vocabulary_of(CHARACTERS))

    found = score_text(model, CHARACTERS, ScoreRequest(text=text, detail_level="per_char"))
    alone = score_text(model, CHARACTERS, ScoreRequest(text=text, detail_level="per_char", context="none"))

    expected = surprisals_by_hand(model, stream_of(CHARACTERS, text))
    assert found.surprisal == pytest.approx(expected, abs=1e-5)
    assert found.tokens == tuple(text)
    assert found.char_spans == tuple((i, i + 1) for i in range(len(text)))
    assert (found.n_tokens, found.n_chars, found.n_ends, found.end_nats) == (len(text), len(text), 0, None)
    assert found.loss == pytest.approx(sum(expected) / len(text), abs=1e-5)
    assert found.bits_per_char == pytest.approx(sum(expected) / math.log(2) / len(text), abs=1e-5)
    assert [(line.number, line.span, line.end_nats) for line in found.lines or ()] == [(1, (0, len(text)), None)]
    first, *others = alone.surprisal or ()
    assert first is None
    assert others == pytest.approx(surprisals_by_hand(model, CHARACTERS.encode(text)), abs=1e-5)
    assert (alone.n_scored, alone.n_chars) == (len(text) - 1, len(text) - 1)


@pytest.mark.parametrize("family", ["lstm", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_score__of_a_text_is_its_evaluation(family: str, method: str) -> None:
    tokenizer = TOKENIZERS[method]
    model = model_of(family, vocabulary_of(tokenizer))
    documents = Documents(tokenizer.encode_documents((TEXT * 2).removesuffix("\n")), tokenizer.special_ids)
    scored = score_text(model, tokenizer, ScoreRequest(text=TEXT * 2))
    found = evaluate(model, documents, resolve(effective_of(family)))
    assert scored.n_scored == found.tokens
    assert scored.loss == pytest.approx(found.loss_nats, abs=1e-6)


def test_score__of_blank_lines_is_that_of_their_newlines() -> None:
    model = small_model(vocabulary_of(CHARACTERS))
    found = score_text(model, CHARACTERS, ScoreRequest(text="\n\n", detail_level="per_char"))
    assert found.surprisal == pytest.approx(surprisals_by_hand(model, [NEWLINE] * 3), abs=1e-5)


def test_score__of_a_text_without_tokens_is_refused() -> None:
    model = small_model(vocabulary_of(TOKENIZERS["word"]))
    with pytest.raises(AppError, match=r"^`text` has nothing to score: it is blank\.$"):
        score_text(model, TOKENIZERS["word"], ScoreRequest(text="  "))
    assert score_text(model, TOKENIZERS["word"], ScoreRequest(text=" \n ")).n_scored == 1


def test_words__of_a_text_have_no_newline() -> None:
    model = small_model(vocabulary_of(CHARACTERS))
    text = "Ay me!\n\nShe speaks"
    found = score_text(model, CHARACTERS, ScoreRequest(text=text, detail_level="per_word"))
    words = found.words or ()
    assert [word.text for word in words] == text.split()
    assert [text[start:end] for start, end in (word.span for word in words)] == text.split()


def continued(model: LanguageModel, tokenizer: Tokenizer, **values: object) -> GenerateResponse:
    request = parse(GenerateRequest, {"prompt_text": "", "temperature": 0, "max_new_tokens": 12, **values})
    return generate(model, tokenizer, request, run_id="run", request_id="request")


def greedy_by_hand(model: LanguageModel, tokenizer: Tokenizer, prompt: str, count: int) -> list[int]:
    ids = stream_of(tokenizer, prompt)
    written: list[int] = []
    for _ in range(count):
        logits = floats(model.forward(tensor_of([ids + written]))[0, -1])
        allowed = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids.never_sampled]
        written.append(max(allowed, key=logits.__getitem__))
    return written


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prompt", ["", "Ay me!\n\nShe"])
def test_generation__continues_the_text_and_writes_newlines(method: str, prompt: str) -> None:
    tokenizer = TOKENIZERS[method]
    model = small_model(vocabulary_of(tokenizer))
    with torch.no_grad():  # a newline now and then
        names: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
        bias = next(value for name, value in names.items() if value.shape == (tokenizer.vocab_size,))
        bias[tokenizer.special_ids.line_end] += 3 if method != "byte" else 5
    found = continued(model, tokenizer, prompt_text=prompt)
    written = greedy_by_hand(model, tokenizer, prompt, 12)
    before = tokenizer.encode(prompt)
    assert tokenizer.special_ids.line_end in written
    assert found.outputs == (tokenizer.decode([*before, *written])[len(tokenizer.decode(before)) :],)
    assert (found.stop_reason, found.steps) == (("max_new_tokens",), (12,))
    assert found.prompt_tokens == len(before)
    assert "\n" in found.outputs[0]


def test_sampling__never_writes_special_tokens_and_obeys_alphabet_and_stops() -> None:
    model = small_model(vocabulary_of(CHARACTERS))
    many = continued(model, CHARACTERS, temperature=5, max_new_tokens=200, num_return_sequences=5, seed=3)
    letters = continued(model, CHARACTERS, temperature=5, max_new_tokens=200, alphabet="aeio", seed=3)
    line = continued(model, CHARACTERS, temperature=5, max_new_tokens=500, stop_sequences=("\n",), seed=3)
    assert all(len(text) == 200 for text in many.outputs or ())
    assert "\n" in "".join(many.outputs or ())
    assert set("".join(letters.outputs or ())) == set("aeio")
    assert line.stop_reason == ("stop_sequence",)
    assert "\n" not in "".join(line.outputs or ())


def test_chat__asks_for_one_line_and_reads_all_lines_as_one_text() -> None:
    model = small_model(vocabulary_of(CHARACTERS))
    request = ChatRequest(message="Ay me!", stop_sequences=("x",))
    found, _ = chat_prompt(model, CHARACTERS, request, ())
    assert (found.prompt_text, found.stop_sequences) == ("Ay me!\n", ("x", "\n"))
    assert read_prompt(CHARACTERS, "Ay me!\n").ids == stream_of(CHARACTERS, "Ay me!\n")
    with pytest.raises(AppError, match="stop_sequences"):
        chat_prompt(model, CHARACTERS, ChatRequest(message="a", stop_sequences=tuple("abcdefgh")), ())


def test_prediction__reads_the_lines_before() -> None:
    model = small_model(vocabulary_of(CHARACTERS))
    response = PredictResponse(request_id="request", run_id="run", status="queued")
    found = predict(model, CHARACTERS, PredictRequest(text="Ay\n\nm", k=3), response, PrefixCache())
    best = greedy_by_hand(model, CHARACTERS, "Ay\n\nm", 1)
    assert [one.token for one in found.suggestions or ()][:1] == CHARACTERS.tokens(best)


@pytest.mark.parametrize("method", METHODS)
def test_completion__has_the_tokens_of_its_prompt_with_newlines(method: str) -> None:
    tokenizer = TOKENIZERS[method]
    model = small_model(vocabulary_of(tokenizer))
    prompt = "Ay me!\n\nShe"
    fields = {"prompts": [prompt], "max_tokens": 6, "temperature": 1, "seed": 4, "logprobs": 1, "echo": True}
    queued = CompletionResponse(request_id="request", run_id="run", status="queued")

    [found] = complete_together(model, [CompletionJob(model, tokenizer, parse(CompletionRequest, fields), queued)])

    assert isinstance(found, CompletionResponse) and found.choices is not None
    [choice] = found.choices
    ids = tokenizer.encode(prompt)
    expected = surprisals_by_hand(model, stream_of(tokenizer, prompt))
    assert choice.text.startswith(prompt) and choice.prompt_tokens == len(ids)
    assert choice.tokens is not None and choice.token_logprobs is not None and choice.text_offset is not None
    assert list(choice.tokens[: len(ids)]) == tokenizer.tokens(ids)
    assert [-(value or 0) for value in choice.token_logprobs[1 : len(ids)]] == pytest.approx(expected[1:], abs=1e-5)
    cut = [choice.text[a:b] for a, b in pairwise([*choice.text_offset, len(choice.text)])]
    assert "".join(cut) == choice.text
    assert [part.strip(" ") for part in cut if part.strip(" ") == "\n"][:2] == ["\n", "\n"]


def refused(values: dict[str, object]) -> AppError:
    with pytest.raises(AppError) as caught:
        effective_of("lstm", documents="stream", **values)
    return caught.value


def test_request__is_split_by_position_and_refused_where_it_makes_no_stream() -> None:
    assert effective_of("lstm").split_by == "line"
    assert effective_of("lstm", documents="stream").split_by == "position"
    assert effective_of("lstm", documents="stream", split_by="file").split_by == "file"
    by_line, masked = refused({"split_by": "line"}), refused({"objective": "masked_lm"})
    pieces = refused({"tokenizer": {"method": "sentencepiece"}})
    assert (by_line.code, by_line.message) == (
        ErrorCode.INVALID_INPUT,
        "`documents` 'stream' needs `split_by` 'position' or 'file': lines drawn at random are no stream.",
    )
    assert masked.code is pieces.code is ErrorCode.MODEL_INCOMPATIBLE
    assert masked.message == "`documents` must be 'line' for masked_lm: 'stream' is for causal_lm."
    assert pieces.message.startswith("`documents` 'stream' needs a newline token, which 'sentencepiece' has not")
    with pytest.raises(AppError, match="needs a newline token"):
        stream_tokenizer("sentencepiece")


@pytest.mark.parametrize("documents", ["line", "stream"])
def test_tokenizer__of_other_documents_is_refused(documents: str) -> None:
    corpus = families.effective_of("lstm").corpus
    request = parse(TrainRequest, {"corpus": "text", "model_family": "lstm", "documents": documents})

    def resolved(tokenizer: Tokenizer) -> str:
        return resolve_request(
            request, corpus=corpus, validation_corpus=None, test_corpus=None, tokenizer=tokenizer.manifest
        ).documents

    of_lines = tokenizer_of("char", PLAY)
    right, wrong = (of_lines, CHARACTERS) if documents == "line" else (CHARACTERS, of_lines)
    assert resolved(right) == documents
    with pytest.raises(
        AppError, match=f"^`documents` is '{documents}', but the tokenizer .* was trained with"
    ) as caught:
        resolved(wrong)
    assert caught.value.code is ErrorCode.MODEL_INCOMPATIBLE


def test_vocabulary_without_newline__is_refused(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="leave the newline out of the vocabulary") as caught:
        make_run(tmp_path, ["aaa", "aaa"] * 3, tokenizer={"method": "char", "vocab_size": 5}, **STREAM)
    assert caught.value.code is ErrorCode.INVALID_INPUT


def test_stored_tokenizer_without_newline__is_refused(tmp_path: Path) -> None:
    tokenizer_of("char", PLAY).save(tmp_path)
    manifest = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace('"documents": "line"', '"documents": "stream"'))
    with pytest.raises(AppError, match="has no newline") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code is ErrorCode.TOKENIZER_LOAD_FAILED


def test_cache__keeps_streams_and_lines_apart(tmp_path: Path) -> None:
    path = write(tmp_path, PLAY)
    found: dict[str, list[int]] = {}
    for documents in ("line", "stream", "line"):
        values: dict[str, object] = {
            **STREAM,
            "documents": documents,
            "split_by": "position",
            "tokenizer": {"method": "word"},
        }
        effective = resolve_request(
            parse(TrainRequest, {"corpus": "corpus.txt", "model_family": "lstm", **values}),
            corpus=reference(path),
            validation_corpus=None,
            test_corpus=None,
        )
        tokenizer, corpus = prepare(effective, CorpusPaths(path), tmp_path / "cache")
        ids = ids_of(corpus.ids["train"])
        assert found.setdefault(documents, ids) == ids
        assert tokenizer.documents == documents
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert found["stream"].count(1) > found["line"].count(1)


def test_training__learns_a_stream_and_its_newlines(tmp_path: Path) -> None:
    run = make_run(tmp_path, ["ab", "", "c"] * 40, num_epochs=20, **STREAM)
    model = run.fresh_model()
    run.train(model)
    found = continued(model.eval(), run.tokenizer, prompt_text="ab\n\nc\n")
    assert found.outputs == ("ab\n\nc\nab\n\nc\n",)


def test_self_test__overfits_a_batch_of_a_stream(tmp_path: Path) -> None:
    path = write(tmp_path, POEM)
    found = overfit_one_batch(effective_of("lstm", documents="stream", learning_rate=0.02), path)
    assert found.ok
    assert (found.rows, found.tokens) == (8, 8 * 24)


def test_corpus_check__shows_the_first_row_with_its_lines(tmp_path: Path) -> None:
    path = write(tmp_path, POEM)
    effective = resolve_request(
        parse(TrainRequest, {"corpus": "corpus.txt", "model_family": "char_lstm", "max_seq_len": 40, **STREAM}),
        corpus=reference(path),
        validation_corpus=None,
        test_corpus=None,
    )
    found = check_corpus(effective, CorpusPaths(path), None)
    assert found.sample == "\n".join(POEM)[:39]
    assert found.longest_line_tokens == max(map(len, POEM[:5])) + 1
    assert found.unknown_share == sum(c not in "".join(POEM[:5]) for c in "".join(POEM[5:7])) / sum(
        len(line) + 1 for line in POEM[5:7]
    )


@pytest.mark.parametrize(("family", "method"), [("gpt2", "char"), ("gru", "word"), ("lstm", "bpe")])
def test_exported_folder__starts_from_a_newline_and_has_no_end(family: str, method: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, family, method, documents="stream")
    out = tmp_path / "out"

    export_folder(run, "hf", out)

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
