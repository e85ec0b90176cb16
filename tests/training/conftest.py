"""What the tests of training share."""

import sys
import types

import pytest

from lrnn_jax import registry


@pytest.fixture
def outside(monkeypatch):
    """Registers a task for one test: ``outside(name, cls)``."""

    def register(name, cls):
        monkeypatch.setitem(sys.modules, f"outside_{name}", types.SimpleNamespace(Task=cls))
        monkeypatch.setitem(registry.TASKS, name, f"outside_{name}:Task")

    return register
