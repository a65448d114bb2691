"""`mt` with MT_URL: the commands work on the server and show what they show there."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256

import pytest

import trainer
from tests.support import ROOT, add_corpus, environment_in, tiny_request
from tests.support.api_server import KEY, LabServer, Prepared, prepared
from tests.support.checkpoints import keep_checkpoint
from tests.support.laptop import Laptop
from tests.support.markers import slow_repeats
from tests.support.run_shell import TINY
from tests.support.terminals import control_signs, needs_terminals, shown_in_a_terminal
from tests.support.waiting import wait_until
from tests.support.worker_runs import LONG
from trainer.client.client import Client
from trainer.client.remote import Remote
from trainer.config.settings import ClientSettings
from trainer.contracts.corpora import CorpusList, CorpusManifest, CorpusOverview
from trainer.contracts.errors import ErrorBody, ErrorCode
from trainer.contracts.runs import RunStatus
from trainer.contracts.scores import ScoreRequest
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.store import keys
from trainer.system.logs import LogReader


@contextmanager
def once(holds: Callable[[], bool], *actions: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread once something holds, while the block runs."""

    def act() -> None:
        wait_until(holds)
        for action in actions:
            action()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        yield
        acting.result()


def is_followed(client: Client) -> bool:
    """Return True while a command waits for news of the server."""
    figures = client._loop.call(client._server.api.send("GET", "/metrics", {})).decode()
    return any(line.startswith("mt_http_streams ") and not line.endswith(" 0.0") for line in figures.splitlines())


@pytest.fixture(scope="module", name="other")
def other_fixture(client: Client) -> str:
    """A second completed run, the only one of its label, also where a process runs this file in several parts."""
    found = (run for run in client.runs(search="other") if run.label == "other")  # and not such as `another`
    trained = next(found, None) or client.train(tiny_request(seed=1), label="other")
    return client.wait(trained.run_id).run_id


@pytest.mark.parametrize(
    "words",
    slow_repeats(
        [
            ("status", "RUN"),
            ("status", "RUN", "--json"),
            ("runs", "--limit", "3"),
            ("runs", "--status", "failed"),
            ("annotate", "RUN", "--tags", "pilot, new", "--note", "a note"),
            ("logs", "RUN", "--tail", "3"),
            ("logs", "RUN", "--tail", "2", "--json"),
            ("logs", "RUN", "--follow"),
            ("config", "RUN"),
            ("config", "RUN", "--json"),
            ("files", "RUN"),
            ("verify", "RUN"),
            ("verify", "RUN", "--json"),
            ("workers", "drain"),
            ("workers", "drain", "nobody"),
            ("cancel", "RUN"),
            ("resume", "RUN"),
            ("eval", "RUN", "--latest"),
            ("eval", "OTHER", "--split", "test"),
            ("eval", "OTHER", "--path", "text"),
            ("compare", "RUN", "OTHER"),
            ("compare", "RUN", "OTHER", "--json", "--fail-on-regression", "--tolerance", "0"),
            ("compare", "RUN", "OTHER", "--split", "validation"),
            ("compare", "RUN", "OTHER", "--path", "text"),
            ("generate", "RUN", "ab", "--seed", "3", "--max-new-tokens", "5", "--logprobs"),
            ("generate", "RUN", "ab", "--seed", "3", "--max-new-tokens", "5", "--samples", "2"),
            ("generate", "RUN", "ab", "--temperature", "-1"),
            ("score", "RUN", "abc cab", "--detail-level", "per_char", "--seed", "3"),
            ("score", "RUN", "abc cab", "--top-k", "3"),
            ("score", "RUN", "abc cab", "--pll-within-word"),
            ("score", "RUN", "abc cab\nab", "--format", "csv"),
            ("predict", "RUN", "ab", "--k", "3"),
            ("predict", "RUN", ""),
            ("predict", "KEPT", "ab"),
            ("score", "KEPT", "abc"),
            ("eval", "KEPT"),
            ("files", "KEPT"),
            ("predict", "LOST", "ab"),
            ("score", "LOST", "abc"),
            ("queue",),
            ("validate", "char_lstm_ipa", "--corpus", "text", "--set", "max_seq_len=16"),
            ("validate", "--corpus", "text", "--init-from", "OTHER", "--seeds", "2", "--json"),
            ("validate", "--corpus", "text", "--set", "max_seq_len=1"),
            ("tokenizer", "list"),
            ("tokenizer", "show", "char-0123456789abcdef"),
            ("status", "none"),
            ("status", "BEGUN"),
            ("status", "WRONG"),
            ("status", "last", "--json"),
            ("status", "other"),
            ("compare", "RUN", "other"),
            ("score", "other", "abc"),
            ("validate", "--corpus", "text", "--init-from", "other", "--json"),
            ("compare", "last", "other", "RUN@3"),
            ("experiment", "show", "nothing"),
            ("battery", "show", "nothing"),
            ("tokenizer", "show", "last"),
            ("score", "none", "a"),
        ],
        lambda words: words[0],
    ),
)
def test_command__shows_what_it_shows_on_the_machine_of_the_server(
    words: Sequence[str], laptop: Laptop, other: str
) -> None:
    run = laptop.server.run
    keep_checkpoint(run, 3)
    names = {"RUN": run.run_id, "OTHER": other, "KEPT": f"{run.run_id}@3", "LOST": f"{run.run_id}@4"}
    names |= {"BEGUN": other[:-1], "WRONG": f"{other}x"}
    typed = [names.get(word, word) for word in words]
    there = laptop.locally(*typed)
    assert laptop.run(*typed) == there
    assert not (laptop.folder / "artifacts").exists()


