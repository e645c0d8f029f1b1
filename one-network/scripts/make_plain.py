"""Plain descriptors of whole images: python make_plain.py DATA OUT; PCA basis from the unlabelled training half."""
import sys, json, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
torch.set_num_threads(1)
from geoaware.features.efficientnet_lite import EfficientNetLite
from geoaware.method.geometry import Canvas
from geoaware.data.images import load_image
root, out = Path(sys.argv[1]), Path(sys.argv[2]); out.mkdir(parents=True, exist_ok=True)
K, G, S = 192, 28, 448
un = sorted((root/'unlabelled').iterdir())[::2]          # the even half; odd ones are for validation
lab = []
for name, n in (('animalpose', 700), ('lspet', 400), ('quaternius', 200)):
    files = sorted({i['file_name'] for i in json.load(open(root/name/'train.json'))['images']})
    rng = np.random.default_rng(0); pick = sorted(rng.choice(len(files), n, replace=False))
    lab += [root/name/'images'/files[i] for i in pick]
paths = un + lab
plain = EfficientNetLite.load('efficientnet-lite0').eval()
from geoaware.features.efficientnet_lite import MEAN, STD
mean, std = (torch.tensor(v).view(3,1,1) for v in (MEAN, STD))
pix = np.lib.format.open_memmap(out/'pixels.npy', mode='w+', dtype=np.uint8, shape=(len(paths), S, S, 3))
maps = np.lib.format.open_memmap(out/'maps.npy', mode='w+', dtype=np.float16, shape=(len(paths), K, G, G))
insides = np.zeros((len(paths), 4), np.int16)
raw = torch.zeros(len(un), 1008, G, G, dtype=torch.float16); basis = None
t = time.time()
with torch.inference_mode():
    for i, p in enumerate(paths):
        im = load_image(p); c = Canvas(*im.size, S)
        a = np.asarray(c.render(im)); pix[i] = a
        x = ((torch.from_numpy(a.copy()).permute(2,0,1).float()/255 - mean)/std)[None]
        m = plain.combine_on(plain.levels(x), G)[0]
        rows, cols = c.cells(G); insides[i] = rows.start, rows.stop, cols.start, cols.stop
        if i < len(un):
            raw[i] = m.half()
        else:
            maps[i] = torch.einsum('kc,chw->khw', basis, m).numpy().astype(np.float16)
        if i == len(un) - 1:
            C = torch.zeros(1008, 1008, dtype=torch.float64)
            for j in range(len(un)):
                r0, r1, c0, c1 = insides[j]
                f = raw[j, :, r0:r1, c0:c1].float().flatten(1); C += (f @ f.T).double() / f.shape[1]
            w, v = torch.linalg.eigh(C); basis = v[:, -K:].flip(1).T.float().contiguous()
            cum = (w.flip(0).cumsum(0) / w.sum())
            print('kept energy', {k: round(cum[k-1].item(), 3) for k in (64, 96, 128, 192, 256, 384)}, flush=True)
            for j in range(len(un)):
                maps[j] = torch.einsum('kc,chw->khw', basis, raw[j].float()).numpy().astype(np.float16)
            torch.save({'basis': basis, 'eigen': w.flip(0).float()}, out/'basis.pt')
            del raw
        if i % 100 == 0: print(i, len(paths), round(time.time()-t), flush=True)
np.savez(out/'about.npz', insides=insides, unlabelled=len(un))
json.dump([str(p.relative_to(root)) for p in paths], open(out/'paths.json', 'w'))
