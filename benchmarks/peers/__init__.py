"""The same bundle behind other servers, each with its own batching: what `benchmarks.serve` measures beside ours.

Each runs as ``python -m benchmarks.peers.NAME BUNDLE PRESET VOTES SLOTS PORT`` in an environment that has it
(``pip install litserve 'ray[serve]'``). A request is ``{"image": BASE64}``; the answer ``{"label": 3}``.
"""
