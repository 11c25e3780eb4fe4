"""How a network comes to be and is judged: ``python -m train VERB --help``."""

__version__ = "0.1.0"
