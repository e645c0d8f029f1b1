"""Which blocks the plain descriptors are read from: energy explained, WILLOW by plain alone and joined under gates."""
import sys, torch, time
from pathlib import Path
from dataclasses import replace
torch.set_num_threads(1)
import torch.nn.functional as F
from torch import nn
import geoaware.features.one as one
import geoaware.training.backbone.mixed_run as mr
from geoaware.features.efficientnet_lite import imagenet_network
sys.argv=[sys.argv[0],'DATA','x',*sys.argv[1:]]
CH={5:80,6:80,7:80,8:112,9:112,10:112,11:192,12:192,13:192,14:192,15:320,4:40}
src=(Path(__file__).parents[1]/'evaluate.py').read_text().split("for what in a.what:")[0]
weights, kept, READ = sys.argv[3], float(sys.argv[4]), [int(x) for x in sys.argv[5].split(',')]
decoded = len(sys.argv)>6 and sys.argv[6]=='dec'
sys.argv=sys.argv[:3]
exec(src)
here=Path(__file__).parents[1]
teacher=mr.Plain(here/'plain384'); K=384
old=one.OneNetwork.from_pretrained(weights if weights.startswith('/') else here/weights)
rd={i:CH[i] for i in READ}
one.READ=rd; mr.READ=rd
class N(one.OneNetwork):
    def _plain(self, levels, dec):
        s=dec.shape[-2:]; out=self.correction(dec)
        for i,l in levels.items(): out=out+F.interpolate(self.reading[i](l),size=s,mode='bilinear')
        return F.normalize(out.float(),dim=1)
    def parts(self,pixels,early=None):
        pixels=pixels.contiguous(memory_format=torch.channels_last)
        (fine,eighth,sixteenth,last),levels=self._levels(pixels,early or (lambda m:m))
        x=F.relu(sixteenth+one._enlarged(last))
        for b in self.context: x=b(x)
        x=F.relu(one._enlarged(x)+eighth+F.avg_pool2d(fine,2))
        for b in self.detail: x=b(x)
        self.x=x
        f=self.out(x).float()
        return F.normalize(f[:,:-1],dim=1), self._plain(levels,x), f[:,-1:]
n=N(replace(old.shape,plain=K),imagenet_network(weights=False))
st={k:v for k,v in old.state_dict().items() if not k.startswith(('reading','correction'))}
print(n.load_state_dict(st,strict=False)[1]); n.eval(); mr.towards_imagenet(n,kept)
# towards_imagenet builds OneNetwork(READ) fine
@torch.inference_mode()
def fit(net, plain, count=800, cells=120, ridge=1e-3):
    g=torch.Generator().manual_seed(0); G=None; 
    for row in range(count):
        px=torch.from_numpy(plain.pixels[row].copy()).permute(2,0,1)[None].float()/255
        px=F.interpolate(px,size=(CANVAS,CANVAS),mode='bilinear',antialias=True) if CANVAS!=448 else px
        px=mr.normalised(px).contiguous(memory_format=torch.channels_last)
        levels=net._levels(px,lambda m:m)[1]; S=28
        parts=[F.interpolate(levels[str(i)],size=(S,S),mode='bilinear') for i in READ]
        if decoded: net.parts(px); parts.append(F.interpolate(net.x,size=(S,S),mode='area'))
        j=torch.cat(parts,1)[0]; t,b,l,r=plain.inside[row].tolist()
        y=torch.randint(t,b,(cells,),generator=g); x=torch.randint(l,r,(cells,),generator=g)
        A=j[:,y,x].T; 
        if decoded: A=torch.cat([A,torch.ones(cells,1)],1)
        T=F.normalize(torch.from_numpy(plain.maps[row].astype('float32')),dim=0)[:,y,x].T
        if G is None: G=torch.zeros(A.shape[1],A.shape[1],dtype=torch.float64); H=torch.zeros(A.shape[1],K,dtype=torch.float64); E=0.
        G+=(A.T@A).double(); H+=(A.T@T).double(); E+=float(T.square().sum())
    d=G.diagonal(); reg=ridge*torch.diag(d) if decoded else ridge*d.mean()*torch.eye(len(G),dtype=torch.float64)
    X=torch.linalg.solve(G+reg,H); res=E-2*float((X*H).sum())+float((X*(G@X)).sum())
    b=0
    for i in READ: c=CH[i]; net.reading[str(i)].weight.copy_(X[b:b+c].T.float()[...,None,None]); b+=c
    if decoded: net.correction.weight.copy_(X[b:b+256].T.float()[...,None,None]); net.correction.bias.copy_(X[-1].float())
    else: net.correction.weight.zero_(); net.correction.bias.zero_()
    return 1-res/E
import os
CANVAS=int(os.environ.get('FITCANVAS','448'))
print(READ,'kept',kept,'explained',round(fit(n,teacher),4),flush=True)
m=MatchSettings(window=9,temperature=.03,inside_picture=True,interpolate=True)
def ev(mode,sets,gate=None):
    if gate: n.gate.data=torch.tensor(gate)
    e=View('one',OneSettings('x',canvas=384),n); e.mode=mode; e.eval(); out=[]
    with torch.inference_mode():
        for s in sets.split(','):
            @lru_cache(maxsize=None)
            def matched(path,w,h): return e(load_image(path))
            r=score(get(s),matched,m,.1); out.append(f'{s} {100*r.standard:.1f}/{100*r.geometry_aware:.1f}')
    print(mode,gate,out,flush=True)
a.small=True
ev('p','willow')
if os.environ.get('GATES'):
    for g in ([.8,.25],[1.5,-1.],[2.,-2.]): ev('both','willow,ap,lspet',g)
