"""The definition, by brute force: zeroing a weight changes the operator around it by exactly its score.

On a linear network the operator around a kernel maps what enters its producers to what leaves its consumers, all
producers and all consumers stacked. Here it is evaluated on unit vectors, cut at every other kernel. Convolutions have
strides as long as their taps, so that every position is read once, and a norm over positions is a norm over taps; each
consumer's part is taken at one of its output positions. The definition speaks of operators side by side, so no two ways
lead from one kernel to another: where they do (a depth multiplier, x + x), scores add their squares up.
"""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tf_lap
from tf_lap.graph.energy import measure_kernels, sweep
from tf_lap.graph.resolver import resolve

KERNELS = (keras.layers.Dense, keras.layers.Conv1D)


def convolve(x, kernel, groups=1):
    """A convolution whose stride is its number of taps, from `(rows, length, inputs)`."""
    taps, inputs, outputs = kernel.shape
    windows = x.reshape(len(x), -1, taps, groups, inputs)
    grouped = kernel.reshape(taps, inputs, groups, outputs // groups)
    return np.einsum("nltgi,tigo->nlgo", windows, grouped).reshape(len(x), -1, outputs)


def evaluate(function, *inputs):
    """The output of a layer or an operator, in NumPy: Keras compiles each new shape of a grouped convolution."""
    if isinstance(function, keras.layers.Dense):
        return inputs[0] @ function.kernel.numpy()
    if isinstance(function, keras.layers.Conv1D):
        return convolve(inputs[0], function.kernel.numpy(), function.groups)
    if isinstance(function, keras.layers.DepthwiseConv1D):
        taps, channels, multiplier = function.kernel.shape
        kernel = function.kernel.numpy().reshape(taps, 1, channels * multiplier)
        return convolve(inputs[0], kernel, channels)
    if isinstance(function, keras.layers.BatchNormalization):
        scale = 1.0 if function.gamma is None else function.gamma.numpy()
        return inputs[0] * scale / np.sqrt(function.moving_variance.numpy() + function.epsilon)
    return np.asarray(function(*inputs))


class Network:
    """A Keras model under construction. Tensors are numbered; its calls can be replayed piece by piece."""

    def __init__(self, length, channels):
        self.symbolic = [keras.Input((length, channels))]
        self.producers = [frozenset(["input"])]
        self.calls = []

    def call(self, function, *sources):
        self.symbolic.append(function(*(self.symbolic[s] for s in sources)))
        fed = frozenset().union(*(self.producers[s] for s in sources))
        self.producers.append(frozenset([len(self.calls)]) if isinstance(function, KERNELS) else fed)
        self.calls.append((function, sources, len(self.symbolic) - 1))
        return len(self.symbolic) - 1

    def shape(self, tensor):
        return tuple(self.symbolic[tensor].shape[1:])

    def finish(self, outputs, seed):
        self.outputs = outputs
        self.model = keras.Model(self.symbolic[0], [self.symbolic[o] for o in outputs])
        rng = np.random.default_rng(seed)
        for variable in self.model.variables:
            if variable.name not in ("beta", "moving_mean", "bias"):  # those stay zero: the network is linear
                drawn = rng.standard_normal(variable.shape)
                variable.assign(np.abs(drawn) + 0.3 if variable.name == "moving_variance" else drawn)
        return self

    def __repr__(self):
        calls = [f"{type(f).__name__}{s}->{t}{self.shape(t)}" for f, s, t in self.calls]
        return f"{self.shape(0)} {' '.join(calls)} outputs {self.outputs}"

    @property
    def uses(self):
        return [
            (function, sources[0], target) for function, sources, target in self.calls if isinstance(function, KERNELS)
        ]

    def run(self, inputs, cut=True):
        """The values of all tensors, by number.

        Args:
            inputs: the values of some tensors, the network's input among them.
            cut: whether kernels whose output is not among `inputs` put out zeros.
        """
        values = dict(inputs)
        rows = len(inputs[0])
        for function, sources, target in self.calls:
            if target not in values:
                if isinstance(function, KERNELS) and cut:
                    values[target] = np.zeros((rows, *self.shape(target)), np.float32)
                else:
                    values[target] = evaluate(function, *(values[s] for s in sources))
        return values


def measure_change(network, layer, index):
    """The Frobenius norm of the change of the stacked operator when one weight of a layer is zeroed."""
    # Unit vectors enter the network, and every producer: a row of one batch each.
    entering = [(0, network.shape(0), None)]
    entering += [(target, network.shape(source), function) for function, source, target in network.uses]
    rows, row, inputs = sum(int(np.prod(shape)) for _, shape, _ in entering), 0, {}
    for target, shape, function in entering:
        size = int(np.prod(shape))
        basis = np.zeros((rows, size), np.float32)
        basis[row : row + size] = np.eye(size)
        basis = basis.reshape(rows, *shape)
        inputs[target] = basis if function is None else evaluate(function, basis)
        row += size
    arriving = network.run(inputs)
    kernel = layer.kernel.numpy()
    alone = np.zeros_like(kernel)
    alone[index] = kernel[index]
    square = 0.0
    for function, source, target in network.uses:
        if function is layer:
            layer.kernel.assign(alone)
            change = evaluate(layer, arriving[source])
            layer.kernel.assign(kernel)
            leaving = network.run({0: np.zeros((rows, *network.shape(0)), np.float32), target: change})
            ends = [evaluate(f, leaving[s]) for f, s, _ in network.uses] + [leaving[o] for o in network.outputs]
            square += sum(float(np.sum(np.square(end, dtype=np.float64))) / np.prod(end.shape[1:-1]) for end in ends)
    return np.sqrt(square)


def compute_scores(model):
    recipe = resolve(model)
    incoming, outgoing = sweep(recipe, measure_kernels(recipe))
    lookahead = tf_lap.scores.Lookahead()
    return {
        kernel.path: lookahead.score(kernel, kernel.variable.value, back, ahead).numpy()
        for kernel, back, ahead in zip(recipe.kernels, incoming, outgoing, strict=True)
        if not kernel.is_opt_in
    }


def check_scores(network, weights_per_kernel=3):
    rng = np.random.default_rng(0)
    scores = compute_scores(network.model)
    assert set(scores) == {function.name for function, *_ in network.uses}
    for path, score in scores.items():
        layer = network.model.get_layer(path)
        for flat in rng.choice(score.size, size=min(weights_per_kernel, score.size), replace=False):
            index = np.unravel_index(flat, score.shape)
            expected = measure_change(network, layer, index)
            assert score[index] == pytest.approx(expected, rel=2e-4), (path, index)


class Grower:
    """Draws one random step after another onto a network."""

    def __init__(self, draw):
        self.draw = draw
        self.network = Network(draw(st.sampled_from([4, 8])), draw(st.sampled_from([2, 4])))

    def kernel(self, source, filters=None, taps=None):
        length, channels = self.network.shape(source)
        filters = filters or self.draw(st.sampled_from([2, 4, 6]))
        taps = taps or self.draw(st.sampled_from([t for t in (1, 2) if length % t == 0]))
        groups = self.draw(st.sampled_from([g for g in (1, 2) if channels % g == 0 == filters % g]))
        if taps == groups == 1 and self.draw(st.booleans()):
            return self.network.call(keras.layers.Dense(filters), source)
        return self.network.call(keras.layers.Conv1D(filters, taps, strides=taps, groups=groups), source)

    def batch_norm(self, source):
        return self.network.call(keras.layers.BatchNormalization(scale=self.draw(st.booleans())), source)

    def depthwise(self, source):
        taps = self.draw(st.sampled_from([t for t in (1, 2) if self.network.shape(source)[0] % t == 0]))
        return self.network.call(keras.layers.DepthwiseConv1D(taps, strides=taps), source)

    def scale(self, source):
        operator = self.draw(st.sampled_from([lambda x: x * 3.0, lambda x: x / 2.0, lambda x: -x + 0.0]))
        return self.network.call(operator, source)

    def rescale(self, source):
        return self.network.call(keras.layers.Rescaling(0.5), source)

    def merge(self, first, second):
        merges = [keras.layers.Add(), keras.layers.Subtract(), keras.layers.Average()]
        operators = [lambda x, y: x + y, lambda x, y: x - y]
        choice = self.draw(st.sampled_from([*range(len(merges) + len(operators))]))
        if choice < len(merges):
            return self.network.call(lambda x, y: merges[choice]([x, y]), first, second)
        return self.network.call(operators[choice - len(merges)], first, second)

    def residual(self, source):
        channels = self.network.shape(source)[1]
        branch = self.kernel(source, taps=1)
        branch = self.kernel(branch, filters=channels, taps=1)
        return self.merge(source, branch)

    def concat(self, source):
        layer = keras.layers.Concatenate()
        branches = [self.kernel(source, taps=1), self.kernel(source, taps=1)]
        if self.draw(st.booleans()):
            branches.insert(0, source)
        return self.network.call(lambda *x: layer(list(x)), *branches)

    def shared(self, source):
        channels = self.network.shape(source)[1]
        layer = keras.layers.Dense(channels)
        once = self.network.call(layer, source)
        if self.draw(st.booleans()):
            once = self.batch_norm(once)
        return self.network.call(layer, once)

    def grow(self):
        steps = [self.kernel, self.batch_norm, self.depthwise, self.scale, self.rescale]
        steps += [self.residual, self.concat, self.shared]
        tensor = 0
        for step in self.draw(st.lists(st.sampled_from(steps), min_size=1, max_size=4)):
            tensor = step(tensor)
        outputs = []
        if self.draw(st.booleans()) and self.network.uses:
            outputs.append(tensor)  # a second output, in the middle of the network
        if self.draw(st.booleans()):
            tensor = self.network.call(keras.layers.Flatten(), tensor)
            tensor = self.network.call(keras.layers.Dense(3), tensor)
        else:
            tensor = self.kernel(tensor)
        return self.network.finish([*outputs, tensor], self.draw(st.integers(0, 2**20)))


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_replay_is_what_keras_computes(data):
    network = Grower(data.draw).grow()
    x = np.random.default_rng(1).standard_normal((3, *network.shape(0))).astype(np.float32)
    values = network.run({0: x}, cut=False)
    for output, expected in zip(
        network.outputs, network.model(x) if len(network.outputs) > 1 else [network.model(x)], strict=True
    ):
        np.testing.assert_allclose(values[output], expected, rtol=1e-3, atol=1e-3)


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_zeroing_a_weight_changes_the_operator_by_its_score(data):
    check_scores(Grower(data.draw).grow())


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_zeroing_a_weight_changes_the_operator_by_its_score_in_many_networks(data):
    check_scores(Grower(data.draw).grow())


def test_every_weight_of_a_chain():
    network = Network(1, 3)
    hidden = network.call(keras.layers.Dense(4), 0)
    hidden = network.call(keras.layers.Dense(5), hidden)
    check_scores(network.finish([network.call(keras.layers.Dense(2), hidden)], seed=1), weights_per_kernel=100)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (12, 1), (2, 6)])
