"""CIFAR-10: RobustBench's WideResNet and score_sde's DDPM++ (deep, continuous) to a bundle. See README.md."""

from samples.real_models.recipe import Recipe, main

RECIPE = Recipe(
    name="cifar10",
    files={
        "classifier": ("robustbench-wrn:FILE", "RobustBench's Standard.pt, or a WideResNet of DeepMind's naming"),
        "diffusion": ("score-sde:FILE", "score_sde's checkpoint_8.pth of vp/cifar10_ddpmpp_deep_continuous"),
    },
    untrained={
        "classifier": "robustbench-wrn:WRN-28-10?weights=random",
        "diffusion": "score-sde:cifar10-ddpmpp-deep-continuous?weights=random",
    },
    presets=("cifar10-edge-10", "cifar10-edge-uniform-4", "cifar10-dhni-paper", "cifar10-diffpure-linf"),
)

if __name__ == "__main__":
    main(RECIPE)
