"""Writes evaluations to files: Markdown, figures, cards, the model card, baselines.

Imports `train.evaluation` and the packages below it.
"""
