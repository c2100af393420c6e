"""ImageNet: torchvision's ResNet-50 and guided-diffusion's 256x256 network to a bundle. See README.md."""

from samples.real_models.recipe import Recipe, main

RECIPE = Recipe(
    name="imagenet",
    files={
        "classifier": ("torchvision:resnet50?weights=FILE&resize=plain", "torchvision's resnet50-0676ba61.pth"),
        "diffusion": ("guided-diffusion:FILE", "OpenAI's 256x256_diffusion_uncond.pt"),
    },
    untrained={
        "classifier": "torchvision:resnet50?weights=random&resize=plain",
        "diffusion": "guided-diffusion:imagenet256-uncond?weights=random",
    },
    presets=("imagenet-edge-4", "imagenet-edge-10", "imagenet-dhni-paper", "imagenet-diffpure"),
)

if __name__ == "__main__":
    main(RECIPE)
