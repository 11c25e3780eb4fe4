"""Net benefit, against numbers worked out by hand."""

import numpy as np

from train.metrics.classification import net_benefit


def test_net_benefit_of_treating_all_none_and_the_sick() -> None:
    labels, thresholds = np.array([1, 0, 0, 0]), np.array([0.2, 0.25, 0.5])
    treat_all = net_benefit(labels, np.ones(4), thresholds)
    np.testing.assert_allclose(treat_all, [0.25 - 0.75 / 4, 0, -0.5])
    np.testing.assert_array_equal(net_benefit(labels, np.zeros(4), thresholds), 0)
    np.testing.assert_array_equal(net_benefit(labels, labels * 0.9, thresholds), 0.25)
