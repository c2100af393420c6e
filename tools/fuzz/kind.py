"""What a kind of input is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from random import Random

from edgepure.errors import EdgepureError


class Kind(ABC):
    """One kind of inputs. It is made in the process that tries them, which works in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """``folder``: where it keeps its files; after each input the same names have to be there."""
        self.folder = folder

    @abstractmethod
    def attempt(self, random: Random) -> None:
        """Make an input and try it. Returns if it was taken.

        Raises:
            EdgepureError: it was refused, as it should be.
        """


def sound(error: EdgepureError) -> bool:
    """Whether an error of ours is what a user should see: one sentence."""
    said = str(error)
    return bool(said.strip()) and "\n" not in said and len(said) < 4000
