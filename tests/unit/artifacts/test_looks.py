"""Looks at test splits: what counts as one, what stays counted, and what may be read."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import strategies as st

from tests.support import settings_in
from tests.support.families import effective_of
from tests.support.properties import for_all
from tests.support.refusals import refused
from trainer.artifacts.looks import LookLedger
from trainer.contracts.base import changed
from trainer.contracts.errors import ErrorCode
from trainer.contracts.looks import Look
from trainer.contracts.runs import CorpusRef, EffectiveRequest

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


def test_text__from_which_a_locked_split_is_drawn_is_locked_as_a_whole(ledger: LookLedger) -> None:
    own = LOCKED.corpus.sha256
    with refused(ErrorCode.TEST_LOCKED, "The test split of this run is locked"):
        ledger.read_text(LOCKED, "a", own, "evaluation", None)
    ledger.read_text(LOCKED, "a", "d" * 64, "evaluation", None)
    first, second = ledger.lock("d" * 64, "root"), ledger.lock("d" * 64, 7)
    assert first == second and first.by == "root", "a lock stays as it was"
    with refused(ErrorCode.TEST_LOCKED, "This text has a locked test split"):
        ledger.read_text(OPEN, "a", "d" * 64, "evaluation", None)
    ledger.record(LOCKED.test_id, ["a"], "unlock", None)
    ledger.read_text(LOCKED, "a", own, "evaluation", None)


def test_text__that_is_the_test_text_of_a_run_counts_for_every_model(ledger: LookLedger) -> None:
    ledger.read_text(OPEN, "a", "c" * 64, "evaluation", None)
    assert looks_of(ledger, OWN_TEXT) == (0, 0), "a text that tests no run"
    ledger.add_trained(OWN_TEXT, "b")
    ledger.read_text(OPEN, "a", "c" * 64, "evaluation", None)
    assert looks_of(ledger, OWN_TEXT) == (1, 1)


def test_test_id__is_that_of_the_text_whatever_else_differs() -> None:
    same = changed(OPEN, seed=5, learning_rate=0.5, test="locked", holdout_fraction=0.2, label="x")
    assert same.test_id == OPEN.test_id
    fields: list[dict[str, object]] = [{"split_seed": 1}, {"test_fraction": 0.2}, {"split_by": "position"}]
    fields.append({"corpus": changed(OPEN.corpus, sha256="e" * 64)})
    others = [OWN_TEXT, *(changed(OPEN, **one) for one in fields)]
    assert len({OPEN.test_id, *(one.test_id for one in others)}) == 6
    assert changed(OWN_TEXT, split_seed=1).test_id == OWN_TEXT.test_id
