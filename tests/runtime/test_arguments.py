"""Arguments of the public functions are checked like files: one sentence, and an exception of our own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given, settings
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


class Good:
    """A callable with good arguments, of which one is exchanged for a wrong one. Without any: what it needs is all
    wrong, so that a name that is new is tried before anybody has written good arguments down."""

    def __init__(self, call: Callable[..., Any], **arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def draw(self, data: st.DataObject) -> dict[str, Any]:
        if not self.arguments:
            needed = inspect.signature(self.call).parameters.values()
            return {p.name: data.draw(WRONG) for p in needed if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        which = data.draw(st.sampled_from(sorted(self.arguments)))
        return {**self.arguments, which: data.draw(WRONG)}


def closed(make: Callable[..., Any]) -> Callable[..., Any]:
    """Called, and closed again."""
    return lambda **arguments: make(**arguments).close()


def public(bundle: Path, purifier: edgepure.Purifier) -> dict[str, Good]:
    """Every public function and constructor by its name, and the methods of what they make."""
    opened, plan, schedule = purifier.bundle, purifier.plan("uniform"), edgepure.NoiseSchedule.linear(20)
    service = edgepure.Service(purifier, "uniform", votes=1)
    whole: dict[str, Any] = {"preset": "uniform", "noise": 1, "resize": False, "order": "rgb"}
    found = {
        "Bundle": Good(edgepure.Bundle.open, path=bundle, verify=False),
        "Bundle.graph_path": Good(opened.graph_path, name="step", precision="fp32"),
        "Bundle.files_of": Good(opened.files_of, graph="step", precision="fp32"),
        "Monitor": Good(
            edgepure.Monitor, calibration=opened.manifest.calibration, flag_rate=0.1, probe=False, precision=None
        ),
        "NoiseSchedule": Good(edgepure.NoiseSchedule, betas=np.array([0.1, 0.2]), spec=None),
        "NoiseSchedule.linear": Good(edgepure.NoiseSchedule.linear, timesteps=10, beta_start=1e-4, beta_end=0.02),
        "NoiseSchedule.alpha_bar": Good(schedule.alpha_bar, t=3),
        "NoiseSchedule.sigma": Good(schedule.sigma, t=3),
        "NoiseSchedule.jump": Good(schedule.jump, start=0, end=9),
        "Plan": Good(edgepure.Plan, method="m", rows=plan.rows, start="ref", closing=(), notes=(), levels={}),
        "Plan.certified_sigma": Good(plan.certified_sigma, mask=None),
        "Row": Good(edgepure.Row, t=1.0, w_in=0.0, sigma=1.0, stage="denoise", draws=()),
        "Row.std": Good(plan.rows[0].std, mask=1.0),
        "Purifier": Good(
            closed(edgepure.Purifier), bundle=opened, provider="cpu", precision="fp32", threads=1, slots=2
        ),
        "load": Good(
            closed(edgepure.load), path=bundle, provider="cpu", precision="fp32", threads=1, slots=2, verify=False
        ),
        "Service": Good(
            closed(edgepure.Service), purifier=purifier, preset="uniform", votes=1, waiting=4, monitor=None
        ),
        "Service.submit": Good(
            lambda **a: service.submit(**a).result(60), image=IMAGE[0], noise=1, resize=False, deadline=None,
            urgent=False,
        ),
        "verify": Good(
            edgepure.verify, bundle=bundle, provider="cpu", precision="fp32", threads=1, pipelines=False,
            reference=None, images=(), presets=None, on_progress=None,
        ),
        "bench": Good(
            edgepure.bench, purifier=purifier, preset="uniform", batches=(1,), repeats=1, on_progress=None
        ),
        "lane_rates": Good(
            edgepure.lane_rates, bundle=bundle, preset="uniform", lanes=(1,), provider="cpu", precision="fp32",
            threads=1, slots=1, seconds=0.01, repeats=1, on_progress=None,
        ),
        "classify": Good(
            purifier.classify, images=IMAGE, votes=1, on_error="raise", monitor=None, on_progress=None, mask=None,
            **whole,
        ),
        "purify": Good(purifier.purify, images=IMAGE, on_error="raise", on_progress=None, mask=None, **whole),
        "predict": Good(
            purifier.predict, images=IMAGE, votes=1, on_error="raise", on_progress=None, mask=None, purify=True,
            **whole,
        ),
        "purify_frame": Good(
            purifier.purify_frame, frame=IMAGE[0], preset="uniform", mask=None, noise=1, number=0, size=None, pad="no",
            whole=False, order="rgb", track=None, on_progress=None,
        ),
        "Track": Good(edgepure.Track, every=3, change=0.1),
        "stream": Good(
            lambda **a: list(purifier.stream(**a)), frames=[IMAGE[0]], votes=1, monitor=None, track=None, **whole
        ),
        "run": Good(
            purifier.run, images=IMAGE, preset="uniform", votes=1, noise=1, names=None, ids=None, on_progress=None,
            on_rows=None, monitor=None, masks=None, track=None,
        ),
        "certify": Good(
            purifier.certify, images=IMAGE, preset={"method": {"method": "smooth", "sigma": 0.25}}, n=4, n0=2,
            alpha=0.5, radius=None, noise=1, resize=False, on_progress=None, on_certificate=None,
        ),
        "preset": Good(purifier.preset, preset="uniform", votes=1),
        "plan": Good(purifier.plan, preset="uniform", score_norm=None),
        "score_norms": Good(purifier.score_norms, images=IMAGE, preset="adaptive", noise=1, ids=None),
        "monitor": Good(purifier.monitor, flag_rate=0.1, probe=False),
        "logits": Good(purifier.logits, images=IMAGE),
        "attention": Good(purifier.attention, images=IMAGE, mask=edgepure.MaskSpec(area=0.3)),
        "engine": Good(purifier.engine, graph="classifier"),
        "stepper": Good(purifier.stepper, graph="step"),
    }  # fmt: skip
    for name in NAMES:
        found.setdefault(name, Good(getattr(edgepure, name)))
    return found


#: Public names that can be called.
NAMES = [
    name
    for name in edgepure.__all__
    if callable(getattr(edgepure, name))
    and not (inspect.isclass(getattr(edgepure, name)) and issubclass(getattr(edgepure, name), Exception))
]
METHODS = (
    "Bundle.graph_path", "Bundle.files_of", "NoiseSchedule.linear", "NoiseSchedule.alpha_bar", "NoiseSchedule.sigma",
    "NoiseSchedule.jump", "Plan.certified_sigma", "Row.std", "Service.submit", "classify", "predict", "purify",
    "stream", "run", "certify", "preset", "plan", "score_norms", "monitor", "logits", "attention", "engine", "stepper",
)  # fmt: skip
#: What takes long where it is taken.
LONG = ("verify", "bench", "lane_rates", "Purifier", "load", "Service")


@pytest.fixture(scope="module")
def api(tiny_bundle: Path, purifier: edgepure.Purifier) -> dict[str, Good]:
    return public(tiny_bundle, purifier)


@pytest.mark.parametrize("name", [*(name for name in NAMES if name != "doctor"), *METHODS])
def test_every_public_name(api: dict[str, Good], name: str) -> None:
    @given(data=st.data())
    @settings(max_examples=25 if name in LONG else 60, deadline=None)
    def check(data: st.DataObject) -> None:
        refuses(api[name].call, api[name].draw(data))

    check()


def test_every_method_of_a_purifier_is_there(purifier: edgepure.Purifier) -> None:
    own = {name for name in dir(purifier) if not name.startswith("_") and inspect.ismethod(getattr(purifier, name))}
    inner = {"close", "explained", "own_head", "run_head", "purify_frame", "task_head"}
    assert own - inner <= set(METHODS)


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
