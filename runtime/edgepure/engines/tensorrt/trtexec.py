"""The command of NVIDIA's own tool that builds the same engine, to look into a build or to take it elsewhere."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...bundle.entries import GraphEntry
from .build import profiles_of
from .options import BuildOptions


def trtexec_command(onnx: Path, entry: GraphEntry, options: BuildOptions, plan: Path, *, rtx: bool = False) -> str:
    """One line for a shell.

    Args:
        onnx: the graph.
        entry: its entry in the manifest.
        options: as for `build_engines`.
        plan: the file to write.
        rtx: for TensorRT for RTX, whose tool is called ``tensorrt_rtx``.
    """
    words = ["tensorrt_rtx" if rtx else "trtexec", f"--onnx={onnx}", f"--saveEngine={plan}", "--skipInference"]
    if rtx:
        numbers = ",".join(target.removeprefix("sm") for target in options.targets)
        words.append(f"--computeCapabilities={numbers}" if numbers else "--useGpu")
    else:
        words.append("--stronglyTyped")
    if not options.tf32:
        words.append("--noTF32")
    for index, shapes in enumerate(profiles_of(entry, options.batches)):
        spec = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
        words += [f"--profile={index}", f"--minShapes={spec}", f"--optShapes={spec}", f"--maxShapes={spec}"]
    words.append("--maxAuxStreams=0")
    if options.workspace_mb is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace_mb}M")
    if options.version_compatible:
        words.append("--versionCompatible")
    if options.timing_cache is not None:
        words.append(f"--timingCacheFile={options.timing_cache}")
    return shlex.join(words)
