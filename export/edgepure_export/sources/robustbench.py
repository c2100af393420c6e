"""The scheme ``robustbench-wrn``: RobustBench's WideResNets from their files."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from edgepure.errors import ExportError

from ..networks import wideresnet
from ..networks.load import load_wideresnet
from .preprocessing import Preprocessed, Transform, describe
from .random_weights import with_random_weights
from .scheme import ClassifierSource, SourceText, classifier_scheme, origin_of, weight_files

#: The size that RobustBench's networks pool from.
_WRN_SIZE = (32, 32)


@classifier_scheme("robustbench-wrn")
def robustbench_wrn(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``robustbench-wrn:FILE``, a WideResNet of RobustBench in its Standard or DeepMind naming.

    Options: ``activation`` (silu or relu, of the DeepMind naming), ``mean`` and ``std`` (``0.49,0.48,0.45``), ``entry``
    (of a file with several sets of weights). ``robustbench-wrn:WRN-28-10?weights=random`` and ``DM-WRN-70-16`` make
    untrained networks.
    """
    source.allow("weights", "activation", "mean", "std", "entry")
    activation: Any = source.choice("activation", "silu", "relu")
    mean, std = (source.numbers(name) for name in ("mean", "std"))
    network: nn.Module
    if source.random:
        found = re.fullmatch(r"(DM-)?WRN-(\d+)-(\d+)", source.place, re.IGNORECASE)
        if found is None:
            raise ExportError(
                f"{source.text!r}: with random weights name the architecture, WRN-28-10 (Standard) or DM-WRN-70-16",
                code="E-source-architecture",
            )
        kind = wideresnet.DMWideResNet if found[1] else wideresnet.WideResNet
        config = wideresnet.WideResNetConfig(int(found[2]), int(found[3]), activation=activation)
        network = with_random_weights(lambda: kind(config))
        origin = origin_of(source)
    else:
        if "weights" in source.options:
            raise ExportError(
                f"{source.text!r}: the file itself holds the weights; leave the weights option out",
                code="E-source-weights-twice",
            )
        network = load_wideresnet(source.place, source.options.get("entry"), activation, mean, std)
        origin = origin_of(source, *weight_files(source.place))
    model: nn.Module = network
    preprocessing = "none"
    if image_size not in (None, _WRN_SIZE):
        transform = Transform(_WRN_SIZE)
        model, preprocessing = Preprocessed(network, transform, image_size), describe(transform)
    return ClassifierSource(model, origin, network=network, untrained=source.random, preprocessing=preprocessing)
