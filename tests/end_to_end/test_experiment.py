"""Experiments from the command line: the smoke recipe, extended, shown, exported and computed again."""

import csv
import json
import re
from io import StringIO
from math import log, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import pytest

from tests.support import add_corpus, settings_in, some_text
from tests.support.batteries import battery_record
from tests.support.cross_language import TINY, add_batteries, add_languages, plan_with
from tests.support.run_shell import Shell, enter
from tests.support.runs import record as run_record
from trainer.artifacts.batteries import BatteryStore
from trainer.artifacts.checkpoint_files import checkpoint_steps, scheduled_folder
from trainer.artifacts.experiments import ExperimentStore
from trainer.artifacts.looks import LookLedger
from trainer.commands.experiments import RecomputedTables, with_slots
from trainer.config.settings import QueueSettings, Settings
from trainer.contracts.base import changed, now
from trainer.contracts.batteries import BatteryRow
from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.experiments import (
    CellBattery,
    CellRun,
    ExperimentList,
    ExperimentRecord,
    ExperimentResult,
    MatrixRow,
)
from trainer.contracts.looks import Look
from trainer.data.line_keys import keys_of
from trainer.reports.experiment_tables import csv_text
from trainer.system.files import read_record


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose experiments all tests share."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(name="shell")
def shell_fixture(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return enter(monkeypatch, capsys, folder, folder)


class Smoke(NamedTuple):
    """The recipe `smoke` once it has run, and what was told meanwhile."""

    summary: ExperimentResult
    told: str


@pytest.fixture(name="smokes", scope="module")
def smokes_fixture() -> list[Smoke]:
    return []


@pytest.fixture(name="smoke")
def smoke_fixture(shell: Shell, smokes: list[Smoke]) -> Smoke:
    if not smokes:
        smokes.append(Smoke(run(shell, "smoke"), shell.err))
    return smokes[0]


def run(shell: Shell, *words: str) -> ExperimentResult:
    return shell.read(ExperimentResult, "experiment", "run", *words)


def matrix_of(result: ExperimentResult) -> list[MatrixRow]:
    """The rows of the headline table."""
    return [row for row in result.models[0].tables.matrix if row.scoring_mode == result.modes[0]]


def plan_file(folder: Path, name: str, **fields: object) -> str:
    """A plan with two languages, as JSON, which is YAML."""
    languages: dict[str, object] = {"kk": {"branch": "kipchak"}, "tr": {"branch": "oghuz"}}
    models: dict[str, object] = {"lstm": {"train": TINY}}
    path = folder / f"{name}.yaml"
    document: dict[str, object] = {"name": name, "languages": languages, "models": models, "seeds": [1], **fields}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path.name


def files_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_smoke__trains_scores_and_reports(shell: Shell, smoke: Smoke) -> None:
    found, told = smoke
    assert (found.name, found.validity.passed) == ("smoke", None)
    assert told.count(" trained in ") == told.count(" texts scored") == 2
    assert told.splitlines()[:2] == [f"experiment {found.experiment_id}", "2 trainings: 2 languages x 1 model x 1 seed"]
    matrix = {(row.listener_language, row.text_language): row.excess_cross_entropy for row in matrix_of(found)}
    assert matrix["kk", "kk"] == matrix["tr", "tr"] == 0
    assert min(matrix["kk", "tr"], matrix["tr", "kk"]) > 0.1
    before = files_of(shell.artifacts)
    again = shell.type("experiment", "run", "smoke")
    assert files_of(shell.artifacts) == before
    spaced = " ".join(again.split())
    assert f" kk 0.000 {matrix['kk', 'tr'] / log(2):.3f} (" in spaced
    assert "Nothing to check: the plan has no two branches with two languages" in again
    note = "One seed per language: the intervals cover sections of the text, not the spread of trainings."
    assert spaced.count(note) == 3, "with the matrix, the perplexities and the tree"
    perplexities = {
        (row.listener_language, row.text_language): row.perplexity
        for row in found.perplexities
        if (row.model, row.kind, row.scoring_mode) == ("lstm", "held_out", "skip")
    }
    [area] = [row.auc for row in found.curves if row.language == "kk"]
    assert area is not None
    numbers = perplexities["kk", "kk"], perplexities["kk", "tr"], area / log(2)
    cells = [f"{number:.2f}" for number in numbers]
    assert " ".join(["kk", *cells]) in spaced
    assert "report.html" in again


def accuracies(shell: Shell, run_id: str) -> dict[str, float]:
    """The accuracies of a run by battery, counted from the stored scores of the items."""
    wins: dict[str, list[bool]] = {}
    for job in BatteryStore(shell.artifacts).all():
        items = job.items()
        for one in job.scores(run_id, "trained"):
            difference = one.scores[1].nats - one.scores[0].nats
            if abs(difference) >= 1e-4:
                wins.setdefault(items[one.item].battery, []).append(difference > 0)
    return {battery: fmean(of_battery) for battery, of_battery in wins.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("smoke")
def test_more_seeds_and_batteries__repeat_no_finished_cell(shell: Shell) -> None:
    before = files_of(shell.artifacts / "models")
    add_batteries(shell.root)
    batteries = [f"languages.{code}.batteries=[{code}_words]" for code in ("kk", "tr")]
    extended = run(shell, "smoke", *(word for field in ("seeds=[1,2]", *batteries) for word in ("--set", field)))
    assert "\n12/12  " in shell.err
    after = files_of(shell.artifacts / "models")
    assert {path: after[path] for path in before} == before
    assert len(list((shell.artifacts / "models").iterdir())) == 4
    groups = {group for run in shell.runs.all() if (group := run.record().group) is not None}
    names = [f"{extended.experiment_id}-lstm-{code}" for code in ("kk", "tr")]
    assert sorted(group.group_id for group in groups) == names and {group.seeds for group in groups} == {(1, 2)}
    assert f"({names[0]}): completed. 1 run: 1 completed." in shell.type("status", names[0])
    assert all(line.startswith(("lstm-", "run", *names)) for line in shell.type("runs").splitlines())
    assert {row.n_seeds for row in extended.seed_rows} == {row.n_seeds for row in matrix_of(extended)} == {2}
    check_batteries(shell, extended)


@pytest.mark.slow
def test_development__measures_the_checkpoints_of_each_run_in_its_language(shell: Shell) -> None:
    add_batteries(shell.root)
    fields = ["seeds=[1]", "languages.kk.batteries=[kk_words]", "development={split: validation}"]
    words = [word for field in fields for word in ("--set", field)]
    refused = shell.refuse("experiment", "run", "smoke", *words)
    assert "`models.lstm.train.checkpoint_schedule` is needed" in refused
    schedule = ("--set", "models.lstm.train.checkpoint_schedule=[1, 2]")
    found = run(shell, "smoke", *words, *schedule)
    ids = found.development_ids
    jobs = [BatteryStore(shell.artifacts).get(one) for one in ids]
    assert [[info.name for info in job.record().batteries] for job in jobs] == [["kk_words"], []]
    for job in jobs:
        development = job.development()
        assert development is not None
        run_id = development.run_id
        kept = checkpoint_steps(scheduled_folder(shell.runs.get(run_id).checkpoints))
        assert [one.step for one in development.points] == kept and kept[:2] == [1, 2]
        for row in development.curves:
            if row.measure == "loss":
                assert row.value == pytest.approx(
                    shell.read(EvalMetrics, "eval", f"{run_id}@{row.step}").loss, abs=1e-6
                )
    assert all(one in shell.type("experiment", "show", found.experiment_id) for one in ids)
    page = (shell.artifacts / "experiments" / found.experiment_id / "report.html").read_text(encoding="utf-8")
    assert all(f"<td>{one}</td>" in page for one in ids)


def check_batteries(shell: Shell, found: ExperimentResult) -> None:
    """Compare the accuracies of all languages' models with the stored scores, and with those that are recomputed."""
    experiment = ExperimentStore(shell.artifacts).get(found.experiment_id)
    content = (experiment.path / "batteries.csv").read_text(encoding="utf-8")
    rows: list[dict[str, str]] = list(csv.DictReader(StringIO(content)))
    whole = [row for row in rows if (row["level"], row["measure"]) == ("battery", "sum")]
    assert [(row["model_language"], row["battery"]) for row in whole] == [
        (language, battery) for language in ("kk", "tr") for battery in ("kk_words", "tr_words")
    ]
    for row in whole:
        cells = [cell for cell in experiment.runs().values() if cell.language == row["model_language"]]
        shares = [accuracies(shell, cell.run_id)[row["battery"]] for cell in cells]
        half = 12.706205 * stdev(shares) / sqrt(2)  # Student's t of one degree of freedom
        low, high = max(0.0, fmean(shares) - half), min(1.0, fmean(shares) + half)
        expected = [fmean(shares), stdev(shares), low, high]
        numbers = [float(row[name]) for name in ("accuracy", "deviation", "low", "high")]
        assert numbers == pytest.approx(expected, abs=2e-6)
        assert (row["n_seeds"], row["n_items"], row["battery_language"]) == ("2", "12", row["battery"][:2])
    tables = shell.read(RecomputedTables, "experiment", "recompute", str(experiment.path / "sections.json"))
    assert csv_text(BatteryRow, tables.batteries) == csv_text(BatteryRow, found.batteries) == content
    shown = shell.type("experiment", "show", found.experiment_id)
    [line] = [line for line in shown.splitlines() if "kk: kk_words" in line]
    assert line.split() == ["kk:", "kk_words", "tr:", "tr_words"]
    assert f"kk  {100 * float(whole[0]['accuracy']):.1f} [" in shown


def test_recompute__gives_the_numbers_of_the_tables(shell: Shell, smoke: Smoke) -> None:
    found = smoke.summary
    sections = shell.artifacts / "experiments" / found.experiment_id / "sections.json"
    tables = shell.read(RecomputedTables, "experiment", "recompute", str(sections))
    rows = [(row.listener_language, row.text_language, round(row.interval_low, 6)) for row in matrix_of(found)]
    assert [(row.listener_language, row.text_language, row.interval_low) for row in tables.matrix] == rows
    assert tables.batteries == ()
    again = shell.type("experiment", "recompute", str(sections))
    assert re.search(r"^tr  \d\.\d{3}  0\.000$", again, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "told"), [(None, "There is no file"), ("{}", "`sections` is required"), ("no json", "JSON")]
)
def test_recompute__refuses_other_files(shell: Shell, text: str | None, told: str) -> None:
    file = shell.folder / "other.json"
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert told in shell.refuse("experiment", "recompute", "other.json")


def test_show_list_and_export__give_the_same_experiment(shell: Shell, smoke: Smoke) -> None:
    found = smoke.summary
    assert shell.read(ExperimentResult, "experiment", "show", found.experiment_id) == found
    listed = shell.read(ExperimentList, "experiment", "list").experiments
    assert found.experiment_id in [one.experiment_id for one in listed]
    assert {one.files for one in listed} == {()}
    lines = [line.split() for line in shell.type("experiment", "list").splitlines()]
    assert [(one[1], *one[-2:]) for one in lines if one[0] == found.experiment_id] == [("completed", "4", "4")]
    exported = shell.type("experiment", "export", found.experiment_id, "report")
    report = shell.folder / "report"
    names = {path.relative_to(report).as_posix() for path in report.rglob("*.*")}
    assert exported == f"{found.experiment_id} is in report ({len(names)} files).\n"
    assert names > {"matrix.csv", "listeners.csv", "asymmetry.csv", "sections.json", "validity.json", "result.json"}
    assert not any(name.startswith("texts") or name in ("request.json", "lock") for name in names)
    again = shell.refuse("experiment", "export", found.experiment_id, "report")
    assert again == "mt: 'report' exists and is not an empty folder: give another name.\n"


def test_unfinished_experiment__is_shown_cell_by_cell_and_cancelled(shell: Shell) -> None:
    experiment_id = "waiting-01234567"
    request: dict[str, object] = {"user_id": None, "request": plan_with({}, name="waiting"), "request_hash": "0" * 64}
    fields: dict[str, object] = {"experiment_id": experiment_id, "created_at": now(), "corpora": {}, **request}
    experiment = ExperimentStore(shell.artifacts).create(ExperimentRecord.model_validate(fields))
    for run_id in ("lstm-1", "lstm-2"):
        shell.runs.create(run_record(run_id))
    own = CellRun(model="lstm", language="kk", seed=1, run_id="lstm-1", is_reused=False)
    jobs = [BatteryStore(shell.artifacts).create(*battery_record(name)) for name in ("words-1", "words-2")]
    batteries = [
        CellBattery(model="lstm", seed=seed, battery_id=job.battery_id, is_reused=seed == 2)
        for seed, job in enumerate(jobs, 1)
    ]
    experiment.write_runs([own, changed(own, language="tr", run_id="lstm-2", is_reused=True)], batteries)
    shown = shell.type("experiment", "show", experiment_id).splitlines()
    assert shown[0] == f"{experiment_id}: queued"
    assert [line.split() for line in shown[2:4]] == [
        ["lstm", "kk", "1", "train", "queued", "lstm-1"],
        ["lstm", "kk", "1", "score", "queued", "lstm-1"],
    ]
    assert "has no results yet" in shell.refuse("experiment", "export", experiment_id, "nothing")
    cancelled = shell.type("experiment", "cancel", experiment_id)
    assert cancelled.startswith(f"{experiment_id}: cancelled. What it has stored stays.")
    ends = [shell.runs.get(run_id).manifest() for run_id in ("lstm-1", "lstm-2")]
    assert [end and end.status for end in ends] == ["cancelled", None]
    assert [job.state() for job in jobs] == ["cancelled", "queued"]
    shell.runs.get("lstm-2").request_cancel()
    shell.refuse("experiment", "show", "none-01234567")
    assert "has already ended" in shell.error("experiment", "cancel", experiment_id).message


def test_no_experiments__list_says_how_to_start_one(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP__ARTIFACTS_ROOT", str(shell.folder / "none"))
    assert shell.type("experiment", "list") == "No experiments yet. Start one with: mt experiment run smoke\n"


@pytest.mark.slow
def test_files_of_this_machine__are_stored_by_content(lab_shell: Shell) -> None:
    """Corpora from a folder, passages and ratings beside the plan."""
    shell = lab_shell
    add_languages(shell.folder)
    given = shell.folder / "given"
    stored = shell.folder / "data" / "corpus"
    for code in ("kk", "tr"):
        shell.write(f"given/stories/{code}.txt", "ɑbdʃe abde dabʒ ɑbdʃe\n" * 3)
    with (given / "stories" / "kk.txt").open("a", encoding="utf-8") as story:
        story.write((stored / "kk.txt").read_text(encoding="utf-8"))
    (stored / "kk.txt").rename(given / "oscar_kk_ipa.txt")
    (stored / "tr.txt").rename(given / "tr.txt")
    shell.write("given/ratings.csv", "listener,language,mean_rating\nkk,tr,0.5\ntr,kk,0.7\n")
    texts: dict[str, object] = {"passages": "stories"}
    plan_file(given, "local", texts=texts, ratings="ratings.csv", modes=["unk"])
    test_id = "0" * 64  # of a run that was tested on a line of the passages
    LookLedger(shell.artifacts).add_lines(test_id, keys_of(["ɑbdʃe abde dabʒ ɑbdʃe"]))
    found = run(shell, "given/local.yaml", "--corpora", "given", "--set", "texts.held_out=false")
    looks = [read_record(path, Look) for path in (shell.artifacts / "looks" / test_id).glob("*.json")]
    assert [(len(look.models), look.reason) for look in looks] == [(1, "experiment")] * 2
    record = ExperimentStore(shell.artifacts).get(found.experiment_id).record()
    assert {corpus.name for corpus in record.corpora.values()} == {corpus.sha256 for corpus in record.corpora.values()}
    assert [passages.name.split("/")[1] for passages in record.passages.values()] == ["kk", "tr"]
    assert {row.scoring_mode for row in matrix_of(found)} == {"unk"}
    assert {(row.n_pairs, row.r, row.p) for row in found.correlations} == {(2, None, None)}
    assert [row.is_primary for row in found.correlations].count(True) == 1
    assert found.headline == ("lstm", "passages")
    [leak] = [one.leak for one in found.leaks if (one.language, one.text_id) == ("kk", "passages-kk")]
    assert leak.lines > 0.5


@pytest.mark.parametrize(
    ("words", "begin", "end"),
    [
        ("turkic", "There is no corpus 'tr'", " `--corpora FOLDER` takes the texts of a folder.\n"),
        ("smoke --set texts.held_out=false", "`texts` names nothing to score", "\n"),
        ("mine.yaml --corpora one", "'one' has no text for 'tr': put it there as 'tr.txt'.", "\n"),
        ("mine.yaml --corpora several", "'several' has several texts for 'tr': tr.txt, a_tr_ipa.txt.", "\n"),
    ],
)
def test_plan_that_cannot_be_run__says_what_is_missing(shell: Shell, words: str, begin: str, end: str) -> None:
    plan_file(shell.folder, "mine")
    for name in ("one/kk.txt", "several/kk.txt", "several/tr.txt", "several/a_tr_ipa.txt"):
        shell.write(name, some_text())
    refusal = shell.refuse("experiment", "run", *words.split())
    assert refusal.startswith(f"mt: {begin}") and refusal.endswith(end)


@pytest.mark.slow
def test_corpus_beside_the_plan__is_found_and_an_error_ends_the_command(lab_shell: Shell) -> None:
    shell = lab_shell
    add_corpus(shell.root, some_text(), "tr")
    shell.write("kk-text.txt", some_text(90))
    languages: dict[str, object] = {"kk": {"corpus": "kk-text.txt"}, "tr": {}}
    name = plan_file(shell.folder, "short", languages=languages, texts={"min_characters": 1000})
    assert "has no line of at least 1000 characters" in shell.type("experiment", "run", name, code=2)
    assert shell.runs.unfinished() == []


def test_slots__are_as_many_as_trainings_that_leave_cores_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.commands.experiments.physical_cores", lambda: 4)
    settings = settings_in(tmp_path)

    def slots_and_threads(given: Settings, threads: int) -> tuple[int, int]:
        queue = with_slots(given, plan_with({"threads": threads})).queue
        return queue.training_slots, queue.inference_threads

    assert [slots_and_threads(settings, threads) for threads in (0, 1, 2, 3, 8)] == [
        *((1, 0), (4, 1), (2, 2), (1, 0), (1, 0))
    ]
    chosen = changed(settings, queue=QueueSettings(training_slots=3))
    assert slots_and_threads(chosen, 1) == (3, 0)
    chosen = changed(settings, queue=QueueSettings(inference_threads=3))
    assert slots_and_threads(chosen, 1) == (4, 3)
