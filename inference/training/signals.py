"""SIGINT (Ctrl-C) and SIGTERM as a stop request, which the training loop checks between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "Stopped", "stop_on_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Training was stopped by a signal; the message has the step and the command to resume."""


class StopRequest:
    """A flag that the signal handler sets."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the context the first SIGINT or SIGTERM only sets a flag; a second one has its usual effect."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may handle signals
        return
    before = {int(number): signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        request.requested = True
        signal.signal(number, before[number])

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield request
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)
