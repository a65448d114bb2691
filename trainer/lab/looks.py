"""Work on test splits: unlock them for runs, and lock those of a corpus."""

import asyncio
from hashlib import sha256

import structlog

from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.evaluations import EvalMetrics, EvalRecord, EvalRequest
from trainer.contracts.looks import TextLock, Unlocked, UnlockedRun, UnlockRequest
from trainer.contracts.operations import Role
from trainer.contracts.parameters import CorpusPath, NoBody, NoQuery, WaitQuery
from trainer.contracts.runs import EvalSummary, RunManifest
from trainer.data.line_keys import TextLines, lines_of_corpus
from trainer.lab.lab import Asked, Lab
from trainer.lab.permissions import Caller
from trainer.lab.waits import at_end

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


async def unlock(lab: Lab, asked: Asked[NoQuery, WaitQuery, UnlockRequest]) -> Unlocked:
    """Read the test split once for completed runs, and write down who, when and which; with `wait`, until it is read.

    The named runs together are one look at each test text. The same request again is no new look.
    """
    caller, looks, by_id = asked.caller, lab.stores.looks, dict[str, RunManifest]()
    for given in asked.body.runs:
        name = await lab.run_name(caller, given, or_group=True)
        by_id |= {one.run_id: one for one in await lab.manifests(caller, name, Role.OWNER)}
    by_test: dict[str, list[RunManifest]] = {}
    for run_id, manifest in by_id.items():
        test_id = manifest.effective.test_id
        if test_id is None:
            raise AppError(ErrorCode.INVALID_INPUT, f"The run '{run_id}' has no test split: name other runs.")
        by_test.setdefault(test_id, []).append(manifest)
    queue = await lab.live()
    for test_id, tested in by_test.items():
        run_ids = [one.run_id for one in tested]
        await asyncio.to_thread(looks.record, test_id, run_ids, "unlock", caller.owner)
    await queue.replication.share_looks()
    log.info("test_unlocked", user_id=caller.discord_id, api_key=caller.key_name, names=", ".join(by_id))

    async def read() -> Unlocked:
        found = [await _measured(lab, caller, run_id) for run_id in by_id]
        counts = [await asyncio.to_thread(looks.count, first.effective) for first, *_others in by_test.values()]
        return Unlocked(runs=tuple(found), looks=tuple(one for one in counts if one is not None))

    return await at_end(read, asked.query.wait)


async def _measured(lab: Lab, caller: Caller, run_id: str) -> UnlockedRun:
    """Return the losses of a run on its test split; without them, let a worker measure them."""
    client, request_id = (await lab.live()).inference, sha256(f"unlock {run_id}".encode()).hexdigest()[:32]
    manifest: RunManifest = await asyncio.to_thread(lab.stores.runs.get(run_id).completed_manifest)
    known = manifest.evaluation("test")
    if known is not None:
        return _unlocked(run_id, known)
    response = await client.submit(
        run_id, EvalRequest(split="test"), user_id=caller.discord_id, api_key=caller.key_name, request_id=request_id
    )
    if response.status == "failed":
        await client.delete(EvalRecord, run_id, request_id)  # the next call tries again
    waiting = UnlockedRun(run_id=run_id, status=response.status, error=response.error)
    return waiting if response.metrics is None else _unlocked(run_id, response.metrics)


def _unlocked(run_id: str, measured: EvalSummary | EvalMetrics) -> UnlockedRun:
    return UnlockedRun(
        run_id=run_id,
        status="completed",
        test_loss=measured.loss,
        test_perplexity=measured.perplexity,
        bits_per_char=measured.bits_per_char,
    )


async def lock_corpus(lab: Lab, asked: Asked[CorpusPath, NoQuery, NoBody]) -> TextLock:
    """Lock the test split of each later run on a text: an unlock reads it. Only admins may do this."""
    corpora, caller = lab.stores.corpora, asked.caller
    name = await asyncio.to_thread(corpora.full_name, asked.path.corpus)
    text: TextLines = await asyncio.to_thread(lambda: lines_of_corpus(corpora.find(name)))
    lock = await asyncio.to_thread(lab.stores.looks.lock, text, caller.owner)
    await lab.stores.replication.share_looks()
    log.info("corpus_locked", user_id=caller.discord_id, api_key=caller.key_name, corpus=name)
    return lock
