"""The list of mutants fits the code, and each rule is in it."""

import re
from pathlib import Path

import pytest

from tests.mutants.__main__ import mutated, source_of
from tests.mutants.rules import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"rule {mutant.rule}, {mutant.without}")
def test_what_a_mutant_replaces_stands_once_in_its_module(mutant: Mutant) -> None:
    source = source_of(mutant).read_text()

    compile(mutated(mutant, source), mutant.module, "exec")


def test_each_rule_has_a_mutant() -> None:
    numbered = re.findall(r"^(\d+)\. \*", Path("docs/quorum.md").read_text(), flags=re.MULTILINE)

    assert {mutant.rule for mutant in MUTANTS} == {int(number) for number in numbered}
