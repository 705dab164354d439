import sys
from pathlib import Path

import torch

# The tiny policy, body and samples of the training tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
torch.set_num_threads(1)
