"""How much a purification sees of its input: the algebra behind certificates.

Every use of the input ``ref`` that carries fresh Gaussian noise is a *noisy view*: ``seen * ref + std * n``, plus what
follows from earlier views. Given those, a view is as good as ``ref + (std / seen) * n``; independent views of one pixel
say together what a single one with ``1 / sigma^2 = sum of (seen / std)^2`` says, because the weighted mean of Gaussian
views is a sufficient statistic. So the purified image is a (randomised) function of ``ref + sigma * n``, whatever the
network does, and randomized smoothing certifies it. `docs/certificates.md` has the proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import ConfigError

#: Factors of the columns that only the mask switches on.
_MASKED = ("x_mask", "ref_mask", "noise_mask")


def information(
    rows: Iterable[Mapping[str, float]], *, start: float, closing_std: float, mask: float, mask_from: int = 0
) -> float:
    """``1 / sigma^2`` in model range of all views of one pixel, whose mask is ``mask`` (0 outside, 1 inside).

    Where the mask is computed on the way (``mask_from``), the larger of the two, inside and outside, still bounds what
    is seen of a pixel: the mask follows from earlier views, and a view with more noise can be made of one with less.

    Args:
        rows: the columns of every row (`edgepure.rows.Row.columns`).
        start: how much of the input ``x`` holds before the first row: 1, or 0 if it starts from zeros.
        closing_std: standard deviation of the noise that is added after the last row.
        mask_from: row before which the mask is computed from the state.

    Raises:
        ConfigError: the input is used without noise, so there is no certificate; code ``E-certificate-plan``.
    """
    total = 0.0
    held = start  # x = held * ref + what follows from the views so far
    for number, row in enumerate(rows):
        if number < mask_from and any(row[name] for name in _MASKED):
            raise _none(f"row {number} uses the mask before it is computed")
        if number == mask_from > 0 and held != 0.0:
            raise _none("the mask is computed from a state that holds a share of the input itself")
        seen = (row["x_base"] + row["x_mask"] * mask) * held + row["ref_base"] + row["ref_mask"] * mask
        std = row["noise_base"] + row["noise_mask"] * mask
        if seen != 0.0:
            if std <= 0.0:
                raise _none(f"row {number} gives the network the input without noise")
            total += (seen / std) ** 2
        if row.get("var_ref", 0.0) != 0.0:
            raise _none(f"row {number} adds the input times the network's own variance, whose size is not known before")
        held = row["out_x"] * held + row["out_ref"]
    if held != 0.0:
        if closing_std <= 0.0:
            raise _none("the result holds a share of the input itself, without noise")
        total += (held / closing_std) ** 2
    return total


def _none(why: str) -> ConfigError:
    return ConfigError(f"no certificate: {why}", code="E-certificate-plan")
