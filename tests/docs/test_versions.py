"""docs/versions.md: its table is what was recorded, and the metadata say the same."""

from __future__ import annotations

import re

from tests.docs.pages import Page
from tests.matrix import PAIRS, RESULTS, merged, metadata, minimums, node, read, table, wanted

PAGE = Page("docs/versions.md")


def test_the_table_is_what_was_recorded() -> None:
    results = read(RESULTS)
    assert table(results) in PAGE.text
    for name, found in results.items():
        assert found["failed"] == 0, (name, found["failures"])
        assert found["passed"] > 100
    assert set(results) <= {pair.name for pair in PAIRS}


def test_every_python_of_the_metadata_was_run() -> None:
    about = metadata()
    named = {re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one) for one in about["classifiers"]}
    listed = {one[1] for one in named if one is not None}
    run = {name.partition("+")[0] for name in read(RESULTS)}
    assert listed == run
    assert about["python_requires"] == f">={min(listed, key=lambda version: int(version.split('.')[1]))}"


def test_both_ends_were_run() -> None:
    """NumPy 1 and 2, and the oldest of everything that the metadata allow."""
    results = read(RESULTS)
    assert {found["versions"]["numpy"].partition(".")[0] for found in results.values()} == {"1", "2"}
    lowest = [(name, found["versions"]) for name, found in results.items() if found["lowest"]]
    assert len(lowest) == 1
    (name, versions), bounds = lowest[0], minimums(metadata()["install_requires"])
    assert len(bounds) == len([one for one in metadata()["install_requires"] if not one.startswith("numpy<2")])
    for bound in bounds:
        package, version = re.split("==", bound.partition(";")[0])
        assert versions[package.lower()].partition("+")[0].startswith(version), (name, package)


def test_environments_are_asked_for_as_said() -> None:
    pairs = {pair.name: wanted(pair) for pair in PAIRS}
    names, constraints = pairs["3.9+1.13.0-lowest"]
    assert "torch==1.13.0" in names
    assert "click==8.0" in constraints
    assert pairs["3.11+2.0.1"][0][-1] == "numpy<2"
    assert not any(constraints for name, (_, constraints) in pairs.items() if "lowest" not in name)


def test_results_of_a_run() -> None:
    """What failed and is run again alone replaces what was recorded; cases are named as pytest takes them."""
    known = {"passed": 5, "skipped": 1, "failed": 2, "failures": ["a::b", "a::c"], "date": "then"}
    again = {"passed": 1, "skipped": 0, "failed": 1, "failures": ["a::c"], "date": "now"}
    assert merged(known, again) == {**known, "passed": 6, "failed": 1, "failures": ["a::c"], "again": ["a::b", "a::c"]}
    case = "tests.adapters.test_contract.TestContract::test_flags_carry_over[draggan]"
    assert node(case) == "tests/adapters/test_contract.py::TestContract::test_flags_carry_over[draggan]"
    assert node("tests.checks.test_planted::test_no_alarm[a]") == "tests/checks/test_planted.py::test_no_alarm[a]"
