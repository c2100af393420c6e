"""The public CIFAR ResNets (He et al. 2015, section 4.2) that nobody here trained: what a user would bring.

    export CIFAR10_RESNETS=FOLDER     # of resnet20-12fca82f.th, resnet56-4bfd9763.th
    edgepure export --classifier python:samples/cifar10/resnet.py:resnet56 ...

The files are those of akamaster/pytorch_resnet_cifar10 (BSD-2-Clause), with published test accuracies of 91.73 and
93.39 %. Only tensors are read from them (`weights_only`), and their hash begins with the eight digits of their name.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FILES = {20: "resnet20-12fca82f.th", 56: "resnet56-4bfd9763.th"}


class BasicBlock(nn.Module):
    """Two convolutions; where the map shrinks, the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.padding = stride, (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(h + x)


class CifarResNet(nn.Module):
    """Images [B, 3, 32, 32] in [0, 1] -> logits [B, 10]; depth is 6 n + 2. `layer1..3` are never negative."""

    TAPS = ("layer1", "layer2", "layer3")
    mean: Tensor
    std: Tensor

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, 1, blocks)
        self.layer2 = _stage(16, 32, 2, blocks)
        self.layer3 = _stage(32, 64, 2, blocks)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1((x - self.mean) / self.std)))
        h = self.layer3(self.layer2(self.layer1(h)))
        logits: Tensor = self.linear(h.mean((2, 3)))
        return logits


def _stage(channels_in: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def load_resnet(depth: int, folder: Path | None = None) -> CifarResNet:
    """One of the public networks, in eval mode.

    Raises:
        FileNotFoundError: no folder is given and `CIFAR10_RESNETS` is not set, or the file is not in it.
        ValueError: the file is another one than its name says.
    """
    place = folder or Path(os.environ.get("CIFAR10_RESNETS", ""))
    path = place / FILES[depth]
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: set CIFAR10_RESNETS to the folder of {FILES[depth]}")
    begins = path.stem.rpartition("-")[2]
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(begins):
        raise ValueError(f"the SHA-256 of {path} does not begin with {begins}: the file is damaged or another one")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    model = CifarResNet(depth)
    model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return model.eval()


def resnet20() -> CifarResNet:
    """For `python:samples/cifar10/resnet.py:resnet20`."""
    return load_resnet(20)


def resnet56() -> CifarResNet:
    """For `python:samples/cifar10/resnet.py:resnet56`."""
    return load_resnet(56)
