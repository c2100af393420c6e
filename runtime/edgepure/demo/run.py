"""``edgepure demo``: attacked digits, purified and classified by the bundle that comes with the package."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from time import perf_counter

from ..engines.kinds import kind_of
from ..purify.purifier import load
from ..purify.scores import Score
from ..report.environment import environment
from ..types import Progress
from .evaluate import (
    attack_gallery,
    default_first,
    evaluate_methods,
    method_gallery,
    one_of_each_class,
    plain_labels,
    plan_rows,
)
from .page import write
from .report import ColumnProtocol, DemoReport
from .shipped import demo_bundle, demo_images

#: Seed of the noise, so that the report's numbers repeat. A service leaves its noise secret.
SEED = 20250301


def run_demo(
    out: str | PathLike[str],
    *,
    presets: Sequence[str] | None = None,
    bundle: str | PathLike[str] | None = None,
    provider: str = "cpu",
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> DemoReport:
    """Purify and classify the packaged digits, clean and attacked; write report.html and report.json into ``out``.

    Takes a few seconds on two CPU cores and needs neither PyTorch nor a network. The attack was made beforehand, on
    the plain classifier; a white-box attack through the defence needs gradients, so it is part of the source
    checkout's `make demo` and not of this.

    Args:
        out: folder for the report; made if it does not exist.
        presets: the methods to run; None: every preset of the bundle, its default first.
        bundle: another bundle of the digits sample; None: the packaged one.
        provider: engine (see `edgepure.load`).
        threads: CPU threads of one call; None: one per core.
        on_progress: called with the share of the decisions that are made, and the method at work.

    Returns:
        What the report says.

    Raises:
        BundleError: the demo data are missing or damaged.
        ConfigError: a preset is unknown.
        ProviderError: the provider is not active on this machine.
        EdgepureError: the report cannot be written.
    """
    start = perf_counter()
    data = demo_images()
    timings: dict[str, float] = {}
    with load(bundle if bundle is not None else demo_bundle(), provider, threads=threads, slots=32) as purifier:
        timings["open the bundle"] = perf_counter() - start
        names = list(presets) if presets else default_first(purifier)
        for name in names:
            purifier.preset(name)  # an unknown name is an error before any work
        default = names[0]
        start = perf_counter()
        plain_clean, plain_attacked = (plain_labels(purifier, x) for x in (data.clean, data.adversarial))
        runs = evaluate_methods(
            purifier, names, data.clean, data.adversarial, data.labels, seed=SEED, on_progress=on_progress
        )
        timings["purify and classify"] = perf_counter() - start
        methods = tuple(run.scores(purifier, name) for name, run in runs.items())
        plan = plan_rows(purifier, default)
        classes = purifier.classes
        votes = purifier.preset(default).votes
    picks = one_of_each_class(data.labels)
    made = data.protocol
    drawn = f"{len(data)} {made['images']}"
    rule = f"{votes.rule} of {votes.count} purifications" if votes.count > 1 else "one purification"
    decision = f"{rule}; the classifier alone: one answer"
    report = DemoReport(
        title="Adversarial digits, purified",
        summary=(
            f"{len(data)} handwritten digits that the classifier has not seen, attacked so that it reads them wrong, "
            "then purified by a small diffusion model and classified again: by exported graphs on "
            f"{kind_of(provider).title}, without PyTorch."
        ),
        default=default,
        plain={
            "clean": Score.of_labels(plain_clean.tolist(), data.labels.tolist()),
            "attacked": Score.of_labels(plain_attacked.tolist(), data.labels.tolist()),
        },
        methods=methods,
        protocols={
            "clean": ColumnProtocol(
                images=drawn, decision=decision, seeds={"noise": SEED, "subset": made["seeds"]["subset"]}
            ),
            "attacked": ColumnProtocol(
                images=drawn,
                decision=decision,
                seeds={"noise": SEED + 1, **made["seeds"]},
                note="The attack was made beforehand and comes with the package; it does not know of the defence.",
                **{k: made[k] for k in ("attack", "norm", "eps", "steps", "step_size", "random_start")},
                **{k: made[k] for k in ("gradient", "target")},
            ),
        },
        galleries=(
            attack_gallery(
                "Before and after",
                f"The first image of every class. {default}; orange: where the mask puts strong noise.",
                classes,
                data.clean,
                data.adversarial,
                data.labels,
                plain_clean,
                plain_attacked,
                runs[default].attacked.results,
                picks,
            ),
            method_gallery(
                "Every method",
                "The same attacked images after one purification by each method, with the answer of all its votes.",
                classes,
                data.adversarial,
                data.labels,
                plain_attacked,
                {name: run.attacked.results for name, run in runs.items()},
                picks[:4],
            ),
        ),
        plan=plan,
        timings=timings,
        facts={**environment(provider), "provider": provider},
        notes=(
            "No white-box attack was run: it needs gradients, so PyTorch. `make demo` in a source checkout attacks "
            "through the whole defence and reports that too.",
        ),
    )
    write(report, out)
    return report
