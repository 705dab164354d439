import sys
from pathlib import Path

import torch

# The tiny policy, body and samples of the training tests, the judges of the hygrpo tests.
sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("training", "hygrpo")]
torch.set_num_threads(1)
