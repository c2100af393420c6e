#!/usr/bin/env bash
# A real tritonserver with its Python backend, as nvidia-pytriton brings it along, in an environment of its own:
#
#   make test-triton
#
#   TRITON_ENV=DIR   keep the environment there and use it again; otherwise it is removed at the end
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -x .venv/bin/python ] || { echo "there is no .venv here; run \`make setup\` first" >&2; exit 1; }
UV=$(command -v uv || echo .uv/bin/uv)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
ENV=${TRITON_ENV:-$WORK/env}
[ -x "$ENV/bin/python" ] || "$UV" venv --python .venv/bin/python "$ENV"
# numpy < 2: what its client asks for
"$UV" pip install --quiet --python "$ENV/bin/python" 'nvidia-pytriton==0.7.0' 'numpy<2' --editable '.[cpu]'
EDGEPURE_TRITON_ENV=$ENV .venv/bin/python -m pytest -q tests/triton "$@"
