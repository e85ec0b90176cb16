"""SIGTERM and Ctrl-C become a request that the training loop looks at; before it, SIGTERM an exception as Ctrl-C is."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lrnn_jax.errors import Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM raise `Terminated` where nothing else has asked for it. Outside of the main thread it changes nothing."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(signum: int, _: Any) -> None:
    raise Terminated


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; a second one acts at once. Outside of the main thread none arrive."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[int, Any] = {}

    def receive(signum: int, _: Any) -> None:
        received.append(signum)
        print(f"{signal.Signals(signum).name}: saving after this dispatch; once more stops at once", file=sys.stderr)
        for earlier, handler in previous.items():
            # an exception would wait for the compiled call to return
            signal.signal(earlier, signal.SIG_DFL if handler is _terminate else handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        for earlier, handler in previous.items():
            signal.signal(earlier, handler)
