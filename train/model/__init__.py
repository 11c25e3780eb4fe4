"""Networks: architectures, initial weights, class activation maps, checkpoints.

From this project it imports `train.data` (the classes) and `handlers`.
"""
