"""What usually makes one layer differ: what people met, by operator, precision and place."""

from __future__ import annotations

from edgepure.engines.kinds import kind_of

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_NORMALISATION = {
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "BatchNormalization",
    "ReduceMean",
    "Pow",
    "Sqrt",
    "Reciprocal",
}
_EMBEDDING = {"Sin", "Cos"}

_KEEP = "keep the layer {module} in fp32 (`edgepure quantize --keep {module}`)"


def usual_causes(
    operator: str | None,
    module: str,
    precision: str,
    provider: str,
    *,
    against_torch: bool,
    before_weights: bool,
) -> tuple[str, ...]:
    """Sentences, most likely cause first.

    Args:
        operator: ONNX type of the layer that diverges; None if no layer does although the output differs.
        module: PyTorch module that it came from.
        precision, provider: of the deployment.
        against_torch: the reference is PyTorch and not another graph.
        before_weights: no layer with weights comes before it.
    """
    if operator is None:
        return (
            "an optimisation of the engine, such as a fusion of layers, which asking for intermediate outputs "
            "prevents: compare with its optimisations switched off, or with another version",
        )
    half, eight_bit = precision in ("fp16", "bf16"), precision in ("int8", "fp8")
    keep = _KEEP.format(module=module)
    causes = []
    if operator == "Resize":
        causes.append(
            "another resize mode: align_corners, half-pixel centres and rounding of nearest differ between engines, "
            "and most have no antialias"
        )
    if operator in _NORMALISATION and half:
        causes.append(f"a normalisation in 16 bits, whose sums lose their digits or overflow: {keep}")
    if operator in _EMBEDDING and half:
        causes.append(f"sines of a timestep up to 1000 in 16 bits, which leave it no fraction: {keep}")
    if operator == "Softmax" and half:
        causes.append(f"attention logits beyond the range of 16 bits: {keep}")
    if operator in _WEIGHTED and eight_bit:
        causes.append(f"a quantised layer whose activations have outliers: {keep}, or calibrate with more images")
    if operator in _WEIGHTED and half:
        causes.append(f"values beyond fp16's 65504, or sums that were kept in 16 bits: {keep}, or choose bf16")
    if operator in _WEIGHTED and kind_of(provider).device == "gpu" and precision == "fp32":
        causes.append("TF32 convolutions and products on the GPU, which keep 10 bits: switch TF32 off to compare")
    if operator in _WEIGHTED and kind_of(provider).device == "cpu" and precision == "fp32":
        causes.append(
            "other weights than the reference's: another checkpoint, an average (EMA) of it, or a file that was changed"
        )
    if before_weights:
        causes.append("preprocessing: mean, standard deviation, range or order of the channels")
    if against_torch and operator not in _WEIGHTED:
        causes.append("an operator that means something else in this opset, or that the exporter translates wrongly")
    if not causes and (half or eight_bit):
        causes.append(f"rounding that this layer does not bear: {keep}")
    if not causes:
        causes.append("a kernel of this provider: compare with provider cpu, or with another version of the engine")
    return tuple(causes)
