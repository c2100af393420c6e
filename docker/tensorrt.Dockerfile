# The runtime on an NVIDIA GPU of a PC or server (x86-64): TensorRT and ONNX Runtime with CUDA; no PyTorch, not root.
# The driver comes from the host, everything else from packages: no CUDA toolkit is needed on either side.
#
#   docker build -f docker/tensorrt.Dockerfile -t edgepure:tensorrt .
#   docker run --rm --gpus all edgepure:tensorrt doctor

# One exact version; docker/README.md tells how to pin the digest as well.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1
WORKDIR /src
# First what changes seldom: the packages that edgepure needs, without edgepure.
# TensorRT and ONNX Runtime for CUDA 13 are not among the versions that the tests pin, so they are pinned here. NVRTC
# compiles the noise kernel at start. TensorRT falls under NVIDIA's own licence: do not publish an image made of it.
COPY constraints.txt pyproject.toml ./
RUN python -m venv /tmp/tools \
 && /tmp/tools/bin/pip install --constraint constraints.txt hatchling==1.33.0 uv==0.13.9 \
 && python -m venv --without-pip /opt/edgepure \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --compile-bytecode \
      --constraint constraints.txt -r pyproject.toml --extra cuda --extra tensorrt \
      "onnxruntime-gpu[cuda,cudnn]==1.31.1" tensorrt==11.4.0.106 polygraphy==0.53.6 nvidia-cuda-nvrtc==13.2.86
COPY LICENSE README.md ./
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN /tmp/tools/bin/hatchling build --target wheel --directory /tmp/wheels \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --no-deps --compile-bytecode /tmp/wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, TensorRT runtime" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA"
# The container toolkit mounts libcuda and libnvidia-ml for these capabilities.
ENV PATH=/opt/edgepure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Python's own modules come without bytecode; compiling them once, here, nearly halves the time of a start.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && rm -f /usr/local/bin/pip* \
 && python -m compileall -q /usr/local/lib/python3.* \
 && useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
COPY --from=build /opt/edgepure /opt/edgepure
USER 10001:10001
WORKDIR /data
# Does the driver give this container a GPU? `doctor` would be content with the CPU.
HEALTHCHECK --interval=120s --timeout=60s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import sys; from edgepure.machine import nvidia; sys.exit(0 if nvidia.find() else 1)"]
ENTRYPOINT ["edgepure"]
CMD ["doctor"]
