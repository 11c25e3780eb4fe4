"""Refusals: why a request is not answered."""


class RefusalError(Exception):
    """A refusal: HTTP status, type in one word, and a message with the remedy."""

    def __init__(self, status: int, type: str, message: str) -> None:
        """Keep status and type beside the message."""
        super().__init__(message)
        self.status = status
        self.type = type


class ImageError(RefusalError):
    """The image is refused."""


class RequestError(RefusalError):
    """The request is refused for its form, options or encoding."""
