"""Data sets larger than memory: what a fit takes does not grow with the number of images."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, threading, time, warnings
import numpy as np, torch
from torch.utils.data import Dataset, IterableDataset
from tiny import TinyBackbone, small
from diffmic import DiffMICClassifier

warnings.simplefilter("ignore")
torch.set_num_threads(1)

class Images(Dataset):
    '''Made when they are asked for, so that they take no memory themselves.'''
    def __len__(self):
        return int(sys.argv[1])
    def __getitem__(self, i):
        y = i % 3
        noise = np.random.RandomState(i).randint(0, 100, (3, 32, 32))
        return (noise + 50 * y).astype(np.uint8), y

class Stream(IterableDataset):
    '''The same number of larger images: 75 kB each.'''
    def __iter__(self):
        return (torch.full((3, 160, 160), i % 256, dtype=torch.uint8) for i in range(len(Images())))

def anonymous():
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) / 1024

peak = [0.0]
def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.01)

parameters = small(backbone=TinyBackbone(256), max_epochs=1, augment="auto", batch_size=64)
classifier = DiffMICClassifier(**parameters).set_params(validation_fraction=0.05)
threading.Thread(target=watch, daemon=True).start()
classifier.fit(Images())
classifier.predict_proba(Images())
classifier.predict_proba(Stream())
print(peak[0])
"""


def peak_megabytes(n_images):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(n_images)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return float(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_ten_times_the_images_take_hardly_more_memory():
    # 28 kB of conditions an image: 8 MB of 300 are in memory, 84 MB of 3000 would be too many; so
    # would the stream's 225 MB.
    assert peak_megabytes(3000) - peak_megabytes(300) < 50
