"""A replayed CUDA graph gives the outputs and gradients of the recorded step."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.small import RECIPE, small_network
from train.data import dataset as datasets
from train.fitting import learner
from train.fitting.cuda_graphs import WithFeatures, graphed
from train.fitting.loop import fit
from train.model.networks import Classifier, build

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_features_are_the_pooled_activation() -> None:
    network = small_network().eval()
    logits, features = WithFeatures(network)(torch.full((2, 16, 16), 100.0))
    assert features.shape == (2, 6, 4, 4)
    torch.testing.assert_close(network.head(features.mean((2, 3))), logits)


def outputs_and_gradients(network: Classifier, model: WithFeatures, pixels: Tensor) -> list[Tensor]:
    """Outputs, gradients and buffers after a backward pass through both outputs."""
    network.zero_grad(set_to_none=True)
    logits, features = model(pixels)
    (logits.square().sum() + features.mean()).backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    tensors = [logits, features, *gradients, *network.buffers()]
    return [tensor.detach().clone() for tensor in tensors if tensor is not None]


@on_gpu
def test_replayed_outputs_gradients_and_statistics() -> None:
    network = small_network().cuda().train()
    eager = deepcopy(network)
    pixels = 255 * torch.rand(8, 16, 16, device="cuda")
    replayed = graphed(network, torch.zeros_like(pixels), None)
    for before, after in zip(eager.buffers(), network.buffers(), strict=True):
        assert torch.equal(before, after)
    for batch in (pixels, 255 - pixels):
        actual = outputs_and_gradients(network, replayed, batch)
        expected = outputs_and_gradients(eager, WithFeatures(eager), batch)
        torch.testing.assert_close(actual, expected)


@on_gpu
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("pretrained", [False, True])
def test_training_with_graphs_has_the_same_losses(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: bool
) -> None:
    dataset = datasets.load(images, 32, cache=tmp_path)

    def losses() -> list[float]:
        torch.manual_seed(0)
        epochs = fit(
            build("small"), "small", dataset, RECIPE,
            pretrained=pretrained, seed=0, device=torch.device("cuda"),
        )  # fmt: skip
        return [epoch.train_loss for epoch in epochs]

    with_graphs = losses()
    monkeypatch.setattr(learner, "graphed", lambda network, *_: WithFeatures(network))
    assert with_graphs == pytest.approx(losses(), rel=0.01)  # in half precision, sums in any order