def test_checkpoint__is_a_model_of_the_client(laptop: Laptop, client: Client) -> None:
    run = laptop.server.run
    keep_checkpoint(run, 3)
    loaded = client.load(f"{run.run_id}@3")
    assert (loaded.run_id, loaded.checkpoint) == (run.run_id, 3)
    assert loaded.score("abc").nats == trainer.load(f"{run.path}@3").score("abc").nats


def test_train__shows_the_progress_and_the_result_of_a_run_of_the_server(laptop: Laptop) -> None:
    (laptop.folder / "run.yaml").write_text("corpus: text\nlabel: from a laptop\n", encoding="utf-8")
    status = laptop.read(RunStatus, "train", "run.yaml", *TINY)
    assert (status.status, status.label) == ("completed", "from a laptop")
    assert f"run {status.run_id}" in laptop.err
    assert laptop.runs.get(status.run_id).path.is_dir()
    again = laptop.type("train", *TINY, "--corpus", "text", "--init-from", status.run_id, "--name", "again")
    assert 'next: mt generate again "…"   ·   mt score again "…"' in again


def test_train__with_a_problem_names_the_field_as_it_was_given(laptop: Laptop) -> None:
    for name in ("./mine.txt", str(laptop.folder / "mine.txt")):
        assert laptop.refuse("train", "--corpus", name) == f"mt: There is no file '{name}'.\n"
    assert "'nothing'" in laptop.refuse("train", "--corpus", "nothing")
    assert "max_seq_len" in laptop.refuse("train", "--corpus", "text", "--set", "max_seq_len=1")
    (laptop.folder / "file.yaml").write_text("corpus: text\nepochs: 3\n", encoding="utf-8")
    assert laptop.error("train", "file.yaml").code is ErrorCode.CONFIG_INVALID


@pytest.mark.slow
def test_file_of_this_machine__is_uploaded(laptop: Laptop, other: str) -> None:
    text = "".join(f"abc {'cab' * (number % 5)}\n" for number in range(60))
    (laptop.folder / "mine.txt").write_text(text, encoding="utf-8")
    (laptop.folder / "plans").mkdir()
    (laptop.folder / "plans" / "run.yaml").write_text("corpus: theirs.txt\n", encoding="utf-8")
    (laptop.folder / "plans" / "theirs.txt").write_text(text, encoding="utf-8")
    trained = [laptop.read(RunStatus, "train", name, *TINY) for name in ("mine.txt", "plans/run.yaml")]
    assert [(status.status, status.label) for status in trained] == [
        ("completed", "mine-char_lstm"),
        ("completed", "theirs-char_lstm"),
    ]
    digest = sha256(text.encode()).hexdigest()
    assert {laptop.runs.get(status.run_id).record().effective.corpus.name for status in trained} == {digest}
    assert "max_seq_len" in laptop.refuse("train", "mine.txt", "--set", "max_seq_len=1")
    tokenizer = laptop.read(TokenizerStatus, "tokenizer", "train", "--method", "char", "--corpus", "mine.txt")
    assert (tokenizer.status, tokenizer.label) == ("completed", "mine")
    run = laptop.server.run.run_id
    for words in (("eval", run), ("compare", run, other)):
        assert laptop.run(*words, "--path", "mine.txt", "--json")[0] == 0


