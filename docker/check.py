"""Build container images, run each of them as its users do, and print what came out.

    python docker/check.py                                # cpu and export, which need nothing of NVIDIA's
    python docker/check.py cpu --builder buildah --build-arg PYTHON_IMAGE=registry.example/python:3.12-slim
    python docker/check.py tensorrt --run-arg=--gpus=all

The builder is the first of docker, podman and buildah that answers. Every command runs as the image's own user,
without network and capabilities, with /tmp and /data in memory; with docker and podman everything else is read-only.
Needs Python 3.10 alone. Exit code 1 if an image failed, 2 if there is nothing to build it with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = tuple(sorted(path.name.partition(".")[0] for path in (ROOT / "docker").glob("*.Dockerfile")))
#: What is built unless something else is asked for: images that need neither packages nor a registry of NVIDIA's.
DEFAULT = ("cpu", "export")
BUILDERS = ("docker", "podman", "buildah")
DIGITS = ROOT / "samples" / "digits"  # small networks to export; /digits in the containers

DEMO = "edgepure demo --out /data/demo && test -s /data/demo/report.html"
EXPORT = (
    "edgepure export --classifier python:/digits/models.py:load_classifier"
    " --diffusion python:/digits/models.py:load_unet --image 1x16x16 --blocks stem,block1 --out /data/bundle"
    " && edgepure verify /data/bundle"
)
NO_TOOLS = "for tool in pip pip3 uv gcc g++ cc make; do if command -v $tool; then exit 1; fi; done"
SIZE = "du -sx --block-size=1000000 / 2>/dev/null | cut -f1"


class ImageError(Exception):
    """An image does not do what it should; the text is for the table."""


@dataclass
class Result:
    """What is known of one image: seconds by step, the size of its unpacked files, what went wrong."""

    image: str
    seconds: dict[str, float] = field(default_factory=dict)
    megabytes: int | None = None
    failure: str = ""

    def row(self) -> tuple[str, ...]:
        size = "" if self.megabytes is None else str(self.megabytes)
        times = (f"{self.seconds[step]:.0f}" if step in self.seconds else "" for step in ("build", "doctor", "work"))
        return (self.image, size, *times, f"failed: {self.failure}" if self.failure else "passed")


def answers(builder: str) -> bool:
    """Is it there, and (docker) its engine, too?"""
    return shutil.which(builder) is not None and subprocess.run([builder, "info"], capture_output=True).returncode == 0


def build_command(builder: str, image: str, build_args: Sequence[str]) -> list[str]:
    """HEALTHCHECK is no part of the OCI format, which podman and buildah write unless told otherwise."""
    form = [] if builder == "docker" else ["--format=docker"]
    args = [f"--build-arg={arg}" for arg in build_args]
    return [builder, "build", *form, *args, "-f", f"docker/{image}.Dockerfile", "-t", f"edgepure:{image}", "."]


def run_command(builder: str, place: str, command: Sequence[str], run_args: Sequence[str]) -> list[str]:
    """``place``: the image, with buildah the container that was made of it."""
    volume = f"--volume={DIGITS}:/digits:ro"
    if builder == "buildah":
        memory = ["--mount=type=tmpfs,destination=/tmp", "--mount=type=tmpfs,destination=/data"]
        alone = ["unshare", "--net"] if os.environ.get("BUILDAH_ISOLATION") == "chroot" else []  # it knows no networks
        limits = ["--network=none", "--cap-drop=all"]
        return [*alone, builder, "run", *limits, *memory, volume, *run_args, place, "--", *command]
    limits = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    memory = ["--security-opt=label=disable", "--tmpfs=/tmp", "--tmpfs=/data:mode=1777"]
    entry = f"--entrypoint={command[0]}"
    return [builder, "run", "--rm", *limits, *memory, volume, *run_args, entry, place, *command[1:]]


def health_command(dockerfile: str) -> list[str]:
    """The command of a Dockerfile's HEALTHCHECK, which is written as a JSON list."""
    found = re.search(r"^HEALTHCHECK\s(?:.*\\\n)*.*CMD\s+(\[.*\])\s*$", dockerfile, flags=re.MULTILINE)
    if found is None:
        raise ImageError("its Dockerfile has no HEALTHCHECK with a JSON command")
    command: list[str] = json.loads(found[1])
    return command


