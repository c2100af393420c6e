"""Whole graphs as PyTorch modules: those of the bundles, and those of every network family that we export."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnx_parity
import onnxruntime
import pytest
import tiny_models
import torch
from codes import raises_code
from model_folders import ExportedGraph, diffusers_unet, transformers_folder
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle
from edgepure_export.bundle.after_export import mask_flips, open_session
from edgepure_export.graphs.precision import emulated, load_graph, to_half
from edgepure_export.graphs.step import UnetModule
from edgepure_export.networks import guided_diffusion, ncsnpp
from edgepure_export.networks.edm_unets import DhariwalUNet, EdmUNetConfig, SongUNet
from edgepure_export.networks.wideresnet import DMWideResNet, WideResNet, WideResNetConfig
from edgepure_export.sources.random_weights import with_random_weights
from edgepure_export.sources.resolve import resolve_classifier
from edgepure_export.twin.onnx_module import OnnxModule, SharedWeights
from samples.gpu_check.networks import exact

TOLERANCE = 5e-6


def deviation(path: Path, feeds: dict[str, NDArray[Any]]) -> float:
    """Largest difference to ONNX Runtime, relative to max(1, largest value); mask pixels at the cut do not count."""
    session, module = open_session(path, threads=1), OnnxModule.load(path)
    with torch.no_grad():
        found = module(*(torch.from_numpy(np.array(feeds[name])) for name in module.input_names))
    found = found if isinstance(found, tuple) else (found,)
    mine = {name: value.numpy() for name, value in zip(module.output_names, found, strict=True)}
    theirs = dict(zip(module.output_names, session.run(list(module.output_names), feeds), strict=True))
    worst = 0.0
    for name, value in theirs.items():
        assert mine[name].shape == value.shape
        if name == "mask":
            assert mask_flips(mine[name], value, theirs["attention"], TOLERANCE) == 0
        else:
            worst = max(worst, float(np.abs(mine[name] - value).max()) / max(1.0, float(np.abs(value).max())))
    return worst


def recorded(bundle: Path, graph: str, batch: int) -> dict[str, NDArray[Any]]:
    """The self-test's inputs of a graph, repeated or cut to a batch."""
    with np.load(bundle / "selftest.npz", allow_pickle=False) as arrays:
        found = {k.split("/")[2]: arrays[k] for k in arrays.files if k.startswith(f"{graph}/in/")}
    return {key: value[np.arange(batch) % len(value)] for key, value in found.items()}


@pytest.mark.parametrize("graph", ["classifier", "mask", "step", "unet"])
@pytest.mark.parametrize("batch", [1, 5])
def test_graphs_of_the_digits_bundle(graph: str, batch: int) -> None:
    assert deviation(demo_bundle() / f"{graph}.onnx", recorded(demo_bundle(), graph, batch)) <= TOLERANCE


@pytest.mark.parametrize("graph", ["classifier", "mask", "step", "step_learned", "unet"])
def test_graphs_of_the_tiny_bundle(tiny_bundle: Path, graph: str) -> None:
    assert deviation(tiny_bundle / f"{graph}.onnx", recorded(tiny_bundle, graph, 3)) <= TOLERANCE


def images(size: int, count: int = 2) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(size))


def edm_unet(kind: Any, **changes: Any) -> Callable[[], nn.Module]:
    config = EdmUNetConfig(img_resolution=8, num_blocks=1, channel_mult=(1, 2), attn_resolutions=(4,), **changes)
    return lambda: kind(config)


UNETS: dict[str, Callable[[], nn.Module]] = {
    "guided diffusion": lambda: guided_diffusion.GuidedDiffusionUNet(
        guided_diffusion.GuidedDiffusionConfig(
            image_size=8,
            num_channels=32,
            num_res_blocks=1,
            channel_mult=(1, 2),
            attention_factors=(2,),
            resblock_updown=True,
        )
    ),
    "ncsnpp": lambda: ncsnpp.NCSNpp(
        ncsnpp.NCSNppConfig(
            nf=8, ch_mult=(1, 2), num_res_blocks=1, image_size=8, fir=(1.0, 3.0, 3.0, 1.0), residual_input=True
        )
    ),
    "edm song": edm_unet(
        SongUNet,
        model_channels=8,
        augment_dim=9,
        channel_mult_noise=2,
        embedding_type="fourier",
        encoder_type="residual",
        resample_filter=(1, 3, 3, 1),
    ),
    "edm dhariwal": edm_unet(DhariwalUNet, model_channels=64),
    "diffusers": lambda: _Sample(diffusers_unet()),
}


