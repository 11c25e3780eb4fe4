"""Evaluation of trained networks: predictions, calibration, robustness, novelty, maps.

Takes values and returns values; `train.report` writes the files. Imports `train.fitting` and the
packages below it.
"""
