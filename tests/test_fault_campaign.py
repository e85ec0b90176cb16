"""The script that tries faults on short runs."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.fault_campaign import render
from scripts.faults.bench import DAMAGES, Ended, judge

ROOT = Path(__file__).parents[1]


def campaign(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "fault_campaign.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)


@pytest.mark.slow
def test_a_fault_of_each_quick_kind_ends_well(tmp_path):
    done = campaign("--only=checkpoint,run,store,record,signal", "--count=1", "--seed=0", f"--out={tmp_path / 'table.md'}")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text()
    assert table.startswith("5 faults, 0 ended wrongly.") and "| checkpoint | checkpoints/" in table


@pytest.mark.parametrize(("flag", "said"), [("--only=x", "not one of signal, sweep"), ("--count=0", "must be at least 1")])
def test_what_is_no_campaign_is_refused(flag, said):
    done = campaign(flag)
    assert done.returncode == 2 and said in done.stderr


@pytest.mark.parametrize(
    ("ended", "verdict"),
    [
        (Ended(0, "testing"), "same bits"),
        (Ended(2, "resuming\nlrnn: it is damaged; remove it"), "one line"),
        (Ended(2, "Traceback (most recent call last):\nlrnn: x"), "WRONG: traceback"),
        (Ended(1, "lrnn: training failed"), "WRONG: exit code 1"),
        (Ended(None, ""), "WRONG: hangs"),
    ],
)
def test_only_the_same_bits_and_one_line_are_right(ended, verdict):
    assert judge(ended, lambda: 1, 1).startswith(verdict)
    assert judge(Ended(0, ""), lambda: 1, 2) == "WRONG: other bits"


@pytest.mark.parametrize("how", DAMAGES)
def test_each_damage_changes_the_file(tmp_path, how):
    file = tmp_path / "file"
    file.write_bytes(b"some bytes of a file")
    DAMAGES[how](file, random.Random(0))
    assert not file.is_file() or file.read_bytes() != b"some bytes of a file"


def test_the_table_counts_what_ended_how():
    table = render([("run", "a|b", "same bits"), ("run", "c", "WRONG: hangs"), ("disk", "d", "one line")])
    assert table.startswith("3 faults, 1 ended wrongly.")
    assert "| run | WRONG | 1 |" in table and "| run | a/b | same bits |" in table
