"""The initial weights of a network, and a record of their origin."""

import logging
from pathlib import Path

from handlers import files
from train.model import checkpoint
from train.model.networks import Classifier, architecture, build

log = logging.getLogger(__name__)


class WeightsUnavailableError(RuntimeError):
    """The requested ImageNet weights can't be fetched."""


def initialise(
    name: str, init: str | None, *, dilated: bool = True, dropout: float = 0.0
) -> tuple[Classifier, str]:
    """A network to fine-tune, and the origin of its weights: "imagenet", "scratch" or a sha256.

    `init` is "imagenet", "scratch", "published", or a folder or file of weights of this network.
    None means ImageNet if torchvision can load these weights, else scratch, with a warning.

    Raises:
        WeightsUnavailableError: `init` is "imagenet" and its weights can't be fetched.
        FileNotFoundError: `init` names a file that does not exist.
        CheckpointError: the published weights do not match their card.
    """
    arch = architecture(name)
    if init is None or init == "imagenet":
        try:
            trunk = arch.build_trunk(arch.imagenet, dilated)
        except (OSError, RuntimeError) as error:  # offline, or a wrong hash
            reason = f"{arch.imagenet.url} can't be loaded ({error})"
            if init == "imagenet":
                raise WeightsUnavailableError(
                    f"INIT=imagenet: {reason}. Put the file into $TORCH_HOME/hub/checkpoints, "
                    "or start with INIT=scratch."
                ) from error
            log.warning(
                "NO IMAGENET WEIGHTS: %s. %s starts FROM SCRATCH, and its card says so.",
                reason,
                name,
            )
            return build(name, dilated=dilated, dropout=dropout), "scratch"
        return Classifier(trunk, arch.channels, dropout), "imagenet"
    network = build(name, dilated=dilated, dropout=dropout)
    if init == "scratch":
        return network, "scratch"
    if init == "published":
        path = checkpoint.published_weights(name)
        checkpoint.load(path)  # raises unless the hash is the card's
    else:
        path = checkpoint.weights_file(Path(init), name)
    network.load_state_dict(checkpoint.read_weights(path))
    return network, f"sha256:{files.sha256(path)}"
