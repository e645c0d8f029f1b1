"""python make_teacher.py OUT K POWER: teacher maps of the images of plain/, in K principal channels scaled by eigenvalue**POWER (exp/cov.pt)."""
import sys, json, shutil
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from geoaware.features.efficientnet_lite import EfficientNetLite, MEAN, STD
here=Path(__file__).resolve().parent; src=here/'plain'; out=here/sys.argv[1]; K=int(sys.argv[2]); power=float(sys.argv[3]); out.mkdir(exist_ok=True)
C=torch.load(here/'exp/cov.pt'); w,v=torch.linalg.eigh(C); w=w.flip(0).float(); v=v.flip(1).float()
basis=((v[:,:K]*w[:K].clamp(min=1e-8)**power).T).contiguous()
pix=np.load(src/'pixels.npy',mmap_mode='r'); about=np.load(src/'about.npz'); n=len(about['insides'])
maps=np.lib.format.open_memmap(out/'maps.npy',mode='w+',dtype=np.float16,shape=(n,K,28,28))
plain=EfficientNetLite.load('efficientnet-lite0').eval(); mean,std=(torch.tensor(x).view(3,1,1) for x in (MEAN,STD))
s=None
with torch.inference_mode():
    for i in range(n):
        x=((torch.from_numpy(pix[i].copy()).permute(2,0,1).float()/255-mean)/std)[None]
        m=torch.einsum('kc,chw->khw',basis,plain.combine_on(plain.levels(x),28)[0])
        if s is None: s=1/m.norm(dim=0).mean().item()
        maps[i]=(m*s).numpy().astype(np.float16)
        if i%100==0: print(i,n,flush=True)
for f in ('about.npz','paths.json'): shutil.copy(src/f,out/f)
(out/'pixels.npy').symlink_to(src/'pixels.npy')
