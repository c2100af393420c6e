"""Folders of the model libraries as their `save_pretrained` writes them, tiny and with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from edgepure_export.graphs.to_onnx import export_graph
from edgepure_export.graphs.weights_pool import WeightsPool
from edgepure_export.sources.random_weights import with_random_weights

UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}


def diffusers_unet(**changes: Any) -> nn.Module:
    from diffusers import UNet2DModel

    return with_random_weights(lambda: UNet2DModel(**{**UNET, **changes}), seed=3)


def diffusers_folder(folder: Path, network: nn.Module, pipeline: bool = False, **scheduler: Any) -> Path:
    """A UNet2DModel and its scheduler's config, bare or as a pipeline."""
    from diffusers import DDPMScheduler

    places = (folder / "unet", folder / "scheduler") if pipeline else (folder, folder)
    network.save_pretrained(places[0])  # type: ignore[operator]
    DDPMScheduler(**scheduler).save_pretrained(places[1])
    return folder


def transformers_folder(folder: Path, family: str) -> Path:
    """An image classifier of 3 classes with the processor that its family usually has."""
    import transformers as tf

    labels = {"id2label": {0: "cat", 1: "dog", 2: "newt"}}
    if family == "resnet":
        config: Any = tf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic", **labels
        )
        model: Any = tf.ResNetForImageClassification
        processor = {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 32},
            "crop_pct": 0.8,
            "resample": 3,
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.4, 0.3],
            "image_std": [0.2, 0.3, 0.25],
        }
    elif family == "convnext":
        config = tf.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], **labels)
        model = tf.ConvNextForImageClassification
        processor = {
            "image_processor_type": "ConvNextImageProcessor",
            "size": {"shortest_edge": 64},
            "resample": 3,
            "crop_pct": 0.875,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    else:
        config = tf.ViTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
            **labels,
        )
        model = tf.ViTForImageClassification
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 32, "width": 32},
            "resample": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    with_random_weights(lambda: model(config), seed=5).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


class ExportedGraph:
    """A module through our exporter, run by ONNX Runtime."""

    def __init__(self, module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], folder: Path) -> None:
        two = {k: v[torch.arange(2) % len(v)] for k, v in inputs.items()}
        graph = export_graph("graph", module, two, outputs)
        with WeightsPool(folder) as pool:
            pool.save(graph.model, "graph.onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(folder / "graph.onnx", options, providers=["CPUExecutionProvider"])

    def __call__(self, *inputs: Tensor) -> list[np.ndarray[Any, Any]]:
        names = [value.name for value in self._session.get_inputs()]
        return self._session.run(None, {n: x.numpy() for n, x in zip(names, inputs, strict=True)})  # type: ignore[no-any-return]
