"""The record of one epoch of training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch, on the averaged weights.

    Losses are in nats; `select_loss` is that of `block-select` after calibration on itself.
    """

    number: int  # from 1
    epochs: int
    size: int  # pixels a side
    unfrozen: int  # trainable stages, from the head
    learning_rate: float
    train_loss: float
    select_loss: float
    select_auc: float
    random_auc: float
    seconds: float
    images_a_second: float
    left: float  # seconds to the end of training, estimated
    best: bool

    def line(self) -> str:
        """The epoch as one line of text."""
        return (
            f"epoch {self.number}/{self.epochs} at {self.size} px: "
            f"loss {self.train_loss:.3f}, block-select loss {self.select_loss:.3f} "
            f"AUC {self.select_auc:.4f}{' (best)' if self.best else ''}, "
            f"random AUC {self.random_auc:.4f}; {self.images_a_second:.0f} images/s, "
            f"{self.left / 60:.0f} min left"
        )
