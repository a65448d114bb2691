"""`/mt-reading start`, `list`, `show` and `cancel` with the real bot."""

from pathlib import Path

from local_discord import Upload
from local_discord.client import OptionValue
from tests.support import add_corpus, settings_in, some_text
from tests.support.bot import labels, place, read
from tests.support.finished_runs import finished_run
from tests.support.readings import LINES, times_table
from trainer.artifacts.readings import ReadingStore
from trainer.config.settings import SecuritySettings
from trainer.contracts.readings import Coefficient, DeltaLogLikelihood, Excluded, ReadingFit, ReadingResult
from trainer.data.corpora import CorpusStore
from trainer.reports.reading_report import reading_report

OPEN = {"security": SecuritySettings(surprisals="all")}
"""Settings with which everybody gets counts of the runs, which nobody owns."""

TIMES = Upload("times.csv", times_table().encode())


def runs_in(folder: Path, *families: str) -> list[str]:
    """Completed runs whose training text is there."""
    add_corpus(folder, some_text())
    corpus = CorpusStore(settings_in(folder)).find("text")
    return [finished_run(folder, family, corpus=corpus).run_id for family in families]


async def test_reading__starts_from_an_attached_table_and_ends_by_a_button(tmp_path: Path) -> None:
    runs = runs_in(tmp_path, "lstm", "gpt2")
    async with place(tmp_path, groups=OPEN) as here:
        nothing = await here.ask(here.bob, "mt-reading list")
        assert "No reading times yet. Start with `/mt-reading start`." in nothing.text
        table = Upload("times.csv", times_table(("RT_ms",)).encode())
        chosen = "scale: log, columns: {self_paced: RT_ms}, exclude: []"
        options: dict[str, OptionValue] = {"data": table, "run": ", ".join(runs), "options": chosen}
        call = await here.discord.slash(here.bob, "mt-reading start", options)
        started = await read(call)
        assert "⏳ Queued: reading times.csv" in started.text and "No worker is running" in started.text
        [reading] = ReadingStore(tmp_path / "artifacts").all()
        record = reading.record()
        assert [one.name for one in record.runs] == runs and record.user_id == here.bob.id
        assert (record.options.scale, record.data.n_texts, record.measures) == ("log", len(LINES), ("self_paced",))
        assert record.options.exclude == ()
        message = await call.reply()
        assert labels(message) == ["Refresh", "Cancel", "Watch"]
        listed = await here.ask(here.ana, "mt-reading list")
        assert f"`{reading.reading_id}` · times.csv · 2 runs · queued" in listed.text
        [suggested] = await here.suggested(here.bob, "mt-reading show", "reading", "tim")
        assert suggested.value == reading.reading_id
        cancelling = await here.discord.click(here.bob, message, f"mt:cancel_reading:{reading.reading_id}")
        assert "⏹ Cancelled: reading times.csv" in (await read(cancelling)).text and reading.cancel_requested()
        again = await here.ask(here.bob, "mt-reading cancel", {"reading": reading.reading_id})
        assert "has already ended" in again.text


async def test_table__that_is_none_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    [run_id], gone = runs_in(tmp_path, "lstm"), finished_run(tmp_path, "lstm").run_id
    few, western = times_table(lines=LINES[:4]).encode(), Upload("times.csv", "text,position,café\n".encode("cp1252"))
    async with place(tmp_path, groups=OPEN) as here:
        for upload, run, said in (
            (Upload("times.pdf", b"%PDF"), run_id, "`data` must be a table of reading times whose name ends in .csv"),
            (Upload("times.csv", few), run_id, "need 5 or more texts, and the table has 4"),
            (Upload("times.csv", b""), run_id, "'times.csv'"),
            (Upload("times.csv", b"text,position\n1,2\n"), run_id, "no column is known as that of the word"),
            (western, run_id, "its letters depend on the code page: 'café' (windows-1252), 'cafй' (windows-1251)"),
            (TIMES, gone, f"counted in the training text of '{gone}', which is deleted or has changed"),
            (TIMES, "no-such-run", "There is no run or group 'no-such-run'"),
            (TIMES, f"{run_id}, {run_id}", "`runs` must be different from each other"),
            (TIMES, f"{run_id}@7", f"The run '{run_id}' has no checkpoints"),
        ):
            answer = await here.ask(here.bob, "mt-reading start", {"data": upload, "run": run})
            assert said in answer.text
        encoding = "encoding: windows-1252"
        answer = await here.ask(here.bob, "mt-reading start", {"data": western, "run": run_id, "options": encoding})
        assert "it has `text`, `position`, `café`" in answer.text
        for given, said in (
            ("scale: log, speed: 2", "`speed`"),
            ("scale: lin", "`scale`"),
            ("columns: {maze: rt", "'options' is not YAML"),
            ("measures: [gaze]", "has no times of gaze, but of self_paced"),
        ):
            answer = await here.ask(here.bob, "mt-reading start", {"data": TIMES, "run": run_id, "options": given})
            assert said in answer.text
        for action in ("show", "cancel"):
            answer = await here.ask(here.bob, f"mt-reading {action}", {"reading": "no-such"})
            assert "There is no reading 'no-such'" in answer.text
    assert ReadingStore(tmp_path / "artifacts").ids() == []


async def test_completed_reading__shows_what_surprisal_explains_and_sends_its_page(tmp_path: Path) -> None:
    [run_id] = runs_in(tmp_path, "lstm")
    async with place(tmp_path, groups=OPEN) as here:
        await here.ask(here.bob, "mt-reading start", {"data": TIMES, "run": run_id})
        [reading] = ReadingStore(tmp_path / "artifacts").all()
        record, gain = reading.record(), DeltaLogLikelihood(estimate=0.0125, low=0.01, high=0.015)
        fit = ReadingFit(
            model=run_id,
            family="lstm",
            params=1200,
            step=20,
            series="0" * 64,
            measure="self_paced",
            analysis="means",
            n_observations=56,
            n_texts=8,
            excluded=(Excluded(reason="first", n_rows=8), Excluded(reason="too_long", n_rows=0)),
            perplexity=12.5,
            coefficients=(Coefficient(predictor="surprisal", unit="ms per bit", estimate=3.5, low=2.5, high=4.5),),
            delta_log_likelihood=gain,
            spline_delta_log_likelihood=gain,
            person_sd=None,
            unit_sd=None,
            residual_sd=60.0,
            collinearity=0.5,
        )
        result = ReadingResult(reading_id=reading.reading_id, data=record.data, fits=(fit,))
        report = reading_report(result, record, {})
        reading.write_result(result, {"report.json": report.model_dump_json(), "report.html": "<p>3.5 ms</p>"})
        shown = await here.discord.slash(here.bob, "mt-reading show", {"reading": reading.reading_id})
        answer, message = await read(shown), await shown.reply()
        assert (
            "✅ Completed: reading times.csv" in answer.text and "self-paced reading: gains of surprisal" in answer.text
        )
        assert "0.0125" in answer.text and "Left out: 8 rows of first units of texts" in answer.text
        assert "too long" not in answer.text
        assert {"Page", "ZIP", "Delete…"} <= {*labels(message)}
        pressed = await here.discord.click(here.bob, message, f"mt:readpage:{reading.reading_id}")
        [attachment] = (await pressed.reply()).attachments
        assert here.discord.read(attachment) == b"<p>3.5 ms</p>"
