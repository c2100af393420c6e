"""The purification presets of the digits bundle, and the calibration that completes two of them."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

import edgepure
from edgepure import EpsSpec, Purifier
from edgepure.bundle import Calibration, DataRecord, ProbeCalibration, SigmoidReweighting
from edgepure.images import LabelledImages
from edgepure_calibration.calibrate import distribution, fit_linear, reference_sample

DEFAULT = "heterogeneous"
VOTES = {"count": 5, "rule": "majority"}
MASK = {"rule": "minmax", "area": 0.3}

UNIFORM = {"method": "uniform", "t_star": 120, "steps": 3, "sampler": "ddpm"}
HETEROGENEOUS = {
    "method": "heterogeneous",
    "t_l": 200,
    "t_s": 100,
    "stage1_steps": 2,
    "stage2_steps": 2,
    "resample": "single",
    "U": 3,
    "eta": 1.0,
}

#: Noise level at which SSNI looks at an image: one UNet call.
PROBE = EpsSpec(levels=(10.0,))
#: Seed of the noise of the measurement.
SEED = 11

#: Everything but SSNI, which needs statistics.
FIXED: dict[str, dict[str, Any]] = {
    "heterogeneous": {
        "method": HETEROGENEOUS,
        "mask": MASK,
        "description": "strong noise where the classifier looks, weaker noise elsewhere",
    },
    "heterogeneous-official": {
        "method": {**HETEROGENEOUS, "variant": "official"},
        "mask": MASK,
        "description": "the same, as in the authors' code: resampling costs no extra call",
    },
    "uniform": {"method": UNIFORM, "description": "DiffPure: the same noise everywhere"},
    "repaint": {
        "method": {
            "method": "repaint",
            "respacing": "20",
            "t_T": 4,
            "jump_length": 1,
            "jump_n_sample": 2,
        },
        "mask": {"rule": "minmax", "area": 0.6},  # what lies outside is never purified: keep that small
        "description": "inpainting inside the mask with repeated steps",
    },
    "gdmp": {
        "method": {
            "method": "gdmp",
            "respacing": "40",
            "purify_steps": 4,
            "rounds": 2,
            "guide_scale": 200.0,
            "variance": "fixed_small",
        },
        "description": "denoising guided towards the input, two rounds",
    },
    "gnsp": {
        "method": {
            "method": "gnsp",
            "max_timesteps": [30, 60, 120],
            "num_denoising_steps": [1, 2, 3],
            "clip": True,
        },
        "description": "three rounds with growing noise",
    },
}


def with_votes(preset: dict[str, Any]) -> dict[str, Any]:
    """The preset with the decision rule of this sample."""
    return {**preset, "votes": VOTES}


def fixed_presets() -> dict[str, dict[str, Any]]:
    """All presets without SSNI, the default one first."""
    return {name: with_votes(preset) for name, preset in FIXED.items()}


def calibrate_digits(purifier: Purifier, data: LabelledImages) -> Calibration:
    """The score norms of clean images, measured with the exported graphs.

    The probe is given and not searched for; `edgepure calibrate` does the whole job.
    """
    norms = purifier.score_norms(data.images, PROBE, noise=SEED)
    clean = distribution(norms)
    answers = purifier.logits(data.images).argmax(axis=1)
    return Calibration(
        created=date.today(),
        edgepure_version=edgepure.__version__,
        seed=SEED,
        clean=DataRecord(
            sha256=data.sha256, images=len(data), accuracy=round(float(np.mean(answers == data.labels)), 6)
        ),
        probes=(ProbeCalibration(probe=PROBE, clean=clean, sample=reference_sample(norms)),),
        chosen=PROBE,
        reason="given by the sample: one UNet call at timestep 10",
        linear=fit_linear(norms, None),
        sigmoid=SigmoidReweighting(mu=round(clean.mean, 3), tau=round(clean.std, 3)),
    )


def ssni_presets(calibration: Calibration) -> dict[str, dict[str, Any]]:
    """SSNI on the two main methods: a sigmoid around the mean score norm of clean images, as wide as its spread.

    A typical clean image gets half the noise level and half the UNet calls, an attacked one all of it.
    """
    ssni = {
        "reweighting": "sigmoid",
        "probe": PROBE,
        "mu": calibration.sigmoid.mu,
        "tau": calibration.sigmoid.tau,
        "minimum": 0.4,  # an attacker who imitates a clean score norm still meets this much noise
        "levels": 16,
    }
    uniform = {"method": UNIFORM, "ssni": ssni, "description": "uniform, its noise level chosen for each image"}
    heterogeneous = {
        "method": HETEROGENEOUS,
        "mask": MASK,
        "ssni": ssni,
        "description": "heterogeneous, its noise levels chosen for each image",
    }
    return {"heterogeneous-ssni": with_votes(heterogeneous), "uniform-ssni": with_votes(uniform)}