def test_corpus__is_added_to_the_server_or_to_this_machine(laptop: Laptop) -> None:
    (laptop.folder / "Ана тілі.txt").write_text("ана тілі\n" * 50, encoding="utf-8")
    (laptop.folder / "folder").mkdir()
    (laptop.folder / "folder" / "train.txt").write_text("ab\n" * 50, encoding="utf-8")
    (laptop.folder / "folder" / "test.txt").write_text("ba\n" * 5, encoding="utf-8")
    (laptop.folder / "table.jsonl").write_text('"ab"\n', encoding="utf-8")
    words = ("corpus", "add", "Ана тілі.txt", "--language", "kk", "--ipa", "no")
    assert laptop.type(*words) == (
        "corpus Ана_тілі: 800 bytes, 50 lines, kk, usual spelling\nnext: mt train --corpus Ана_тілі\n"
    )
    assert laptop.read(CorpusOverview, *words) == laptop.read(CorpusOverview, *words)
    (laptop.folder / "folder" / "rows.csv").write_text("a,b\n", encoding="utf-8")
    added = laptop.read(CorpusOverview, "corpus", "add", "folder")
    left_out, uses = added.notes
    assert added.lines == 55 and left_out.startswith("Left out of 'folder': rows.csv. ")
    assert uses.startswith(
        "The files of 'folder' are splits by their names: train.txt for training and test.txt for test."
    )
    assert {f"Note: {note}" for note in added.notes} <= {*laptop.err.splitlines()}
    (laptop.folder / "folder").rename(laptop.folder / "renamed")
    laptop.type("validate", "--corpus", "renamed", "--model", "char_lstm", "--size", "tiny")
    assert left_out.replace("folder'", "renamed'") in laptop.err
    (laptop.folder / "renamed").rename(laptop.folder / "folder")
    assert laptop.read(CorpusOverview, "corpus", "add", "table.jsonl", "--name", "of a table").name == "of_a_table"
    listed = laptop.read(CorpusList, "corpus", "list")
    assert {"Ана_тілі", "demo", "folder", "of_a_table"} <= {corpus.name for corpus in listed.corpora}
    laptop.type("validate", "--corpus", "Ана", "--model", "char_lstm", "--size", "tiny")
    assert "Note: 'Ана' names the corpus 'Ана_тілі'." in laptop.err
    for shown in (("list",), ("show", "Ана")):
        assert laptop.run("corpus", *shown) == laptop.locally("corpus", *shown)
    refusals = {
        ("folder", "--name", "."): "must have a letter or a digit",
        ("none.jsonl",): "There is no file 'none.jsonl'",
    }
    for given, sentence in refusals.items():
        assert sentence in laptop.refuse("corpus", "add", *given)
    laptop.work_on("")
    for given, sentence in refusals.items():
        assert sentence in laptop.refuse("corpus", "add", *given)
    assert laptop.read(CorpusOverview, *words).bytes == 800
    assert laptop.read(CorpusOverview, "corpus", "add", "table.jsonl").bytes == 3
    assert (laptop.folder / "artifacts" / "corpora" / "Ана_тілі.txt").is_file()


