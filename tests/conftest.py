"""Tests compute with one thread: several processes of them share the cores without getting in each other's way."""

import os

import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)
