"""python mix384.py WEIGHTS KEPT OUT [TEACHER=plain384] [COUNT=800]: as mix.py, with as many plain channels as the teacher has."""
import sys, torch
from pathlib import Path
from dataclasses import replace
torch.set_num_threads(1)
from geoaware.training.backbone.mixed_run import *
from geoaware.features.efficientnet_lite import imagenet_network
w, kept, out = sys.argv[1], float(sys.argv[2]), sys.argv[3]
teacher = Plain(Path(__file__).parent/(sys.argv[4] if len(sys.argv)>4 else 'plain384'))
old = OneNetwork.from_pretrained(w)
n = OneNetwork(replace(old.shape, plain=teacher.maps.shape[1]), imagenet_network(weights=False))
state = {k:v for k,v in old.state_dict().items() if not k.startswith(('reading','correction'))}
missing, unknown = n.load_state_dict(state, strict=False); assert not unknown, unknown
n.info = old.info; n.eval(); towards_imagenet(n, kept)
print('explained', fit_reading(n, teacher, int(sys.argv[5]) if len(sys.argv) > 5 else 800)); n.save_pretrained(out)