def test_corpus__is_checked_and_built_on_this_machine(laptop: Laptop) -> None:
    (laptop.folder / "mine.txt").write_text("abc cab\n" * 50, encoding="utf-8")
    assert "corpus" in laptop.type("corpus", "check", "mine.txt")
    assert "this command checks a file of this machine" in laptop.refuse("corpus", "check", "text")
    (laptop.folder / "ipa").mkdir()
    (laptop.folder / "ipa" / "kk.txt").write_text(f"{'bdlmn' * 8}\n\n{'nmldb' * 8}\n", encoding="utf-8")
    built = laptop.read(CorpusManifest, "corpus", "build", "--source", "ipa", "--langs", "kk", "--from-ipa")
    [name] = [one.file.path.removesuffix(".txt") for one in built.languages.values()]
    found = {corpus.name: corpus for corpus in laptop.read(CorpusList, "corpus", "list").corpora}[name]
    assert (found.languages, found.is_ipa) == (("kk",), True)


@pytest.mark.slow
def test_train__names_ignored_settings_and_takes_a_labelled_tokenizer(laptop: Laptop) -> None:
    fixture = (ROOT / "tests" / "fixtures" / "blocks.yaml").read_text(encoding="utf-8")
    config = fixture.replace("corpus: demo", "corpus: text")
    (laptop.folder / "blocks.yaml").write_text(config, encoding="utf-8")
    words = ("train", "blocks.yaml", *TINY, "--set", "split_seed=975")  # no other run has this tokenizer
    own = laptop.read(RunStatus, *words)
    assert laptop.err.startswith("mt: Ignored settings: `training.output_dir`")
    label = "label=tokenizers/char-lstm-ipa"
    training = ("tokenizer", "train", "--method", "char", "--corpus", "text", "--set", label, "--set", "seed=977")
    stored = laptop.read(TokenizerStatus, *training)
    status = laptop.read(RunStatus, *words)
    assert stored.status == "completed"
    assert status.tokenizer_id == stored.tokenizer_id != own.tokenizer_id
    assert "vocabulary" in laptop.type("tokenizer", "show", stored.tokenizer_id)
    words = ("train", "blocks.yaml", *TINY, "--set", "tokenizer.normalization.lowercase=true")
    assert laptop.run(*words) == laptop.locally(*words)
    assert "`tokenizer.normalization" in laptop.refuse(*words)
    (laptop.folder / "blocks.yaml").write_text(config.replace("tokenizers/char-lstm-ipa", "text"), encoding="utf-8")
    assert own.tokenizer_id is not None
    shown = laptop.read(TokenizerStatus, "tokenizer", "show", own.tokenizer_id)
    assert (shown.label, shown.is_of_run) == ("text", True)
    assert laptop.run(*words)[0] == 0, "a run's tokenizer with the label of the folder is for equal runs only"


def test_unfinished_run__is_followed_cancelled_and_resumed(laptop: Laptop, client: Client) -> None:
    run_id = client.train(tiny_request(**LONG | {"checkpoint_every_steps": 5})).run_id
    wait_until(lambda: client.status(run_id).last_checkpoint_step is not None)
    with once(lambda: is_followed(client), lambda: client.cancel(run_id)):
        assert laptop.read(RunStatus, "resume", run_id, code=1).status == "cancelled"

    def newest() -> str:
        return next(client.runs()).run_id

    with once(lambda: newest() != run_id, lambda: client.cancel(newest())):
        status = laptop.read(RunStatus, "resume", run_id, code=1)
    assert status.status == "cancelled" and status.run_id != run_id


def test_paused_run__is_listed_and_resumed_on_the_server(laptop: Laptop, client: Client) -> None:
    run_id = client.train(tiny_request(**LONG, label="paused")).run_id
    wait_until(lambda: client.status(run_id).last_checkpoint_step is not None)
    laptop.runs.get(run_id).request_pause()
    wait_until(lambda: client.status(run_id).status == "paused")
    for shown in (laptop.type("queue"), laptop.locally("queue")[1]):
        assert "continues with: mt resume paused" in shown
    with once(lambda: client.status(run_id).status == "running", lambda: client.cancel(run_id)):
        status = laptop.read(RunStatus, "resume", run_id, code=1)
    assert (status.status, status.run_id) == ("cancelled", run_id)


