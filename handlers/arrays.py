"""Names for the arrays that pass between modules."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # grey: (S, S), or (N, S, S) for several images
Logits = npt.NDArray[np.float32]  # (2,)
Maps = npt.NDArray[np.float32]  # class activation maps (2, h, w), in logits
Distances = npt.NDArray[np.float32]  # (1 + K,) from the training images
