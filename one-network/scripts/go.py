"""Train, or go on: nice -n 19 python go.py FOLDER --until 05:20 [--cooling N] [--set key=value ...]

FOLDER (below tune15-run) holds checkpoint.pt (what to go on from) and weights/ (moving average, to use).
--cooling N: N steps from the checkpoint with a falling rate into FOLDER/cooled; the checkpoint stays.
"""
import argparse, datetime, json, time
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from geoaware.training.backbone.mixed_run import MixedConfig, train
here = Path(__file__).resolve().parent
ap = argparse.ArgumentParser(); ap.add_argument('folder'); ap.add_argument('--until', required=True); ap.add_argument('--cooling', type=int, default=0)
ap.add_argument('--start', default='lite'); ap.add_argument('--channels', type=int, default=192); ap.add_argument('--set', nargs='*', default=[])
a = ap.parse_args()
h, m = map(int, a.until.split(':')); now = datetime.datetime.now(datetime.timezone.utc)
end = now.replace(hour=h, minute=m, second=0, microsecond=0)
if end < now: end += datetime.timedelta(days=1)
changes = {k: json.loads(v) for k, v in (each.split('=', 1) for each in a.set)}
config = replace(MixedConfig(crops=str(here/'crops'), plain=str(here/'plain')), **changes)
out = here/a.folder; out.mkdir(exist_ok=True)
log = open(out/'log.jsonl', 'a', buffering=1)
train(config, out, start=a.start, channels=a.channels, until=end.timestamp(), cooling=a.cooling, say=lambda line: print(line, file=log))
