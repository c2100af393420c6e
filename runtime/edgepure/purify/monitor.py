"""The score-norm monitor: does an image look like the clean images of the calibration?

Its score norm is compared with the reference sample of a calibration. The p-value is conformal (Vovk et al. 2005; Bates
et al. 2023), two-sided: with ``m`` reference norms, of which ``u`` are at least and ``l`` at most as large as ``n``,

    p = min(1, 2 * (min(u, l) + 1) / (m + 1))

For an image drawn as the reference images were, ``P(p <= a) <= a`` for every ``a``, whatever the distribution and
however few reference images there are: flagging ``p <= a`` has a false-positive rate of at most ``a``.

It is an alarm and not a proof. An attacker who knows of the monitor can keep the norm ordinary, and images that are
merely unusual (another camera, another subject) are flagged too.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from ..bundle.calibration import MAX_SAMPLE, Calibration
from ..errors import ConfigError
from ..intervals import clopper_pearson
from ..methods import EpsSpec
from ..methods.presets import Preset
from ..validation import expect

#: The chance that `is_unusual` is ever true of a service whose traffic is ordinary.
FALSE_ALARMS = 0.05
#: Upper bounds of the p-value histogram. On clean images every tenth holds a tenth of them, about.
BUCKETS = tuple(k / 10 for k in range(1, 11))


class Reference:
    """Clean score norms of one probe.

    Args:
        norms: ascending, at least one.

    Raises:
        ConfigError: there are none.
    """

    def __init__(self, norms: Sequence[float]) -> None:
        if not norms:
            raise ConfigError(
                "there are no score norms to compare with; run `edgepure calibrate` on the bundle",
                code="E-monitor-norms",
            )
        self._norms = norms

    def __len__(self) -> int:
        return len(self._norms)

    def p_value(self, score_norm: float) -> float:
        """Two-sided conformal p-value in (0, 1]; see the module's text."""
        at_least = len(self._norms) - bisect_left(self._norms, score_norm)
        at_most = bisect_right(self._norms, score_norm)
        return min(1.0, 2.0 * (min(at_least, at_most) + 1) / (len(self._norms) + 1))

    @property
    def smallest(self) -> float:
        """The smallest p-value that can occur."""
        return min(1.0, 2.0 / (len(self._norms) + 1))


def reference_of(calibration: Calibration | None, probe: EpsSpec, precision: str) -> Reference | None:
    """The reference of a probe on graphs of a precision; None if it was not calibrated there."""
    measured = None if calibration is None else calibration.find(probe, precision)
    return Reference(measured.sample) if measured is not None and measured.sample else None


def _made(calibration: Calibration, flag_rate: float, probe: bool, precision: str) -> Monitor:
    return Monitor(calibration, flag_rate, probe=probe, precision=precision)


def is_unusual(flagged: int, images: int, flag_rate: float, reference: int) -> bool:
    """Whether so many flagged images say that the traffic is not what was calibrated.

    The calibration is a sample, too: with ``m`` reference norms, of which the ``k`` smallest and largest are flagged,
    the share that is flagged of ordinary traffic is itself drawn from Beta(2k, m + 1 - 2k). The counts are weighed
    against that (beta-binomial) with a share that may be anything, as a test martingale (Ville 1939; Ramdas et al.
    2023): on ordinary traffic this ever becomes true with a chance of at most `FALSE_ALARMS`, however often it is asked
    and however long the service runs. ``benchmarks/monitor_rates.py`` simulates it.
    """
    flags = 2 * math.floor(flag_rate * (reference + 1) / 2 + 1e-9)
    if not images or not 0 < flags <= reference or flagged <= flag_rate * images:
        return False
    a, b = float(flags), float(reference + 1 - flags)
    evidence = _log_beta(1.0 + flagged, 1.0 + images - flagged) - _log_beta(a + flagged, b + images - flagged)
    return evidence + _log_beta(a, b) > -math.log(FALSE_ALARMS)  # the logarithm of Beta(1, 1) is 0


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


