"""Commands on what is stored on this machine, which start no service: jobs, corpora, notes of runs, requests."""

import re

import pytest

from tests.support import add_corpus, some_text, twin
from tests.support.job_kinds import KINDS
from tests.support.run_shell import Shell
from trainer.artifacts.command_jobs import VerificationStore
from trainer.contracts.runs import RunStatus
from trainer.contracts.verification import Check, Verification


def test_job__is_shown_with_all_that_it_has_found_and_deleted(shell: Shell) -> None:
    job_id = KINDS["verifications"].create(shell.artifacts, 1).job_id
    found = Verification(run_id="lstm-1", ok=False, checks=(Check(name="model", ok=True, message="As recorded."),))
    VerificationStore(shell.artifacts).get(job_id).complete(found.model_dump_json().encode())
    shown = shell.type("job", "show", "verifications", job_id)
    assert "ok no" in shown and "name model, ok yes, message As recorded., is_skipped no" in shown
    assert shell.type("job", "delete", "verifications", job_id, "--yes", "--json") == f'{{"deleted":["{job_id}"]}}\n'
    assert shell.err == f"{job_id} is deleted.\n"
    assert VerificationStore(shell.artifacts).ids() == []


def test_corpus__that_was_added_is_deleted(shell: Shell) -> None:
    shell.write("mine.txt", some_text())
    shell.type("corpus", "add", "mine.txt")
    assert "There is no corpus 'min'" in shell.refuse("corpus", "delete", "min", "--yes")
    assert (shell.type("corpus", "delete", "mine", "--yes"), shell.err) == ("", "mine is deleted.\n")
    assert "mine" not in shell.type("corpus", "list")


def test_note_of_a_run__is_shown_at_once(shell: Shell) -> None:
    run = shell.add_finished_run()
    assert re.search(r"Note +│ learns well +│", shell.type("annotate", run.run_id, "--note", "learns well"))
    assert shell.read(RunStatus, "annotate", run.run_id, "--tags", "pilot").tags == ("pilot",)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--corpus", "min"), r"\nNote: 'min' names the corpus 'mine'\.\n"),
        (("--corpus", "mine"), r"\nNote: 'mine' names a corpus and a path: the corpus was taken\. For the path, write"),
        (("--corpus", "./mine"), r"\ncorpus +mine, [0-9,]+ bytes\n"),
        (("--corpus", "mine", "--batch-size", "7"), r"\nbatch +7 rows of 128 tokens\n"),
        (("--corpus", "mine", "--batch-size", "auto"), r"\nbatch_size +4 +"),
        pytest.param(
            ("--corpus", "mine", "--minutes", "2", "--set", "model_size=tiny"),
            r"\ntraining +2 minutes, at most \d+ epochs\n",
            marks=[pytest.mark.process, pytest.mark.slow],
        ),
    ],
)
def test_validate__shows_what_was_given(shell: Shell, words: tuple[str, ...], shown: str) -> None:
    add_corpus(shell.folder, some_text(), "mine")
    shell.write("mine", some_text(50))
    assert re.search(shown, shell.type("validate", *words))


def test_beginning_of_several_runs__is_refused_where_it_stands(shell: Shell) -> None:
    run = shell.add_finished_run()
    for name in ("lstm-2", "lstm-21"):
        twin(run, name)
    shell.write("pairs.csv", "good,bad\na b,b a\n")
    shell.write("warm.yaml", "corpus: text\ninit_from_run_id: lstm\n")
    for words in (("battery", "run", "lstm", "pairs.csv"), ("validate", "warm.yaml")):
        assert "'lstm' names 2 runs: lstm-21, lstm-2. Give one of these ids" in shell.refuse(*words)
