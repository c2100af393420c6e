# syntax=docker/dockerfile:1
# The runtime on a CPU: NumPy, ONNX Runtime, the digits bundle; no PyTorch, no compiler, not root.
#
#   docker build -f docker/cpu.Dockerfile -t edgepure:cpu .
#   docker run --rm --network none edgepure:cpu demo

# One exact version; docker/README.md tells how to pin the digest as well.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY runtime runtime
COPY export export
COPY calibration calibration
# The build backend lives in an environment of its own, at a fixed version, so that nothing unpinned takes part.
RUN python -m venv /tmp/backend \
 && /tmp/backend/bin/pip install hatchling==1.33.0 \
 && /tmp/backend/bin/pip wheel --no-build-isolation --no-deps --wheel-dir /tmp/wheels . \
 && python -m venv /opt/edgepure \
 && /opt/edgepure/bin/pip install --constraint constraints.txt "$(ls /tmp/wheels/edgepure-*.whl)[cpu]" \
 && /opt/edgepure/bin/pip uninstall --yes pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, CPU runtime" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/edgepure /opt/edgepure
ENV PATH=/opt/edgepure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
USER 10001:10001
WORKDIR /data
# Does the engine load and answer? One process start, so not too often.
HEALTHCHECK --interval=60s --timeout=20s --start-period=10s --retries=3 CMD ["edgepure", "doctor", "--json"]
ENTRYPOINT ["edgepure"]
CMD ["doctor"]
