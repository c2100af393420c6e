"""The numbers of the published presets, as plain data. `edgepure.methods.published` is the interface.

Abbreviations of the sources: DiffPure = NVlabs/DiffPure, GDMP = JinyiW/GuidedDiffusionPur, GNSP = Lee & Kim,
ml-postech/robust-evaluation-of-diffusion-based-purification, DHNI = GaozhengPei/Purification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SMALL, _LARGE = (3, 32, 32), (3, 256, 256)
_WRN = ("WRN-28-10", "WRN-70-16")
_RESNET = ("ResNet-50",)
_DDPMPP = "score_sde DDPM++ deep continuous (VP), checkpoint_8.pth"
_ADM = "guided-diffusion 256x256_diffusion_uncond.pt"
_DDPM = "DDPM CIFAR-10 (Ho et al. 2020)"
_SVHN_DDPM = "a DDPM trained on SVHN (the authors trained their own)"

_DIFFPURE = "Nie et al. 2022, arXiv 2205.07460, section 5; NVlabs/DiffPure 985703f"
_GDMP = "Wang et al. 2022; JinyiW/GuidedDiffusionPur 6ee8b1a"
_GNSP = "Lee & Kim 2023, arXiv 2303.09051; their repository 3b98b01"
_DHNI = "CVPR 2025, arXiv 2503.01407; GaozhengPei/Purification"
_SSNI = "SSNI, ICML 2025, arXiv 2506.06027"


def _entry(
    name: str, image: tuple[int, int, int], source: str, settings: dict[str, Any], votes: int = 1, **more: Any
) -> dict[str, Any]:
    settings = {**settings, "votes": {"count": votes, "rule": "majority"}}
    dataset = name.split("-")[0]
    defaults = {
        "datasets": (dataset,),
        "classifiers": _RESNET if dataset == "imagenet" else _WRN if dataset == "cifar10" else ("WRN-28-10",),
        "diffusion": {"imagenet": _ADM, "cifar10": _DDPMPP}.get(dataset, _SVHN_DDPM),
    }
    return {"name": name, "image": image, "source": source, "settings": settings, **defaults, **more}


def _sde(t_star: int, label: str) -> dict[str, Any]:
    return {"method": "uniform", "t_star": t_star, "sampler": "sde", "sde_label": label, "sde_step": 1e-3}


def _gnsp(*last: int) -> dict[str, Any]:
    rounds = [30, 30, 30, 30, 50, 50, *last]
    return {"method": "gnsp", "max_timesteps": rounds, "num_denoising_steps": rounds, "sampler": "ddpm"}


#: The authors average their guidance over the batch (100 and 60 images), so its strength depends on it.
_GDMP_CIFAR = {
    "method": "gdmp",
    "variant": "official",
    "purify_steps": 36,
    "rounds": 4,
    "guidance": "mse",
    "target": "noised",
    "guide_scale": 60_000.0,
    "ptb": 8.0,
    "elements": 100 * 3 * 32 * 32,
    "variance": "fixed_large",
}
_GDMP_IMAGENET = {
    "method": "gdmp",
    "variant": "official",
    "purify_steps": 45,
    "rounds": 1,
    "guidance": "mse",
    "target": "clean",
    "guide_scale": 1000.0,
    "ptb": 4.0,
    "elements": 60 * 3 * 256 * 256,
    "respacing": "250",
    "variance": "learned",
}


def _dhni(t_l: int, variant: str, ddim_steps: int, U: int) -> dict[str, Any]:
    return {
        "method": "heterogeneous",
        "variant": variant,
        "t_l": t_l,
        "t_s": t_l // 2,
        "ddim_steps": ddim_steps,
        "resample": "single",
        "U": U,
    }


_TAU = {"rule": "minmax", "threshold": 0.9}
_AREA = {"rule": "minmax", "area": 0.15}
_PAPER_READING = (
    "the paper's equations with the scripts' numbers; its softmax threshold could not be confirmed, so the mask is the "
    "authors' code's"
)


def _published() -> Iterator[dict[str, Any]]:
    yield _entry(
        "cifar10-diffpure-linf",
        _SMALL,
        f"{_DIFFPURE}, run_scripts/cifar10/run_cifar_rand_inf.sh (t = 100)",
        {"method": _sde(100, "continuous"), "description": "DiffPure against Linf 8/255"},
    )
    yield _entry(
        "cifar10-diffpure-l2",
        _SMALL,
        f"{_DIFFPURE}, run_scripts/cifar10/run_cifar_rand_L2.sh (t = 75)",
        {"method": _sde(75, "continuous"), "description": "DiffPure against L2 0.5"},
    )
    yield _entry(
        "imagenet-diffpure",
        _LARGE,
        f"{_DIFFPURE}, run_scripts/imagenet/run_in_rand_inf.sh (t = 150)",
        {"method": _sde(150, "discrete"), "description": "DiffPure against Linf 4/255"},
    )
    yield _entry(
        "cifar10-gdmp",
        _SMALL,
        f"{_GDMP}, configs/cifar10_MSE.yml",
        {"method": _GDMP_CIFAR, "description": "GDMP, guidance averaged over the authors' batch of 100"},
        10,
        classifiers=("WRN-28-10",),
        diffusion=_DDPM,
    )
    yield _entry(
        "imagenet-gdmp",
        _LARGE,
        f"{_GDMP}, configs/ImageNet_Res50.yml",
        {"method": _GDMP_IMAGENET, "description": "GDMP, guidance averaged over the authors' batch of 60"},
        5,
    )
    for dataset, image, last, script in (
        ("cifar10", _SMALL, 125, "cifar10_pgd_gradual_noise.sh"),
        ("svhn", _SMALL, 80, "svhn.sh"),
        ("imagenet", _LARGE, 200, "imagenet.sh"),
    ):
        yield _entry(
            f"{dataset}-gnsp",
            image,
            f"{_GNSP}, scripts/{script}",
            {"method": _gnsp(last, last), "description": "gradual noise, eight rounds"},
            10,
        )
    for dataset, image, t_l, mask in (("cifar10", _SMALL, 200, _TAU), ("imagenet", _LARGE, 400, _AREA)):
        yield _entry(
            f"{dataset}-dhni-official",
            image,
            f"{_DHNI} fbb99ce, its evaluation scripts",
            {"method": _dhni(t_l, "official", 500, 3), "mask": mask, "description": "heterogeneous noise, their code"},
            20,
            mask_input="official",
        )
        yield _entry(
            f"{dataset}-dhni-paper",
            image,
            f"{_DHNI} fbb99ce for the numbers: {_PAPER_READING}",
            {"method": _dhni(t_l, "paper", 500, 3), "mask": mask, "description": "heterogeneous noise, paper"},
            20,
        )
    for dataset, what in (("cifar10", "readme.md"), ("svhn", "defaults of main.py with --dataset svhn")):
        yield _entry(
            f"{dataset}-dhni-readme",
            _SMALL,
            f"{_DHNI} afa372c, {what} (tau 0.85, 200 DDIM steps, U = 10)",
            {
                "method": _dhni(200, "official", 200, 10),
                "mask": {"rule": "minmax", "threshold": 0.85},
                "description": "heterogeneous noise, the other commit's settings",
            },
            20,
            mask_input="official",
        )
    yield _entry(
        "imagenet-repaint",
        _LARGE,
        "Lugmayr et al. 2022, section 5 (250 steps, jump 10 x 10); the mask is DHNI's",
        {
            "method": {
                "method": "repaint",
                "respacing": "250",
                "t_T": 250,
                "jump_length": 10,
                "jump_n_sample": 10,
                "variance": "learned",
            },
            "mask": _AREA,
            "description": "multi-step resampling: the expensive baseline, as generated from pure noise",
        },
        classifiers=(),
        measured=False,
    )


def _ssni() -> Iterator[dict[str, Any]]:
    hosts: dict[str, tuple[dict[str, Any], int, str]] = {
        # SSNI's code denoises with DDIM, eta = 1, without clipping: one call a timestep.
        "cifar10-diffpure": (
            {"method": "uniform", "t_star": 100, "sampler": "ddim", "eta": 1.0, "clip": False},
            1,
            "t* = 100 and 100 steps as in its code",
        ),
        "cifar10-gdmp": (_GDMP_CIFAR, 10, "on GDMP's own settings"),
        "cifar10-gnsp": (_gnsp(125, 125), 10, "on GNSP's own settings"),
        "imagenet-diffpure": (
            {"method": "uniform", "t_star": 150, "sampler": "ddim", "eta": 1.0, "clip": False},
            1,
            "DiffPure's t* = 150; SSNI's own value could not be confirmed",
        ),
        "imagenet-gdmp": (_GDMP_IMAGENET, 5, "on GDMP's own settings"),
        "imagenet-gnsp": (_gnsp(200, 200), 10, "on GNSP's own settings"),
    }
    for host, (method, votes, note) in hosts.items():
        for reweighting, letter in (("sigmoid", "N"), ("linear", "L")):
            small = host.startswith("cifar10")
            yield _entry(
                f"{host}-ssni-{reweighting}",
                _SMALL if small else _LARGE,
                f"{_SSNI}, SSNI-{letter}; {note}; bias 5",
                {
                    "method": method,
                    "ssni": {"reweighting": reweighting, "bias": 5.0, "probe": {"probes": 20 if small else 50}},
                    "description": f"noise level per image from its score norm (SSNI-{letter})",
                },
                votes,
                **({"diffusion": _DDPM} if host == "cifar10-gdmp" else {}),
            )


def _edge() -> Iterator[dict[str, Any]]:
    """2 to 10 calls, one vote. None of them has been measured on these data sets."""
    ours = "edgepure's own; not measured on these data sets"
    for dataset, image, scale, mask in (("cifar10", _SMALL, 1, _TAU), ("imagenet", _LARGE, 2, _AREA)):
        shared: dict[str, Any] = {
            "datasets": ("cifar10", "svhn") if dataset == "cifar10" else (dataset,),
            "classifiers": (),
            "measured": False,
        }
        t_l, t_star = 200 * scale, 100 if dataset == "cifar10" else 150
        # The authors' stride of 10 DDIM steps over all of T: 200, 100, 0, or 400, 300, ..., 0.
        yield _entry(
            f"{dataset}-edge-{2 * scale}",
            image,
            f"{_DHNI} fbb99ce, its attack surrogate, here as the defence; {ours}",
            {"method": _dhni(t_l, "official", 10, 3), "mask": mask, "description": "the authors' surrogate"},
            **shared,
        )
        for calls, stage1, stage2, resample in ((6, 3, 3, "none"), (8, 2, 4, "single"), (10, 3, 4, "single")):
            method = {
                "method": "heterogeneous",
                "t_l": t_l,
                "t_s": t_l // 2,
                "stage1_steps": stage1,
                "stage2_steps": stage2,
                "resample": resample,
                "U": 3,
            }
            yield _entry(
                f"{dataset}-edge-{calls}",
                image,
                ours,
                {"method": method, "mask": mask, "description": "heterogeneous noise in few DDIM steps"},
                **shared,
            )
        for calls in (2, 4, 10):
            method = {"method": "uniform", "t_star": t_star, "steps": calls, "sampler": "ddim"}
            yield _entry(
                f"{dataset}-edge-uniform-{calls}",
                image,
                ours,
                {"method": method, "description": "the whole image in few DDIM steps, no mask"},
                **shared,
            )


def _smooth() -> Iterator[dict[str, Any]]:
    """Presets with a certificate: the noises of Cohen et al. 2019, one call or several; votes stop when settled."""
    source = "Carlini et al. 2023, arXiv 2206.10550, with the noises of Cohen et al. 2019"
    several = "DensePure, arXiv 2211.00322 (fewer steps than its own); noises of Cohen et al. 2019"
    for sigma, steps in ((0.12, 1), (0.25, 1), (0.5, 1), (1.0, 1), (0.25, 4), (0.5, 4)):
        yield {
            "name": f"smooth-{sigma}" + (f"-{steps}" if steps > 1 else ""),
            "image": _SMALL,
            "source": source if steps == 1 else several,
            "settings": {
                "method": {"method": "smooth", "sigma": sigma, "steps": steps},
                "votes": {"sequential": {"alpha": 0.05, "max": 20}},
                "description": "denoised smoothing: the answer has an L2 certificate (edgepure certify)",
            },
            "datasets": ("cifar10", "svhn", "imagenet"),
            "classifiers": (),
            "diffusion": "any",
        }


def _certified() -> Iterator[dict[str, Any]]:
    """More presets with a certificate: the mask of a noised copy, and cascades from strong to weak noise."""
    shared = {"image": _SMALL, "datasets": ("cifar10", "svhn", "imagenet"), "classifiers": (), "diffusion": "any"}
    for sigma in (0.25, 0.5):
        yield {
            "name": f"split-{sigma}",
            "source": "edgepure; a mask of a noised copy as in arXiv 2406.10427",
            "settings": {
                "method": {"method": "split", "sigma": sigma},
                "mask": {"area": 0.5},
                "votes": {"sequential": {"alpha": 0.05, "max": 20}},
                "description": "strong noise inside the mask of a noised copy, weaker outside; L2 certificates",
            },
            **shared,
        }
    for noises in ((0.5, 0.25), (1.0, 0.5, 0.25)):
        first, *then = ({"method": "smooth", "sigma": sigma} for sigma in noises)
        yield {
            "name": "cascade-" + "-".join(map(str, noises)),
            "source": "edgepure; a certified hand-over as in arXiv 2204.00487",
            "settings": {
                "method": first,
                "cascade": {"then": then, "share": 0.6},
                "votes": {"sequential": {"alpha": 0.05, "max": 200}},
                "description": "strong noise answers where it is sure, else weaker noise does; L2 certificates",
            },
            **shared,
        }


#: Keyword arguments of `edgepure.methods.published.PublishedPreset`.
ENTRIES: tuple[dict[str, Any], ...] = (*_published(), *_ssni(), *_edge(), *_smooth(), *_certified())
