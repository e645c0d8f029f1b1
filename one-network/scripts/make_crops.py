"""Decode the crops of the three training sets; python make_crops.py DATA OUT"""
import sys, time
from pathlib import Path
from geoaware import data
from geoaware.training.backbone.vocabulary import Vocabulary
from geoaware.training.backbone.crops import write_crops
root, out = Path(sys.argv[1]), Path(sys.argv[2])
from geoaware.data import coco
from geoaware.data.dataset import DataSet
sets=[]
for name in ('animalpose','lspet','quaternius'):
    t=time.time(); sets.append(data.load('coco', root/name, 'train', pairs=20000 if name!='quaternius' else 4000)); print(name, len(sets[-1].images), round(time.time()-t,1), flush=True)
voc=Vocabulary.of([s.schemas[c] for s in sets for c in sorted(s.schemas)])
print(len(voc), list(zip(voc.names, voc.partners)), voc.limbs)
for s,name in zip(sets,('animalpose','lspet','quaternius')):
    write_crops(s, voc, out/name, lambda x: print(x, flush=True))
