"""python evaluate.py DATA EXTRACTOR... ; EXTRACTOR = efficientnet-lite0 | lite-tuned | PATH[:canvas[:mode]]; PCK@0.10 std/geo, pose off."""
import sys, time, json, argparse
from pathlib import Path
from functools import lru_cache
import torch
torch.set_num_threads(1)
from geoaware import data
from geoaware.data.images import load_image
from geoaware.features import load_extractor
from geoaware.method.matching import MatchSettings
from geoaware.training.validation import score
from geoaware.features.one import One, OneSettings, OneNetwork
ap = argparse.ArgumentParser(); ap.add_argument('data', type=Path); ap.add_argument('what', nargs='+'); ap.add_argument('--sets', default='ap,across,lspet,quat,badja,willow')
ap.add_argument('--small', action='store_true'); ap.add_argument('--window', type=int); ap.add_argument('--temperature', type=float)
a = ap.parse_args()
def get(key):
    d = a.data; s = a.small
    return {'ap': lambda: data.load('coco', d/'animalpose', 'val', annotations='val_single.json', pairs=20 if s else 60),
     'across': lambda: data.load('coco', d/'animalpose', 'val', annotations='val_single.json', pairs=10 if s else 30, across=True),
     'lspet': lambda: data.load('coco', d/'lspet', 'val', pairs=60 if s else 150),
     'quat': lambda: data.load('coco', d/'quaternius', 'val', pairs=8 if s else 20),
     'badja': lambda: data.load('coco', d/'badja', 'val', annotations='annotations.json', pairs=30 if s else 60),
     'willow': lambda: data.load('pf-willow', d/'PF-dataset-WILLOW', 'test')}[key]()
class View(One):
    mode = 'both'
    def levels(self, pixels):
        t, p, g = self.network.parts(pixels)
        return ({'both': lambda: self.network.joined(t, p, g), 't': lambda: t, 'p': lambda: p}[self.mode](),)
def load(what):
    m = MatchSettings(window=9, temperature=0.03, inside_picture=True, interpolate=True)
    if what == 'efficientnet-lite0': return load_extractor(what), m
    if what == 'lite-tuned': return load_extractor('efficientnet-lite0-tuned'), MatchSettings(window=11, temperature=.03, inside_picture=True, interpolate=True)
    if what.startswith('tuned-alone'):
        return load_extractor('efficientnet-lite0-tuned', share=1.0, familiar=()), MatchSettings(window=11, temperature=.04, inside_picture=True, interpolate=True)
    path, *more = what.split(':')
    e = View('one', OneSettings(path, canvas=int(more[0]) if more else 384), OneNetwork.from_pretrained(path))
    e.mode = more[1] if len(more) > 1 else 'both'
    return e.eval(), MatchSettings(window=a.window or 9, temperature=a.temperature or .03, inside_picture=True, interpolate=True)
for what in a.what:
    e, m = load(what)
    cells = []
    t = time.time()
    with torch.inference_mode():
        for s in a.sets.split(','):
            @lru_cache(maxsize=None)
            def matched(path, w, h):
                f = e(load_image(path))
                return f
            r = score(get(s), matched, m, 0.1)
            cells.append(f'{s} {100*r.standard:.1f}/{100*r.geometry_aware:.1f}')
    print(f'{what:60s}', ' | '.join(cells), f'[{time.time()-t:.0f} s]', flush=True)