def test_delete__removes_a_run_that_has_ended_once_its_name_is_typed(laptop: Laptop, client: Client) -> None:
    runs = [client.train(tiny_request(max_steps=1, label=f"run {number}")).run_id for number in range(4)]
    assert {client.wait(run_id).status for run_id in runs} == {"completed"}
    warm = client.train(tiny_request(max_steps=1, init_from_run_id=runs[0])).run_id
    code, _, err = laptop.run("delete", runs[0], typed="another\n")
    assert code == 2 and f"The name does not match, so {runs[0]} was not deleted." in err
    assert f"'{runs[0]}' stays, because others need it: the run '{warm}'." in laptop.run("delete", runs[0], "--yes")[2]
    code, out, err = laptop.run("delete", runs[1], typed="run 1\n")
    assert (code, out) == (0, "") and err.endswith(f"{runs[1]} is deleted.\n")
    client.delete(runs[2])
    assert laptop.locally("delete", runs[3], "--yes", "--json")[1] == f'{{"deleted":["{runs[3]}"]}}\n'
    for run_id in runs[1:]:
        assert not laptop.runs.directory(run_id).path.exists()
        assert laptop.refuse("delete", run_id, "--yes").startswith(f"mt: There is no run '{run_id}'")
    client.wait(warm)


def test_log__is_followed_to_the_end_of_the_run(laptop: Laptop, client: Client) -> None:
    run_id = client.train(tiny_request(**LONG)).run_id
    wait_until(lambda: client.status(run_id).step > 0)
    with once(lambda: is_followed(client), lambda: client.cancel(run_id)):
        code, out, _ = laptop.run("logs", run_id, "--follow", "--tail", "1", "--json")
    logged = LogReader(laptop.artifacts / "models" / run_id / "logs.jsonl").last(10_000)
    shown = out.splitlines()
    assert code == 0 and 1 < len(shown) < len(logged) and shown == logged[-len(shown) :]


def test_runs__are_cancelled_and_one_that_waits_has_no_log(laptop: Laptop, client: Client) -> None:
    busy = client.train(tiny_request(**LONG)).run_id
    waiting = client.train(tiny_request()).run_id
    wait_until(lambda: client.status(busy).status == "running")
    code, out, err = laptop.run("logs", waiting)
    assert (code, out) == (0, "") and "The run has no log yet" in err
    assert laptop.refuse("logs", "none").startswith("mt: There is no run 'none'")
    assert "is cancelled" in laptop.type("cancel", waiting)
    assert laptop.type("cancel", busy).startswith(f"{busy} ")
    assert client.wait(busy).status == "cancelled"


@pytest.mark.slow
def test_files_of_this_machine__are_scored_and_continued_as_text(laptop: Laptop, other: str) -> None:
    run_id = laptop.server.run.run_id
    lines = [f"abc {'ab' * (i % 7)} {i}" for i in range(1600)]
    (laptop.folder / "numbered-lines.txt").write_text("\n".join(lines), encoding="utf-8")
    (laptop.folder / "prompt.txt").write_text("abc", encoding="utf-8")
    for words in (
        ("score", run_id, "--path", "numbered-lines.txt", "--format", "csv", "--detail-level", "per_line"),
        ("score", run_id, "--path", "numbered-lines.txt"),
        ("generate", run_id, "--prompt-path", "prompt.txt", "--seed", "1", "--max-new-tokens", "3"),
    ):
        assert laptop.run(*words) == laptop.locally(*words)
    laptop.type("score", run_id, "abc", "--heatmap", "map.html")
    assert "<html" in (laptop.folder / "map.html").read_text(encoding="utf-8")
    assert "There is no file 'text'" in laptop.refuse("score", run_id, "--path", "text")
    assert "There is no corpus 'nothing'" in laptop.refuse("generate", run_id, "--prompt-path", "nothing")
    assert "seed 2)" in laptop.run("generate", run_id, "--prompt-path", "text", "--seed", "2")[2]
    (laptop.folder / "prompt.txt").write_text("abc\n", encoding="utf-8")
    noted = laptop.run("generate", run_id, "--prompt-path", "prompt.txt", "--seed", "2")[2]
    assert noted.startswith("The prompt ends with a newline, so the output starts a new line.\n")


