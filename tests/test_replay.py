"""A step that is replayed is the step that was recorded."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.small import RECIPE, small_network
from train import data, learner
from train.fit import fit
from train.networks import Classifier, build
from train.replay import WithFeatures, graphed

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_features_are_what_is_pooled() -> None:
    network = small_network().eval()
    logits, features = WithFeatures(network)(torch.full((2, 16, 16), 100.0))
    assert features.shape == (2, 6, 4, 4)
    torch.testing.assert_close(network.head(features.mean((2, 3))), logits)


def pass_through(network: Classifier, seen: WithFeatures, pixels: Tensor) -> list[Tensor]:
    """Answers, gradients and buffers after a step with both outputs in the loss."""
    network.zero_grad(set_to_none=True)
    logits, features = seen(pixels)
    (logits.square().sum() + features.mean()).backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None for gradient in gradients)
    kept = [logits, features, *gradients, *network.buffers()]
    return [value.detach().clone() for value in kept if value is not None]


@on_gpu
def test_replayed_answers_gradients_and_statistics() -> None:
    network = small_network().cuda().train()
    other = deepcopy(network)
    pixels = 255 * torch.rand(8, 16, 16, device="cuda")
    replayed = graphed(network, torch.zeros_like(pixels), None)
    for before, after in zip(other.buffers(), network.buffers(), strict=True):
        assert torch.equal(before, after)
    for some in (pixels, 255 - pixels):
        ours = pass_through(network, replayed, some)
        torch.testing.assert_close(ours, pass_through(other, WithFeatures(other), some))


@on_gpu
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_fit_by_graphs_is_the_same_fit(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: bool
) -> None:
    dataset = data.load(images, 32, cache=tmp_path)

    def losses() -> list[float]:
        torch.manual_seed(0)
        epochs = fit(
            build("small"), "small", dataset, RECIPE,
            pretrained=pretrained, seed=0, device=torch.device("cuda"),
        )  # fmt: skip
        return [epoch.train_loss for epoch in epochs]

    ours = losses()
    monkeypatch.setattr(learner, "graphed", lambda network, *_: WithFeatures(network))
    assert ours == pytest.approx(losses(), rel=0.01)  # in half precision, sums in any order
