"""python convert.py OLD NEW: weights of the experiment (``geoaware one network 1``) as `TunedNetwork` has them.

OLD: a folder that mix384.py wrote, such as tune15-run/m384-a. Its correction must be zero, and is dropped.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from geoaware.features.tuned import TunedNetwork, TunedShape

old, new = Path(sys.argv[1]), Path(sys.argv[2])
config = json.loads((old / "config.json").read_text())
assert config["format"] == "geoaware one network 1", config["format"]
state = {name: value.float() for name, value in load_file(old / "model.safetensors").items()}
for name in ("correction.weight", "correction.bias"):
    assert not state.pop(name).any(), f"{name} is not zero: fit the reading (mix384.py) first"
shape = {name: value for name, value in config["shape"].items() if name != "keypoints"}
network = TunedNetwork.of_values(**{**shape, "context": tuple(shape["context"])})
network.load_whole(state, old)
network.info = config["info"]
network.save_pretrained(new)
print(new, network.shape, network.info)