def test_units_that_are_reshaped_to_positions(shape):
    network = Network(2, 3)
    units = network.call(keras.layers.Dense(12), network.call(keras.layers.Flatten(), 0))
    image = network.call(keras.layers.Reshape(shape), units)
    check_scores(network.finish([network.call(keras.layers.Dense(5), image), units], seed=1), weights_per_kernel=100)


def test_units_that_are_reshaped_split_stacked_and_padded():
    network, ops = Network(2, 3), keras.ops
    units = network.call(keras.layers.Dense(12), network.call(keras.layers.Flatten(), 0))
    image = network.call(keras.layers.Reshape((3, 4)), units)
    half = network.call(lambda x: ops.split(x, 2, axis=-1)[1], image)
    stacked = network.call(lambda x, y: ops.stack([x[..., 2:], y], axis=1), image, half)
    padded = network.call(lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 2))), stacked)
    outputs = [network.call(keras.layers.Dense(2), padded), network.call(keras.layers.Dense(2), half)]
    scores = compute_scores(network.finish(outputs, seed=1).model)
    for path, score in scores.items():
        layer = network.model.get_layer(path)
        if layer is not network.calls[1][0]:  # the stack reads half of the units twice, which adds squares
            for index in np.ndindex(score.shape):
                expected = measure_change(network, layer, index)
                assert score[index] == pytest.approx(expected, rel=2e-4), (path, index)
