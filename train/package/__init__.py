"""Packages networks: ONNX export, quantisation, archives for TorchServe, publishing.

Imports `train.report` and the packages below it.
"""
