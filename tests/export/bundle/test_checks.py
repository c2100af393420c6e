"""What is refused before anything is exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny_models
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure.images.spec import ImageSpec
from edgepure_export.bundle.checks import check_classifier, check_module, check_unet

IMAGE = ImageSpec(channels=tiny_models.CHANNELS, height=tiny_models.SIZE, width=tiny_models.SIZE)


class Changed(tiny_models.TinyClassifier):
    """A classifier whose logits are changed."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, image: Tensor) -> Any:
        return self.change(super().forward(image))


def images(count: int = 3) -> Tensor:
    return torch.rand((count, *IMAGE.shape), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (lambda image: image, "E-network-kind"),
        (tiny_models.TinyClassifier().state_dict(), "E-network-kind"),
        (None, "E-network-kind"),
    ],
)
def test_what_is_no_module(given: Any, code: str) -> None:
    with raises_code(code):
        check_module("classifier", given)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript() -> None:
    traced = torch.jit.trace(tiny_models.TinyClassifier(), images())
    for module in (traced, nn.Sequential(traced)):
        with raises_code("E-network-kind"):
            check_module("classifier", module)
    check_module("classifier", tiny_models.TinyClassifier())


def test_probabilities_are_no_logits() -> None:
    with raises_code("E-network-probabilities"):
        check_classifier(Changed(lambda logits: logits.softmax(1)), images(), None)
    assert check_classifier(Changed(lambda logits: logits.log_softmax(1)), images(), None) == tiny_models.CLASSES


@pytest.mark.parametrize("change", [lambda logits: (logits, None), lambda logits: {"logits": logits}])
def test_logits_in_something_else(change: Callable[[Tensor], Any]) -> None:
    with raises_code("E-classifier-output"):
        check_classifier(Changed(change), images(), None)


def test_a_classifier_that_mixes_the_images_of_a_batch() -> None:
    """The answer to one request must not depend on who asks at the same time."""
    classifier = tiny_models.TinyClassifier()
    assert check_classifier(classifier, images(), None) == tiny_models.CLASSES
    classifier.stem[1] = nn.BatchNorm2d(6, track_running_stats=False).eval()  # type: ignore[assignment]
    with raises_code("E-network-batch"):
        check_classifier(classifier, images(), None)


def test_a_diffusion_network_that_mixes_the_images_of_a_batch() -> None:
    class Mixing(tiny_models.TinyUNet):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward((x - x.mean()) / x.std() + 0.1 * x.mean(), t)

    assert not check_unet(tiny_models.TinyUNet(), IMAGE, 1000)
    with raises_code("E-network-batch"):
        check_unet(Mixing(), IMAGE, 1000)


def test_a_network_that_needs_more_than_one_image() -> None:
    class Several(tiny_models.TinyClassifier):
        def forward(self, image: Tensor) -> Tensor:
            if len(image) < 2:
                raise ValueError("too few")
            return super().forward(image)

    with raises_code("E-network-batch-one"):
        check_classifier(Several(), images(), None)
