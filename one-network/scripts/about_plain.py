"""Write about.npz and paths.json for the first N images that make_plain.py has done so far."""
import sys, json
from pathlib import Path
import numpy as np
from PIL import Image
from geoaware.method.geometry import Canvas
root, out, n = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
un = sorted((root/'unlabelled').iterdir())[::2]; lab = []
for name, k in (('animalpose', 700), ('lspet', 400), ('quaternius', 200)):
    files = sorted({i['file_name'] for i in json.load(open(root/name/'train.json'))['images']})
    rng = np.random.default_rng(0); pick = sorted(rng.choice(len(files), k, replace=False)); lab += [root/name/'images'/files[i] for i in pick]
paths = (un + lab)[:n]; ins = np.zeros((n,4), np.int16)
for i, p in enumerate(paths):
    r, c = Canvas(*Image.open(p).size, 448).cells(28); ins[i] = r.start, r.stop, c.start, c.stop
np.savez(out/'about.npz', insides=ins, unlabelled=len(un)); json.dump([str(p.relative_to(root)) for p in paths], open(out/'paths.json','w'))
