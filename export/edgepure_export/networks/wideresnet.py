"""The two WideResNets of the robustness literature (Zagoruyko & Komodakis 2016), with their original key names.

- `WideResNet`: RobustBench's "Standard" naming (TRADES); no normalisation of the input, padding 1 everywhere.
- `DMWideResNet`: DeepMind's naming (Gowal et al. 2020, Rebuffi et al. 2021); normalisation inside, padding at the right
  and bottom only where the stride is 2.

Both take images in [0, 1], [B, 3, H, W], and give logits [B, classes]. Pre-activation blocks: ``a = act(bn(x))``,
``conv(act(bn(conv(a)))) + shortcut``, where the shortcut is a 1x1 convolution of ``a`` if the channels change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoints import CheckpointError
from .weights import load_weights, refuse_family

Activation = Literal["relu", "silu"]

#: mean and standard deviation that DeepMind's checkpoints divide by, per number of classes.
DM_NORMALISATION = {
    10: ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),  # CIFAR-10
    100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),  # CIFAR-100
}


@dataclass(frozen=True)
class WideResNetConfig:
    """Shape of a WideResNet.

    ``depth`` = 6 n + 4 layers, ``widen_factor`` times 16, 32 and 64 channels. ``bias_last``, ``sub_block1``: variants
    of the Standard naming (TRADES checkpoints carry a ``sub_block1`` that the forward pass never uses).
    ``activation``, ``mean``, ``std``, ``stored_normalisation``: of the DeepMind naming, the last one if the file holds
    mean and std as buffers.
    """

    depth: int
    widen_factor: int
    num_classes: int = 10
    bias_last: bool = True
    sub_block1: bool = False
    activation: Activation = "silu"
    mean: tuple[float, ...] = DM_NORMALISATION[10][0]
    std: tuple[float, ...] = DM_NORMALISATION[10][1]
    stored_normalisation: bool = False

    @property
    def blocks(self) -> int:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise CheckpointError(
                f"a WideResNet has depth 6n + 4 (10, 16, 28, 34, 70, ...), not {self.depth}",
                code="E-wideresnet-depth",
            )
        return (self.depth - 4) // 6

    @property
    def channels(self) -> tuple[int, int, int, int]:
        k = self.widen_factor
        return 16, 16 * k, 32 * k, 64 * k


class WideResNet(nn.Module):
    """RobustBench's "Standard" WideResNet, e.g. WRN-28-10. Taps: `block{1,2,3}.layer.<last>.relu2` and `relu`."""

    def __init__(self, config: WideResNetConfig) -> None:
        super().__init__()
        self.config = config
        c, n = config.channels, config.blocks
        self.conv1 = nn.Conv2d(3, c[0], 3, padding=1, bias=False)
        self.block1 = _StandardGroup(n, c[0], c[1], 1)
        if config.sub_block1:
            self.sub_block1 = _StandardGroup(n, c[0], c[1], 1)
        self.block2 = _StandardGroup(n, c[1], c[2], 2)
        self.block3 = _StandardGroup(n, c[2], c[3], 2)
        self.bn1 = nn.BatchNorm2d(c[3])
        self.relu = nn.ReLU()
        self.fc = nn.Linear(c[3], config.num_classes, bias=config.bias_last)

    def forward(self, x: Tensor) -> Tensor:
        h = self.block3(self.block2(self.block1(self.conv1(x))))
        h = F.avg_pool2d(self.relu(self.bn1(h)), 8)
        logits: Tensor = self.fc(h.flatten(1))
        return logits