class _Sample(nn.Module):
    """A diffusers network answers with a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        result: Tensor = self.network(x, t, return_dict=False)[0]
        return result


@pytest.mark.slow  # all of them together
@pytest.mark.parametrize("family", UNETS)
def test_diffusion_networks(family: str, tmp_path: Path) -> None:
    network = UnetModule(with_random_weights(UNETS[family], seed=1))
    x, t = torch.randn((3, 3, 8, 8), generator=torch.Generator().manual_seed(0)), torch.tensor([3.0, 0.25, 500.0])
    ExportedGraph(network, {"x": x, "t": t}, ["epsilon"], tmp_path)
    assert deviation(tmp_path / "graph.onnx", {"x": x.numpy(), "t": t.numpy()}) <= TOLERANCE


CLASSIFIERS: dict[str, Callable[[Path], tuple[nn.Module, int]]] = {
    "wide resnet": lambda folder: (with_random_weights(lambda: WideResNet(WideResNetConfig(10, 1))), 32),
    "wide resnet with swish": lambda folder: (with_random_weights(lambda: DMWideResNet(WideResNetConfig(10, 1))), 32),
    "timm resnet": lambda folder: (resolve_classifier("timm:test_resnet?weights=random").model, 160),
    "timm convnext": lambda folder: (resolve_classifier("timm:test_convnext?weights=random").model, 160),
    "timm vit": lambda folder: (resolve_classifier("timm:test_vit?weights=random").model, 160),
    "transformers resnet": lambda folder: (_transformers(folder, "resnet"), 32),
    "transformers convnext": lambda folder: (_transformers(folder, "convnext"), 64),
    "transformers vit": lambda folder: (_transformers(folder, "vit"), 32),
}


def _transformers(folder: Path, family: str) -> nn.Module:
    return resolve_classifier(f"transformers:{transformers_folder(folder / family, family)}").model


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_classifiers(family: str, tmp_path: Path) -> None:
    network, size = CLASSIFIERS[family](tmp_path)
    image = images(size, 3)
    ExportedGraph(network, {"image": image}, ["logits"], tmp_path)
    assert deviation(tmp_path / "graph.onnx", {"image": image.numpy()}) <= TOLERANCE


def test_a_graph_of_the_plain_exporter(tmp_path: Path) -> None:
    """Shapes worked out in the graph: Shape, Gather, Concat, Expand."""
    inputs = (torch.randn(2, 3, 8, 8), torch.tensor([3.0, 500.0]))
    onnx_parity.export(tiny_models.TinyUNet(), inputs, tmp_path / "unet.onnx")
    model = onnx.load(tmp_path / "unet.onnx")
    x = torch.randn((5, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    t = torch.linspace(0.0, 900.0, 5)
    feeds = dict(zip((v.name for v in model.graph.input), (x.numpy(), t.numpy()), strict=True))
    assert deviation(tmp_path / "unet.onnx", feeds) <= TOLERANCE


def test_float64_is_the_module_in_float64(tiny_bundle: Path) -> None:
    module, source = OnnxModule.load(tiny_bundle / "unet.onnx").double(), tiny_models.TinyUNet(learned=True).double()
    x, t = torch.randn((2, 3, 8, 8), dtype=torch.float64), torch.tensor([3.0, 500.0], dtype=torch.float64)
    with torch.no_grad():
        found, wanted = module(x, t), source(x, t)[:, :3]
    assert found.dtype == torch.float64
    assert (found - wanted).abs().max() < 1e-6  # constants of the graph were rounded to float32
    back = module.float()
    assert back(x.float(), t.float()).dtype == torch.float32


def test_gradients_are_those_of_the_module(tiny_bundle: Path) -> None:
    module, source = OnnxModule.load(tiny_bundle / "classifier.onnx"), tiny_models.TinyClassifier()
    grads = []
    for network in (module, source):
        leaf = tiny_models.images(3).requires_grad_()
        grads.append(torch.autograd.grad(network(leaf).square().sum(), leaf)[0])
    assert grads[1].abs().max() > 0.1
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-6)


def test_graphs_share_their_weights_also_after_a_move(tiny_bundle: Path) -> None:
    shared: SharedWeights = {}
    step, unet = (OnnxModule.load(tiny_bundle / f"{name}.onnx", shared) for name in ("step", "unet"))
    assert shared
    for moved in (lambda m: m, lambda m: m.to(torch.float64)):
        moved(step), moved(unet)
        places = [{p.data_ptr() for p in m.parameters() if p.numel() > 256} for m in (step, unet)]
        assert places[0] == places[1] != set()


def test_a_copy_stands_alone(tiny_bundle: Path) -> None:
    module = OnnxModule.load(tiny_bundle / "classifier.onnx")
    twin = copy.deepcopy(module).double()
    assert module(tiny_models.images(1)).dtype == torch.float32
    assert twin(tiny_models.images(1).double()).dtype == torch.float64
    assert not any(p.requires_grad for p in module.parameters())


def test_intermediate_values_are_given_back(tiny_bundle: Path) -> None:
    """What is not needed any more must not live to the end of the graph."""
    module = OnnxModule.load(tiny_bundle / "unet.onnx")
    released = [name for done in module._releases for name in done]
    made = {name for node in module._nodes for name in node.outputs if name}
    assert len(released) == len(set(released))
    assert set(released) == made - set(module.output_names)


def test_unknown_operators_are_all_named(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"]),
        helper.make_node("FusedThing", ["a"], ["b"], domain="vendor"),
        helper.make_node("NonZero", ["b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "odd.onnx")
    with raises_code("E-twin-operator"):
        OnnxModule.load(tmp_path / "odd.onnx")
    loose = helper.make_graph([helper.make_node("Relu", ["gone"], ["y"])], "g", [value], [])
    onnx.save(helper.make_model(loose, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "loose.onnx")
    with raises_code("E-graph-dangling"):
        OnnxModule.load(tmp_path / "loose.onnx")
    old = helper.make_model(helper.make_graph(nodes[-1:], "g", [value], []), opset_imports=[helper.make_opsetid("", 9)])
    onnx.save(old, tmp_path / "old.onnx")
    with raises_code("E-twin-operator"):
        OnnxModule.load(tmp_path / "old.onnx")


def test_bad_files_and_inputs_in_one_sentence(tmp_path: Path) -> None:
    with raises_code("E-graph-missing"):
        OnnxModule.load(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a graph")
    with raises_code("E-twin-graph"):
        OnnxModule.load(tmp_path / "text.onnx")
    graph = Bundle.open(demo_bundle()).graph_path("classifier")
    (tmp_path / "classifier.onnx").write_bytes(graph.read_bytes())
    with raises_code("E-twin-weight"):
        OnnxModule.load(tmp_path / "classifier.onnx")
    module = OnnxModule.load(graph)
    with raises_code("E-twin-input"):
        module(torch.zeros(1), torch.zeros(1))
    with raises_code("E-twin-input"):
        module(torch.zeros(1, 1, 16, 16, dtype=torch.float64))


def recorded_step() -> dict[str, NDArray[Any]]:
    return recorded(demo_bundle(), "step", 3)


def test_an_int8_graph_is_what_the_engine_quantises(tmp_path: Path) -> None:
    """Q/DQ as ONNX defines it, before an engine fuses it; and a gradient near that of the fp32 graph."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class OneBatch(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([recorded_step()])

        def get_next(self) -> Any:
            return next(self.batches, None)

    path = tmp_path / "step.onnx"
    operators = ["Conv", "MatMul", "Gemm", "ConvTranspose"]
    quantize_static(
        str(demo_bundle() / "step.onnx"),
        str(path),
        OneBatch(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=operators,
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (wanted,) = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]).run(None, recorded_step())
    gradients, outputs = [], []
    for module in (OnnxModule.load(path), OnnxModule.load(demo_bundle() / "step.onnx")):
        feeds = {key: torch.from_numpy(value) for key, value in recorded_step().items()}
        feeds["ref"].requires_grad_()
        outputs.append(module(*(feeds[name] for name in module.input_names)))
        gradients.append(torch.autograd.grad(outputs[-1].sum(), feeds["ref"])[0].flatten())
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3, "nothing was quantised"
    np.testing.assert_allclose(outputs[0].detach().numpy(), wanted, rtol=0, atol=TOLERANCE)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 1e-3), ("bf16", 2e-3)])
