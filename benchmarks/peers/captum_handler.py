"""TorchServe, eager: BaseHandler's three steps, Captum's LayerGradCam and its matplotlib figure.

As TorchServe's "Custom service" and Captum's tutorial of ResNet teach. TorchServe imports this
file alone; `train`, `handlers` and `benchmarks.peers` lie beside it in the archive.
"""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from captum.attr import visualization as viz
from ts.torch_handler.base_handler import BaseHandler

from benchmarks.peers import picture
from train.model import checkpoint

DPI = 100


class CaptumHandler(BaseHandler):
    """JPEG in, label and overlay out, one image at a time."""

    def initialize(self, context):
        """Load the weights of the archive."""
        folder = Path(context.system_properties["model_dir"])
        self.model, self.card = checkpoint.load(folder / "weights.safetensors")
        self.device = torch.device("cpu")
        self.size = self.card.input.size
        self.grad_cam = LayerGradCam(self.model, self.model.activation)
        self.initialized = True

    def preprocess(self, data):
        """Pixels uint8 (N, S, S) of a batch's requests."""
        images = [row.get("data") or row.get("body") for row in data]
        return torch.stack([torch.from_numpy(picture.decode(image, self.size)) for image in images])

    def handle(self, data, context):
        """Predict, then explain the predicted class."""
        self.context = context
        pixels = self.preprocess(data)
        probabilities = torch.softmax(self.inference(pixels), dim=1)
        return self.postprocess(pixels, probabilities)

    def postprocess(self, pixels, probabilities):
        """An answer for each image."""
        answers = []
        for image, probability in zip(pixels, probabilities, strict=True):
            target = int(probability.argmax())
            overlay = self.draw(image, self.explain_one(image[None], target))
            answers.append(picture.answer(self.card.classes, probability.tolist(), overlay))
        return answers

    def explain_one(self, pixels, target):
        """Grad-CAM of a class, float (S, S)."""
        attribution = self.grad_cam.attribute(pixels, target=target)
        size = (self.size, self.size)
        large = LayerAttribution.interpolate(attribution, size, interpolate_mode="bilinear")
        return large[0, 0].detach().numpy()

    def draw(self, image, attribution):
        """The PNG of Captum's blended heat map."""
        inches = picture.side_of(self.size) / DPI
        figure, _ = viz.visualize_image_attr(
            attribution[:, :, None],
            np.repeat(image.numpy()[:, :, None], 3, axis=2),
            method="blended_heat_map",
            sign="absolute_value",
            fig_size=(inches, inches),
            use_pyplot=False,
        )
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI)
        return file.getvalue()
