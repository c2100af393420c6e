"""What a camera sees, purified and answered: a video file, a V4L2 device or a GStreamer pipeline, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from newest import Frame, Newest

import edgepure


def opened(source: str) -> cv2.VideoCapture:
    """A GStreamer pipeline has a ``!`` in it, a device is a number or below ``/dev``; everything else is a file or an
    address."""
    if "!" in source:
        capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    elif source.isdigit() or source.startswith("/dev/"):
        capture = cv2.VideoCapture(int(source) if source.isdigit() else source, cv2.CAP_V4L2)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the driver's queue would make old frames of new ones
    else:
        capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        hint = "; this OpenCV may be built without GStreamer" if "!" in source else ""
        raise typer.BadParameter(f"{source!r} cannot be opened as a source of frames{hint}")
    return capture


def reader(capture: cv2.VideoCapture, pace: float | None) -> Callable[[], Frame | None]:
    """A function that waits for the next frame. ``pace``: frames a second of a file, which would not wait by itself."""
    due = time.monotonic()

    def read() -> Frame | None:
        nonlocal due
        if pace is not None:
            due += 1.0 / pace
            time.sleep(max(0.0, due - time.monotonic()))
        there, frame = capture.read()
        return np.asarray(frame, np.uint8) if there else None

    return read


def fitting(frames: Iterator[Frame], channels: int) -> Iterator[Any]:
    """Frames as OpenCV has them (blue, green, red), in gray where the bundle takes gray."""
    for frame in frames:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if channels == 1 and frame.ndim == 3 else frame


def said(answer: edgepure.Purified) -> str:
    """The answer in a few words: a label, or what the bundle's task found."""
    if isinstance(answer, edgepure.Result):
        return f"{answer.class_name:12} {answer.probabilities.max():.2f}"
    if isinstance(answer, edgepure.Detection):
        found = zip(answer.class_names, answer.boxes, strict=True)
        return "; ".join(f"{name} at {', '.join(f'{v:.0f}' for v in box)}" for name, box in found) or "nothing"
    if isinstance(answer, edgepure.Segmentation):
        return ", ".join(f"{name} {share:.0%}" for name, share in answer.shares.items())
    return "purified"


def main(
    source: Annotated[str, typer.Argument(help="A video file, a device (0, /dev/video0), or a GStreamer pipeline.")],
    bundle: Annotated[str | None, typer.Option(help="A bundle. Default: the digits.")] = None,
    preset: Annotated[str | None, typer.Option(help="A preset. Default: the bundle's own.")] = None,
    provider: Annotated[str, typer.Option(help="What runs the graphs.")] = "cpu",
    flag_rate: Annotated[float, typer.Option(help="Share of usual frames that the monitor may flag.")] = 0.02,
    hold: Annotated[int, typer.Option(min=1, help="Measure every so many frames, and where the picture changes.")] = 10,
    frames: Annotated[int | None, typer.Option(help="End after so many answers.")] = None,
) -> None:
    """Print an answer for the newest frame, again and again, until the source ends or Ctrl-C."""
    capture = opened(source)
    is_file = "!" not in source and not source.isdigit() and not source.startswith(("/dev/", "rtsp:", "http"))
    pace = (capture.get(cv2.CAP_PROP_FPS) or 25.0) if is_file else None
    answers = 0
    with edgepure.load(bundle or edgepure.demo_bundle(), provider) as purifier:
        manifest = purifier.bundle.manifest
        watched = manifest.calibration is not None and not manifest.framed
        monitor = purifier.monitor(flag_rate, probe=True) if watched else None
        track = edgepure.Track(every=hold)  # the noise is fresh for every frame, whatever is held
        channels = purifier.image_shape[0]
        with Newest(reader(capture, pace)) as newest:
            images, start = fitting(iter(newest), channels), time.monotonic()
            answering = purifier.stream(images, preset, resize="crop", order="bgr", monitor=monitor, track=track)
            for answer in answering:
                answers += 1
                rate = answers / (time.monotonic() - start)
                if isinstance(answer, edgepure.Purified):
                    flag = "  FLAGGED" if answer.flagged else ""
                    words = said(answer) + flag + ("  held" if answer.held else "")
                else:
                    words = f"no answer: {answer.reason}"
                print(f"{rate:5.1f} frames/s  age {1000 * newest.age:5.0f} ms  {words}", flush=True)
                if answers == frames:
                    break
    capture.release()
    seen = {"flagged": 0, "unusual_traffic": False} if monitor is None else monitor.to_dict()
    print(f"{answers} answers, {newest.read - newest.taken} frames were too many")
    print(f"{track.measured} measured, {seen['flagged']} of them flagged; {track.held} held what was measured before")
    if seen["unusual_traffic"]:
        print("ALARM: more frames are flagged than the calibration explains")


if __name__ == "__main__":
    typer.run(main)