def test_a_graph_in_16_bits(precision: str, tolerance: float, tmp_path: Path) -> None:
    """fp32 inputs and outputs, 16 bits inside: rounded where the graph says so, and nowhere in float64."""
    source = demo_bundle() / "step.onnx"
    shutil.copy(demo_bundle() / "weights.bin", tmp_path)
    for name in ("step", "emulated"):  # the same by fp32 kernels: ONNX Runtime has none for bf16 on the CPU
        model = load_graph(source)
        to_half(model, precision)
        if name == "emulated":
            emulated(model)
        onnx_ir.save(model, tmp_path / f"{name}.onnx")
    (exact,), (rounded,) = (
        open_session(path, threads=1).run(None, recorded_step()) for path in (source, tmp_path / "emulated.onnx")
    )
    module = OnnxModule.load(tmp_path / "step.onnx")
    feeds = {key: torch.from_numpy(value) for key, value in recorded_step().items()}
    feeds["ref"].requires_grad_()
    found = module(*(feeds[name] for name in module.input_names))
    assert found.dtype == torch.float32
    assert np.abs(rounded - exact).max() > 1e-4, "nothing was rounded"
    np.testing.assert_allclose(found.detach().numpy(), rounded, rtol=0, atol=tolerance)
    (fine,) = torch.autograd.grad(OnnxModule.load(source)(*(feeds[n] for n in module.input_names)).sum(), feeds["ref"])
    (coarse,) = torch.autograd.grad(found.sum(), feeds["ref"])
    assert torch.nn.functional.cosine_similarity(fine.flatten(), coarse.flatten(), dim=0) > 0.99
    with torch.no_grad():
        unrounded = module.double()(*(feeds[name].double() for name in module.input_names))
    # the weights keep their 16 bits, the activations are not rounded any more
    assert 0.0 < np.abs(unrounded.numpy() - exact).mean() < np.abs(rounded - exact).mean()


