# The runtime on a Jetson Orin with JetPack 6 (L4T 36.4, CUDA 12.6, TensorRT 10.3, Python 3.10); not root.
# Build it on the Jetson, or on another 64-bit Arm machine. NGC is NVIDIA's container registry with its folder.
#
#   docker build -f docker/jetpack6.Dockerfile --build-arg NGC=<registry>/nvidia -t edgepure:jetpack6 .
#   docker run --rm --runtime nvidia --group-add video --group-add "$(getent group render | cut -d: -f3)" \
#       edgepure:jetpack6 doctor

ARG NGC
ARG UBUNTU_IMAGE=ubuntu:jammy-20251013

# 14 GB with compilers, samples and documentation; only the libraries of the runtime are taken from it. TensorRT asks
# for libcudla, too, which belongs to CUDA and not to the driver.
FROM ${NGC}/l4t-jetpack:r36.4.0 AS jetpack
RUN mkdir -p /take/lib /take/python \
 && cp -a /usr/lib/aarch64-linux-gnu/libnvinfer.so.10* /usr/lib/aarch64-linux-gnu/libnvinfer_plugin.so.10* \
      /usr/lib/aarch64-linux-gnu/libnvinfer_builder_resource.so.10* /usr/lib/aarch64-linux-gnu/libnvonnxparser.so.10* \
      /usr/local/cuda/targets/aarch64-linux/lib/libcudart.so.12* \
      /usr/local/cuda/targets/aarch64-linux/lib/libcudla.so.1* \
      /usr/local/cuda/targets/aarch64-linux/lib/libnvrtc*.so.12* /take/lib/ \
 && cp -a /usr/lib/python3.10/dist-packages/tensorrt /usr/lib/python3.10/dist-packages/tensorrt-10* /take/python/

FROM ${UBUNTU_IMAGE} AS python
# Of a fixed Ubuntu image; a version number here would fail as soon as a security fix replaces that package.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what changes seldom: the packages that edgepure needs, without edgepure. cuda-bindings are those of the CUDA that
# JetPack 6 has; the version of constraints.txt is for CUDA 13.
COPY constraints.txt pyproject.toml ./
RUN sed '/^cuda-bindings==/d; /^cuda-pathfinder==/d' constraints.txt > /tmp/constraints.txt \
 && python3 -m venv /tmp/tools \
 && /tmp/tools/bin/pip install --constraint /tmp/constraints.txt hatchling==1.33.0 uv==0.13.9 \
 && python3 -m venv --without-pip /opt/edgepure \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --compile-bytecode \
      --constraint /tmp/constraints.txt -r pyproject.toml --extra cpu cuda-bindings==12.9.4
COPY LICENSE README.md ./
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN /tmp/tools/bin/hatchling build --target wheel --directory /tmp/wheels \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --no-deps --compile-bytecode /tmp/wheels/*.whl

FROM python
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, Jetson runtime (JetPack 6)" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA"
ENV PATH=/opt/edgepure/bin:$PATH \
    LD_LIBRARY_PATH=/opt/nvidia/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
COPY --from=jetpack /take/lib /opt/nvidia/lib
COPY --from=build /opt/edgepure /opt/edgepure
COPY --from=jetpack /take/python /opt/edgepure/lib/python3.10/site-packages
USER 10001:10001
WORKDIR /data
# Does the driver give this container a GPU?
HEALTHCHECK --interval=120s --timeout=60s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import sys; from edgepure.machine import nvidia; sys.exit(0 if nvidia.find() else 1)"]
ENTRYPOINT ["edgepure"]
CMD ["doctor"]
