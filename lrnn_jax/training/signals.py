"""SIGTERM and Ctrl-C become a request that the training loop looks at."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
            signal.signal(earlier, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        for earlier, handler in previous.items():
            signal.signal(earlier, handler)
