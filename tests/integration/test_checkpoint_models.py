"""`RUN@3` wherever a run is named: its answers are those of the checkpoint's weights, not those of the run."""

from pathlib import Path

import pytest
import torch

import trainer
from local_discord.state import StoredMessage
from local_discord.wire import text
from tests.support import ended, some_text, tiny_request, wait_for_status
from tests.support.batteries import PAIRS
from tests.support.bot import buttons
from tests.support.checkpoints import keep_checkpoint
from tests.support.http import Site
from tests.support.inference import RUN
from tests.support.inference_bot import place, said
from tests.support.refusals import refused
from tests.support.run_shell import Shell
from trainer.artifacts.run_files import RunFiles
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.batteries import BatterySummary
from trainer.contracts.chats import ChatRequest, ChatResponse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.evaluations import EvalMetrics, EvalRequest, EvalResponse
from trainer.contracts.predictions import PredictRequest, PredictResponse
from trainer.contracts.scores import ScoreResponse
from trainer.export.folders import load_export
from trainer.reports.comparison import Comparison

STEP = 3
PREDICT = PredictRequest(text="abc a", k=5)


@pytest.fixture(name="kept")
def kept_fixture(run: RunDirectory) -> str:
    """The name of a checkpoint of the lab's run, with half of its weights."""
    keep_checkpoint(run, STEP)
    return f"{run.run_id}@{STEP}"


async def test_checkpoint__chats_completes_and_is_evaluated_over_http(here: Site, run: RunDirectory, kept: str) -> None:
    before = run.result.read_bytes()
    metrics: dict[str, EvalMetrics] = {}
    for name in (kept, run.run_id):
        answer = await here.post(f"/runs/{name}/evaluate?wait=60", EvalRequest(split="validation"))
        metrics[name] = answer.record(EvalResponse).measured()
        if name == kept:
            assert run.result.read_bytes() == before, "the evaluation of a checkpoint is no result of its run"
    assert metrics[kept].checkpoint == f"checkpoints/scheduled/step-{STEP}"
    assert metrics[kept].loss > metrics[run.run_id].loss
    said_first = (await here.post(f"/runs/{kept}/chat?wait=60", ChatRequest(message="abc"))).record(ChatResponse)
    again = ChatRequest(message="abc", session_id=said_first.session_id)
    answers = [
        (await here.post(f"/runs/{name}/chat?wait=60", again)).record(ChatResponse) for name in (kept, run.run_id)
    ]
    assert [answer.model for answer in answers] == [kept, run.run_id]
    body = {"model": kept, "prompt": "abc ", "max_tokens": 8, "temperature": 0}
    completed = (await here.post("/v1/completions", body)).fields
    greedy = trainer.load(f"{run.path}@{STEP}").generate("abc ", max_new_tokens=8, temperature=0)
    assert completed["model"] == kept
    assert completed["choices"] == [{"text": greedy[0], "index": 0, "logprobs": None, "finish_reason": "length"}]
    predicted = await here.post(f"/predict?run_id={kept}", PREDICT)
    assert predicted.record(PredictResponse).model == kept
    files = (await here.get(f"/runs/{kept}/files")).record(RunFiles)
    assert {file.step for file in files.files} == {STEP}
    missing = await here.post(f"/runs/{run.run_id}@{STEP + 1}/score", {"text": "abc"})
    assert missing.outcome == (404, "DATA_NOT_FOUND")
    key = {"Idempotency-Key": "the-same"}
    for name, status in ((kept, 200), (run.run_id, 409)):
        assert (await here.post("/v1/completions", {**body, "model": name}, headers=key)).status == status


async def test_checkpoint__is_what_another_training_begins_with(here: Site, run: RunDirectory, kept: str) -> None:
    request = tiny_request(init_from_run_id=kept, max_steps=1, learning_rate=1e-30)
    run_id = (await here.queue.train(request, user_id=None)).run_id
    assert (await wait_for_status(here.queue, run_id, ended)).status == "completed"
    child, parent = here.queue.runs.get(run_id), trainer.load(f"{run.path}@{STEP}")
    assert child.record().effective.init_from_run_id == kept
    assert child.completed_manifest().parent_run_id == run.run_id
    began: dict[str, torch.Tensor] = parent.model.state_dict()
    has: dict[str, torch.Tensor] = trainer.load(child.path).model.state_dict()
    assert all(torch.equal(has[name], weight) for name, weight in began.items())
    deleting = await here.ask("DELETE", f"/runs/{run.run_id}")
    assert deleting.outcome == (409, "CONFLICT"), "a run that others start from stays"


