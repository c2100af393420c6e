"""Arguments of the public functions are checked like files: one sentence, and an exception of our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgepure

WRONG = st.sampled_from([
    None, True, -1, 3, 2**70, 1.5, float("nan"), "x", "", b"x", [], [1], {}, {"a": 1}, (), object(), print, np.zeros(3),
    np.float32(1), Path("nowhere"),
])  # fmt: skip


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[edgepure.Purifier]:
    with edgepure.load(tiny_bundle, threads=1) as found:
        yield found


def refuses(call: Callable[..., Any], arguments: dict[str, Any]) -> None:
    """It works, or says what is wrong with an error of edgepure's own, in one line."""
    try:
        found = call(**arguments)
    except edgepure.EdgepureError as error:
        said = str(error)
    except TypeError as error:  # where Python itself finds that arguments are missing
        said = str(error) if "missing" in str(error) else ""
    else:
        said = "done"
        if hasattr(found, "close"):
            found.close()
    assert said and "\n" not in said, f"{call}({arguments})"


IMAGE = np.full((1, 1, 16, 16), 0.5, np.float32)
#: Good arguments of each function; one of them is exchanged for a wrong one.
METHODS: dict[str, dict[str, Any]] = {
    "classify": {
        "images": IMAGE, "preset": "uniform", "votes": 1, "noise": 1, "resize": False, "order": "rgb",
        "on_error": "raise", "monitor": None,
    },
    "purify": {"images": IMAGE, "preset": "uniform", "noise": 1, "resize": False, "on_error": "raise"},
    "run": {"images": IMAGE, "preset": "uniform", "votes": 1, "noise": 1},
    "preset": {"preset": "uniform", "votes": 1},
    "plan": {"preset": "uniform"},
    "stream": {"frames": [IMAGE[0]], "preset": "uniform", "votes": 1, "noise": 1, "resize": False, "order": "rgb"},
    "score_norms": {"images": IMAGE, "preset": "adaptive", "noise": 1},
    "monitor": {"flag_rate": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_methods_of_a_purifier(purifier: edgepure.Purifier, name: str, data: st.DataObject) -> None:
    good = METHODS[name]
    which = data.draw(st.sampled_from(sorted(good)))
    refuses(getattr(purifier, name), {**good, which: data.draw(WRONG)})


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_load(tiny_bundle: Path, data: st.DataObject) -> None:
    good: dict[str, Any] = {"path": tiny_bundle, "provider": "cpu", "precision": "fp32", "threads": 1, "slots": 2}
    which = data.draw(st.sampled_from(sorted(good)))
    refuses(edgepure.load, {**good, which: data.draw(WRONG)})


@pytest.mark.parametrize("threads", [0, -1, 1000, True, 1.5, "2"])
def test_threads_that_no_machine_has(tiny_bundle: Path, threads: Any) -> None:
    with raises_code("E-config-threads"):
        edgepure.load(tiny_bundle, threads=threads)


SPECS = [
    name
    for name in edgepure.__all__
    if (inspect.isclass(getattr(edgepure, name)) and name.endswith("Spec")) or name == "Preset"
]


@pytest.mark.parametrize("name", SPECS)
@given(values=st.dictionaries(st.sampled_from(["steps", "stps", "t_star", "count", "method", "mask", "area"]), WRONG))
@settings(max_examples=40, deadline=None)
def test_parameters(name: str, values: dict[str, Any]) -> None:
    refuses(getattr(edgepure, name), values)
