"""The examples of the help texts and pages, as they stand there, and a folder in which they can be run."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cli_process import environment
from PIL import Image

import edgepure
from tools.docs.help_texts import help_of, own_verbs
from tools.docs.page import ROOT

PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")))


@dataclass(frozen=True)
class Example:
    """A command line, and where it stands."""

    command: str
    place: str


def examples() -> dict[str, Example]:
    """Every command that begins with ``edgepure``, once, in the order of the help and of the pages."""
    found: dict[str, Example] = {}
    for verb in own_verbs():
        for command in commands(help_of(verb).partition("Examples:")[2]):
            found.setdefault(command, Example(command, f"edgepure {verb} --help"))
    for page in PAGES:
        for command in commands((ROOT / page).read_text(encoding="utf-8")):
            found.setdefault(command, Example(command, page))
    return found


def commands(text: str) -> list[str]:
    """The commands in indented lines and code blocks; lines that end in a backslash go on; comments are cut off."""
    joined = re.sub(r" \\\n\s+", " ", text)
    lines = re.findall(r"^(?: {4}\$ | {4}|\$ |)(edgepure [^\n]+)$", joined, re.MULTILINE)
    return [re.sub(r"\s{2,}#.*$| # .*$", "", line).strip() for line in lines if _is_command(line)]


def _is_command(line: str) -> bool:
    return line.split()[1] in own_verbs()


def make_workshop(folder: Path) -> dict[str, str]:
    """Put into ``folder`` what the examples name: a bundle, images in every form, networks. Gives the environment."""
    shutil.copytree(edgepure.demo_bundle(), folder / "digits")
    source = edgepure.demo_bundle().parent / "digits_images.npz"
    shutil.copy(source, folder / "images.npz")
    digits = edgepure.demo_images()
    clean, attacked, labels = digits.clean, digits.adversarial, digits.labels
    for name, images in (("photos", clean), ("images", clean)):
        (folder / name).mkdir()
        for number, image in enumerate(images):
            save(image, folder / name / f"{number:03d}.png")
    for name, part in (("train", slice(0, None, 2)), ("test", slice(1, None, 2))):
        for number, (image, label) in enumerate(zip(clean[part], labels[part], strict=True)):
            place = folder / name / str(label)
            place.mkdir(parents=True, exist_ok=True)
            save(image, place / f"{number:03d}.png")
    save(clean[int(np.argmax(labels == 7))], folder / "seven.png")
    save(attacked[0], folder / "attacked.png")
    save(np.concatenate([*attacked[:3]], axis=2), folder / "street.png")
    np.save(folder / "extra.npy", clean[:2])
    np.savez(folder / "validation.npz", images=clean, labels=labels)
    whole = np.rint(255.0 * clean).astype(np.uint8).transpose(0, 2, 3, 1)  # 8 bits: certificates of them are exact
    for name in ("test", "clean"):
        np.savez(folder / f"{name}.npz", images=whole, labels=labels)
    np.savez(folder / "attacked.npz", images=attacked, labels=labels)
    np.savez(folder / "d.npz", images=clean, labels=labels, attacked=attacked, adversarial=attacked)
    leave_outcomes(folder)
    (folder / "models.py").write_text(
        "from samples.digits.models import load_classifier, load_unet\n"
        "from samples.scenes.models import load_segmenter\n\n"
        "__all__ = ['load_classifier', 'load_segmenter', 'load_unet']\n"
    )
    tools = folder / ".tools"
    tools.mkdir()
    command = tools / "edgepure"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgepure "$@"\n')
    command.chmod(0o755)
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(ROOT)])
    return {**env, "PATH": f"{tools}{os.pathsep}{env['PATH']}", "HOME": str(folder)}


def leave_outcomes(folder: Path) -> None:
    """What `edgepure evaluate` would have left for `edgepure compare`: in the bundle, and in files."""
    from edgepure.bundle.edit import edit_bundle
    from edgepure_calibration.evaluate.outcomes import OUTCOMES_FILE, Outcomes

    digits = edgepure.demo_images()
    lines = [(preset, "pgd", "majority of 5") for preset in ("uniform", "heterogeneous")]
    count = len(digits.labels)
    outcomes = Outcomes(
        bundle="digits",
        engine="cpu, fp32",
        images=tuple(f"{number:032x}" for number in range(count)),
        labels=digits.labels.astype(np.int64),
        right={line: np.arange(count) % (7 + n) > 0 for n, line in enumerate(lines)},
        protocols=dict.fromkeys(lines, "pgd, Linf eps 0.1"),
        attacked={},
    )
    with edit_bundle(folder / "digits") as edit:
        edit.write_npz(OUTCOMES_FILE, outcomes.to_arrays())
    for name in ("fp32", "int8"):
        np.savez(folder / f"{name}.npz", **outcomes.to_arrays())


def save(image: np.ndarray, path: Path) -> None:
    """One gray image in [0, 1] as PNG."""
    Image.fromarray(np.rint(255.0 * image[0]).astype(np.uint8)).save(path)
