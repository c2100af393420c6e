"""Presets put into a bundle that is being changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from edgepure.bundle.edit import BundleEdit
from edgepure.methods.presets import Preset


def put_presets(
    edit: BundleEdit, presets: Mapping[str, Preset], recorded: Mapping[str, NDArray[Any]] | None = None
) -> None:
    """Add presets, or replace those of the same name.

    The recorded purifications of presets that change are removed from the self-test, because they no longer say what
    the preset computes; `edgepure verify` then names these presets as unrecorded. ``recorded``: new ones, as
    `edgepure_export.bundle.recordings.record_pipelines` makes them.
    """
    old = edit.manifest.presets
    changed = {name for name, preset in presets.items() if name in old and old[name] != preset}
    edit.manifest = edit.manifest.model_copy(update={"presets": {**old, **presets}})
    if changed or recorded:
        edit.record(changed, recorded)
