"""A small residual network with a depthwise kernel and two readers of its stream."""


def residual(layers, keras_module, name="residual"):
    """An image network of either Keras: a stream of 8 channels that two kernels put out, and a block of 12."""
    inputs = keras_module.Input((8, 8, 3))
    stream = layers.Conv2D(8, 3, padding="same", name="stem", bias_initializer="normal")(inputs)
    x = layers.BatchNormalization(name="norm", beta_initializer="normal")(stream)
    x = layers.Conv2D(12, 1, name="expand", activation="relu", bias_initializer="normal")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise", bias_initializer="normal")(x)
    x = layers.Conv2D(8, 1, name="project", bias_initializer="normal")(x)
    x = layers.Add(name="add")([stream, x])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras_module.Model(inputs, layers.Dense(4, name="head")(x), name=name)
