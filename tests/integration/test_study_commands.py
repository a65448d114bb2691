"""`/mt-study start`, `list`, `show` and `cancel` with the real bot."""

from collections.abc import Mapping
from pathlib import Path

from local_discord import Upload
from tests.support import add_corpus, some_text
from tests.support.bot import AMBER, Place, Read, buttons, labels, place, read
from trainer.artifacts.studies import StudyStore
from trainer.contracts.base import changed
from trainer.contracts.looks import LookCount
from trainer.contracts.studies import LossEstimate, StudyFinalist, StudyResult, StudyTest
from trainer.reports.study_report import study_report

FILE = (
    b"name: rates\ntrain: {corpus: text, model_family: lstm, model_size: tiny}\nspace: {learning_rate: [0.1, 0.01]}\n"
)


async def start_study(here: Place, command: str, options: Mapping[str, str | int | float | Upload]) -> Read:
    """Ask for a study, and press the button that starts it."""
    message = await here.reply(here.bob, command, options)
    return await here.click(here.bob, message, buttons(message)["Start"])


async def test_study__starts_from_a_file_or_options_and_ends_by_a_button(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with place(tmp_path) as here:
        assert "No studies yet. Start one with `/mt-study start`." in (await here.ask(here.bob, "mt-study list")).text
        nothing = await here.ask(here.bob, "mt-study start")
        assert "Give a `config` file, or a `corpus`." in nothing.text and nothing.colour == AMBER
        call = await here.discord.slash(here.bob, "mt-study start", {"config": Upload("rates.yml", FILE)})
        asked, studies = await read(call), StudyStore(tmp_path / "artifacts")
        assert "❔ Start the study rates?" in asked.text and "**At most 11 trainings** · How long" in asked.text
        assert "v1: learning_rate 0.1\nv2: learning_rate 0.01" in asked.text and studies.all() == []
        same = FILE.replace(b"0.01]", b"0.01, 1.0e-1]")
        preview = await here.ask(here.bob, "mt-study start", {"config": Upload("rates.yml", same)})
        assert "v3 is equal to v1: trained once" in preview.text and "v3: " not in preview.text
        message = await call.reply()
        call = await here.discord.click(here.bob, message, buttons(message)["Start"])
        started = await read(call)
        assert "⏳ Queued: study rates" in started.text and "No worker is running" in started.text
        [study] = studies.all()
        assert [one.effective.learning_rate for one in study.record().variants] == [0.1, 0.01]
        assert study.record().user_id == here.bob.id
        message = await call.reply()
        assert labels(message) == ["Refresh", "Cancel", "Watch"]
        listed = await here.ask(here.ana, "mt-study list")
        assert f"`{study.study_id}` · queued · 0 of 11 runs" in listed.text
        [suggested] = await here.suggested(here.bob, "mt-study show", "study", "rat")
        assert suggested.value == study.study_id
        cancelling = await here.discord.click(here.bob, message, f"mt:cancel_study:{study.study_id}")
        assert "⏹ Cancelled: study rates" in (await read(cancelling)).text and study.cancel_requested()
        assert "has already ended" in (await here.ask(here.bob, "mt-study cancel", {"study": study.study_id})).text
        again = await here.ask(here.bob, "mt-study start", {"config": Upload("rates.yml", FILE)})
        assert "Start the study rates?" in again.text, "the cancelled one may start again"
        await start_study(here, "mt-study start", {"corpus": "text", "variants": 5})
        usual = next(one for one in studies.all() if one.study_id != study.study_id)
        assert (usual.record().request.name, len(usual.record().variants)) == ("text", 5)
        shown = await here.ask(here.bob, "mt-study start", {"corpus": "text", "variants": 5})
        assert "⏳ Queued: study text" in shown.text, "one that has begun is shown"


async def test_train__with_search_starts_a_study(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with place(tmp_path) as here:
        options: dict[str, str | int | float | Upload] = {"search": 3, "model": "lstm", "name": "Words"}
        started = await start_study(here, "train", {**options, "corpus": "text"})
        assert "⏳ Queued: study words" in started.text
        [study] = StudyStore(tmp_path / "artifacts").all()
        assert len(study.record().variants) == 3 and here.runs() == []
        attached = await here.ask(here.bob, "train", {**options, "file": Upload("a.txt", some_text().encode())})
        assert "`search` needs a corpus with a name" in attached.text and attached.colour == AMBER


async def test_completed_study__shows_the_winner_and_its_tables(tmp_path: Path) -> None:
    add_corpus(tmp_path, some_text())
    async with place(tmp_path) as here:
        await start_study(here, "mt-study start", {"config": Upload("rates.yml", FILE)})
        [study] = StudyStore(tmp_path / "artifacts").all()
        record, loss = study.record(), LossEstimate(value=2.0, low=1.9, high=2.1)
        finalist = StudyFinalist(variant=2, name="v2", n_completed=3, n_lost=0, val_loss=loss, val_bits_per_char=None)
        looks = LookCount(test_id="0" * 64, looks=1, runs=31)
        result = StudyResult(
            study_id=study.study_id,
            name="rates",
            objective="causal_lm",
            variants=tuple(one.setting for one in record.variants),
            trials=(),
            finalists=(finalist,),
            winner=record.variants[1].setting,
            test=StudyTest(run_ids=("a", "b"), test_loss=loss, bits_per_char=None, looks=looks, baseline=None),
        )
        study.write_result(result, {"report.json": study_report(result, record.request).model_dump_json()})
        shown = await here.ask(here.bob, "mt-study show", {"study": study.study_id})
        assert "✅ Completed: study rates" in shown.text and "Rule: the lowest mean validation loss" in shown.text
        assert "1 look at this test text; 31 runs trained on its corpus" in shown.text
        assert "🏆 v2" in (await here.ask(here.bob, "mt-study list")).text
        uncounted = StudyTest(run_ids=("a", "b"), test_loss=loss, bits_per_char=None, looks=None, baseline=None)
        alone = study_report(changed(result, test=uncounted), record.request)
        assert "at this test text" not in alone.model_dump_json()
        unread = changed(result, test=None)
        assert "The test split was not read" in study_report(unread, record.request).model_dump_json()
