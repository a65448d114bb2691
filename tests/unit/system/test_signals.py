"""The signals that ask a process to stop, whenever they come."""

import signal
import sys
import threading
import time

import pytest

from trainer.system.signals import StopFlag


def test_flag__is_set_by_a_signal_in_the_middle_of_another() -> None:
    flag, thread_id = StopFlag(), threading.get_ident()

    def send() -> None:
        for _ in range(2000):
            signal.pthread_kill(thread_id, signal.SIGURG)

    before, interval = signal.signal(signal.SIGURG, flag.set), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        while sender.is_alive():
            flag.set()  # as the handler of a first signal
    finally:
        sys.setswitchinterval(interval)
        signal.signal(signal.SIGURG, before)
    assert flag.is_set()


@pytest.mark.parametrize("is_set", [True, False])
def test_wait__ends_with_the_flag_or_after_the_time(is_set: bool) -> None:
    flag, begin = StopFlag(), time.monotonic()
    if is_set:
        threading.Timer(0.05, flag.set).start()
    assert flag.wait(3600 if is_set else 0.1) is is_set
    assert time.monotonic() - begin >= (0.04 if is_set else 0.1)