def test_commands__take_checkpoints(lab_shell: Shell, tmp_path: Path) -> None:
    run = lab_shell.train("--corpus", "text")
    keep_checkpoint(run, STEP)
    kept, loaded = f"{run.run_id}@{STEP}", trainer.load(f"{run.path}@{STEP}")
    short = f"{run.run_id[:-1]}@{STEP}"
    assert lab_shell.read(ScoreResponse, "score", short, "abc").nats == loaded.score("abc").nats
    assert f"({kept}): validation" in lab_shell.type("eval", kept)
    assert lab_shell.read(EvalMetrics, "eval", kept).checkpoint == f"checkpoints/scheduled/step-{STEP}"
    [line] = lab_shell.type("generate", kept, "ab", "--temperature", "0", "--max-new-tokens", "5").splitlines()
    assert [line] == loaded.generate("ab", temperature=0, max_new_tokens=5)
    assert lab_shell.type("chat", kept, typed="ab\n").count("\n") == 1
    token = loaded.predict_next("ab", 1)[0].token
    assert token in lab_shell.type("predict", kept, "ab", "--k", "1")
    assert f"step-{STEP}/model.safetensors" in lab_shell.type("files", kept)
    assert "loss_curve" not in lab_shell.out
    lab_shell.type("export", kept, "--format", "hf", "--out", "exported")
    record, model, _ = load_export(lab_shell.folder / "exported")
    own: dict[str, torch.Tensor] = loaded.model.state_dict()
    exported: dict[str, torch.Tensor] = model.state_dict()
    assert record.checkpoint == STEP
    assert all(torch.equal(exported[name], weight) for name, weight in own.items())
    card = (lab_shell.folder / "exported" / "README.md").read_text(encoding="utf-8")
    assert f"| checkpoint | after step {STEP} |" in card and "validation loss" not in card
    assert trainer.load(lab_shell.folder / "exported").score("abc").checkpoint == STEP
    with refused(ErrorCode.INVALID_INPUT, "holds one model: leave out '@3'"):
        trainer.load(f"{lab_shell.folder / 'exported'}@3")
    lab_shell.write("pairs.csv", PAIRS)
    summary = lab_shell.read(BatterySummary, "battery", "run", run.run_id, kept, "pairs.csv")
    assert [one.run.name for one in summary.runs] == [run.run_id, kept]
    assert [one.groups for one in summary.runs[1:]] == [one.groups for one in loaded.battery("pairs.csv").runs]
    unseen = str(lab_shell.write("unseen.txt", "\n".join(some_text(130).splitlines()[60:])))
    on_split, on_unseen, on_training = (
        lab_shell.read(Comparison, "compare", run.run_id, kept, *words)
        for words in ([], ["--path", unseen], ["--path", "text"])
    )
    test = lab_shell.read(EvalMetrics, "eval", kept, "--split", "test")
    assert [one.run_id for one in on_split.runs] == [run.run_id, kept]
    assert on_split.runs[1].loss == pytest.approx(test.loss, abs=1e-6)
    verdicts = [found.against[0].verdict for found in (on_split, on_unseen, on_training)]
    assert verdicts == ["no_interval", "better", "not_comparable"], "of few lines; of others; of those trained on"
    told = lab_shell.type("eval", kept, "--path", "text")
    assert "in training" in told and f"stand in the training text of `{run.run_id}`" in told
    assert "cannot be compared with itself" in lab_shell.refuse("compare", kept, kept)
    refusals = {
        ("eval", kept, "--latest"): "are not stored",
        ("export", kept, "--format", "archive", "--out", "x.tar"): "name the run itself",
        ("status", kept): "is a checkpoint: name its run here",
        ("generate", f"{run.run_id}@4", "a"): f"has kept no checkpoint '4'. It has those of the steps {STEP}",
        ("train", "--corpus", "text", "--init-from", f"{run.run_id}@9"): "`init_from_run_id` names no checkpoint",
    }
    for words, says in refusals.items():
        assert says in lab_shell.refuse(*words)


@pytest.mark.slow
async def test_discord__suggests_checkpoints_and_its_buttons_keep_them(answers: Path) -> None:
    run = RunStore(answers / "artifacts").get(RUN)
    for step in (5, 50, 7):
        keep_checkpoint(run, step)
    kept = f"{RUN}@50"
    async with place(answers) as here, here.bot(workers=0):

        async def suggested(command: str, typed: str) -> list[object]:
            return [one.value for one in await here.discord.autocomplete(here.bob, command, "run", typed)]

        assert await suggested("mt score", f"{RUN}@") == [f"{RUN}@50", f"{RUN}@7", f"{RUN}@5"]
        assert await suggested("mt generate", f"{RUN}@5") == [f"{RUN}@50", f"{RUN}@5"]
        assert await suggested("mt status", f"{RUN}@5") == []
        assert await suggested("mt score", "unknown@5") == []

        def footer(message: StoredMessage) -> str:
            footer = message.embeds[0]["footer"]
            assert isinstance(footer, dict)
            return text(footer["text"]).partition(" · ")[0]

        scored = await here.ask(here.bob, "score", run=kept, text="the sun")
        of_run = await here.ask(here.bob, "score", run=RUN, text="the sun")
        assert (footer(scored), footer(of_run)) == (kept, RUN)
        assert said(scored) != said(of_run)
        written = await here.ask(here.bob, "generate", run=kept, prompt="the", seed=1)
        assert footer(written) == kept and "Again" in buttons(written)
        for label in ("Again", "Score this"):
            assert footer(await here.click(here.bob, written, label)) == kept
        assert footer(await here.ask(here.bob, "predict", run=kept, text="the")) == kept
        for command in ("generate", "score"):
            form = await (await here.discord.slash(here.bob, f"mt {command}", {"run": kept})).form()
            assert text(form["title"]) == f"{command.capitalize()} with {RUN}"
        talk = await here.ask(here.bob, "chat", run=kept, message="the")
        assert footer(talk) == kept
        report = await here.ask(here.ana, "score", run=kept, text="the sun", detail="per_char")
        assert footer(report) == kept
        assert "has kept no checkpoint '6'" in said(await here.ask(here.bob, "score", run=f"{RUN}@6", text="the"))
