"""python mix.py WEIGHTS KEPT OUT: backbone moved to ImageNet's, reading fitted anew; KEPT 1 only fits"""
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from geoaware.training.backbone.mixed_run import *
w, kept, out = sys.argv[1], float(sys.argv[2]), sys.argv[3]
n = OneNetwork.from_pretrained(w); towards_imagenet(n, kept)
print('explained', fit_reading(n, Plain(Path(__file__).parent/'plain'), int(sys.argv[4]) if len(sys.argv) > 4 else 300)); n.save_pretrained(out)
