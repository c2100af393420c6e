# The runtime on a CPU and its server: NumPy, ONNX Runtime, the digits bundle; no PyTorch, no compiler, no pip, not root.
#
#   docker build -f docker/cpu.Dockerfile -t edgepure:cpu .
#   docker run --rm --network none edgepure:cpu demo

# One exact version; docker/README.md tells how to pin the digest as well.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1
WORKDIR /src
# First what changes seldom: the packages that edgepure needs, without edgepure.
COPY constraints.txt pyproject.toml ./
RUN python -m venv /tmp/tools \
 && /tmp/tools/bin/pip install --constraint constraints.txt hatchling==1.33.0 uv==0.13.9 \
 && python -m venv --without-pip /opt/edgepure \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --compile-bytecode \
      --constraint constraints.txt -r pyproject.toml --extra cpu --extra serve
COPY LICENSE README.md ./
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN /tmp/tools/bin/hatchling build --target wheel --directory /tmp/wheels \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --no-deps --compile-bytecode /tmp/wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, CPU runtime" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/edgepure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1
# Python's own modules come without bytecode; compiling them once, here, nearly halves the time of a start.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && rm -f /usr/local/bin/pip* \
 && python -m compileall -q /usr/local/lib/python3.* \
 && useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
COPY --from=build /opt/edgepure /opt/edgepure
USER 10001:10001
WORKDIR /data
# Does the engine load and answer? One process start, so not too often.
HEALTHCHECK --interval=60s --timeout=20s --start-period=10s --retries=3 CMD ["edgepure", "doctor", "--json"]
ENTRYPOINT ["edgepure"]
CMD ["doctor"]