async def test_score__temporary_or_interrupted_is_deleted_on_the_server(server: LabServer) -> None:
    given: dict[str, object] = {"url": server.url, "key": KEY}
    remote = Remote(ClientSettings.model_validate(given))
    run_id = server.run.run_id

    async def stored() -> set[bytes]:
        async with server.lab.store() as store:
            names: list[bytes] = await store.redis.keys(keys.inference("score", run_id, "*"))
            return set(names)

    before = await stored()
    await remote.ask(run_id, ScoreRequest(text="abc"), is_kept=False)
    assert await stored() <= before
    for pause_seconds in (0.0, 0.1):  # before the answer with the id of the request, or after it
        scoring = asyncio.create_task(remote.ask(run_id, ScoreRequest(text="abc abd\n" * 100_000)))
        while await stored() <= before:
            await asyncio.sleep(0.01)
        await asyncio.sleep(pause_seconds)
        scoring.cancel()
        await asyncio.wait([scoring])
        assert scoring.cancelled()
        assert await stored() <= before
    await remote.close()


def test_stream__shows_the_complete_text(laptop: Laptop) -> None:
    words = ("generate", laptop.server.run.run_id, "ab", "--seed", "3", "--max-new-tokens", "5")
    assert laptop.type(*words, "--stream") == laptop.type(*words)
    assert laptop.type(*words, "--stream", "--samples", "2").startswith("0: ")


def test_chat__continues_with_a_session(laptop: Laptop) -> None:
    code, out, err = laptop.run("chat", laptop.server.run.run_id, "--seed", "1", typed="ab\n\nabc\n")
    assert code == 0 and out.count("\n") == 2
    session = err.partition("(session ")[2].partition(")")[0]
    assert laptop.run("chat", laptop.server.run.run_id, "--session", session, typed="ab\n")[0] == 0


def test_workers__of_the_server_are_listed_and_take_orders(laptop: Laptop, client: Client) -> None:
    [worker] = client.workers().workers

    def cells(table: str) -> list[str]:
        return re.split(" {2,}", table.splitlines()[1])[:-1]  # without its age

    for words, state in (((), "ready"), (("pause",), "paused"), (("resume",), "ready")):
        shown = cells(laptop.type("workers", *words))
        assert shown == cells(laptop.locally("workers")[1])
        assert (shown[:2], shown[-1]) == (worker.name.split(":"), state)


@pytest.mark.slow
def test_verify__shows_what_is_wrong_on_the_server(laptop: Laptop, client: Client, other: str) -> None:
    samples = laptop.runs.get(other).samples
    assert client.verify(other).ok
    files = client.export_job("verifications", "last", laptop.folder / "files")
    assert {path.name for path in files.iterdir()} == {"request.json", "result.json"}
    before = samples.read_bytes()
    samples.write_bytes(b"")
    shown = laptop.type("verify", other, code=1)
    assert shown == laptop.locally("verify", other)[1]
    assert "WRONG  eval/samples.jsonl " in shown and "Some checks failed" in shown
    samples.write_bytes(before)


@pytest.mark.parametrize("word", ["up", "worker", "gc"])
def test_command_that_manages_one_machine__says_so(word: str, laptop: Laptop) -> None:
    sentence = "mt: This command does not work on the server of MT_URL: run it there, or unset MT_URL to run it here.\n"
    assert laptop.refuse(word) == sentence


def test_command_that_tries_this_machine__works_here_and_says_so(laptop: Laptop) -> None:
    words = ("selftest", "--corpus", "nothing")
    code, out, err = laptop.run(*words)
    note, refusal = err.splitlines()
    assert (code, out, note) == (2, "", "mt: This command works on this machine, not on the server of MT_URL.")
    assert laptop.here(*words) == (code, out, f"{refusal}\n")


@pytest.mark.slow
def test_doctor__says_that_its_checks_are_about_this_machine(laptop: Laptop) -> None:
    assert "MT_URL is set, so runs are on that server" in laptop.run("doctor")[1]
    assert "#compdef mt" in laptop.type("completion", "zsh")


def test_wrong_key_or_no_server__is_one_sentence(laptop: Laptop) -> None:
    laptop.work_on(laptop.server.url, "a-wrong-key-of-nobody")
    assert laptop.refuse("runs") == "mt: Send a valid API key in the header X-Api-Key.\n"
    laptop.work_on("http://127.0.0.1:1")
    sentence = "mt: No server answers at http://127.0.0.1:1. Check MT_URL, and that the server is running.\n"
    assert laptop.refuse("train", "--corpus", "text", code=1) == sentence
    laptop.work_on("lab")
    assert "`CLIENT__URL`" in laptop.refuse("runs")


