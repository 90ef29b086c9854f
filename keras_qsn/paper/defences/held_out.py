"""Training images that a network was not trained on."""

from keras_qsn import datasets

# Images that thresholds, strengths and weights are chosen on.
_CHOSEN_ON = 1000


def held_out(network, data):
    """Those, and their labels, that a part of a defence is chosen on."""
    x, y = _others(network, data)
    if not len(x):
        raise ValueError(
            f"`{network.after}` must have training images that the network "
            f"was not trained on. Received: {network}"
        )
    return x[:_CHOSEN_ON], y[:_CHOSEN_ON]


def held_back(network, data):
    """Those, and their labels, that nothing of it was chosen on either."""
    return tuple(each[_CHOSEN_ON:] for each in _others(network, data))


def _others(network, data):
    x, y = datasets.seeded_subset(
        data.x_train, data.y_train, None, network.seed
    )
    trained = len(x) if network.train_images is None else network.train_images
    return x[trained:], y[trained:]
