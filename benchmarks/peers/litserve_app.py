"""LitServe with a forward hook's CAM, batched: `python -m benchmarks.peers.litserve_app FILE PORT`.

As LitServe's documents teach: an image comes as base64 in JSON; setup, decode_request, predict on
a batch, encode_response.
"""

import base64
import sys
from pathlib import Path

import litserve
import torch

from benchmarks.peers import picture
from train.model import checkpoint

MAX_BATCH_SIZE, BATCH_TIMEOUT = 8, 0.01  # images, seconds


class HookCam(litserve.LitAPI):
    """JPEGs in, labels and overlays out."""

    def __init__(self, weights, **options):
        """Serve a file of weights."""
        super().__init__(**options)
        self.weights = weights

    def setup(self, device):
        """Load the network and hook the last feature maps."""
        self.network, self.card = checkpoint.load(self.weights)
        self.network.to(device)
        self.size = self.card.input.size
        self.features = None
        self.network.activation.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        """The forward hook."""
        self.features = output

    def decode_request(self, request):
        """Pixels uint8 (S, S)."""
        image = base64.b64decode(request["image"])
        return torch.from_numpy(picture.decode(image, self.size))

    def predict(self, pixels):
        """Image, probabilities and map of the likelier class, of each of pixels (N, S, S)."""
        with torch.inference_mode():
            probabilities = torch.softmax(self.network(pixels), dim=1)
            maps = torch.einsum("kc,nchw->nkhw", self.network.head.weight, self.features)
        return [
            (image.numpy(), probability.tolist(), map_[int(probability.argmax())].numpy())
            for image, probability, map_ in zip(pixels, probabilities, maps, strict=True)
        ]

    def encode_response(self, output):
        """Label, probabilities and overlay."""
        pixels, probability, map_ = output
        overlay = picture.png(picture.blend(pixels, map_))
        return picture.answer(self.card.classes, probability, overlay)


if __name__ == "__main__":
    file, port = sys.argv[1:]
    api = HookCam(Path(file), max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)
