"""A handler that does nothing: what a worker of this environment takes without any model."""


class EmptyHandler:
    """Answers every request with `{}`."""

    def initialize(self, context):
        """Load nothing."""

    def handle(self, data, context):
        """An answer for each request."""
        return [{} for _ in data]
