"""TorchServe, eager, tuned by hand: channels_last, inference mode, a hook's CAM, Pillow's overlay.

The best that is known without leaving eager PyTorch. TorchServe imports this file alone; `train`,
`handlers` and `benchmarks.peers` lie beside it in the archive.
"""

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.peers import picture
from train.model import checkpoint


class TunedHandler:
    """JPEGs in, labels and overlays out, a batch in one forward."""

    def initialize(self, context):
        """Load the weights of the archive and hook the last feature maps."""
        folder = Path(context.system_properties["model_dir"])
        network, self.card = checkpoint.load(folder / "weights.safetensors")
        self.size = self.card.input.size
        self.network = network.to(memory_format=torch.channels_last)
        self.features = None
        network.activation.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        """The forward hook."""
        self.features = output

    def handle(self, data, context):
        """An answer for each request, as JSON."""
        images = [picture.decode(row["body"], self.size) for row in data]
        with torch.inference_mode():
            logits = self.network(torch.from_numpy(np.stack(images)))
            maps = torch.einsum("kc,nchw->nkhw", self.network.head.weight, self.features)
            probabilities = torch.softmax(logits, dim=1)
        answers = []
        for image, probability, map_ in zip(images, probabilities, maps.numpy(), strict=True):
            overlay = picture.png(picture.blend(image, map_[int(probability.argmax())]))
            said = picture.answer(self.card.classes, probability.tolist(), overlay)
            answers.append(json.dumps(said).encode())
        return answers
