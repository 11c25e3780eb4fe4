"""Learning rate, parameter groups and trainable stages against values by hand."""

import math

import pytest

from tests.small import RECIPE, SMALL, small_network
from train.fitting.schedule import learning_rate_share, parameter_groups, unfreeze, unfrozen_stages


def test_learning_rate_warms_up_linearly_and_decays_by_a_half_cosine() -> None:
    shares = [learning_rate_share(step, 10, 0.2) for step in range(10)]
    assert shares[:3] == [0.5, 1, 1]
    assert shares[6] == pytest.approx(0.5)  # halfway from the third step to the end
    assert shares[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert shares[2:] == sorted(shares[2:], reverse=True)


@pytest.mark.parametrize("pretrained", [False, True])
def test_every_parameter_is_in_a_single_group(pretrained: bool) -> None:
    network = small_network()
    groups = list(parameter_groups(network, SMALL, RECIPE, pretrained))
    sizes = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    assert sum(sizes) == sum(parameter.numel() for parameter in network.parameters())
    peaks = [group["peak"] for group in groups]  # head, stage1, stem; decayed or not
    factors = [1, 1, 0.5, 0.5, 0.25, 0.25] if pretrained else [1] * 6
    head = RECIPE.pretrained_learning_rate if pretrained else RECIPE.learning_rate
    assert peaks == pytest.approx([head * factor for factor in factors])
    assert [group["weight_decay"] for group in groups] == [RECIPE.weight_decay, 0] * 3
    assert all(p.ndim > 1 for group in groups[::2] for p in group["params"])
    assert all(p.ndim == 1 for group in groups[1::2] for p in group["params"])


def test_frozen_stages_have_fixed_weights_and_statistics() -> None:
    assert [unfrozen_stages(k, SMALL, RECIPE, True) for k in range(4)] == [1, 2, 3, 3]
    assert unfrozen_stages(0, SMALL, RECIPE, False) == 3
    network = small_network()
    unfreeze(network, SMALL, 2)
    trainable = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trainable == {
        "head.weight", "head.bias", "trunk.conv1.weight", "trunk.conv1.bias",
        "trunk.norm1.weight", "trunk.norm1.bias",
    }  # fmt: skip
    assert network.trunk.get_submodule("norm1").training
    assert not network.trunk.get_submodule("norm0").training