class _StandardGroup(nn.Module):
    def __init__(self, blocks: int, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        first = _StandardBlock(c_in, c_out, stride)
        self.layer = nn.Sequential(first, *(_StandardBlock(c_out, c_out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class _StandardBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu1(self.bn1(x))
        h = self.conv2(self.relu2(self.bn2(self.conv1(a))))
        out: Tensor = h + (x if self.convShortcut is None else self.convShortcut(a))
        return out


class DMWideResNet(nn.Module):
    """DeepMind's WideResNet, e.g. WRN-70-16 with SiLU. Taps: `layer.{0,1,2}.block.<last>.relu_1` and `relu`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: WideResNetConfig) -> None:
        super().__init__()
        self.config = config
        for name, values in (("mean", config.mean), ("std", config.std)):
            # On the CPU even while the rest is on the meta device: files normally do not hold these.
            value = torch.tensor(values, dtype=torch.float32, device="cpu").reshape(-1, 1, 1)
            self.register_buffer(name, value, persistent=config.stored_normalisation)
        act: Callable[[], nn.Module] = {"relu": nn.ReLU, "silu": nn.SiLU}[config.activation]
        c, n = config.channels, config.blocks
        self.init_conv = nn.Conv2d(3, c[0], 3, padding=1, bias=False)
        self.layer = nn.Sequential(
            _DMGroup(n, c[0], c[1], 1, act), _DMGroup(n, c[1], c[2], 2, act), _DMGroup(n, c[2], c[3], 2, act)
        )
        self.batchnorm = nn.BatchNorm2d(c[3])
        self.relu = act()
        self.logits = nn.Linear(c[3], config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(self.init_conv((x - self.mean) / self.std))
        h = F.avg_pool2d(self.relu(self.batchnorm(h)), 8)
        logits: Tensor = self.logits(h.flatten(1))
        return logits


class _DMGroup(nn.Module):
    def __init__(self, blocks: int, c_in: int, c_out: int, stride: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        first = _DMBlock(c_in, c_out, stride, act)
        self.block = nn.Sequential(first, *(_DMBlock(c_out, c_out, 1, act) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class _DMBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(c_in)
        self.relu_0 = act()
        # "SAME" padding of TensorFlow: with stride 2 and an even size, one row and column at the far end only.
        self.conv_0 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1 if stride == 1 else 0, bias=False)
        self.pad_far_end = stride == 2
        self.batchnorm_1 = nn.BatchNorm2d(c_out)
        self.relu_1 = act()
        self.conv_1 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu_0(self.batchnorm_0(x))
        h = self.conv_0(F.pad(a, (0, 1, 0, 1)) if self.pad_far_end else a)
        h = self.conv_1(self.relu_1(self.batchnorm_1(h)))
        out: Tensor = h + (x if self.shortcut is None else self.shortcut(a))
        return out


def infer_config(
    state: Mapping[str, Tensor],
    source: str = "the state dict",
    activation: Activation = "silu",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> tuple[type[WideResNet] | type[DMWideResNet], WideResNetConfig]:
    """Class, width and depth from the keys and shapes.

    The keys do not tell the activation and the normalisation of a DeepMind network: RobustBench's all use SiLU, and the
    normalisation of CIFAR-10 or CIFAR-100 follows from the number of classes. Pass them for anything else.
    """
    refuse_family(state, source, "robustbench-wrn")
    standard = "block1.layer.0.conv1.weight" in state
    if not standard and "layer.0.block.0.conv_0.weight" not in state:
        raise CheckpointError(
            f"{source} is not a WideResNet of RobustBench: neither block1.layer.0.conv1.weight (Standard) nor "
            "layer.0.block.0.conv_0.weight (DeepMind) is among its keys; "
            "check that it is the right file, or name its family",
            code="E-checkpoint-incomplete",
        )
    prefix = r"block1\.layer" if standard else r"layer\.0\.block"
    blocks = 1 + max(int(m[1]) for k in state if (m := re.match(rf"{prefix}\.(\d+)\.", k)))
    first = state["block1.layer.0.conv1.weight" if standard else "layer.0.block.0.conv_0.weight"]
    head = "fc" if standard else "logits"
    if f"{head}.weight" not in state:
        raise CheckpointError(f"{source} has no {head}.weight; the file is incomplete", code="E-checkpoint-incomplete")
    classes = int(state[f"{head}.weight"].shape[0])
    stored = not standard and "mean" in state and "std" in state
    if not standard and not stored and classes not in DM_NORMALISATION and (mean is None or std is None):
        raise CheckpointError(
            f"{source} has {classes} classes and holds no mean and std; pass the mean and std that it was trained with",
            code="E-wideresnet-mean",
        )
    usual = DM_NORMALISATION.get(classes, DM_NORMALISATION[10])
    config = WideResNetConfig(
        depth=6 * blocks + 4,
        widen_factor=int(first.shape[0]) // 16,
        num_classes=classes,
        bias_last=f"{head}.bias" in state,
        sub_block1=any(k.startswith("sub_block1.") for k in state),
        activation=activation,
        mean=mean or usual[0],
        std=std or usual[1],
        stored_normalisation=stored,
    )
    return (WideResNet if standard else DMWideResNet), config


def from_state_dict(
    state: Mapping[str, Tensor],
    source: str = "the state dict",
    activation: Activation = "silu",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> WideResNet | DMWideResNet:
    """The network with these weights (prefixes already taken off), in evaluation mode."""
    kind, config = infer_config(state, source, activation, mean, std)
    with torch.device("meta"):
        network = kind(config)
    return load_weights(network, state, source, "robustbench-wrn")
