import sys
from pathlib import Path
from geoaware import data
from geoaware.training.backbone.vocabulary import Vocabulary
from geoaware.training.backbone.mixed_run import write_vocabulary
root, out = Path(sys.argv[1]), Path(sys.argv[2])
sets=[data.load('coco', root/n, 'train', pairs=100) for n in ('animalpose','lspet','quaternius')]
write_vocabulary(Vocabulary.of([s.schemas[c] for s in sets for c in sorted(s.schemas)]), out/'vocabulary.json')
