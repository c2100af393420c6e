"""A deployment beside its reference: runs both and sorts the comparisons into the four levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..bundle.selftest import PipelineVectors
from ..engines.kinds import kind_of
from ..errors import NotFiniteError, ProviderError
from ..purify.purifier import Purifier
from ..types import Float32, Progress
from .checks import OutputCheck, array_check, failed_check
from .decisions import compare_decisions
from .differences import difference
from .drift import compare_rows
from .executors import EngineExecutor, Executor, FrameRun, PresetRun, Trajectory, rows_to_keep
from .graphs import Case, graph_checks
from .images import MOST_PRESETS, Differing, image_checks, most_differing
from .levels import Comparison, Level, Status
from .tasks import compare_task
from .tolerances import image_tolerance, loosest

#: Noise seed of images that were given; the redraw has the next one.
SEED = 20240301
#: Images of a set whose trajectories are compared row by row.
ROW_IMAGES = 2
#: What the recorded images are called.
SELF_TEST = "self-test"
_TITLES = ("graphs", "rows", "images", "decisions")


@dataclass(frozen=True)
class ImageSet:
    """Images to compare decisions on.

    Attributes:
        name: ``clean``, ``attacked`` or another.
        images: ``[N, C, H, W]`` float32 in [0, 1]; of a task that takes frames, frames.
        labels: true classes ``[N]``; None if unknown.
    """

    name: str
    images: Float32
    labels: NDArray[np.int64] | None = None


class FourLevels:
    """A purifier and its reference. ``reference`` None: the recorded vectors."""

    def __init__(self, purifier: Purifier, reference: Executor | None, presets: Sequence[str] | None) -> None:
        self.purifier, self.reference, self.presets = purifier, reference, presets
        self.executor = EngineExecutor(purifier)
        self.manifest = purifier.bundle.manifest
        self.recorded = purifier.bundle.selftest()
        theirs = () if reference is None else (reference.precision,)
        graphs = self.manifest.graphs_in(purifier.precision)
        self.precisions = {name: loosest((entry.precision, *theirs)) for name, entry in graphs.items()}
        self.precision = loosest(p for name, p in self.precisions.items() if name != "unet")
        self.parts: dict[str, list[Comparison]] = {title: [] for title in _TITLES}
        self.missing: dict[str, list[str]] = {title: [] for title in _TITLES}
        self.absent: dict[str, Status] = dict.fromkeys(_TITLES, "not recorded")
        self.differing: list[Differing] = []
        self.compared: set[str] = set()

    def levels(self, images: Sequence[ImageSet], pipelines: bool, on_progress: Progress | None) -> tuple[Level, ...]:
        """Compare everything. ``pipelines`` false: the graphs alone."""
        known = self.recorded.pipelines
        chosen = [name for name in known if self.presets is None or name in self.presets]
        # A reference that runs can do what was not recorded, on the images that were.
        others = [name for name in self.presets or () if name not in known and self.reference is not None]
        self.compared = {*chosen, *others}
        given = list(self.presets or (self.manifest.default_preset,))
        work: list[tuple[str, Callable[[], None]]] = [
            (f"graph {name}", partial(self._graph, name))
            for name in self.recorded.graphs
            if name != "step_any" or kind_of(self.purifier.provider).any_size
        ]
        if pipelines:
            work += [(f"pipeline {name}", partial(self._recorded, name, known[name])) for name in chosen]
            work += [(f"pipeline {name}", partial(self._beside, name, self._any_images(), SEED)) for name in others]
            work += [
                (f"{s.name} images with {name}", partial(self._beside, name, s, SEED)) for s in images for name in given
            ]
        else:
            self.absent.update(dict.fromkeys(_TITLES[1:], "not run"))
        for done, (subject, compare) in enumerate(work):
            if on_progress is not None:
                on_progress(done / len(work), subject)
            compare()
        self._explain_absence(pipelines)
        return tuple(
            Level(number, title, tuple(self.parts[title]), tuple(self.missing[title]), self.absent[title])
            for number, title in enumerate(_TITLES, start=1)
        )

    @property
    def unrecorded(self) -> tuple[str, ...]:
        """Presets without vectors that were not compared either."""
        return tuple(sorted(set(self.manifest.presets) - set(self.recorded.pipelines) - self.compared))

    # ---- level 1 --------------------------------------------------------------------------------------------------

    def _graph(self, name: str) -> None:
        precision = next(p for graph, p in self.precisions.items() if graph == name)
        try:
            self.purifier.engine(name)
        except ProviderError as error:
            if name != "unet":
                raise
            # The runtime runs the step graphs; the bare UNet is there for others, and no engine is built of it.
            self.missing["graphs"].append(f"graph unet, which edgepure itself does not run: {error}")
            return
        self.parts["graphs"] += graph_checks(name, precision, self._cases(name), self.executor)

    def _cases(self, name: str) -> Iterator[Case]:
        vectors = self.recorded.graphs[name]
        if self.reference is None:
            yield vectors.inputs, vectors.outputs
            return
        for inputs in (vectors.inputs, *self.reference.cases(name)):
            yield inputs, self.reference.graph(name, inputs)

    # ---- levels 2 to 4 --------------------------------------------------------------------------------------------

    def _recorded(self, preset: str, vectors: PipelineVectors) -> None:
        data, seed = SELF_TEST, vectors.seed
        if self.reference is not None:
            self._beside(preset, ImageSet(data, vectors.image), seed)
            if vectors.frames is not None:
                self._frames_beside(preset, ImageSet(data, self._seen(len(vectors.frames))), seed)
            return
        deployed = self._run(preset, vectors.image, seed)
        if deployed is None:
            return
        plans = deployed.plans
        if vectors.score_norms is not None:
            chosen = self.manifest.presets[preset]
            plans = tuple(self.purifier.planner.plan(chosen, float(norm)) for norm in vectors.score_norms)
        expected = PresetRun(vectors.purified, vectors.logits, vectors.mask, plans, vectors.task)
        if vectors.rows is not None and vectors.states is not None:
            reference = Trajectory(vectors.rows, vectors.states, vectors.purified)
            self._rows(preset, data, vectors.image, expected, reference, seed)
        redraw = None
        if self.manifest.classes and (deployed.labels != expected.labels).any():  # else it would excuse nothing
            again = self._run(preset, vectors.image, seed + 1)
            redraw = None if again is None else (deployed, again)
        self._images(preset, data, vectors.image, seed, expected, deployed)
        self._decisions(preset, data, expected, deployed, redraw, None)
        if vectors.frames is not None:
            frames = self._seen(len(vectors.frames))
            answered = self.executor.frames(frames, self.manifest.presets[preset], seed)
            self._frames(preset, data, FrameRun(vectors.frames, vectors.task), answered, None)

    def _beside(self, preset: str, images: ImageSet, seed: int) -> None:
        """Reference and deployment on the same images with the same noise."""
        assert self.reference is not None
        if images.images.shape[1:] != self.manifest.image.shape:
            self._frames_beside(preset, images, seed)
            return
        deployed = self._run(preset, images.images, seed)
        if deployed is None:
            return
        chosen = self.manifest.presets[preset]
        expected = self.reference.run(images.images, chosen, seed)
        redraw = expected, self.reference.run(images.images, chosen, seed + 1)
        few, plans = images.images[:ROW_IMAGES], expected.plans[:ROW_IMAGES]
        rows = rows_to_keep(min(len(plan.rows) for plan in plans), few.nbytes)
        if rows:
            masks = None if expected.mask is None else expected.mask[:ROW_IMAGES]
            trajectory = self.reference.trajectory(few, plans, masks, seed, rows)
            self._rows(preset, images.name, few, replace(expected, mask=masks, plans=plans), trajectory, seed)
        self._images(preset, images.name, images.images, seed, expected, deployed)
        self._decisions(preset, images.name, expected, deployed, redraw, images.labels)

    def _decisions(
        self,
        preset: str,
        data: str,
        expected: PresetRun,
        deployed: PresetRun,
        redraw: tuple[PresetRun, PresetRun] | None,
        labels: NDArray[np.int64] | None,
    ) -> None:
        if self.manifest.classes:
            self.parts["decisions"].append(
                compare_decisions(preset, data, expected, deployed, self.precision, redraw, labels)
            )
        elif self.manifest.task is not None and not self.manifest.framed:
            again = None if redraw is None else (redraw[0].task, redraw[1].task)
            self.parts["decisions"].append(
                compare_task(self.manifest.task, preset, data, expected.task, deployed.task, self.precision, again)
            )

    def _frames_beside(self, preset: str, frames: ImageSet, seed: int) -> None:
        """`_beside` of frames, for a task that takes them."""
        assert self.reference is not None
        chosen = self.manifest.presets[preset]
        runs = [self.reference.frames(frames.images, chosen, seed + n) for n in range(2)]
        deployed = self.executor.frames(frames.images, chosen, seed)
        self._frames(preset, frames.name, runs[0], deployed, (runs[0], runs[1]))

    def _frames(
        self, preset: str, data: str, expected: FrameRun, deployed: FrameRun, redraw: tuple[FrameRun, FrameRun] | None
    ) -> None:
        """Frames of two runs. What a mask or a noise level decides may be another frame by right: then only what the
        task makes of it is compared."""
        chosen, task = self.manifest.presets[preset], self.manifest.require_task()
        if chosen.mask is None and chosen.ssni is None:
            bound = image_tolerance(self.precision, len(self.purifier.planner.plan(chosen).rows))
            found = difference(deployed.purified, expected.purified)
            subject = f"pipeline {_labelled(preset, data)}"
            self.parts["images"].append(array_check(subject, "purified frames", found, bound))
        again = None if redraw is None else (redraw[0].task, redraw[1].task)
        self.parts["decisions"].append(
            compare_task(task, preset, data, expected.task, deployed.task, self.precision, again)
        )

    def _seen(self, count: int) -> Float32:
        """The first of the frames that the task graph was recorded with."""
        return self.recorded.graphs["task"].inputs["image"][:count]

    def _any_images(self) -> ImageSet:
        """Two images that are recorded in any case: the inputs of the step graph."""
        ref = self.recorded.graphs["step"].inputs["ref"][:ROW_IMAGES]
        return ImageSet(SELF_TEST, np.asarray(np.clip(0.5 * ref + 0.5, 0.0, 1.0), np.float32))

    def _run(self, preset: str, images: Float32, seed: int) -> PresetRun | None:
        """The deployment's run; None, and a failed check, if it cannot be."""
        if any(check.problem and "shape" in check.problem for check in self._level_1()):
            self.missing["images"] = ["a graph gives a wrong shape, so nothing can be purified"]
            return None
        try:
            return self.executor.run(images, self.manifest.presets[preset], seed)
        except NotFiniteError as error:
            self.parts["images"].append(failed_check(f"pipeline {preset}", "purified", str(error)))
            return None

    def _rows(self, preset: str, data: str, images: Float32, run: PresetRun, reference: Trajectory, seed: int) -> None:
        plans, preset = run.plans, _labelled(preset, data)
        if any(reference.rows[-1] >= len(plan.rows) for plan in plans):
            problem = f"row {reference.rows[-1]} was recorded, but the preset has {len(plans[0].rows)} rows"
            self.parts["rows"].append(failed_check(f"rows {preset}", "state", problem))
            return
        try:
            deployed = self.executor.trajectory(images, plans, run.mask, seed, reference.rows)
        except NotFiniteError as error:
            self.parts["rows"].append(failed_check(f"rows {preset}", "state", str(error)))
            return
        self.parts["rows"].append(compare_rows(preset, self.precision, plans, reference, deployed))

    def _images(
        self, preset: str, data: str, images: Float32, seed: int, expected: PresetRun, deployed: PresetRun
    ) -> None:
        self.parts["images"] += image_checks(
            _labelled(preset, data), self.precision, images, seed, expected, deployed, self.executor
        )
        if len({(s.preset, s.data) for s in self.differing}) < MOST_PRESETS:
            self.differing += most_differing(preset, data, images, expected, deployed, self.manifest.classes)

    def _level_1(self) -> list[OutputCheck]:
        return [part for part in self.parts["graphs"] if isinstance(part, OutputCheck)]

    def _explain_absence(self, pipelines: bool) -> None:
        if not pipelines:
            for title in _TITLES[1:]:
                self.missing[title].append("left out: only the graphs were asked for")
            return
        wrong = bool(self.missing["images"]) or any(getattr(part, "problem", "") for part in self.parts["images"])
        for title in _TITLES[1:]:
            if self.parts[title]:
                continue
            if title == "decisions" and not self.manifest.classes and self.manifest.task is None:
                self.absent[title] = "not run"
                self.missing[title].append("the bundle has no classifier and no task, so nothing is decided")
            elif wrong:
                self.absent[title] = "not run"
                self.missing[title] = self.missing["images"][:1] or ["the purification itself fails"]
            elif title == "rows":
                self.missing[title].append(
                    "the bundle has no recorded states; export it again, or compare with PyTorch or another provider"
                )
            elif title == "decisions" and self.manifest.framed:
                self.missing[title].append(
                    "no frame was recorded; export the bundle again, or compare frames with PyTorch or another provider"
                )
            else:
                self.missing[title].append("the bundle has no recorded purification")
        for name in self.unrecorded:
            self.missing["images"].append(f"preset {name} has no recorded purification; only its graphs were checked")


def _labelled(preset: str, data: str) -> str:
    return preset if data == SELF_TEST else f"{preset} ({data})"
