"""`trainer.load` in a program or a notebook."""

import math
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from pkgutil import resolve_name
from shutil import copytree
from typing import Protocol

import pytest
import torch

import trainer
from tests.support.finished_runs import finished_run
from tests.support.refusals import refused
from trainer.client.notebook import Frame
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRequest
from trainer.inference.generation import generate
from trainer.inference.model_files import load_run
from trainer.inference.scoring import score_lines


@pytest.mark.parametrize("family", ["char_lstm", "gpt2", "bert"])
def test_surprisal__comes_from_the_model_with_tokens_and_places(family: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path, family, "bpe" if family == "gpt2" else "char")
    model, tokenizer = load_run(run)
    found = trainer.load(run.path).surprisal("the sun\n\nshe\u0301 was")
    lines = ["the sun", "sh\u00e9 was"]
    ids = [tokenizer.encode(line) for line in lines]
    expected: list[float] = torch.cat([score_lines(model, [of_line])[0].surprisal for of_line in ids]).tolist()
    assert [token.nats for token in found] == pytest.approx(expected, abs=1e-5)
    normal = "\n\n".join(lines)
    assert [token.token for token in found] == [token for of_line in ids for token in tokenizer.tokens(of_line)]
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
    assert loaded.generate(prompt_text="the", seed=3) == loaded.generate("the", seed=3)
    wrong: dict[str, dict[str, object]] = {"temperatur": {"temperatur": 2}, "prompt once": {"prompt_text": "a"}}
    for words, options in wrong.items():
        with pytest.raises(AppError, match=words):
            loaded.generate("the", **options)


class Columns(dict[str, Sequence[object]]):
    """A frame of a library whose rows have no names."""

    @property
    def columns(self) -> Iterable[str]:
        return self.keys()


@pytest.mark.parametrize("library", [f"{__name__}:Columns", "pandas:DataFrame"])
def test_items__of_a_frame_come_back_as_a_frame_of_its_library(library: str, tmp_path: Path) -> None:
    frame_of: type[Frame] = resolve_name(library)
    loaded = trainer.load(finished_run(tmp_path, "lstm").path)
    values: dict[str, list[object]] = {
        "day": [date(2026, 1, 1), date(2026, 1, 2)],
        "text": ["the sun", "the sea was"],
        "region": ["sun", math.nan],
        "later": [None, "was"],
    }
    found = loaded.items(frame_of(values), text_column="text", region_columns=["region", "later"])
    assert isinstance(found, frame_of)
    assert [*found.columns][:5] == [*values, "source_row"]
    assert [*found["day"]] == [day for day in values["day"] for _ in range(2)]
    nats = [*found["surprisal_nats"]]
    places = {0: ("the sun", 3), 3: ("the sea was", 7)}
    for row, (text, first) in places.items():
        of_region = math.fsum(one.nats for one in loaded.surprisal(text)[first:])
        assert nats[row] == pytest.approx(of_region)
    assert [isinstance(value, float) and not math.isnan(value) for value in nats] == [True, False, False, True]
    wrong = {
        "txt": "`table` has no column `txt`: it has `day`, `text`",
        "day": "The column 'day' must have texts, and has a date.",
    }
    for column, said in wrong.items():
        with refused(ErrorCode.INVALID_INPUT, said):
            loaded.items(frame_of(values), text_column=column)


class _PandasFrame(Frame, Protocol):
    index: Iterable[object]

    def sort_values(self, by: str) -> "_PandasFrame": ...

    def set_axis(self, names: list[str], *, axis: int) -> "_PandasFrame": ...

    def __setitem__(self, column: str, values: object) -> None: ...