class Monitor:
    """Flags results whose p-value is at most ``flag_rate``, and counts. Thread-safe; keep one for as long as you serve.

    Make it with `Purifier.monitor`, and give it to `Purifier.classify`.

    Args:
        calibration: the bundle's.
        flag_rate: false-positive rate, in (0, 1).
        precision: of the graphs whose images are watched; None: that of the calibration.
        probe: measure images of presets without SSNI with the calibrated probe. It costs that probe's UNet calls for
            every image. False: such a preset is an error, because it has no score norm.

    Raises:
        ConfigError: the rate is out of range, or so small that the reference could never reach it.
    """

    def __init__(
        self, calibration: Calibration, flag_rate: float = 0.01, *, probe: bool = False, precision: str | None = None
    ) -> None:
        if isinstance(flag_rate, bool) or not isinstance(flag_rate, int | float) or not 0.0 < flag_rate < 1.0:
            raise ConfigError(
                f"flag rate {flag_rate!r:.40} must be a number between 0 and 1, for example 0.01",
                code="E-config-flag-rate",
            )
        expect(calibration=(calibration, Calibration), probe=(probe, bool), precision=(precision, str, None))
        precision = precision or calibration.precision
        self._made = calibration, flag_rate, probe, precision
        self.calibration = calibration
        self.flag_rate = flag_rate
        self.probe = calibration.chosen if probe else None
        reference = reference_of(calibration, calibration.chosen, precision)
        self.check(calibration.chosen, reference)
        self._kept = 0 if reference is None else len(reference)
        self._lock = threading.Lock()
        self._images = self._flagged = self._unet_calls = 0
        self._buckets = [0] * len(BUCKETS)
        self._sum = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has counted nothing."""
        return _made, self._made

    def probe_of(self, preset: Preset) -> EpsSpec | None:
        """What is measured for the monitor alone; None: the preset measures by itself, or not at all."""
        return self.probe if preset.ssni is None else None

    def check(self, probe: EpsSpec | None, reference: Reference | None) -> None:
        """Raise ConfigError if images measured with ``probe`` cannot be flagged at this rate."""
        if probe is None:
            raise ConfigError(
                "the preset has no SSNI, so no score norm to monitor; choose one that has it, or ask for one of every "
                "image (probe=True, `edgepure classify --probe`; "
                f"UNet calls: {self.calibration.chosen.unet_calls} more each)",
                code="E-monitor-ssni",
            )
        if reference is None:
            raise ConfigError(
                "this bundle holds no clean score norms of the preset's probe in this precision; run `edgepure "
                "calibrate` on it",
                code="E-monitor-calibration",
            )
        if self.flag_rate < reference.smallest:
            most = "" if len(reference) < MAX_SAMPLE else f" (at most {MAX_SAMPLE} are kept)"
            raise ConfigError(
                f"flag rate {self.flag_rate:g} can never be reached: the calibration kept {len(reference)} clean score "
                f"norms{most}, so the smallest p-value is {reference.smallest:.3g}; choose a larger rate, or calibrate "
                "with more images",
                code="E-monitor-flag-rate",
            )

    def see(self, p_value: float, unet_calls: int = 0) -> bool:
        """Count one result, and say whether it is flagged. ``unet_calls``: what the monitor alone cost."""
        expect(p_value=(p_value, Real), unet_calls=(unet_calls, Integral))
        if not 0.0 <= p_value <= 1.0:
            raise ConfigError(f"p_value is {p_value!r:.40}, expected 0 to 1", code="E-config-value")
        flagged = p_value <= self.flag_rate
        with self._lock:
            self._images += 1
            self._flagged += flagged
            self._unet_calls += unet_calls
            self._buckets[bisect_left(BUCKETS, p_value)] += 1
            self._sum += p_value
        return flagged

    def to_dict(self) -> dict[str, Any]:
        """The counters as plain data for JSON.

        ``flagged_interval`` is the 95 % Clopper-Pearson interval of the share that was flagged. ``unusual_traffic``
        says that more is flagged than images like those of the calibration explain (`is_unusual`).
        """
        with self._lock:
            images, flagged, calls, buckets = self._images, self._flagged, self._unet_calls, list(self._buckets)
        return {
            "flag_rate": self.flag_rate,
            "images": images,
            "flagged": flagged,
            "flagged_interval": list(clopper_pearson(flagged, images) if images else (0.0, 1.0)),
            "unusual_traffic": is_unusual(flagged, images, self.flag_rate, self._kept),
            "unet_calls": calls,
            "p_value_counts": {f"{bound:g}": n for bound, n in zip(BUCKETS, buckets, strict=True)},
            "calibrated": self.calibration.created.isoformat(),
        }

    def prometheus(self) -> str:
        """The counters in the Prometheus text exposition format, version 0.0.4."""
        with self._lock:
            counters = (
                ("images", "Images whose score norm was compared with the calibration.", self._images),
                ("flagged", "Images flagged as off-distribution.", self._flagged),
                ("unet_calls", "UNet calls spent for the monitor alone.", self._unet_calls),
            )
            lines: list[str] = []
            for name, words, value in counters:
                full = f"edgepure_monitor_{name}_total"
                lines += [f"# HELP {full} {words}", f"# TYPE {full} counter", f"{full} {value}"]
            rate, histogram = "edgepure_monitor_flag_rate", "edgepure_monitor_p_value"
            lines += [
                f"# HELP {rate} Stated false-positive rate.", f"# TYPE {rate} gauge", f"{rate} {self.flag_rate!r}",
                f"# HELP {histogram} Conformal p-values; uniform on images like those of the calibration.",
                f"# TYPE {histogram} histogram",
            ]  # fmt: skip
            total = 0
            for bound, count in zip(BUCKETS, self._buckets, strict=True):
                total += count
                lines.append(f'{histogram}_bucket{{le="{bound:g}"}} {total}')
            lines += [
                f'{histogram}_bucket{{le="+Inf"}} {total}', f"{histogram}_sum {self._sum!r}",
                f"{histogram}_count {total}",
            ]  # fmt: skip
        return "\n".join(lines) + "\n"