@contextmanager
def opened(builder: str, image: str) -> Iterator[str]:
    """What `run_command` needs to name: buildah runs containers only, and keeps them until they are removed."""
    tag = f"edgepure:{image}"
    if builder != "buildah":
        yield tag
        return
    container = output("from", [builder, "from", "--pull-never", tag]).strip()
    try:
        yield container
    finally:
        subprocess.run([builder, "rm", container], stdout=subprocess.DEVNULL)


def output(step: str, command: Sequence[str], wanted: int = 0) -> str:
    """Standard output of a command that ends with the exit code ``wanted``."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode != wanted:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ImageError(
            f"{step}: exit code {done.returncode} instead of {wanted}: {said[-1] if said else 'no output'}"
        )
    return done.stdout


def driver_says(doctor: str) -> bool:
    """Is there a GPU? ``doctor``: what `edgepure doctor --json` printed, which has to say why if there is none."""
    try:
        found = json.loads(doctor)
        works, gpus, fault = found["ok"], found["driver"]["gpus"], found["driver"]["fault"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"doctor: its JSON cannot be read ({error!r})") from None
    if not works:
        raise ImageError("doctor: no engine works")
    if not gpus and not fault:
        raise ImageError("doctor: there is no GPU, and it does not say why")
    return bool(gpus)


def check(builder: str, image: str, build_args: Sequence[str] | None, run_args: Sequence[str]) -> Result:
    """Build one image and use it. ``build_args`` is None: it is there already."""
    result = Result(image)

    def timed(step: str, command: Sequence[str], wanted: int = 0) -> str:
        print(f"{image}: {step} ...", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            return output(step, run_command(builder, place, command, run_args), wanted)
        finally:
            result.seconds[step] = time.monotonic() - begin

    try:
        health = health_command((ROOT / "docker" / f"{image}.Dockerfile").read_text(encoding="utf-8"))
        if build_args is not None:
            begin = time.monotonic()
            built = subprocess.run(build_command(builder, image, build_args), cwd=ROOT, stdout=sys.stderr)
            result.seconds["build"] = time.monotonic() - begin
            if built.returncode != 0:
                raise ImageError(f"build: exit code {built.returncode}")
        with opened(builder, image) as place:
            result.megabytes = int(timed("size", ["sh", "-c", SIZE]))
            gpu = driver_says(timed("doctor", ["edgepure", "doctor", "--json"]))
            # The health check of the images for GPUs asks for a GPU: where there is none, it has to fail.
            timed("health", health, wanted=0 if gpu or "doctor" in health else 1)
            timed("tools", ["sh", "-c", NO_TOOLS])
            timed("work", ["sh", "-c", EXPORT if image == "export" else DEMO])
    except ImageError as failure:
        result.failure = str(failure)
    return result


def table(results: Sequence[Result]) -> str:
    header = ("image", "MB", "build s", "doctor s", "demo or export s", "result")
    rows = [header, *(result.row() for result in results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", metavar="image", help=f"{', '.join(IMAGES)}; default: {' '.join(DEFAULT)}")
    parser.add_argument("--builder", choices=BUILDERS, help="default: the first of them on the PATH")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="for every build")
    parser.add_argument("--run-arg", action="append", default=[], metavar="OPTION", help="for every run")
    parser.add_argument("--no-build", action="store_true", help="the images are there already, as edgepure:IMAGE")
    options = parser.parse_args(arguments)
    if unknown := [image for image in options.images if image not in IMAGES]:
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(IMAGES)}")
    wanted = [options.builder] if options.builder else BUILDERS
    builder = next(filter(answers, wanted), None)
    if builder is None:
        print(f"error: `info` of {', '.join(wanted)} does not answer: install one, start its engine", file=sys.stderr)
        return 2
    build_args = None if options.no_build else options.build_arg
    results = [check(builder, image, build_args, options.run_arg) for image in options.images or DEFAULT]
    print(table(results))
    return int(any(result.failure for result in results))


if __name__ == "__main__":
    sys.exit(main())
