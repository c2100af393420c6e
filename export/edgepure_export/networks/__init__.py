"""Networks as PyTorch modules of our own, one file a family, that load the original checkpoints key by key.

Each family has a config (a frozen dataclass), a module whose ``state_dict`` keys are the original ones,
``infer_config`` from keys and shapes, and ``from_state_dict`` (``from_checkpoint`` for score_sde) which is strict.
Diffusion families also have ``epsilon_model``, the runtime's ``eps = model(x, t)``. `load` does it all from a file.
"""
