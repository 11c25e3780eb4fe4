"""What is not answered, and why."""


class RefusalError(Exception):
    """An HTTP status, its type in one word, and a message with the remedy."""

    def __init__(self, status: int, type: str, message: str) -> None:
        """Keep status and type beside the message."""
        super().__init__(message)
        self.status = status
        self.type = type


class ImageError(RefusalError):
    """These bytes are not answered."""


class RequestError(RefusalError):
    """This request is not answered."""
