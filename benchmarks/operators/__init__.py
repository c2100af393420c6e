"""A sweep of every operator that exported graphs can contain, on engines, against PyTorch.

    python -m benchmarks.operators --make FOLDER     # needs PyTorch: a graph a case, and what PyTorch gives
    python -m benchmarks.operators --try FOLDER      # needs an engine: the table of what differs

The second can be run in another environment, with the lowest versions that pyproject.toml allows.
"""
