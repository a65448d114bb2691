"""Last import of the server process that forks the children: pydantic builds every record here, not in each child."""

from trainer.contracts.base import Frozen


def _build_below(record: type[Frozen]) -> None:
    for below in record.__subclasses__():
        below.model_rebuild()
        _build_below(below)


_build_below(Frozen)
