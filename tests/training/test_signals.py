"""SIGTERM before there is anything to save."""

import signal

import pytest

from helpers import call
from lrnn_jax.errors import Terminated
from lrnn_jax.training.signals import interruptible, terminable

CONFIG = """
import signal
signal.raise_signal(signal.{name})
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_a_signal_before_the_training_is_said_in_one_line(verb, name, code, tmp_path):
    config = tmp_path / "stopped.py"
    config.write_text(CONFIG.format(name=name))
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    # a shell's background commands ignore Ctrl-C
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said = call(verb, f"--config={config}", f"--workdir={tmp_path / 'run'}")
    finally:
        signal.signal(signal.SIGINT, interrupt)
    line = f"lrnn: {name}: nothing more was saved; the same command resumes from the last checkpoint, or starts anew where"
    assert said[:2] == (code, "") and said[2].startswith(line) and said[2].count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigterm_finds_the_default_handler_which_ends_the_process(capsys):
    with terminable(), interruptible() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM] and "once more stops at once" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with pytest.raises(Terminated), terminable():
        signal.raise_signal(signal.SIGTERM)


def test_a_handler_of_ones_own_stays():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
