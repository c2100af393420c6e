"""On what the deployed graphs of a bundle run."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.manifest import Manifest
from edgepure.engines.kinds import engine_words
from edgepure.purify.purifier import Purifier

from .work import bundle_key


@dataclass(frozen=True)
class ProviderSettings:
    """As `edgepure.load` takes them.

    Attributes:
        provider: what runs the graphs: ``cpu``, ``openvino``, ``cuda`` ...
        precision: which graphs.
        threads: CPU threads; None: one per core.
        slots: images that share a UNet call at most.
    """

    provider: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    slots: int = 32

    def open(self, bundle: Bundle | str | PathLike[str]) -> Purifier:
        """The bundle, ready to run.

        Raises:
            BundleError, ProviderError: as `edgepure.load`.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        return Purifier(opened, self.provider, precision=self.precision, threads=self.threads, slots=self.slots)

    def key(self, manifest: Manifest) -> dict[str, str]:
        """What answers of the deployed graphs depend on, see `edgepure_calibration.work.Work`."""
        return {"bundle": bundle_key(manifest, self.precision), "provider": engine_words(self.provider)}
