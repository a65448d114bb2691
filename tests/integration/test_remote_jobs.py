"""Experiments, batteries, exports and pulls with MT_URL and from `trainer.Client`: they work on the server."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from pydantic import BaseModel

import trainer
from tests.support import api_process as processes
from tests.support import environment_in, finished_runs, some_text
from tests.support.api_server import LabServer
from tests.support.batteries import PAIRS
from tests.support.checkpoints import keep_checkpoint
from tests.support.cross_language import ALPHABETS, TINY, plan_with
from tests.support.hub_runs import CLIENT_WARNINGS, NAME, TOKEN, hub_fixture
from tests.support.hub_server import Hub
from tests.support.job_kinds import KINDS
from tests.support.laptop import Laptop
from tests.support.markers import slow_except
from tests.support.readings import times_table
from tests.support.refusals import refused
from tests.support.run_shell import contents
from tests.support.studies import TRAIN
from tests.support.waiting import wait_until
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.kinds import STATUS_KINDS
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.client import remote
from trainer.client.client import Client, check_completed
from trainer.contracts.base import KindName
from trainer.contracts.batteries import BatteryList, BatterySummary
from trainer.contracts.development import Development
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.experiments import ExperimentResult
from trainer.contracts.operations import COMMANDS, JOB_ROWS
from trainer.contracts.parameters import ExperimentPath
from trainer.contracts.readings import ReadingResult
from trainer.contracts.scores import ScoreResponse
from trainer.contracts.studies import StudyResult
from trainer.lab.calls import EXPERIMENTS
from trainer.reports.tokenizer_report import tokenizer_report
from trainer.system.files import read_record

__all__ = ["hub_fixture"]

STEPS = (3, 5)
PLACES = re.compile(r"(?:report|page): \S+   ·   ")
"""The part of a line that names a file of the machine of a server."""


@pytest.fixture(scope="module", name="run")
def run_fixture(server: LabServer) -> RunDirectory:
    """A completed run with two kept checkpoints."""
    for step in STEPS:
        keep_checkpoint(server.run, step, share=step / 10)
    return server.run


@pytest.fixture(name="plan")
def plan_fixture(laptop: Laptop) -> str:
    """The file of a plan beside passages and ratings, and a folder with the text of each language."""
    for code, alphabet in ALPHABETS.items():
        random = Random(code)
        lines = ["".join(random.choices(alphabet, k=30)) for _ in range(40)]
        laptop.write(f"texts/{code}.txt", "\n".join(lines))
        laptop.write(f"stories/{code}.txt", "ɑbdʃe abde dabʒ ɑbdʃe\n" * 3)
    laptop.write("ratings.csv", "listener,language,mean_rating\nkk,tr,0.5\ntr,kk,0.7\n")
    document: dict[str, object] = {
        "name": "afar",
        "languages": {"kk": {"branch": "kipchak"}, "tr": {"branch": "oghuz"}},
        "models": {"lstm": {"train": TINY}},
        "seeds": [1],
        "modes": ["unk"],
        "texts": {"passages": "stories"},
        "ratings": "ratings.csv",
    }
    laptop.write("plan.yaml", json.dumps(document))
    return "plan.yaml"


def same_as_there(laptop: Laptop, *words: str) -> str:
    """Type a command on the laptop and on the machine of the server, with the same output; return it."""
    code, out, err = laptop.run(*words)
    there = laptop.locally(*words)
    assert (code, out, err) == (there[0], PLACES.sub("", there[1]), PLACES.sub("", there[2]))
    return out


@pytest.mark.slow
def test_experiment__runs_on_files_of_the_laptop_and_shows_what_the_server_shows(laptop: Laptop, plan: str) -> None:
    words = ("experiment", "run", plan, "--corpora", "texts")
    found = laptop.read(ExperimentResult, *words)
    shown = laptop.err
    assert f"experiment {found.experiment_id}\n2 trainings: 2 languages x 1 model x 1 seed\n" in shown
    assert shown.count(" trained in ") == shown.count(" texts scored") == 2
    again = same_as_there(laptop, "experiment", "show", found.experiment_id)
    assert again == laptop.type(*words) and " trained in " not in laptop.err
    same_as_there(laptop, "experiment", "show", found.experiment_id, "--json")
    same_as_there(laptop, "experiment", "list", "--json")
    laptop.type("experiment", "export", found.experiment_id, "here")
    laptop.locally("experiment", "export", found.experiment_id, "there")
    assert contents(laptop.folder / "here") == contents_of(laptop.folder / "there", laptop.folder / "here")
    assert "is not an empty folder" in laptop.refuse("experiment", "export", found.experiment_id, "here")
    assert not (laptop.folder / "artifacts").exists()


def test_study__runs_on_a_file_of_the_laptop_and_shows_what_the_server_shows(laptop: Laptop) -> None:
    laptop.write("own.txt", f"{some_text()}\na text at which no other test looks")
    settings: dict[str, object] = {"low": {"learning_rate": 0.01}, "high": {"learning_rate": 0.1}}
    train: dict[str, object] = {**TRAIN, "corpus": "own.txt"}
    study: dict[str, object] = {"name": "afar", "train": train, "settings": settings, "seeds": 1}
    laptop.write("study.yaml", json.dumps(study))
    words = ("study", "run", "study.yaml", "--set", "test_seeds=1")
    found = laptop.read(StudyResult, *words)
    assert f"study {found.study_id}: at most 3 runs\n" in laptop.err
    assert [laptop.err.count(f" {stage} ") for stage in ("final", "test")] == [2, 1]
    again = same_as_there(laptop, "study", "show", found.study_id)
    assert again == laptop.type(*words) and "1 look at this test text" in again
    same_as_there(laptop, "study", "list", "--json")
    refused = laptop.refuse("train", "--corpus", "demo", "--search", "4", "--seeds", "2")
    assert "`train.seeds` is set by the study itself" in refused


def test_client__runs_a_study_on_the_server_and_reads_test_splits_once(laptop: Laptop, client: Client) -> None:
    laptop.write("stars.txt", "\n".join(some_text(number)[::-1] for number in range(1, 40)))
    corpus = client.upload(laptop.folder / "stars.txt").name
    study: dict[str, object] = {"name": "notebook", "train": {**TRAIN, "corpus": corpus}, "seeds": 1, "test_seeds": 1}
    settings: dict[str, object] = {"low": {"learning_rate": 0.001}, "high": {"learning_rate": 0.1}}
    result = client.study(study, settings=settings)
    assert result.test is not None and result.test.looks is not None
    assert (result.winner.name, result.test.looks.looks, result.test.looks.runs) == ("high", 1, 3)
    assert client.study(laptop.write("study.yaml", json.dumps(study | {"settings": settings}))) == result
    assert "1 look at this test text" in repr(client.report("studies", result.study_id))
    finals = [one.run_id for one in result.trials if one.phase == "final"]
    unlocked = client.unlock(*finals)
    assert [(one.looks, one.runs) for one in unlocked.looks] == [(2, 3)]
    assert client.unlock(*finals) == unlocked
    assert [one.test_loss for one in unlocked.runs] == [client.status(name).test_loss for name in finals]
    with refused(ErrorCode.RUN_NOT_FOUND, "no-such-run"):
        client.unlock("no-such-run")


def contents_of(folder: Path, other: Path) -> dict[Path, bytes]:
    """The content of a folder under the paths of another."""
    return {other / path.relative_to(folder): content for path, content in contents(folder).items()}


def test_battery__scores_items_of_the_laptop_as_the_machine_of_the_server_does(
    laptop: Laptop, run: RunDirectory
) -> None:
    laptop.write("pairs.csv", PAIRS)
    for name in ("a", "b"):
        laptop.write(f"folder/{name}.csv", PAIRS)
    words = ("battery", "run", run.run_id[:-1], f"{run.run_id}@3", "pairs.csv", "folder", "--no-controls")
    found = laptop.read(BatterySummary, *words)
    assert [battery.name for battery in found.batteries] == ["pairs", "folder"]
    assert [battery.n_items for battery in found.batteries] == [4, 8]
    shown = same_as_there(laptop, *words)  # an equal job, which is not run again
    listed = laptop.read(BatteryList, "battery", "list").batteries  # other tests have batteries on this server, too
    [battery_id] = {one.battery_id for one in listed if one.batteries == ("pairs", "folder")}
    assert same_as_there(laptop, "battery", "show", battery_id) == shown
    laptop.type("battery", "export", battery_id, "here")
    laptop.locally("battery", "export", battery_id, "there")
    assert contents(laptop.folder / "here") == contents_of(laptop.folder / "there", laptop.folder / "here")
    laptop.type("battery", "recompute", "here")
    assert "All numbers are those of result.json." in laptop.err
    assert "Give a BATTERY" in laptop.refuse("battery", "run", run.run_id)
    assert "'nothing' is no run, no file of items" in laptop.refuse("battery", "run", "nothing", "pairs.csv")
    assert "nothing" in laptop.refuse("battery", "run", run.run_id, "nothing")


def test_reading__explains_times_of_the_laptop_as_the_machine_of_the_server_does(
    laptop: Laptop, run: RunDirectory, client: Client
) -> None:
    laptop.write("times.csv", times_table(("RT_ms", "other")))
    words = ["reading", run.run_id[:-1], f"{run.run_id}@3", "--data", "times.csv", "--column", "maze=RT_ms"]
    words += ["--set", "baseline=[length]", "--set", "spillover=0"]
    found = laptop.read(ReadingResult, *words)
    assert "`RT_ms` (maze)" in laptop.err and "not read: `other`" in laptop.err
    assert [one.model for one in found.fits if one.counts is None] == [run.run_id, f"{run.run_id}@3"]
    shown = same_as_there(laptop, *words)
    assert "maze task: gains of surprisal" in shown
    assert same_as_there(laptop, "job", "show", "readings", "last") == shown
    assert laptop.read(ReadingResult, "job", "wait", "readings", "last") == found
    columns, file = {"maze": "RT_ms"}, laptop.folder / "times.csv"
    again = client.reading([run.run_id, f"{run.run_id}@3"], file, columns=columns, baseline=["length"], spillover=0)
    assert again == found, "an equal job is not run again"
    kept = client.reading(run.run_id, file, has_checkpoints=True, columns=columns, baseline=["length"], spillover=0)
    names = [f"{run.run_id}@{step}" for step in STEPS if step < run.completed_manifest().steps]
    assert [one.model for one in kept.fits if one.counts is None] == [run.run_id, *names]
    assert "maze task: gains of surprisal" in repr(client.report("readings", found.reading_id))
    assert "has no times of gaze" in laptop.refuse(*words, "--set", "measures=[gaze]")
    with refused(ErrorCode.RUN_NOT_FOUND, "no-such-run"):
        client.reading("no-such-run", file, columns=columns)


@pytest.mark.parametrize("kind", slow_except(JOB_ROWS, "exports", "experiments"))
def test_job_of_any_kind__is_listed_shown_followed_cancelled_and_deleted(
    laptop: Laptop, client: Client, kind: KindName
) -> None:
    """From the laptop, on the machine of the server, and from a program."""
    word, root = JOB_ROWS[kind].word, laptop.artifacts
    group, named = word, list[str]()
    if f"{word} list" not in COMMANDS:
        group, named = "job", [kind]
    ids = list[str]()
    for number in range(3):
        ids.append(KINDS[kind].create(root, 7000 + number).job_id)
        KINDS[kind].end(root, ids[-1])
    failed, other, newest = ids
    lines = [line.split() for line in same_as_there(laptop, group, "list", *named).splitlines()]
    assert [line[0] for line in lines if line[0] in ids] == ids[::-1]
    shown = same_as_there(laptop, group, "show", *named, failed)
    assert f"{failed}: failed" in shown
    assert laptop.type(group, "wait", *named, failed, code=1) == shown
    assert laptop.locally(group, "wait", *named, failed)[1] == shown
    assert {
        one.status for one in (client.job(kind, failed), client.wait_job(kind, "last"), *client.jobs(kind)[:3])
    } == {"failed"}
    waiting = KINDS[kind].create(laptop.folder / "artifacts", 1).job_id  # where no worker takes it
    cancelled = laptop.here(group, "cancel", *named, "last")[1]
    assert cancelled == f"{waiting}: cancelled. What it has stored stays.\n"
    with refused(ErrorCode.CONFLICT, "has already ended"):
        client.cancel_job(kind, other)
    with pytest.raises(AppError, match=failed):
        client.export_job(kind, failed, laptop.folder / "out")
    assert failed in laptop.run(group, "export", *named, failed, "out")[2] and not (laptop.folder / "out").exists()
    guess: list[str] = [group, "delete", *named, "last"]
    assert laptop.refuse(*guess, "--yes") == f"mt: 'last' names {newest}. With `--yes`, give this id.\n"
    assert "The name does not match" in laptop.run(*guess, typed="another\n")[2]
    code, out, err = laptop.run(*guess, typed=f"{newest}\n")
    assert (code, out) == (0, "") and err.endswith(f"{newest} is deleted.\n")
    assert laptop.locally(group, "delete", *named, other, "--yes", "--json")[1] == f'{{"deleted":["{other}"]}}\n'
    client.delete_job(kind, failed)
    assert {*ids}.isdisjoint(STATUS_KINDS[kind].store(root).ids())


def test_development__of_a_run_of_the_server(laptop: Laptop, run: RunDirectory, client: Client) -> None:
    laptop.write("pairs.csv", PAIRS)
    words = ("develop", run.run_id, "--battery", "pairs.csv", "--eval", "test")
    found = laptop.read(Development, *words)
    assert [point.step for point in found.points] == [*STEPS]
    assert laptop.type(*words) == laptop.locally(*words)[1]
    assert client.develop(run.run_id, "pairs.csv") == found
    none = client.train(corpus="text", max_steps=1).run_id
    client.wait(none)
    assert "has kept no checkpoints" in laptop.refuse("develop", none)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "name"),
    [("hf", "RUN@3"), ("csv", "RUN"), ("archive", "RUN")],
)
def test_export__writes_what_the_machine_of_the_server_writes(
    form: str, name: str, laptop: Laptop, run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_WAIT_SECONDS", 0.1)  # an export takes longer than one request waits for it
    words = ("export", name.replace("RUN", run.run_id), "--format", form, "--out", "out")
    there = laptop.locally(*words)[1]
    local = laptop.folder / "there"
    (laptop.folder / "out").rename(local)
    assert laptop.type(*words) == there
    out = laptop.folder / "out"
    if form == "archive":
        assert out.read_bytes() == local.read_bytes()
    else:
        assert contents(out) == contents_of(local, out)
    assert "already exists" in laptop.refuse(*words)
    laptop.type(*words, "--force")
    assert not [path for path in laptop.folder.iterdir() if path.name.startswith(".")]


def test_export__that_the_server_refuses_has_its_sentence(laptop: Laptop, run: RunDirectory) -> None:
    whole = laptop.refuse("export", f"{run.run_id}@3", "--format", "archive", "--out", "out")
    assert "has the whole run" in whole and run.run_id in whole
    for words in (
        ("export", f"{run.run_id}@9", "--format", "hf", "--out", "out"),
        ("export", run.run_id, "--format", "csv", "--out", "out", "--license", "mit"),
    ):
        assert laptop.run(*words) == laptop.locally(*words)
    assert not (laptop.folder / "out").exists()


@pytest.mark.slow
def test_pull__brings_a_run_with_the_scores_of_the_server(
    laptop: Laptop, run: RunDirectory, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_server = laptop.read(ScoreResponse, "score", run.run_id, "abc cab", "--detail-level", "per_char")
    kept = laptop.read(ScoreResponse, "score", f"{run.run_id}@3", "abc cab", "--detail-level", "per_char")
    own = laptop.folder / "artifacts"
    archive = own / f".pull-{run.run_id}.tar.part"
    laptop.type("export", run.run_id, "--format", "archive", "--out", "run.tar")
    laptop.write(f"artifacts/{archive.name}", (laptop.folder / "run.tar").read_bytes()[:5000])  # of an earlier process
    assert laptop.read(_Pulled, "pull", run.run_id[:-1]) == _Pulled(run_id=run.run_id, new=True)
    pulled = RunStore(own).get(run.run_id)
    assert trainer.load(pulled.path).score("abc cab").nats == on_server.nats
    assert trainer.load(pulled.path).score("abc cab", detail_level="per_char").surprisal == on_server.surprisal
    assert trainer.load(f"{pulled.path}@3").score("abc cab").nats == kept.nats
    assert run.run_id in laptop.here("runs")[1]
    verified = laptop.here("verify", run.run_id)[1]
    assert "skipped  corpus " in verified and verified.endswith("\nEverything that was checked is as recorded.\n")
    assert [path.name for path in own.iterdir() if path.name != "models"] == []
    assert laptop.type("pull", run.run_id) == f"{run.run_id} is here already.\n"
    assert client.pull(run.run_id) == pulled.path
    request = pulled.path / "manifest.json"
    request.write_text(request.read_text(encoding="utf-8").replace('"completed"', '"failed"', 1), encoding="utf-8")
    assert "has another run" in laptop.refuse("pull", run.run_id)
    assert "name its run here" in laptop.refuse("pull", f"{run.run_id}@3")


@pytest.mark.slow
def test_import__restores_a_run_on_this_machine(laptop: Laptop, run: RunDirectory) -> None:
    laptop.type("export", run.run_id, "--format", "archive", "--out", "run.tar")
    shown = laptop.type("import", "run.tar")
    assert shown == f"{run.run_id} is restored on this machine. Check it with: MT_URL= mt verify {run.run_id}\n"
    assert RunStore(laptop.folder / "artifacts").ids() == [run.run_id]
    assert (
        "is restored on this machine. Check it with: mt verify"
        in laptop.locally("import", "run.tar", root=laptop.folder / "another")[1]
    )


@pytest.mark.slow
@CLIENT_WARNINGS
@pytest.mark.process
def test_push__sends_a_run_of_the_server_as_the_machine_of_the_server_does(
    laptop: Laptop, run: RunDirectory, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    words = ("push", run.run_id[:-1], NAME, "--license", "mit")
    assert laptop.type(*words) == laptop.locally(*words)[1]
    assert hub.requests == []
    shown = laptop.type(*words, "--yes")
    assert shown == f"{run.run_id} is in {hub.url}/{NAME} (private, {len(STEPS) + 1} revisions).\n"
    assert "step-3: sent\nstep-5: sent\nmain: sent\n" in laptop.err
    assert laptop.locally(*words, "--yes")[2].count("is there already") == len(STEPS) + 1
    assert not (laptop.folder / "artifacts").exists()
    pulled = laptop.type("pull", NAME)
    assert pulled == f'{run.run_id} is here. Score a text on this machine with: MT_URL= mt score {run.run_id} "…"\n'
    assert laptop.here("verify", run.run_id)[0] == 0


class _Pulled(BaseModel):
    run_id: str
    new: bool


@pytest.mark.slow
def test_client__runs_jobs_of_the_server_to_their_end(
    laptop: Laptop, run: RunDirectory, client: Client, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    laptop.write("pairs.csv", PAIRS)
    for code in ALPHABETS:
        client.upload(laptop.folder / "texts" / f"{code}.txt", f"afar-{code}")
    plan_fields = plan_with({}, name="client", modes=["unk"], texts={"shuffled": False})
    fields: dict[str, object] = plan_fields.model_dump(mode="json")
    languages: dict[str, object] = {code: {"corpus": f"afar-{code}", "branch": code} for code in ALPHABETS}
    result = client.experiment(fields, languages=languages)
    experiment, named = (
        ExperimentStore(laptop.artifacts).get(result.experiment_id),
        ExperimentPath(experiment_id=result.experiment_id),
    )
    assert result == read_record(experiment.result, ExperimentResult)
    laptop.write("client.yaml", json.dumps(fields | {"languages": languages}))
    assert client.experiment(laptop.folder / "client.yaml") == result
    summary = client.battery(run.run_id, laptop.folder / "pairs.csv", has_controls=False)
    assert summary.runs[0].groups == trainer.load(run.path).battery("pairs.csv").runs[0].groups
    assert client.battery([f"{run.run_id}@3"], "pairs.csv", measure="token").measure == "token"
    tokenizer = client.tokenizer("char", "afar-kk", "afar-tr", label="two")
    assert (tokenizer.status, tokenizer.label) == ("completed", "two")
    assert client.report("tokenizers", "two").report == tokenizer_report(tokenizer)
    assert "distinct characters" in repr(client.corpus("afar-kk"))
    out = client.export(f"{run.run_id}@3", "hf", "model")
    assert trainer.load(out).surprisal("abc") == trainer.load(f"{run.path}@3").surprisal("abc")
    with refused(ErrorCode.CONFLICT, "already exists"):
        client.export(run.run_id, "hf", "model")
    [zipped] = client.export_job("exports", "last", "files").iterdir()
    assert zipped.name == f"{run.run_id}@3-hf.zip"
    with refused(ErrorCode.CONFLICT, "The corpus 'afar-kk' stays, because others need it: "):
        client.delete_corpus("afar-kk")
    view = client.report("experiments", result.experiment_id)
    assert view.report == experiment.report() and view._repr_html_().count("<img ") == len(view.report.figures()) > 0
    trained = [cell.run_id for cell in client._call(EXPERIMENTS.get, named).cells if cell.kind == "train"][:2]
    assert "Verdict" in client.compare(*filter(None, trained))._repr_html_()
    card = client.run(run.run_id)
    assert card.status == client.status(run.run_id)
    assert "value='100.0'" in card._repr_mimebundle_()["text/html"]
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no corpus 'nothing'"):
        client.tokenizer("char", "nothing")
    with refused(ErrorCode.INVALID_INPUT, "`vocab_size` must be at least 10"):
        client.tokenizer("bpe", "afar-kk", vocab_size=5)
    assert capsys.readouterr().err == "", "bars are for terminals and notebooks"


def test_job__continues_after_ctrl_c_on_the_laptop(laptop: Laptop, plan: str, client: Client) -> None:
    train: dict[str, object] = {**TINY, "num_epochs": 1000}
    fields = ("--set", "name=long", "--set", f"models.lstm.train={json.dumps(train)}")
    process = laptop.start_here("experiment", "run", plan, "--corpora", "texts", *fields)

    def running() -> str:
        found = client._call(EXPERIMENTS.list).experiments
        return next((one.experiment_id for one in found if one.name == "long" and one.status == "running"), "")

    wait_until(lambda: running() != "" or process.poll() is not None)
    experiment_id = running()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.endswith(
        f"Interrupted; {experiment_id} continues on the server. Follow it with the same command, or:"
        f" mt experiment show {experiment_id}\n"
    )
    assert f"{experiment_id}: running" in laptop.type("experiment", "show", experiment_id)
    assert f"{experiment_id}: cancelled" in laptop.type("experiment", "cancel", experiment_id)
    with refused(ErrorCode.CANCELLED, "Cancelled."):
        check_completed(client._call(EXPERIMENTS.get, ExperimentPath(experiment_id=experiment_id)))


@pytest.mark.slow
@pytest.mark.parametrize("is_remote", [True, False])
def test_command_that_waits__says_that_no_worker_is_running(tmp_path: Path, *, is_remote: bool) -> None:
    run = finished_runs.finished_run(tmp_path, "lstm").run_id
    (tmp_path / "pairs.csv").write_text(PAIRS, encoding="utf-8")
    of_jobs = [
        ("tokenizer", "train", "--method", "char", "--corpus", "demo"),
        ("experiment", "run", "smoke"),
        ("battery", "run", run, "pairs.csv"),
    ]
    of_models = [("score", run, "the sun"), ("generate", run, "the sun"), ("predict", run, "the sun"), ("eval", run)]
    of_server = [("verify", run), ("export", run, "--format", "hf", "--out", "exported")]
    with processes.api_process(tmp_path, QUEUE__EMBEDDED_WORKERS="0") as api:
        server = {"MT_URL": api.url, "MT_KEY": processes.KEY} if is_remote else {}
        environment = environment_in(tmp_path, QUEUE__EMBEDDED_WORKERS="0", PYTHONUNBUFFERED="1", **server)
        for words in [*of_jobs, *of_models, *(of_server if is_remote else [])]:
            command = [sys.executable, "-m", "trainer", *words]
            with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as waiting:
                assert waiting.stderr is not None
                is_said = any("No worker is running. The job stays" in line for line in waiting.stderr)
                waiting.send_signal(signal.SIGINT)
            assert is_said, (is_remote, words)
