"""Models that are loaded anew, without a server."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from edgepure.serve.models import Models
from edgepure.serve.settings import ModelSettings


def test_what_was_replaced_is_given_back(digits: Path) -> None:
    """Whatever Python was told to leave alone: weights and threads of an old model must not stay."""
    models = Models(5.0)
    try:
        models.add(ModelSettings("m", digits, preset="uniform", threads=1, lanes=2))
        with models.get("m") as model:
            assert model.proved
            old = weakref.ref(model.service)
        del model
        models.load("m")
        gc.collect()
        assert old() is None
        with models.get("m") as model:
            assert model.proved and model.probe().result(30) is not None
    finally:
        models.close()
        gc.unfreeze()
