"""Small networks of depthwise-separable blocks, as phones run them."""

import numpy as np

WIDTH = 16


def make_mobile(flavour, blocks=2, size=32, classes=4, between=None, batch_size=None, stem="symmetric"):
    """A network that XNNPACK runs sparse from its stem to its mean, with random statistics.

    Args:
        flavour: keras or tf_keras.
        blocks: how many depthwise and 1x1 convolutions.
        size: rows and columns of the image.
        classes: outputs of the Dense head; None for no head.
        between: is given what the blocks put out, and what it returns is what the mean reads.
        batch_size: of the input.
        stem: "symmetric", "same" or "late" (zeros below and on the right alone).
    """
    layers = flavour.layers
    inputs = x = flavour.Input((size, size, 3), batch_size=batch_size, name="image")
    if stem != "same":
        x = layers.ZeroPadding2D(1 if stem == "symmetric" else ((0, 1), (0, 1)), name="stem_pad")(x)
    padding = "same" if stem == "same" else "valid"
    x = layers.Conv2D(WIDTH, 3, strides=2, padding=padding, use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(6.0, name="stem_relu")(x)
    for number in range(blocks):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"depthwise_{number}")(x)
        x = layers.BatchNormalization(name=f"depthwise_bn_{number}")(x)
        x = layers.ReLU(name=f"depthwise_relu_{number}")(x)
        x = layers.Conv2D(WIDTH, 1, name=f"pointwise_{number}")(x)
    if between is not None:
        x = between(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    if classes is not None:
        x = layers.Dense(classes, name="head")(x)
    model = flavour.Model(inputs, x, name="mobile")
    randomize(model)
    return model


def randomize(model, seed=0):
    """Gives a model's weights values that keep tensors near one, statistics among them."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4
        if len(weight.shape) == 4 and weight.shape[-1] == 1:
            fan_in = weight.shape[0] * weight.shape[1]
        values = rng.standard_normal(weight.shape) / np.sqrt(fan_in)
        is_variance = "variance" in getattr(weight, "path", weight.name)
        weight.assign(np.abs(values) + 0.5 if is_variance else values)


def set_zeros(model, sparsity, names=("pointwise",)):
    """Sets the first weights of kernels to zero whose layers' names begin so."""
    for layer in model.layers:
        if layer.name.startswith(names):
            kernel = layer.kernel.numpy()
            np.ravel(kernel)[: int(np.ceil(sparsity * kernel.size))] = 0
            layer.kernel.assign(kernel)
