"""Training of a network: recipes, augmentation, background swaps, the training loop, runs.

From this project it imports `train.metrics`, `train.model`, `train.data` and `handlers`.
"""
