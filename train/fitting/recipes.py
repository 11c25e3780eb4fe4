"""Training recipes: sizes, epochs and hyperparameters of each network in each preset."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from train.fitting.augment import Strength


@dataclass(frozen=True)
class Phase:
    """A number of epochs at one image size, in pixels a side."""

    size: int
    epochs: int


@dataclass(frozen=True)
class Recipe:
    """All hyperparameters; with the data, the initial weights and the seed they fix the result."""

    phases: tuple[Phase, ...]
    batch: int = 32
    samples: int | None = (
        None  # images an epoch, half of each class; None: all, with a weighted loss
    )
    dilated: bool = True  # last stage with stride 1 and dilation 2: maps of S/16
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.2  # share of all steps
    dropout: float = 0.2
    label_smoothing: float = 0.05
    mixup: float = 0.0  # both parameters of the weight's beta distribution; 0: none
    clip: float = 1.0  # largest norm of the gradient
    average: float = (
        0.1  # time constant of the weights' moving average, share of all steps; 0: none
    )
    patience: int = 5  # epochs at the final size without a better validation AUC
    # For pretrained weights only. The learning rate falls by this factor per stage towards the
    # input (Howard and Ruder 2018, arXiv:1801.06146, section 3.2); the last stage unfreezes at
    # this share of the epochs.
    stage_factor: float = 0.5
    unfreeze_until: float = 0.5
    pretrained_learning_rate: float = 3e-4
    # For lung masks only (train/fitting/background.py, train/fitting/losses.py).
    outside: float = 0.7  # share of images whose background is changed, if all have masks
    lung_penalty: float = 0.5  # loss per logit of evidence outside the lungs
    strength: Strength = field(default_factory=Strength)

    @property
    def size(self) -> int:
        """The input size of the finished network, in pixels a side."""
        return self.phases[-1].size

    @property
    def epochs(self) -> int:
        """The total number of epochs."""
        return sum(phase.epochs for phase in self.phases)

    def phase_of(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        return self.phases[-1]

    def as_dict(self) -> dict[str, Any]:
        """The recipe as in the card."""
        return asdict(self)


# A network is trained by one recipe or several, one leg each: a leg starts from the averaged
# weights of the previous leg, with its own warm-up and decay, and ends with usable weights.
Legs = tuple[Recipe, ...]

_QUICK = Recipe(phases=(Phase(64, 5), Phase(96, 3)))
_TINY = Recipe(phases=(Phase(32, 1), Phase(64, 1)), batch=16, samples=64)
# Images are squashed to a square: a child's image here is a third wider than high, an adult's
# often higher than wide. The stretch compensates for that.
_FIRST = Recipe(
    phases=(Phase(64, 8), Phase(96, 10)), learning_rate=1.5e-3, strength=Strength(stretch=0.3)
)
_SECOND = replace(_FIRST, phases=(Phase(128, 8),), learning_rate=7e-4)
_THIRD = replace(_FIRST, phases=(Phase(160, 6), Phase(192, 8)), learning_rate=5e-4)
_FOURTH = replace(_THIRD, phases=(Phase(192, 12),))
_FULL = (_FIRST, _SECOND, _THIRD, _FOURTH)

PRESETS: dict[str, dict[str, Legs]] = {
    # Seconds: a smoke test of every step.
    "tiny": {"resnet50": (_TINY,), "densenet161": (_TINY,)},
    # Minutes on two CPU cores.
    "quick": {
        "resnet50": (_QUICK,),
        "densenet161": (replace(_QUICK, phases=(Phase(64, 6), Phase(96, 3)), samples=2000),),
    },
    # Hours on two CPU cores, minutes on a GPU.
    "full": {"resnet50": _FULL, "densenet161": _FULL},
}


def legs(preset: str, network: str) -> Legs:
    """A network's recipes in a preset; an unknown preset raises ValueError that lists the names."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}: known are {', '.join(PRESETS)}")
    return PRESETS[preset][network]


def relative_cost(legs: Legs) -> float:
    """Relative cost of training: epochs times the number of pixels, summed over the phases."""
    return sum(float(phase.epochs * phase.size**2) for leg in legs for phase in leg.phases)
