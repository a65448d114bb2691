"""Looks at test splits: what counts as one, what stays counted, and what may be read."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import strategies as st

from tests.support import settings_in
from tests.support.families import effective_of
from tests.support.properties import for_all
from tests.support.refusals import refused
from trainer.artifacts.looks import LookLedger
from trainer.contracts.base import changed, narrowed, now
from trainer.contracts.errors import ErrorCode
from trainer.contracts.looks import Look, TextLock
from trainer.contracts.runs import CorpusRef, EffectiveRequest
from trainer.data.line_keys import TextLines, keys_of

OPEN = effective_of("char_lstm")
LOCKED = changed(OPEN, test="locked")
OWN_TEXT = changed(OPEN, test_corpus=CorpusRef(name="tested", sha256="c" * 64, bytes=9))


@pytest.fixture(name="ledger")
def ledger_fixture(tmp_path: Path) -> LookLedger:
    return LookLedger.of(settings_in(tmp_path))


_models: st.SearchStrategy[list[str]] = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)
_calls: st.SearchStrategy[list[list[str]]] = st.lists(_models, max_size=8)


def looks_of(ledger: LookLedger, effective: EffectiveRequest = OPEN) -> tuple[int, int]:
    found = ledger.count(effective)
    assert found is not None
    return found.looks, found.runs


def test_look__counts_once_for_models_that_are_measured_together(ledger: LookLedger) -> None:
    assert looks_of(ledger) == (0, 0)
    ledger.record(OPEN.test_id, ["b", "a"], "unlock", 7)
    ledger.record(OPEN.test_id, ["a", "b"], "unlock", "ana")
    ledger.record(OPEN.test_id, ["a"], "evaluation", None)
    assert looks_of(ledger) == (1, 0), "what was read before is no new look"
    ledger.record(OPEN.test_id, ["a", "c"], "study", None)
    assert looks_of(ledger) == (2, 0)
    for run_id in ("a", "b", "a"):
        ledger.add_trained(OPEN, run_id)
    assert looks_of(ledger) == (2, 2)


@for_all(_calls)
def test_look__is_one_for_each_call_that_has_a_new_model(calls: list[list[str]]) -> None:
    """Compared with a count by hand: a call adds a look unless all of its models were read before."""
    with TemporaryDirectory() as folder:
        ledger, seen, expected = LookLedger(Path(folder)), set[str](), set[frozenset[str]]()
        for models in calls:
            ledger.record(OPEN.test_id, models, "unlock", None)
            if not seen.issuperset(models):
                expected.add(frozenset(models))
            seen.update(models)
        assert looks_of(ledger) == (len(expected), 0)
        assert {one for one in "abcdef" if ledger.has_read(OPEN, one)} == seen


def test_look__that_a_kill_has_cut_off_is_completed_as_the_same_one(ledger: LookLedger, tmp_path: Path) -> None:
    ledger.record(OPEN.test_id, ["a", "b", "c"], "unlock", 7)
    [folder] = (tmp_path / "artifacts" / "looks").iterdir()
    look = Look.model_validate_json(next(folder.glob("a.*")).read_bytes())
    assert (look.models, look.by, look.reason) == (("a", "b", "c"), 7, "unlock")
    for file in folder.glob("[bc].*"):
        file.unlink()
    ledger.record(OPEN.test_id, ["c", "a", "b"], "unlock", 7)
    assert looks_of(ledger) == (1, 0) and ledger.has_read(OPEN, "c")


def test_locked_split__is_read_by_models_of_an_earlier_look_only(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    ledger = LookLedger.of(settings)
    all_locked = LookLedger.of(changed(settings, app=changed(settings.app, test_split="locked")))
    for one, effective in ((ledger, LOCKED), (all_locked, OPEN)):
        with refused(ErrorCode.TEST_LOCKED, "The test split of this run is locked"):
            one.read(effective, "a", "evaluation", None)
    assert looks_of(ledger) == (0, 0), "a refusal is no look"
    ledger.add_trained(LOCKED, "a")
    assert not ledger.has_read(LOCKED, "a"), "training is no look"
    ledger.record(LOCKED.test_id, ["a"], "unlock", 7)
    for model in ("a", "a@1200"):
        all_locked.read(LOCKED, model, "evaluation", None)
    with refused(ErrorCode.TEST_LOCKED, "locked"):
        ledger.read(LOCKED, "b", "evaluation", None)
    without = changed(LOCKED, test_fraction=0.0)
    all_locked.read(without, "b", "evaluation", None)
    assert ledger.count(without) is None


LINES = [f"line {number} of the text" for number in range(40)]


def text_of(lines: Iterable[str], sha256: str = "f" * 64) -> TextLines:
    return TextLines((sha256,), keys_of(lines))


def test_text__from_which_a_locked_split_is_drawn_is_locked_as_a_whole(ledger: LookLedger) -> None:
    own, other = text_of(LINES, LOCKED.corpus.sha256), text_of(LINES, "d" * 64)
    locked, opened = [("a", LOCKED)], [("a", OPEN)]
    with refused(ErrorCode.TEST_LOCKED, "The test split of this run is locked"):
        ledger.read_text(locked, own, "evaluation", None)
    ledger.read_text(locked, other, "evaluation", None)
    assert not ledger.has_locks
    ledger.check_text(other)
    first, second = ledger.lock(other, "root"), ledger.lock(other, 7)
    assert first == second and first.by == "root", "a lock stays as it was"
    for measured in (opened, locked):
        with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
            ledger.read_text(measured, other, "evaluation", None)
    with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
        ledger.check_text(other)
    ledger.read_text(opened, text_of(["other", "lines"]), "evaluation", None)
    ledger.record(LOCKED.test_id, ["a"], "unlock", None)
    with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
        ledger.read_text(locked, own, "evaluation", None)


def test_locked_text__is_known_by_its_lines_and_read_after_an_unlock(ledger: LookLedger) -> None:
    locked, test_id = [("a", OPEN)], narrowed(str, OPEN.test_id)
    ledger.add_lines(test_id, keys_of(LINES[:9]))
    assert not ledger.is_locked(OPEN)
    ledger.lock(text_of(LINES), None)
    assert ledger.is_locked(OPEN), "its test split is drawn from the locked text, by its lines"
    for part in (LINES[::-1], LINES[9:20], LINES[:9]):
        with refused(ErrorCode.TEST_LOCKED, "The test split of this run is locked"):
            ledger.read_text(locked, text_of(part, "e" * 64), "evaluation", None)
    assert looks_of(ledger) == (0, 0)
    ledger.record(test_id, ["a"], "unlock", None)
    ledger.read_text(locked, text_of(LINES[::-1], "e" * 64), "evaluation", None)
    assert looks_of(ledger) == (1, 0)


def test_locked_split__is_known_by_its_lines_in_any_text(ledger: LookLedger) -> None:
    ledger.add_lines(narrowed(str, LOCKED.test_id), keys_of(LINES[:9]))
    with refused(ErrorCode.TEST_LOCKED, "The test split of this run is locked"):
        ledger.read_text([("b", OPEN), ("a", LOCKED)], text_of(LINES[:3]), "evaluation", None)
    assert looks_of(ledger) == (0, 0)
    ledger.read_text([("a", LOCKED)], text_of(LINES[7:]), "evaluation", None)
    assert looks_of(ledger) == (0, 0), "a fifth of the split"
    ledger.read_text([("b", OPEN)], text_of(LINES[:3]), "evaluation", None)
    assert looks_of(ledger) == (1, 0), "the lock is that of a run, the count that of the lines"
    without = changed(LOCKED, test_fraction=0.0)
    assert not ledger.has_test_lines(without, text_of(LINES)) and not ledger.is_locked(without)
    ledger.lock(text_of(LINES), None)
    with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
        ledger.read_text([("c", without)], text_of(LINES), "evaluation", None)


def test_text__that_is_the_test_text_of_a_run_counts_for_every_model(ledger: LookLedger) -> None:
    text = text_of(LINES, "c" * 64)
    ledger.read_text([("a", OPEN)], text, "evaluation", None)
    assert looks_of(ledger, OWN_TEXT) == (0, 0), "a text that tests no run"
    ledger.add_trained(OWN_TEXT, "b")
    ledger.read_text([("a", OPEN), ("d", OPEN)], text, "evaluation", None)
    assert looks_of(ledger, OWN_TEXT) == (1, 1), "models that are measured together"
    ledger.read_text([("c", OPEN)], text_of(LINES[::-1]), "evaluation", None)
    assert looks_of(ledger, OWN_TEXT) == (2, 1), "its lines are known since they were read"


def test_lock__of_an_earlier_version_holds_and_learns_its_lines(ledger: LookLedger, tmp_path: Path) -> None:
    file = tmp_path / "artifacts" / "looks" / "locks" / f"{'d' * 64}.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(TextLock(at=now()).model_dump_json().encode())
    copy = text_of(LINES)
    assert not ledger.has_lock(copy), "the file's hash alone is known"
    with refused(ErrorCode.TEST_LOCKED, "This text has lines of a locked test split"):
        ledger.read_text([("a", OPEN)], text_of(LINES, "d" * 64), "evaluation", None)
    assert ledger.has_lock(copy)
    file.unlink()
    assert not ledger.has_lock(copy), "an operator takes it off"


def test_looks__of_one_test_text_count_for_another_with_its_lines(ledger: LookLedger) -> None:
    """A copy, and a larger split that has all lines, against one that has a few of them."""
    copy, larger, other = (changed(OPEN, split_seed=seed) for seed in (1, 2, 3))
    lines: list[tuple[EffectiveRequest, list[str]]] = [
        (OPEN, LINES[:20]),
        (copy, LINES[19::-1]),
        (larger, LINES[:24]),
        (other, [*LINES[17:20], *(f"line {number} of another text" for number in range(17))]),
    ]
    for number, (effective, of_test) in enumerate(lines):
        ledger.record(effective.test_id, [f"run{number}"], "training", None)
        ledger.add_trained(effective, f"run{number}")
        ledger.add_lines(narrowed(str, effective.test_id), keys_of(of_test))
    assert [looks_of(ledger, effective) for effective, _ in lines] == [(3, 3), (3, 3), (3, 3), (1, 1)]
    ledger.record(larger.test_id, ["run0"], "evaluation", None)
    assert looks_of(ledger) == (3, 3), "the same model on the same lines is no new look"


def test_lines__that_a_kill_has_left_uncompared_are_compared_by_the_next_run(
    ledger: LookLedger, tmp_path: Path
) -> None:
    """The kill comes when the lines are stored, or in the middle of the comparison."""
    other = changed(OPEN, split_seed=1)
    for effective in (OPEN, other):
        ledger.record(effective.test_id, [f"run{effective.split_seed}"], "training", None)
    ledger.add_lines(narrowed(str, OPEN.test_id), keys_of(LINES))
    test_id, folder = narrowed(str, other.test_id), tmp_path / "artifacts" / "looks"
    for n_left in (0, 1, 2):
        ledger.add_lines(test_id, keys_of(LINES[::-1]))
        assert ledger.has_lines(test_id) and looks_of(ledger) == looks_of(ledger, other) == (2, 0)
        for file in [*folder.glob("lines/*.compared"), *sorted(folder.glob("*/*.same.json"))[n_left:]]:
            file.unlink()
        assert not ledger.has_lines(test_id)


def test_test_id__is_that_of_the_text_whatever_else_differs() -> None:
    same = changed(OPEN, seed=5, learning_rate=0.5, test="locked", holdout_fraction=0.2, label="x")
    assert same.test_id == OPEN.test_id
    fields: list[dict[str, object]] = [{"split_seed": 1}, {"test_fraction": 0.2}, {"split_by": "position"}]
    fields.append({"corpus": changed(OPEN.corpus, sha256="e" * 64)})
    others = [OWN_TEXT, *(changed(OPEN, **one) for one in fields)]
    assert len({OPEN.test_id, *(one.test_id for one in others)}) == 6
    assert changed(OWN_TEXT, split_seed=1).test_id == OWN_TEXT.test_id