HOSTILE = "\x1b]0;OWNED\x07\u202e\x9b\u2066"
SHOWN = [
    ("generate", "RUN", "a", "--seed", "3", "--allowed-chars", HOSTILE, "--samples", "9"),
    ("generate", "RUN", "a", "--seed", "3", "--allowed-chars", HOSTILE, "--samples", "9", "--stream"),
    ("score", "RUN", HOSTILE, "--detail-level", "per_char"),
    ("score", "RUN", HOSTILE, "--detail-level", "per_word"),
    ("predict", "RUN", "a", "--k", "20"),
    ("logs", "RUN"),
]
"""Commands that show texts of others."""
SAFE = [("config", "RUN"), ("status", "RUN"), ("runs",), ("eval", "RUN"), ("corpus", "show", "hostile")]
"""Commands that show none of these characters, in a file neither."""
END = "the end of a command"
TYPED = f"""
import json, sys
from trainer.commands.main import main

sys.exit(max([main(words) or print({END!r}, flush=True) or 0 for words in json.loads(sys.argv[1])]))
"""
"""Types all commands in one process."""


@needs_terminals
@pytest.mark.parametrize("place", ["here", pytest.param("server", marks=pytest.mark.slow)])
def test_texts_of_others__reach_a_terminal_without_what_it_would_obey_and_a_file_as_they_are(
    client: Client, server: LabServer, laptop: Laptop, place: str
) -> None:
    add_corpus(server.lab.folder, f"ab{HOSTILE}\n{HOSTILE}ba\n" * 40, "hostile")
    run_id = client.train(tiny_request(corpus="hostile"), label=f"hostile-{place}").run_id
    assert client.wait(run_id).status == "completed"
    with (server.lab.settings.app.artifacts_root / "models" / run_id / "logs.jsonl").open("a") as log:
        line: dict[str, str] = dict.fromkeys(("message", "event", "why"), HOSTILE) | {"level": "error"}
        log.write(f"{json.dumps(line)}\n")
    elsewhere = {"MT_URL": server.url, "MT_KEY": KEY} if place == "server" else {"MT_URL": ""}
    environment = environment_in(server.lab.folder, QUEUE__EMBEDDED_WORKERS="0", **elsewhere)
    rows = [[run_id if word == "RUN" else word for word in words] for words in SHOWN + SAFE]
    typed = [sys.executable, "-c", TYPED, json.dumps(rows)]
    code, shown = shown_in_a_terminal(typed, laptop.folder, environment)
    written = subprocess.run(typed, cwd=laptop.folder, env=environment, capture_output=True, text=True).stdout
    assert (code, control_signs(shown)) == (0, []), shown
    for words, in_terminal, in_file in zip(SHOWN + SAFE, shown.split(END), written.split(END), strict=False):
        is_shown, has_escape = (
            words in SHOWN,
            words in SHOWN and words != ("logs", "RUN"),
        )  # which writes it as JSON does
        assert ("<U+202E>" in in_terminal, "\u202e" in in_file) == (is_shown,) * 2, (words, in_terminal, in_file)
        assert ("\u241b" in in_terminal, "\x1b" in in_file) == (has_escape,) * 2, (words, in_terminal, in_file)


@needs_terminals
def test_error_of_a_server__reaches_a_terminal_without_what_it_would_obey(laptop: Laptop) -> None:
    body = ErrorBody(code=ErrorCode.FORBIDDEN, message=HOSTILE, request_id=HOSTILE).model_dump_json().encode()
    typed = [sys.executable, "-m", "trainer", "status", "x"]
    with prepared(Prepared(403, body)) as other:
        code, shown = shown_in_a_terminal(typed, laptop.folder, {**os.environ, "MT_URL": other.url, "MT_KEY": KEY})
    assert (code, control_signs(shown), "\u241b]0;OWNED<U+202E>" in shown) == (2, [], True), shown