@pytest.mark.parametrize("graph", ["classifier", "mask", "step", "step_learned", "unet"])
def test_every_tensor_follows_the_device(tiny_bundle: Path, graph: str) -> None:
    """On the meta device, which refuses what is left on the CPU and what reads data back."""
    module = OnnxModule.load(tiny_bundle / f"{graph}.onnx").to("meta")
    feeds = recorded(tiny_bundle, graph, 3)
    found = module(*(torch.from_numpy(feeds[name]).to("meta") for name in module.input_names))
    found = found if isinstance(found, tuple) else (found,)
    assert all(value.device.type == "meta" and value.shape[0] == 3 for value in found)


@pytest.mark.gpu
def test_on_a_gpu(tiny_bundle: Path) -> None:
    for name in ("step", "mask", "classifier", "step_learned"):
        feeds = recorded(tiny_bundle, name, 3)
        module = OnnxModule.load(tiny_bundle / f"{name}.onnx")
        inputs = [torch.from_numpy(feeds[key]) for key in module.input_names]
        with torch.no_grad(), exact("cuda"):
            here = module(*inputs)
            there = module.to("cuda")(*(x.cuda() for x in inputs))
        here, there = (r if isinstance(r, tuple) else (r,) for r in (here, there))
        for key, mine, theirs in zip(module.output_names, here, there, strict=True):
            if key != "mask":
                torch.testing.assert_close(theirs.cpu(), mine, rtol=1e-4, atol=1e-4)
