"""Nothing that was measured is lost: the records are of the runs that were trained, under the names that they have today.

``trained_configs.json`` holds the resolved config of every run of the committed records as it was when the run was trained
(issue 13 moved the records): each distinct section once, and for each run the sections that it had and the name that it had.
"""

import hashlib
import json
from pathlib import Path

import pytest

from lrnn_jax.config.fields import flatten
from lrnn_jax.config.files import data_folder
from lrnn_jax.config.identity import UNHASHED_SECTIONS, named_fields
from lrnn_jax.tables.declaring import Table, list_runs, load_experiment
from lrnn_jax.tables.records import load_record, record_file

# Fields that are called otherwise today. Every other field has kept its name and its value.
RENAMED = {"model.method": "model.scan"}
# Where the runs were trained: the tables, at these settings.
SETTINGS = ("cpu", "grazzi2025-released")


def modernise(trained):
    """Returns a config's fields by today's paths."""
    return {RENAMED.get(path, path): value for path, value in trained.items()}


def old_name(trained):
    """Returns the name of a run as it was formed when the run was trained."""
    named = {
        path: value
        for path, value in trained.items()
        if path.split(".")[0] not in UNHASHED_SECTIONS and (path, value) != ("train.microbatches", 1)
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]


def plain_fields(config):
    return json.loads(json.dumps(dict(flatten(config))))


def trained_configs():
    """Returns for each run its name when it was trained, and its fields by dotted path."""
    said = json.loads(Path(__file__).with_name("trained_configs.json").read_text())
    found = {}
    for run in said["runs"]:
        fields = {
            f"{section}.{name}" if section else name: value
            for section, index in run["of"].items()
            for name, value in said["sections"][section][index].items()
        }
        found |= {name: {**fields, "seed": int(seed)} for seed, name in run["seeds"].items()}
    return found


def runs_of_today():
    declared = [load_experiment(file.stem) for file in sorted(data_folder("experiments").glob("*.py"))]
    tables = [table for table in declared if isinstance(table, Table)]
    return [run for table in tables for setting in SETTINGS if setting in table.settings for run in list_runs(table, setting)]


@pytest.fixture(scope="module")
def today():
    """The config of every run that some table needs, by the run's name."""
    folder = data_folder("experiments") / "results" / "runs"
    return {record_file(run, folder).stem: run.config for run in runs_of_today()}


@pytest.fixture(scope="module")
def records():
    return {file.stem: load_record(file) for file in sorted(data_folder("experiments").glob("results/runs/*.json"))}


def test_the_configs_are_those_that_named_the_runs_when_they_were_trained():
    for name, trained in trained_configs().items():
        assert old_name(trained) == name


def test_there_is_a_record_of_every_run_that_was_trained(records):
    folder = data_folder("experiments") / "results" / "runs"
    said = {json.loads((folder / f"{name}.json").read_text())["config_hash"]: name for name in records}
    assert len(said) == len(records) and trained_configs().keys() <= said.keys()


def test_todays_config_of_each_run_is_the_one_it_was_trained_with(records, today):
    folder = data_folder("experiments") / "results" / "runs"
    print(f"renamed: {RENAMED or 'nothing'}")
    trained_as = {json.loads((folder / f"{name}.json").read_text())["config_hash"]: name for name in records}
    new = {}
    for name, trained in trained_configs().items():
        config = today[trained_as[name]]
        fields, expected = plain_fields(config), modernise(trained)
        assert {path: fields.get(path) for path in expected} == expected
        # a field that is younger than the run has the value at which it changes nothing
        younger = fields.keys() - expected.keys()
        assert not younger & named_fields(config).keys()
        new |= {path: fields[path] for path in younger}
    print(f"younger, at the value that changes nothing: {new or 'none'}")


def test_every_record_stands_in_a_table(records, today):
    assert records.keys() <= today.keys()
