# The runtime on a Jetson with JetPack 7 (CUDA 13, Python 3.12), which runs ordinary 64-bit Arm server images; not root.
# Build it on the Jetson, or on another 64-bit Arm machine.
#
#   docker build -f docker/jetpack7.Dockerfile -t edgepure:jetpack7 .
#   docker run --rm --runtime nvidia --group-add video --group-add "$(getent group render | cut -d: -f3)" \
#       edgepure:jetpack7 doctor
#
# TENSORRT is the version of NVIDIA's package repository, which the base image has; take the one of the host:
# `dpkg -l libnvinfer10` there. 10.13 is that of JetPack 7.0 and 7.1, 10.16 that of 7.2.

ARG CUDA_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04

FROM ${CUDA_IMAGE} AS python
ARG TENSORRT=10.13.3.9-1+cuda13.0
# Python of a fixed image; a version number would fail as soon as a security fix replaces the package.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 cuda-nvrtc-13-0 \
      "libnvinfer10=${TENSORRT}" "libnvinfer-plugin10=${TENSORRT}" "libnvonnxparsers10=${TENSORRT}" \
      "python3-libnvinfer=${TENSORRT}" \
 && rm -rf /var/lib/apt/lists/*

FROM python AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what changes seldom: the packages that edgepure needs, without edgepure. TensorRT's module belongs to the
# system's Python: the environment has to see its packages.
COPY constraints.txt pyproject.toml ./
RUN python3 -m venv /tmp/tools \
 && /tmp/tools/bin/pip install --constraint constraints.txt hatchling==1.33.0 uv==0.13.9 \
 && python3 -m venv --without-pip --system-site-packages /opt/edgepure \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --compile-bytecode \
      --constraint constraints.txt -r pyproject.toml --extra cpu cuda-bindings
COPY LICENSE README.md ./
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN /tmp/tools/bin/hatchling build --target wheel --directory /tmp/wheels \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --no-deps --compile-bytecode /tmp/wheels/*.whl

FROM python
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, Jetson runtime (JetPack 7)" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA"
ENV PATH=/opt/edgepure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
COPY --from=build /opt/edgepure /opt/edgepure
USER 10001:10001
WORKDIR /data
# Does the driver give this container a GPU?
HEALTHCHECK --interval=120s --timeout=60s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import sys; from edgepure.machine import nvidia; sys.exit(0 if nvidia.find() else 1)"]
ENTRYPOINT ["edgepure"]
CMD ["doctor"]
