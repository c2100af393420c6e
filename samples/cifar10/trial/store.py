"""Raw answers on disk: a small JSON file for every (system, attack, batch of images), so that a stop loses little."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.files import write_npz, write_text

BATCH = 32


@dataclass(frozen=True)
class Answers:
    """What a system said of attacked images.

    Attributes:
        system, attack: names.
        calls: UNet calls of one vote.
        index: [N] positions in the data set's test images.
        labels: [N] the truth.
        votes: [D, N] the class of every answer; D is 1 for deterministic systems.
        top: [D, N] log-probability of that class, for ties of a majority.
        seconds: that attack and answers took.
    """

    system: str
    attack: str
    calls: int
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    votes: NDArray[np.int64]
    top: NDArray[np.float32]
    seconds: float

    def __len__(self) -> int:
        return len(self.labels)

    def majority(self, count: int) -> NDArray[np.int64]:
        """The decision [N] of the first `count` votes; ties go to the class of the surest votes."""
        votes, top = self.votes[:count], self.top[:count]
        if len(votes) == 1:
            return np.asarray(votes[0], np.int64)
        scores = np.zeros((len(self), 10))
        for vote, weight in zip(votes, top, strict=True):
            scores[np.arange(len(self)), vote] += 1 + 1e-3 * np.exp(weight)
        decided: NDArray[np.int64] = scores.argmax(1).astype(np.int64)
        return decided

    def right(self, rule: str) -> NDArray[np.bool_]:
        """[N] by rule: `single`, `worst-10` or `majority-K`."""
        kind, _, count = rule.partition("-")
        if kind == "single":
            return np.asarray(self.votes[0] == self.labels)
        if kind == "worst":
            return np.asarray((self.votes[: int(count)] == self.labels).all(0))
        return np.asarray(self.majority(int(count)) == self.labels)

    def rate(self) -> NDArray[np.float64]:
        """[N] the share of right votes."""
        return np.asarray((self.votes == self.labels).mean(0), np.float64)

    def part(self, where: slice) -> Answers:
        """Some of the images; the seconds are their share."""
        labels = self.labels[where]
        return Answers(
            self.system,
            self.attack,
            self.calls,
            self.index[where],
            labels,
            self.votes[:, where],
            self.top[:, where],
            self.seconds * len(labels) / len(self),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: a vote is one digit, so that a row of votes is a short string."""
        return {
            "system": self.system,
            "attack": self.attack,
            "calls": self.calls,
            "seconds": round(self.seconds, 2),
            "index": self.index.tolist(),
            "labels": "".join(map(str, self.labels)),
            "votes": ["".join(map(str, row)) for row in self.votes],
            "top": [[round(float(v), 3) for v in row] for row in self.top],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Answers:
        """The reverse of `to_dict`."""
        return cls(
            data["system"],
            data["attack"],
            data["calls"],
            np.array(data["index"], np.int64),
            _digits(data["labels"]),
            np.stack([_digits(row) for row in data["votes"]]),
            np.array(data["top"], np.float32),
            data["seconds"],
        )


def _digits(text: str) -> NDArray[np.int64]:
    return np.array([int(c) for c in text], np.int64)


def joined(parts: Iterable[Answers]) -> Answers:
    """Answers of the same system and attack on different images as one."""
    found = list(parts)
    first = found[0]
    return Answers(
        first.system,
        first.attack,
        first.calls,
        np.concatenate([p.index for p in found]),
        np.concatenate([p.labels for p in found]),
        np.concatenate([p.votes for p in found], 1),
        np.concatenate([p.top for p in found], 1),
        sum(p.seconds for p in found),
    )


class Store:
    """A folder of such files, of one bundle: files of another bundle are in another sub-folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def key(self) -> str:
        """Of the bundle and what runs it."""
        return self.folder.name.partition("-")[2]

    def path(self, system: str, attack: str, batch: int, draws: int, suffix: str = "json") -> Path:
        return self.folder / system / attack / f"{batch:04d}-{draws}.{suffix}"

    def get(self, system: str, attack: str, batch: int, draws: int) -> Answers | None:
        path = self.path(system, attack, batch, draws)
        return Answers.from_dict(json.loads(path.read_text())) if path.is_file() else None

    def put(self, found: Answers, batch: int, draws: int) -> None:
        path = self.path(found.system, found.attack, batch, draws)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found.to_dict()) + "\n")

    def restore(self, published: Iterable[Answers]) -> int:
        """Put joined answers back as the batches that they were, and say how many were missing here."""
        count = 0
        for answers in published:
            for batch in range(-(-len(answers) // BATCH)):
                part = answers.part(slice(BATCH * batch, BATCH * (batch + 1)))
                kept = self.get(answers.system, answers.attack, batch, len(answers.votes))
                if kept is None or len(kept) < len(part):
                    self.put(part, batch, len(answers.votes))
                    count += 1
        return count

    def images(self, system: str, attack: str, batch: int) -> NDArray[np.float32] | None:
        """Attacked images that are kept for other systems."""
        path = self.path(system, attack, batch, 0, "npz")
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored["images"], np.float32)

    def put_images(self, system: str, attack: str, batch: int, images: NDArray[np.float32]) -> None:
        path = self.path(system, attack, batch, 0, "npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_npz(path, {"images": images})

    def all(self) -> list[Answers]:
        """Everything found, batches joined from the first on while none is missing, most draws first."""
        found: list[Answers] = []
        for place in sorted({p.parent for p in self.folder.glob("*/*/*.json")}):
            by_draws: dict[int, dict[int, Path]] = {}
            for path in place.glob("*.json"):
                batch, draws = (int(n) for n in path.stem.split("-"))
                by_draws.setdefault(draws, {})[batch] = path
            draws = max(by_draws, key=lambda d: (len(by_draws[d]), d))
            parts: list[Answers] = []
            while len(parts) in by_draws[draws]:
                parts.append(Answers.from_dict(json.loads(by_draws[draws][len(parts)].read_text())))
            if parts:
                found.append(joined(parts))
        return found
