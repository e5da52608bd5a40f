"""Random networks with residual streams, gates, groups and concatenations, and which of their channels meet.

Each network is built twice: whole, and cut at its kernels. In the cut one every kernel's output is an input, and every
kernel's input an output, so that a change in one channel shows which channels of which tensors are made of it.
"""

import keras
import numpy as np

layers = keras.layers


class Network:
    """A network on images in the making."""

    def __init__(self, generator):
        self.generator = generator
        self.inputs = keras.Input((6, 6, 3))
        self.kernels, self.cut_inputs, self.cut_outputs = [], [], []

    def convolve(self, pair, channels, size=3, groups=1):
        """A convolution of a tensor: of the whole network, and cut."""
        whole, cut = pair
        layer = layers.Conv2D(channels, size, padding="same", groups=groups, bias_initializer="normal")
        return self._cut(layer, layer(whole), cut)

    def read_out(self, pair, units):
        """A Dense layer behind a tensor."""
        layer = layers.Dense(units, bias_initializer="normal")
        return self._cut(layer, layer(pair[0]), pair[1])

    def _cut(self, layer, whole, cut):
        entering = keras.Input(whole.shape[1:])
        self.kernels.append(layer)
        self.cut_inputs.append(entering)
        self.cut_outputs.append(cut)
        return whole, entering

    def act(self, make_layer, *pairs):
        """A layer without a kernel, in both."""
        layer = make_layer()
        return tuple(layer(list(tensors) if len(tensors) > 1 else tensors[0]) for tensors in zip(*pairs, strict=True))

    def finish(self, *pairs):
        """The whole model, the cut one, and the layers with kernels.

        The first outputs of the cut one are what the kernels read, in their order.
        """
        outputs = [*self.cut_outputs, *(cut for _, cut in pairs)]
        cut = keras.Model([self.inputs, *self.cut_inputs], outputs)
        return keras.Model(self.inputs, [whole for whole, _ in pairs]), cut, self.kernels


def draw_network(seed):
    """A random network, as `Network.finish` gives it."""
    generator = np.random.default_rng(seed)
    network = Network(generator)
    stream = network.convolve((network.inputs, network.inputs), int(generator.choice([2, 4])))
    stream = _normalize(network, stream)
    streams = [stream]
    for _ in range(int(generator.integers(1, 4))):
        kind = generator.choice(["plain", "residual", "dense", "gate", "depthwise", "grouped"])
        channels = streams[-1][0].shape[-1]
        if kind == "plain":
            stream = _normalize(network, network.convolve(streams[-1], int(generator.choice([2, 3, 4]))))
        elif kind == "residual":
            branch = _normalize(network, network.convolve(streams[-1], 3))
            stream = network.act(layers.Add, network.convolve(branch, channels), streams[-1])
        elif kind == "dense":
            stream = network.act(layers.Concatenate, streams[-1], _normalize(network, network.convolve(streams[-1], 2)))
        elif kind == "gate":
            squeezed = network.act(lambda: layers.GlobalAveragePooling2D(keepdims=True), streams[-1])
            gate = network.act(lambda: layers.Activation("sigmoid"), network.convolve(squeezed, channels, 1))
            stream = network.act(layers.Multiply, streams[-1], gate)
        elif kind == "depthwise":
            multiplier = int(generator.choice([1, 2]))
            stream = network.act(
                lambda multiplier=multiplier: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier),
                streams[-1],
            )
        else:
            stream = network.convolve(network.convolve(streams[-1], 4), 4, groups=2)
        streams.append(stream)
    flat = network.act(layers.Flatten, network.act(lambda: layers.MaxPooling2D(3), streams[-1]))
    heads = [network.read_out(flat, 3)]
    if generator.random() < 0.5:
        heads.append(network.read_out(network.act(layers.GlobalAveragePooling2D, streams[0]), 2))
    return network.finish(*heads)


def _normalize(network, pair):
    """Batch normalization with statistics of its own, and an activation for which zero is nothing special."""

    def make():
        return layers.BatchNormalization(
            beta_initializer="normal", gamma_initializer="uniform", moving_mean_initializer="normal"
        )

    activation = network.generator.choice(["leaky_relu", "sigmoid"])
    return network.act(lambda: layers.Activation(str(activation)), network.act(make, pair))


def find_meeting(cut):
    """Which channels of the cut network's outputs change with a channel of its inputs.

    Returns:
        Pairs of (input, channel) and (output, channel), by their places. The first input is that of the network.
    """
    generator = np.random.default_rng(0)
    values = [generator.normal(size=(1, *tensor.shape[1:])).astype(np.float32) for tensor in cut.inputs]
    before = cut(values)
    meeting = []
    for place, value in enumerate(values):
        for channel in range(value.shape[-1]):
            changed = [array.copy() for array in values]
            changed[place][..., channel] += generator.normal(size=value.shape[:-1])
            for output, (old, new) in enumerate(zip(before, cut(changed), strict=True)):
                difference = np.abs(np.asarray(new) - np.asarray(old)).reshape(-1, old.shape[-1]).max(axis=0)
                meeting += [((place, channel), (output, other)) for other in np.flatnonzero(difference > 0).tolist()]
    return meeting
