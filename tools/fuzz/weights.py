"""Files of weights, as `edgepure export` reads them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save

from edgepure_export.networks.checkpoints import read_checkpoint
from edgepure_export.networks.weights import state_dict_from

from .kind import Kind
from .mutate import as_json, changed, damaged


class Checkpoints(Kind):
    """``.safetensors``, ``.pt`` of today and of before 2020, and indexes of shards."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
        self._files = {"a.safetensors": save(network.state_dict())}
        for name, content, old in (
            ("a.pt", network.state_dict(), False),
            ("old.pt", {"model": network.state_dict()}, True),
        ):
            data = io.BytesIO()
            torch.save(content, data, _use_new_zipfile_serialization=not old)
            self._files[name] = data.getvalue()
        self._index: Any = {
            "metadata": {"total_size": 9},
            "weight_map": dict.fromkeys(network.state_dict(), "a.safetensors"),
        }
        self._files["i.safetensors.index.json"] = json.dumps(self._index).encode()
        for name, data_ in self._files.items():
            (folder / name).write_bytes(data_)

    def attempt(self, random: Random) -> None:
        name = random.choice(list(self._files))
        path = self.folder / name
        try:
            if name.endswith(".json") and random.random() < 0.7:
                path.write_bytes(as_json(changed(self._index, random)))
            else:
                path.write_bytes(damaged(self._files[name], random, self._files[name]))
            state_dict_from(read_checkpoint(path), name, random.choice((None, None, "model", "x")))
        finally:
            path.write_bytes(self._files[name])
