"""Inference inside a TorchServe worker. Every archive holds a copy of this whole package."""
