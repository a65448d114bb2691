"""Rights on texts and on what is made of them: who may read a text, get weights and vocabularies, and count words.

Each question has one answer here, for all operations, fields and faces. docs/privacy.md says the rules to people.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.artifacts.tokenizers import TokenizerDirectory
from trainer.config.settings import SecuritySettings
from trainer.contracts.base import CountOptions, Names, changed, run_of
from trainer.contracts.batteries import DevelopmentOptions
from trainer.contracts.errors import AppError, ErrorCode, at_field, field_error
from trainer.contracts.evaluations import EvalRequest
from trainer.contracts.inference_fields import SHARED_TOKENS, Asks, InferenceRequest, ResponseT
from trainer.contracts.naming import named
from trainer.contracts.operations import Role
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord, TrainRequest
from trainer.contracts.tokenizers import TokenizerCorpus
from trainer.data.text import shown_name
from trainer.lab.permissions import Caller, Permissions, Refused
from trainer.queue.run_index import RunIndex
from trainer.queue.stores import Stores

_NO_WORDS = (
    "Only the owner of this run and admins get surprisals of single words and tokens here. Others get the"
    f" probabilities of the {SHARED_TOKENS} likeliest next tokens, of greedy text only (`temperature` 0)."
)
_NO_TOKENS = (
    "Token ids, `banned_tokens` and `alphabet` are only for those who may get the vocabulary of this run: it has words"
    " of a text of somebody else."
)
_NO_COUNTS = "must be left out: only the owner of a run and admins get counts of its training text"
_NO_QUOTES = (
    "The text of the corpus '{name}' is somebody else's: it gives sums and losses here, no words. Ask for"
    " `detail_level` summary or per_line, for `sample_prompts` none, or give a text of your own."
)
_NO_LIST = (
    "must not be true without `words`: the text of the corpus '{name}' is somebody else's, and its words are not"
    " listed. Name the words to measure in `words`"
)


class Rights:
    """Answers for one installation; the rights of a role on a run or job are those of `Permissions`."""

    def __init__(self, security: SecuritySettings, stores: Stores, index: RunIndex, permissions: Permissions) -> None:
        self._security = security
        self._stores = stores
        self._index = index
        self._permissions = permissions

    async def check_texts(self, caller: Caller, request: object) -> None:
        """Raise DATA_NOT_FOUND if a request names a text that is not stored here, or not for this caller."""
        for field, name in named(request, Names.TEXT):
            if not await self.may_name(caller, name, field):
                with at_field(field):
                    raise self._stores.corpora.unknown(name)

    async def may_name(self, caller: Caller, name: str, field: str = "corpus") -> bool:
        """Return whether requests of the caller may name a text.

        A corpus with a name is for all. A text without one is for those who have sent it or own a run on it.
        """
        if caller.is_admin:
            return True
        await self._index.refresh()
        return await asyncio.to_thread(self._may_name, caller, name, field)

    def _may_name(self, caller: Caller, name: str, field: str) -> bool:
        content = None if caller.is_admin else self._stores.corpora.content_of(name, field)
        return content is None or self._has_sent(caller, content) or self._has_run_on(caller, content)

    def _has_sent(self, caller: Caller, name: str) -> bool:
        return any(map(caller.is_owner, self._stores.corpora.owners(name)))

    def _has_run_on(self, caller: Caller, content: str) -> bool:
        return any(content in run.sent_texts for run in self._index.runs if self._permissions.owns(caller, run))

    async def may_quote(self, caller: Caller, name: str) -> bool:
        """Return whether answers to the caller may have words of a text that requests of the caller may name.

        They may of a name without a corpus, which is refused as that when it is read.
        """
        corpora = self._stores.corpora
        if caller.is_admin or self._security.surprisals == "all":
            return True

        def may_quote() -> bool:
            named = corpora.full_name(name)
            is_sent = corpora.content_of(named, "corpus") is not None or self._has_sent(caller, named)
            return is_sent or corpora.is_bundled(named) or not corpora.has(named)

        return await asyncio.to_thread(may_quote)

    async def unquotable(self, caller: Caller, model: str, name: str | None = None) -> str | None:
        """Return a text of which no answer to the caller may have words: a given one, or else one that the run reads.

        None if there is none.
        """
        names = [one.name for one in (await self._record(model)).effective.corpora] if name is None else [name]
        for one in names:
            if not await self.may_quote(caller, one):
                return one
        return None

    async def _record(self, model: str) -> RunRecord:
        return await asyncio.to_thread(self._stores.runs.get(run_of(model)).record)

    async def check_deletion(self, caller: Caller, name: str) -> None:
        """Raise FORBIDDEN unless the caller may delete a text; raises DATA_NOT_FOUND for a name of none."""
        corpora = self._stores.corpora
        if not caller.is_admin and not await asyncio.to_thread(self._has_sent, caller, name):
            if not await asyncio.to_thread(corpora.has, name):
                raise corpora.unknown(name)
            raise Refused("Only the owner of this corpus and admins may do this.", Role.OWNER, word="corpus")

    async def may_read_words(self, caller: Caller, model: str) -> bool:
        """Return whether the caller may read surprisals of words by a model, and counts of its training text."""
        if caller.is_admin or self._security.surprisals == "all":
            return True
        return self._permissions.owns(caller, await self._record(model))

    async def check_words(self, caller: Caller, *models: str) -> None:
        """Raise FORBIDDEN unless the caller may read surprisals of single words and tokens of some models."""
        for model in models:
            if not await self.may_read_words(caller, model):
                raise AppError(ErrorCode.FORBIDDEN, _NO_WORDS)

    async def may_list_words(self, caller: Caller, model: str) -> bool:
        """Return whether the caller may read the words that a development of a run chooses in its text."""
        return await self.may_read_words(caller, model) and await self.unquotable(caller, model) is None

    async def check_listed_words(self, caller: Caller, options: DevelopmentOptions | None, *models: str) -> None:
        """Raise FORBIDDEN unless the caller may read the words that a development measures: given or chosen ones."""
        if options is None or not options.has_words:
            return
        await self.check_words(caller, *models)
        for model in () if options.words else models:
            name = await self.unquotable(caller, model)
            if name is not None:
                message = _NO_LIST.format(name=shown_name(name))
                raise field_error(ErrorCode.FORBIDDEN, "development.has_words", message)

    async def check_tokens(self, caller: Caller, model: str, request: InferenceRequest | Asks[ResponseT]) -> None:
        """Raise FORBIDDEN for a request with surprisals or tokens of a model that the caller may not get."""
        if request.has_surprisals:
            await self.check_words(caller, model)
        if request.picks_tokens:
            await self._index.refresh()
            run = self._stores.runs.get(run_of(model))
            if not await asyncio.to_thread(self._may_get_vocabulary_of, caller, run):
                raise AppError(ErrorCode.FORBIDDEN, _NO_TOKENS)

    async def allowed_inference(self, caller: Caller, model: str, request: Asks[ResponseT]) -> Asks[ResponseT]:
        """Return a request to a model without quotes and counts that the caller may not get.

        Raises FORBIDDEN for what the caller may not ask for, and DATA_NOT_FOUND for a text of somebody else.
        """
        await self.check_texts(caller, request)
        await self.check_tokens(caller, model, request)
        is_quoting = request.corpus is not None or request.reads_own_text
        name = await self.unquotable(caller, model, request.corpus) if is_quoting else None
        if name is not None:
            unquoted = request.without_quotes()
            if unquoted is None:
                with at_field("sample_prompts" if request.corpus is None else request.corpus_field or ""):
                    raise AppError(ErrorCode.FORBIDDEN, _NO_QUOTES.format(name=shown_name(name)))
            request = unquoted
        if not await self._may_store(caller, model, request):
            request = request.model_copy(update={"is_stored": False})
        if await self.is_without_counts(caller, [model], request):
            request = request.model_copy(update={"has_counts": False})
        return request

    async def _may_store(self, caller: Caller, model: str, request: object) -> bool:
        """Return whether results of a request may be added to a run: False for evaluations of other people's runs.

        Those of admins, who act for the lab, are added, too, unless they name a text: its words and losses are not for
        the owner of the run, nor for others who read the run.
        """
        if not isinstance(request, EvalRequest):
            return True
        owner = (await self._record(model)).owner
        owns = caller.owner is None if owner is None else caller.is_owner(owner)
        return owns or (caller.is_admin and request.path_override is None)

    async def is_without_counts(self, caller: Caller, models: Iterable[str], request: object) -> bool:
        """Return True if a request would count training texts that the caller may not read.

        Raises FORBIDDEN for one that asks for it by name.
        """
        if not isinstance(request, CountOptions) or request.has_counts is False:
            return False
        for model in models:
            if not await self.may_read_words(caller, model):
                if request.has_counts:
                    raise field_error(ErrorCode.FORBIDDEN, "has_counts", _NO_COUNTS)
                return True
        return False

    async def quoting(self, caller: Caller, request: TrainRequest) -> TrainRequest:
        """Return a training whose samples continue no lines of somebody else's corpus, whatever it asks for."""
        for _field, name in named(request, Names.TEXT):
            if request.sample_prompts != "none" and not await self.may_quote(caller, name):
                return changed(request, sample_prompts="none")
        return request

    async def check_weights(self, caller: Caller, run: RunDirectory) -> None:
        """Raise FORBIDDEN unless the caller may get the weights of a run, and of its checkpoints.

        Owners and admins may. With SECURITY__OPEN_WEIGHTS, those who may use the run may too, if they may name all
        texts that it, its tokenizer and the runs before it have read: weights restore the texts.
        """
        record = await asyncio.to_thread(run.record)
        if not self._permissions.owns(caller, record):
            await self._index.refresh()
            if not await asyncio.to_thread(self._are_open, caller, record):
                self._permissions.check(Role.OWNER, caller, record)

    def _are_open(self, caller: Caller, record: RunRecord) -> bool:
        effective = record.effective
        if not self._security.open_weights or not self._permissions.permits(Role.USER, caller, record):
            return False
        trained = [effective, *(one for _, one in self._stores.runs.ancestors(effective))]
        return all(one is not None and self._may_name_all(caller, self._read_texts(one)) for one in trained)

    def _read_texts(self, effective: EffectiveRequest) -> Iterable[CorpusRef]:
        """Return the texts that a run and its tokenizer have read."""
        tokenizer_id = effective.tokenizer_id
        tokenizer = None if tokenizer_id is None else self._stores.tokenizers.find(tokenizer_id)
        return (*effective.corpora, *(() if tokenizer is None else tokenizer.record().corpora))

    def _may_name_all(self, caller: Caller, texts: Iterable[CorpusRef | TokenizerCorpus]) -> bool:
        return all(self._may_name(caller, text.name, "corpus") for text in texts)

    def may_get_vocabulary(self, caller: Caller, tokenizer: TokenizerDirectory) -> bool:
        """Return whether the caller may get a vocabulary, as of the last refresh of the index: it has words of texts.

        Those who have trained it may, and those who may name all of its texts. A run with it changes nothing.
        """
        record = tokenizer.record()
        return self._permissions.owns(caller, record) or self._may_name_all(caller, record.corpora)

    def _may_get_vocabulary_of(self, caller: Caller, run: RunDirectory) -> bool:
        """Return whether the caller may get the vocabulary of a run, which is that of its tokenizer."""
        if self._permissions.owns(caller, run.record()):
            return True
        with suppress(AppError):  # it has no tokenizer yet
            manifest = read_manifest(run.tokenizer)
            stored = self._stores.tokenizers.find(manifest.tokenizer_id)
            is_open = self._may_name_all(caller, manifest.corpus)
            return is_open or (stored is not None and self.may_get_vocabulary(caller, stored))
        return False
