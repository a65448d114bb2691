"""Leaks between splits before a training: the refusal of equal texts, the preview, and the warnings."""

from math import ceil
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, some_text, tiny_request
from tests.support.families import effective_of
from tests.support.refusals import refused
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import Leak, SplitSizes, leaks_of
from trainer.data.corpora import CorpusStore
from trainer.data.run_corpora import CorpusPaths
from trainer.queue.resolve import TrainingPreview, preview_training
from trainer.reports.leak_notes import leak_warnings
from trainer.training.dataset import prepare

SMALL = Leak(lines=0.01, words=None, characters=0.002)
LARGE = Leak(lines=0.5, words=0.25, characters=0.125)


async def preview(folder: Path, **fields: object) -> TrainingPreview:
    settings = settings_in(folder)
    return await preview_training(tiny_request(**fields), CorpusStore(settings), settings)


async def test_beginning_of_a_name__is_recorded_as_the_complete_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("kazakh", "turkish_a", "turkish_b")):
        add_corpus(tmp_path, some_text(60 + seed), name)
    found = await preview(tmp_path, corpus="kaz", validation_corpus="turkish_b")
    assert (found.request.corpus, found.effective.corpus.name) == ("kazakh", "kazakh")
    assert [note for note in found.notes if "names" in note] == ["'kaz' names the corpus 'kazakh'."]
    with refused(ErrorCode.INVALID_INPUT, "'turk' names 2 corpora: turkish_a, turkish_b.", "validation_corpus"):
        await preview(tmp_path, corpus="kazakh", validation_corpus="turk")


async def test_preview__measures_leaks_of_a_short_corpus_only(tmp_path: Path) -> None:
    add_corpus(tmp_path, "\n".join([some_text(50)] * 4))
    for by, lines in (("position", 1.0), ("line", 0.0)):
        found = await preview(tmp_path, split_by=by, test_fraction=0.2, holdout_fraction=0.1)
        assert {split: leak.lines for split, leak in found.leaks.items()} == {"validation": lines, "test": lines}
    add_corpus(tmp_path, some_text(400_000))
    assert (await preview(tmp_path)).leaks == {}, "left to the worker"