def test_items__of_a_sorted_pandas_frame_have_its_index(tmp_path: Path) -> None:
    frame_of: type[_PandasFrame] = resolve_name("pandas:DataFrame")
    loaded = trainer.load(finished_run(tmp_path, "lstm").path)
    texts = ["the sun", "shining on", "the sea was"]
    frame = frame_of({"text": texts, "region": ["sun", "shining", "sea"]}).sort_values("text")
    frame["nats"] = loaded.items(frame, text_column="text")["surprisal_nats"]
    nats: dict[object, object] = dict(zip(frame["text"], frame["nats"], strict=True))
    for text in texts:
        assert nats[text] == pytest.approx(loaded.score(text).nats)
    regions = loaded.items(frame, text_column="text", region_columns=["region"])
    assert [*regions.index] == [*frame.index] == [1, 2, 0]
    words = loaded.items(frame, text_column="text", per="word")
    assert [*words.index] == [1, 1, 2, 2, 2, 0, 0]
    with refused(ErrorCode.INVALID_INPUT, "The table names the column 'a' more than once."):
        loaded.items(frame.set_axis(["a", "a", "b"], axis=1), text_column="b")


def test_items__of_words_in_a_pandas_frame_are_joined_and_guesses_are_warnings(tmp_path: Path) -> None:
    frame_of: type[Frame] = resolve_name("pandas:DataFrame")
    loaded = trainer.load(finished_run(tmp_path, "lstm").path)
    values: dict[str, list[object]] = {
        "word": ["the", "sun", "the", "NA"],
        "day": [date(2026, 1, day) for day in (1, 1, 2, 2)],
        "item": [1, 1, 1, 1],
    }
    with pytest.warns(UserWarning, match="Counted as empty: 1 cell with `NA` or the like, first in row 4"):
        found = loaded.items(frame_of(values), text_column="word", group_column=["item", "day"])
    assert {name: [*found[name]] for name in values} == values
    nats = [value for value in found["surprisal_nats"] if isinstance(value, float)]
    assert math.fsum(nats[:2]) == pytest.approx(loaded.score("the sun").nats)
    assert nats[2] == pytest.approx(loaded.score("the").nats) and math.isnan(nats[3])
    with refused(ErrorCode.INVALID_INPUT, "row 1 has no text in `item`, but the value 1"):
        loaded.items(frame_of({"item": [1]} | {"n": [2]}), text_column="item")


def test_battery__counts_pairs_with_a_likelier_first_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP__DATA_ROOT", str(tmp_path))
    loaded = trainer.load(finished_run(tmp_path, "lstm").path)
    sentences = [("the sun was shining", "sun the was shining"), ("he did his best", "his best he did"), ("sea", "the")]
    for folder in (tmp_path, tmp_path / "batteries"):
        folder.mkdir(exist_ok=True)
        (folder / "pairs.csv").write_text("good,bad\n" + "".join(f"{a},{b}\n" for a, b in sentences), encoding="utf-8")
    wins = [(loaded.score(good).nats or 0.0) < (loaded.score(bad).nats or 0.0) for good, bad in sentences]
    for battery in (tmp_path / "pairs.csv", "pairs"):
        [result] = loaded.battery(battery, has_controls=False).runs
        found = result.groups[0].by("sum")
        assert found is not None and (found.n_right, found.n_wrong) == (sum(wins), 3 - sum(wins))
    with refused(ErrorCode.DATA_NOT_FOUND):
        loaded.battery("nothing")


def test_load__takes_a_run_by_id_and_names_a_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(tmp_path, "gru")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(tmp_path / "artifacts"))
    assert trainer.load(run.run_id).surprisal("a") == trainer.load(run.path).surprisal("a")
    copytree(run.path, tmp_path / "My Run (copy)")
    for name in (run.run_id[:3], "My Run (copy)"):
        assert trainer.load(name).score("a").run_id == run.run_id
    for name in ("nothing", "no/such/folder", "", "n" * 300):
        with pytest.raises(AppError) as caught:
            trainer.load(name)
        assert caught.value.code is ErrorCode.RUN_NOT_FOUND
        assert f"no run '{name[:64]}' in '{tmp_path}/artifacts'" in caught.value.message
    monkeypatch.setenv("APP__CONFIG_FILE", "none.toml")
    with refused(ErrorCode.CONFIG_INVALID):
        trainer.load(run.run_id)
