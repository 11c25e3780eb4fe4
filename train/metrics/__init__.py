"""Metrics of labels and probabilities: figures with intervals, calibration, rank correlation.

From this project it imports `train.data` and `handlers`; it does not import torch.
"""
