"""How soon a warm model's scores come back over Redis, for the tiny preset of every family; none lost, none mixed up.

    python -m benchmarks.warm_score [FAMILY …]

A worker in a process of its own, at a Valkey that syncs every write to disk as the embedded one does. Each family is
trained for one step; then 200 sentences are scored one after another and 200 at once, all of them different. Prints the
time from the call to the answer's first byte, which is when the caller has all of it, and exits 1 where a goal is
missed, an answer did not come, or one is not what the same model says of the same sentence in this process. What else
the machine does counts: a family is measured again while others take more than a twentieth of it, and the quietest
measurement is told with their share.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.queue_latency import QUIET_SHARE, machine_ticks, ticks_of, with_descendants
from trainer.config.settings import AppSettings, LoggingSettings, Settings
from trainer.contracts.inference import ScoreRequest, ScoreResponse
from trainer.contracts.runs import TrainRequest
from trainer.contracts.validation import parse
from trainer.inference.model_files import load_run
from trainer.inference.scoring import ScoringJob, score_texts
from trainer.jobs.queue import JobQueue
from trainer.jobs.services import Services

MOST_MS, SCORES, TRIES = 50.0, 200, 4
SAME_NATS = 1e-4
FAMILIES = ("lstm", "gru", "rnn", "gpt2", "llama", "qwen", "bert")
WORDS = "the sun was shining on sea with all his might did very best to make billows smooth and bright".split()


class Figures(NamedTuple):
    """Of 200 scores."""

    times_ms: list[float]
    """From the call to the answer; sorted."""
    wrong: int
    """Answers that are another text's."""

    def p99(self) -> float:
        return self.times_ms[int(len(self.times_ms) * 0.99)]

    def told(self, name: str) -> str:
        return (
            f"{name:<6} p50 {median(self.times_ms):6.1f}  p99 {self.p99():6.1f}  max {self.times_ms[-1]:6.1f} ms,"
            f" {self.wrong} wrong"
        )


class Measured(NamedTuple):
    """Of a family."""

    in_turn: Figures
    at_once: Figures
    foreign_share: float
    """Of the processor time, what went to processes that are not of the benchmark."""


async def main(families: tuple[str, ...]) -> int:
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            app=AppSettings(data_root=Path(folder) / "data", artifacts_root=Path(folder) / "artifacts"),
            logging=LoggingSettings(level="WARNING"),
        )
        corpus = settings.app.data_root / "corpus" / "text.txt"
        corpus.parent.mkdir(parents=True)
        corpus.write_text("\n".join(sentences(300)), encoding="utf-8")
        services = Services(settings)
        queue = await JobQueue.connect(settings, await services.start())
        try:
            for family in families:
                found = await quietest(queue, family)
                print(
                    f"{family:<6} {found.in_turn.told('in turn')};  {found.at_once.told('at once')}"
                    f"  (others took {found.foreign_share:.0%})"
                )
                if found.in_turn.p99() >= MOST_MS:
                    missed.append(f"{family} in turn: p99 < {MOST_MS:g} ms")
                if found.in_turn.wrong or found.at_once.wrong:
                    missed.append(f"{family}: each answer is that of its own text")
        finally:
            await queue.close()
            await services.stop()
    print(f"missed: {'; '.join(missed)}" if missed else "all goals met")
    return 1 if missed else 0


async def quietest(queue: JobQueue, family: str) -> Measured:
    """Measure a family until the machine is quiet, some times at most; a wrong answer counts whenever it came."""
    run_id = await trained(queue, family)
    expected = scored_here(queue, run_id)
    await queue.inference.score(run_id, ScoreRequest(text=next(iter(expected))))  # which loads the model
    made: list[Measured] = []
    while len(made) < TRIES and all(found.foreign_share > QUIET_SHARE and not wrong_in(found) for found in made):
        (there, used), ours = machine_ticks(), own_ticks()
        in_turn = [await asked(queue, run_id, text) for text in expected]
        at_once = await asyncio.gather(*(asked(queue, run_id, text) for text in expected))
        there, used = machine_ticks()[0] - there, machine_ticks()[1] - used
        spent = sum(ticks - ours.get(pid, 0) for pid, ticks in own_ticks().items())  # the run's child ends by then
        share = max(0, used - spent) / there
        made.append(Measured(figures_of(in_turn, expected), figures_of(at_once, expected), share))
    return sorted(made, key=foreign_share_of)[0] if not any(map(wrong_in, made)) else made[-1]


def own_ticks() -> dict[int, int]:
    """The processor time of this process and those below it, by their ids."""
    return {pid: ticks_of(pid) for pid in with_descendants(os.getpid())}


def foreign_share_of(found: Measured) -> float:
    return found.foreign_share


def wrong_in(found: Measured) -> int:
    return found.in_turn.wrong + found.at_once.wrong


def figures_of(answers: list[tuple[float, ScoreResponse]], expected: dict[str, ScoreResponse]) -> Figures:
    wrong = sum(not is_same(answer, here) for (_, answer), here in zip(answers, expected.values(), strict=True))
    return Figures(sorted(milliseconds for milliseconds, _ in answers), wrong)


async def trained(queue: JobQueue, family: str) -> str:
    fields: dict[str, object] = {"model_family": family, "model_size": "tiny", "corpus": "text", "max_steps": 1}
    fields |= {"tokenizer": {"method": "char"}, "device": "cpu"}
    run_id = (await queue.train(parse(TrainRequest, fields), user_id=None)).run_id
    while (status := await queue.status(run_id)).status in ("queued", "running"):
        await asyncio.sleep(0.1)
    if status.status != "completed":
        raise RuntimeError(f"{family}: {status.message}")
    return run_id


def scored_here(queue: JobQueue, run_id: str) -> dict[str, ScoreResponse]:
    """What the model says of each sentence in this process, one at a time."""
    model, tokenizer = load_run(queue.runs.get(run_id))
    found: dict[str, ScoreResponse] = {}
    for text in sentences(SCORES):
        queued = ScoreResponse(request_id="here", run_id=run_id, status="queued")
        request = ScoreRequest(text=text, detail_level="per_char")
        [found[text]] = score_texts(model, tokenizer, [ScoringJob.of(tokenizer, request, queued)])
    return found


async def asked(queue: JobQueue, run_id: str, text: str) -> tuple[float, ScoreResponse]:
    """The milliseconds that an answer took, and the answer."""
    began = time.perf_counter()
    answer = await queue.inference.score(run_id, ScoreRequest(text=text, detail_level="per_char"))
    return (time.perf_counter() - began) * 1000, answer


def is_same(answer: ScoreResponse, here: ScoreResponse) -> bool:
    if answer.tokens != here.tokens or answer.surprisal is None or here.surprisal is None:
        return False
    pairs = zip(answer.surprisal, here.surprisal, strict=True)
    return all(a is not None and b is not None and abs(a - b) < SAME_NATS for a, b in pairs)


def sentences(count: int) -> list[str]:
    """So many sentences of some words, no two alike."""
    draw = random.Random(3)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(draw.choices(WORDS, k=draw.randint(6, 12)))] = None
    return list(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(asyncio.run(main(tuple(sys.argv[1:]) or FAMILIES)))
