"""A disk that loses what was not synced."""

from trainer.system.files import Disk


class UnsyncedDisk(Disk):
    """For looking at a state: no power is cut then."""

    def flush(self, descriptor: int) -> None:
        pass
