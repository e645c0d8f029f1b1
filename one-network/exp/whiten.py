"""Partial whitening of the plain descriptors: PCK on PF-WILLOW (shared 270 pairs), Animal-Pose small."""
import sys, torch, numpy as np
from pathlib import Path
from functools import lru_cache
torch.set_num_threads(1)
import torch.nn.functional as F
from dataclasses import replace
from geoaware import data
from geoaware.data.images import load_image
from geoaware.features import load_extractor
from geoaware.method.matching import MatchSettings
from geoaware.training.validation import score
D=Path('DATA')
e=load_extractor('efficientnet-lite0').eval()
un=sorted((D/'unlabelled').iterdir())[::2][:300]
cf=Path(__file__).parent/'cov.pt'
with torch.inference_mode():
    if cf.exists(): C=torch.load(cf)
    else:
        C=torch.zeros(1008,1008,dtype=torch.float64)
        for p in un:
            f=e(load_image(p)); r,c=f.canvas.cells(f.grid); x=f.data[:,r,c].flatten(1)[:, ::4]
            C+=(x@x.T).double()/x.shape[1]
        C/=len(un); torch.save(C,cf)
    w,v=torch.linalg.eigh(C); w=w.flip(0).float(); v=v.flip(1).float()
    print('eig', [round(x,6) for x in w[[0,10,50,100,192,384,700,1000]].tolist()],flush=True)
    base={}
    wl=data.load('pf-willow', D/'PF-dataset-WILLOW','test')
    ap=data.load('coco', D/'animalpose','val',annotations='val_single.json',pairs=20)
    maps={}
    for K,power in ((1008,0.),(1008,.125),(1008,.25),(1008,.375),(384,.125),(384,.25),(384,.375),(192,.25)):
        s=(w[:K].clamp(min=1e-8)**-power)
        P=(v[:,:K]*s).T
        def matched(path,a,b):
            if path not in maps: maps[path]=e(load_image(path))
            f=maps[path]; d=F.normalize(torch.einsum('kc,chw->khw',P,f.data.float()),dim=0)
            return replace(f,data=d)
        out=[]
        for t in (.03,.02) if power else (.03,):
            m=MatchSettings(window=9,temperature=t*(1 if power==0 else 1),inside_picture=True,interpolate=True)
            r=score(wl,lru_cache(400)(matched),m,.1); out.append(f't{t} willow {100*r.standard:.1f}')
        r=score(ap,lru_cache(400)(matched),m,.1); out.append(f'ap {100*r.standard:.1f}/{100*r.geometry_aware:.1f}')
        print(K,power,out,flush=True)
