"""One thread: the tensors are small."""

import torch

torch.set_num_threads(1)
