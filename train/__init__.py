"""Training, evaluation and packaging of networks: ``python -m train VERB --help``."""

__version__ = "0.1.0"
