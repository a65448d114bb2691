"""Two hundred different calls of the commands, buttons and menus of the bot, for twenty users."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import Literal, NamedTuple

from local_discord import Upload
from local_discord.client import OptionValue
from local_discord.state import User

CALLS = 200
Options = Mapping[str, OptionValue]
Kind = Literal["command", "button", "menu"]

SENTENCES: Sequence[str] = (
    "Бүгін ауа райы жақсы.",
    "Мен кітап оқимын.",
    "Ол мектепке барды.",
    "Алматы үлкен қала.",
    "Су мөлдір екен.",
    "Таң атып келеді.",
    "Балалар ойнап жүр.",
    "Күн батты.",
)
LONG_WORK: tuple[str, ...] = (
    "mt train",
    "mt resume",
    "mt eval",
    "mt export",
    "mt tokenizer train",
    "mt-admin build-corpora",
    "mt-experiment start",
)
"""Commands whose work takes longer than an answer may: their first content says that the work is accepted or runs."""


_HELP_TOPICS: tuple[str, ...] = (
    "train",
    "status",
    "runs",
    "compare",
    "watch",
    "cancel",
    "generate",
    "chat",
    "score",
    "eval",
    "export",
    "corpus add",
    "mt-experiment start",
)


class Prepared(NamedTuple):
    """The runs, the tokenizer and the experiment of the calls."""

    small: str
    """A completed run of the owner."""
    second: str
    """Another completed run of the owner."""
    running: str
    cancelled: str
    """A cancelled run of the second user, with a checkpoint."""
    queued: Sequence[str]
    """Queued runs of the third user and those after."""
    tokenizer: str
    experiment: str


class Typed(NamedTuple):
    """A call of a command, or of a menu or button with this name."""

    user: User
    name: str
    options: Options
    kind: Kind = "command"

    @property
    def identity(self) -> str:
        """Return what makes this call different from others: the options, and for a button also who presses it."""
        who = self.user.id if self.kind == "button" else 0
        return f"{self.name} {sorted(map(str, self.options.items()))} {who}"


MENUS = ("Score with last run", "Train on attachment")
BUTTONS = ("Refresh", "Show the status of a run", "Score…")
"""A button of the answer to `/mt queue`, the list of `/mt runs` and a button of `/mt status`."""
PRESSING_USERS = 8


def calls(users: Sequence[User], known: Prepared) -> list[Typed]:
    """Return the calls of the owner, of the users with runs, and of all users in turn."""
    owner, starter, *others = users
    found = [Typed(owner, *call) for call in _of_the_owner(known, users[-1])]
    found.append(Typed(starter, "mt resume", {"run": known.cancelled}))
    for user, run in zip(others, known.queued, strict=False):
        found += [Typed(user, name, {"run": run}) for name in ("mt cancel", "mt logs", "mt unwatch")]
    found += [Typed(user, name, {}, "menu") for user, name in zip(others, MENUS, strict=False)]
    found += [Typed(user, name, {}, "button") for name, user in product(BUTTONS, others[:PRESSING_USERS])]
    found += [Typed(user, *call) for user, call in zip(cycle(users), _of_everybody(known), strict=False)]
    if len(found) != CALLS or len({call.identity for call in found}) != CALLS:
        raise ValueError(f"There are {len(found)} calls, not {CALLS} different ones.")
    return found


def _of_the_owner(known: Prepared, member: User) -> Iterator[tuple[str, Options]]:
    run: Options = {"run": known.small}
    for style in ("curves_csv", "config", "archive", "hf"):
        yield "mt export", {**run, "format": style}
    for lines, level in ((1, "debug"), (20, "info"), (200, "warning"), (50, "error")):
        yield "mt logs", {**run, "lines": lines, "level": level}
    for unit in ("bits", "nats"):
        yield "mt score", {**run, "text": SENTENCES[1], "detail": "per_char", "unit": unit}
    yield "mt-experiment start", {"recipe": "smoke", "languages": "az,uz"}
    yield "mt-admin build-corpora", {"source": "local", "languages": "kk"}
    yield "mt-experiment cancel", {"experiment": known.experiment}
    yield "mt-admin workers", {}
    yield "mt-admin doctor", {}
    yield "mt-admin access", {"member": member, "level": "user"}
    yield "mt-admin delete", run


def _of_everybody(known: Prepared) -> Iterator[tuple[str, Options]]:
    yield from _lists(known)
    yield from _inference(known)
    yield from _new_runs(known)
    yield from _shared_things(known)


def _lists(known: Prepared) -> Iterator[tuple[str, Options]]:
    for run in (known.small, known.second, known.running, known.cancelled, *known.queued):
        yield "mt status", {"run": run}
    for name in ("mt status", "mt queue", "mt settings", "mt runs", "mt help"):
        yield name, {}
    for state in ("queued", "running", "completed", "failed", "cancelled"):
        yield "mt runs", {"state": state, "mine": False}
    for family in ("char_lstm", "gpt2", "lstm", "llama"):
        yield "mt runs", {"model": family, "mine": False}
    for query in ("small", "second", "waiting"):
        yield "mt runs", {"query": query, "mine": False}
    for topic in _HELP_TOPICS:
        yield "mt help", {"topic": topic}


def _inference(known: Prepared) -> Iterator[tuple[str, Options]]:
    """Yield less than `LIMITS__MAX_CONCURRENT_REQUESTS` requests together with those of the others."""
    runs = (known.small, known.second)
    for text, run in product(SENTENCES, runs):
        yield "mt score", {"text": text, "run": run}
    for number, text in enumerate(SENTENCES[:3]):
        yield "mt score", {"file": Upload(f"{number}.txt", text.encode())}
    for text, tokens in product(SENTENCES[:4], (16, 32, 64)):
        yield "mt generate", {"prompt": text[:5], "max_new_tokens": tokens, "seed": tokens}
    for text, k in product(SENTENCES[:3], (1, 5, 10)):
        yield "mt predict", {"text": text[:9], "k": k}
    for text in SENTENCES[:6]:
        yield "mt chat", {"message": text, "run": known.small}
    for run, split in product(runs, ("validation", "test")):
        yield "mt eval", {"run": run, "split": split}


def _new_runs(known: Prepared) -> Iterator[tuple[str, Options]]:
    for number, model in enumerate(("char_lstm", "gpt2", "gru", "llama", "lstm", "rnn", "bert", "qwen")):
        yield "mt train", {"corpus": "demo", "model": model, "size": "tiny", "name": f"new-{number}"}
    for run in (known.running, *known.queued):
        yield "mt watch", {"run": run}
    for a, b in ((known.small, known.second), (known.second, known.small)):
        for split in ("validation", "test"):
            yield "mt compare", {"a": a, "b": b, "split": split}


def _shared_things(known: Prepared) -> Iterator[tuple[str, Options]]:
    for name in ("mt corpus list", "mt tokenizer list", "mt-experiment list"):
        yield name, {}
    yield "mt corpus show", {"corpus": "demo"}
    for number, text in enumerate(SENTENCES[:5]):
        file = Upload(f"text-{number}.txt", f"{text}\n".encode() * 200)
        yield "mt corpus add", {"file": file, "name": f"added-{number}", "language": "kk", "ipa": False}
    for method in ("char", "word", "bpe", "wordpiece"):
        yield "mt tokenizer train", {"corpora": "demo", "method": method, "name": f"shared-{method}"}
    yield "mt tokenizer show", {"tokenizer": known.tokenizer}
    for metric in ("surprisal", "perplexity", "auc", "asymmetry"):
        yield "mt-experiment show", {"experiment": known.experiment, "metric": metric}
    yield "mt-experiment export", {"experiment": known.experiment}
