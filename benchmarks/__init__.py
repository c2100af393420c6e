"""Speed, measured side by side with the peer in one run. `make bench` prints the table and writes out/bench.json."""

import edgepure  # noqa: F401  before ONNX Runtime, whose telemetry it switches off
