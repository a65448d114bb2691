"""Enqueues the jobs of one artifacts folder; the worker restores lost jobs with it."""

import asyncio

from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import Settings
from trainer.contracts.jobs import InferenceJobPayload, TokenizerTrainPayload, TrainJobPayload
from trainer.store import keys
from trainer.store.store import Store


class Enqueuer:
    """Enqueues jobs by id; enqueueing a job that is in its queue already changes nothing."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._root = settings.app.artifacts_root
        self._lease_seconds = settings.queue.lease_seconds
        self._training_queue = settings.queue.name
        self._store = store
        self._artifacts = ""

    async def train(self, run_id: str) -> None:
        await self._store.enqueue(*self._training(run_id), artifacts=await self._artifacts_id())

    async def train_tokenizer(self, tokenizer_id: str) -> None:
        await self._store.enqueue(*_tokenizer_training(tokenizer_id), artifacts=await self._artifacts_id())

    async def infer(self, payload: InferenceJobPayload) -> None:
        artifacts = await self._artifacts_id()
        await self._store.enqueue(keys.INTERACTIVE_QUEUE, "infer", payload.request_id, payload, artifacts=artifacts)

    async def restore_training(self, run: RunDirectory) -> bool:
        """Enqueue an unfinished run again if its queue has lost it; return whether it had."""
        since = (await asyncio.to_thread(run.record)).created_at.timestamp()
        return await self._store.restore(
            *self._training(run.run_id),
            since=since,
            lease_seconds=self._lease_seconds,
            artifacts=await self._artifacts_id(),
        )

    async def restore_tokenizer(self, tokenizer: TokenizerDirectory) -> bool:
        """Enqueue an unfinished tokenizer again if its queue has lost it; return whether it had."""
        since = (await asyncio.to_thread(tokenizer.record)).created_at.timestamp()
        return await self._store.restore(
            *_tokenizer_training(tokenizer.tokenizer_id),
            since=since,
            lease_seconds=self._lease_seconds,
            artifacts=await self._artifacts_id(),
        )

    def _training(self, run_id: str) -> tuple[str, str, str, TrainJobPayload]:
        return self._training_queue, "train", run_id, TrainJobPayload(run_id=run_id)

    async def _artifacts_id(self) -> str:
        self._artifacts = self._artifacts or await asyncio.to_thread(own_artifacts_id, self._root)
        return self._artifacts


def _tokenizer_training(tokenizer_id: str) -> tuple[str, str, str, TokenizerTrainPayload]:
    payload = TokenizerTrainPayload(tokenizer_id=tokenizer_id)
    return keys.TOKENIZER_QUEUE, "train_tokenizer", tokenizer_id, payload