async def test_preview__says_which_files_are_splits_and_what_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "corpus" / "bank"
    folder.mkdir(parents=True)
    texts = {
        "bank.train.txt": some_text(60),
        "bank.dev.txt": some_text(70)[-90:],
        "bank.test.txt": "xyz\n",
        "a.csv": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    fields: dict[str, object] = {"corpus": "bank", "holdout_fraction": 0.1, "test_fraction": 0.1}
    found = await preview(tmp_path, **fields)
    assert found.chosen == found.checked().chosen and found.request.tokenizer is None, "the request stays as sent"
    names = [corpus.name for corpus in found.effective.corpora]
    assert names == ["bank/bank.train.txt", "bank/bank.dev.txt", "bank/bank.test.txt"]
    uses = "bank.train.txt for training, bank.dev.txt for validation and bank.test.txt for test."
    left_out = "Left out of 'bank': a.csv. A corpus is the .txt and .text files of its folder, without README, LICENSE"
    assert found.notes[0] == f"The files of 'bank' are splits by their names: {uses}"
    assert found.notes[1].startswith(left_out) and found.checked().notes == found.notes and len(found.notes) == 2

    add_corpus(tmp_path, "d\n" * 40 + some_text(60), "held")
    other = await preview(tmp_path, **fields, test_corpus="held")
    assert [corpus.name for corpus in other.effective.corpora] == [*names[:2], "held"]
    by_position = await preview(tmp_path, **fields, split_by="position")
    assert [corpus.name for corpus in by_position.effective.corpora] == names
    joined = await preview(tmp_path, **fields, split_by="file")
    assert [corpus.name for corpus in joined.effective.corpora] == ["bank"]
    assert joined.notes[0].startswith("All files of 'bank' are one text, also ")
    frequent = await preview(tmp_path, **fields | {"corpus": "held"})
    assert [note.partition(", ")[0] for note in frequent.notes] == ["1 line of the corpus"]


@pytest.mark.parametrize(
    ("length", "steps", "is_noted"),
    [
        ({"num_epochs": 2, "max_steps": 2000}, None, True),
        ({"num_epochs": 2, "max_steps": 3}, 3, False),
        ({"num_epochs": None, "max_steps": 2000}, 2000, False),
        ({"num_epochs": 2}, None, False),
    ],
)
async def test_preview__says_that_the_epochs_end_before_the_steps(
    tmp_path: Path, length: dict[str, object], steps: int | None, *, is_noted: bool
) -> None:
    add_corpus(tmp_path, some_text())
    found = await preview(tmp_path, test_fraction=0.1, holdout_fraction=0.1, **length)
    tokens = 0.8 * (len(some_text()) + 1 + 60)  # characters and [EOS], and the [BOS] of 60 lines
    of_epochs = 2 * ceil(tokens / (16 * 4))
    assert found.cost.steps == (steps or of_epochs)
    said = f"The training ends after its 2 epochs, which are about {of_epochs} steps, before `max_steps` of 2,000:"
    assert [note.startswith(said) for note in found.notes] == [True] * is_noted


async def test_preview__finds_the_leaks_that_the_worker_finds(tmp_path: Path) -> None:
    shared = " ".join(f"word{n}" for n in range(20))
    add_corpus(tmp_path, "\n".join(f"{n} {shared if n % 3 else n**20}" for n in range(40)))
    found = [await preview(tmp_path, split_seed=seed, test_fraction=0.3, holdout_fraction=0.2) for seed in (1, 2, 3)]
    for seen in found:
        _, corpus = prepare(seen.effective, CorpusPaths(seen.corpora.find("text")), tmp_path / "cache")
        assert seen.leaks == corpus.leaks
    assert len({seen.leaks["test"].characters for seen in found}) > 1


LINES = "Set `split_by: line`, which keeps equal lines together, or remove repeated lines from the corpus."
REPEATED = "Remove repeated text from the corpus."


@pytest.mark.parametrize(
    ("fields", "remedy"), [({"split_by": "position"}, LINES), ({}, REPEATED), ({"documents": "stream"}, REPEATED)]
)
def test_warning__names_shares_split_and_remedy(fields: dict[str, object], remedy: str) -> None:
    effective = effective_of("lstm", **{"tokenizer": {"method": "char"}, **fields})
    assert leak_warnings(effective, {"validation": SMALL, "test": LARGE}) == (
        "50.0% of the lines, 25.0% of the 13-grams of words and 12.5% of the 50-grams of characters of the test split"
        f" stand in the training split: its loss says little about unseen text. {remedy}",
    )
    (own,) = leak_warnings(changed(effective, test_corpus=effective.corpus), {"test": Leak(lines=0.5)})
    assert own.startswith("50.0% of the lines of the test split stand")
    assert own.endswith("Remove training text from `test_corpus`.")


def test_leaks__name_the_splits_of_their_measurement() -> None:
    size = SplitSizes(lines=1, chars=1, tokens=1)
    assert leaks_of({"validation": size, "test": None}) == {}
    found = leaks_of({"validation": changed(size, leak=SMALL), "test": changed(size, lines=6, leak=SMALL)})
    assert found == {"validation": changed(SMALL, n_lines=1), "test": changed(SMALL, n_lines=6)}
    assert leak_warnings(effective_of("lstm"), found) == (), "the test loss has an interval"
    assert leak_warnings(effective_of("lstm"), {"validation": found["validation"]}) == (
        "The validation split has 1 line: its loss has no interval, which takes 6 or more, and says little about other"
        " text. Hold out more lines.",
    )
    neighbours = changed(effective_of("lstm"), split_by="position")
    for lines, is_told in ((59, True), (60, False)):
        told = leak_warnings(neighbours, {"test": changed(SMALL, n_lines=lines)})
        assert any("has 59 lines: its loss has no interval, which takes 60 or more" in one for one in told) == is_told
