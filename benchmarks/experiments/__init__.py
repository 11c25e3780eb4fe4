"""Experiments: ablation of recipes, adaptation to another hospital, parity of engines."""
