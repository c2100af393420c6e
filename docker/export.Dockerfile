# From checkpoint files to bundles, on a workstation or in CI (x86-64): PyTorch, ONNX and the model libraries; not root.
# PyTorch is its CPU build, 4 GB smaller: exporting needs no GPU. `--build-arg TORCH_BACKEND=cu130` takes the CUDA build,
# `--build-arg TORCH_BACKEND=` the build that the package index has.
#
#   docker build -f docker/export.Dockerfile -t edgepure:export .
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" edgepure:export \
#       --classifier robustbench-wrn:Standard.pt --diffusion score-sde:checkpoint_8.pth --preset cifar10-edge-10 --out cifar10

# One exact version; docker/README.md tells how to pin the digest as well.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_BACKEND=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1
WORKDIR /src
# First what changes seldom: the packages that edgepure needs, without edgepure.
# uv knows where each build of PyTorch is.
COPY constraints.txt pyproject.toml ./
RUN python -m venv /tmp/tools \
 && /tmp/tools/bin/pip install --constraint constraints.txt hatchling==1.33.0 uv==0.13.9 \
 && python -m venv --without-pip /opt/edgepure \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --compile-bytecode \
      --constraint constraints.txt -r pyproject.toml --extra cpu --extra export --extra models --extra calibration \
      ${TORCH_BACKEND:+--torch-backend "${TORCH_BACKEND}"}
COPY LICENSE README.md ./
COPY runtime runtime
COPY export export
COPY calibration calibration
RUN /tmp/tools/bin/hatchling build --target wheel --directory /tmp/wheels \
 && /tmp/tools/bin/uv pip install --python /opt/edgepure/bin/python --no-deps --compile-bytecode /tmp/wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="edgepure" \
      org.opencontainers.image.description="Diffusion purification of images, export" \
      org.opencontainers.image.licenses="Apache-2.0"
# Whatever user the container runs as finds its caches in a folder that it may write.
ENV PATH=/opt/edgepure/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HF_HOME=/tmp/huggingface \
    TORCH_HOME=/tmp/torch \
    MPLCONFIGDIR=/tmp/matplotlib
# Python's own modules come without bytecode; compiling them once, here, nearly halves the time of a start.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && rm -f /usr/local/bin/pip* \
 && python -m compileall -q /usr/local/lib/python3.* \
 && useradd --uid 10001 --user-group --create-home --home-dir /home/edgepure --shell /usr/sbin/nologin edgepure \
 && install -d -o edgepure -g edgepure /data
COPY --from=build /opt/edgepure /opt/edgepure
USER 10001:10001
WORKDIR /data
HEALTHCHECK --interval=300s --timeout=60s --start-period=60s --retries=3 CMD ["edgepure", "doctor", "--json"]
ENTRYPOINT ["edgepure", "export"]
CMD ["--help"]
