"""The short form of ``make fuzz``, and that the long form would find what it looks for."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from edgepure.errors import EdgepureError
from tools.fuzz import run
from tools.fuzz.kind import sound
from tools.fuzz.kinds import KINDS, kind_called
from tools.fuzz.mutate import changed, damaged

#: Those need a process of their own: an engine may end it.
ALONE = ("engine",)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in ALONE])
def test_inputs_are_taken_or_refused(name: str, tmp_path: Path) -> None:
    kind = kind_called(name)(tmp_path)
    files = sorted(tmp_path.iterdir())
    outcomes, unsound = [], []
    for number in range(25):
        try:
            kind.attempt(Random(f"0/{name}/{number}"))
            outcomes.append("taken")
        except EdgepureError as error:
            outcomes.append("refused")
            unsound += [] if sound(error) else [(number, error)]
    assert unsound == []
    assert sorted(tmp_path.iterdir()) == files
    assert "refused" in outcomes


def test_what_it_looks_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One input raises, one leaves a file, one ends the process, one hangs; those between are tried all the same."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    monkeypatch.setattr(run, "PROCESSOR_SECONDS", 4.0)
    found = run.fuzz("faulty_kind:Faulty", 0, 0, 12)
    assert [number for number, _ in found.faults] == [1, 3, 5, 7, 9]
    words = ("KeyError", "stray", "ended (-6)", "too long", "no sentence")
    assert [word for word, (_, fault) in zip(words, found.faults, strict=True) if word not in fault] == []


def test_engines_in_a_process_of_their_own() -> None:
    found = run.fuzz("engine", 0, 0, 20)
    assert not found.faults and sum(found.counts.values()) == 20


def test_an_input_depends_on_its_number_alone() -> None:
    document = {"a": [1, 2.5, "x"], "b": {"c": None}}
    for number in range(50):
        first, second = (changed(document, Random(f"0/x/{number}")) for _ in range(2))
        assert repr(first) == repr(second)
        assert damaged(b"some bytes", Random(str(number))) == damaged(b"some bytes", Random(str(number)))
    assert document == {"a": [1, 2.5, "x"], "b": {"c": None}}
