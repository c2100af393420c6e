# syntax=docker/dockerfile:1
# The runtime on an NVIDIA GPU of a PC or server (x86-64): TensorRT and ONNX Runtime with CUDA; no PyTorch, not root.
# The driver comes from the host, everything else from packages: no CUDA toolkit is needed on either side.
#
#   docker build -f docker/tensorrt.Dockerfile -t edgepure:tensorrt .
#   docker run --rm --gpus all edgepure:tensorrt doctor

# One exact version; docker/README.md tells how to pin the digest as well.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY runtime runtime
COPY export export
COPY calibration calibration
# TensorRT and ONNX Runtime for CUDA 13 are not among the versions that the tests pin, so they are pinned here. NVRTC
# compiles the noise kernel at start. TensorRT falls under NVIDIA's own licence: do not publish an image made of it.
RUN python -m venv /tmp/backend \
 && /tmp/backend/bin/pip install hatchling==1.33.0 \
 && /tmp/backend/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /tmp/wheels . \
 && python -m venv /opt/edgepure \
 && /opt/edgepure/bin/pip install --constraint constraints.txt "$(ls /tmp/wheels/edgepure-*.whl)[cuda,tensorrt]" \
      "onnxruntime-gpu[cuda,cudnn]==1.31.1" tensorrt==11.4.0.106 polygraphy==0.53.6 nvidia-cuda-nvrtc==13.2.86 \
 && /opt/edgepure/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, TensorRT runtime" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/edgepure /opt/edgepure
# The container toolkit mounts libcuda and libnvidia-ml for these capabilities.
ENV PATH=/opt/edgepure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
USER 10001:10001
WORKDIR /data
# Does the driver give this container a GPU? `doctor` would be content with the CPU.
HEALTHCHECK --interval=120s --timeout=60s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import sys; from edgepure import nvidia; sys.exit(0 if nvidia.find() else 1)"]
ENTRYPOINT ["edgepure"]
CMD ["doctor"]
