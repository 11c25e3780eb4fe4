"""FastAPI and uvicorn with pytorch-grad-cam: `python -m benchmarks.peers.gradcam_app FILE PORT`.

As the README of pytorch-grad-cam and FastAPI's "Concurrency and async" teach.
"""

import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from torch import nn

from benchmarks.peers import picture
from train.model import checkpoint


class OfChannels(nn.Module):
    """The network for what pytorch-grad-cam takes, (N, 1, S, S)."""

    def __init__(self, network):
        """Wrap it."""
        super().__init__()
        self.network = network

    def forward(self, images):
        """Logits (N, 2)."""
        return self.network(images[:, 0])


def build(weights):
    """The application, with the network of a file of weights."""
    app = FastAPI()
    network, card = checkpoint.load(weights)
    model, size = OfChannels(network), card.input.size
    cam = GradCAM(model=model, target_layers=[network.activation])
    turn = threading.Lock()  # GradCAM keeps a request's activations in itself

    def answer(image):
        pixels = picture.decode(image, size)
        batch = torch.from_numpy(pixels)[None, None].float()
        with turn:
            grey = cam(input_tensor=batch, targets=None)[0]  # None: of the likelier class
            probability = torch.softmax(cam.outputs, dim=1)[0].tolist()
        return picture.answer(card.classes, probability, overlay(pixels, grey))

    @app.post("/predict")
    async def predict(request: Request):
        return await run_in_threadpool(answer, await request.body())

    return app


def overlay(pixels, cam):
    """The PNG of `show_cam_on_image`, enlarged to the size of all overlays."""
    side = (picture.side_of(len(pixels)),) * 2
    image = cv2.resize(np.float32(pixels) / 255, side, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    mask = cv2.resize(cam, side)
    shown = show_cam_on_image(np.repeat(image[:, :, None], 3, axis=2), mask, use_rgb=True)
    return cv2.imencode(".png", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))[1].tobytes()


if __name__ == "__main__":
    file, port = sys.argv[1:]
    uvicorn.run(build(Path(file)), host="127.0.0.1", port=int(port), log_level="warning")
