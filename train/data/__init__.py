"""Data sets: images, labels, patients, splits and lung masks; Kaggle's set and built-in phantoms.

From this project it imports only `handlers` (decoding, folders, files); it does not import torch.
"""

from train.data.dataset import load, scan

__all__ = ["load", "scan"]
