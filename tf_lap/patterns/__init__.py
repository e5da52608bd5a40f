"""Patterns of zeros: weights are pruned one by one, in whole blocks, n of every m inputs stay, or whole channels go."""

from tf_lap.patterns.base import Pattern as Pattern
from tf_lap.patterns.base import PatternLike as PatternLike
from tf_lap.patterns.base import Ranked as Ranked
from tf_lap.patterns.base import Unstructured as Unstructured
from tf_lap.patterns.base import deserialize as deserialize
from tf_lap.patterns.base import names as names
from tf_lap.patterns.base import register as register
from tf_lap.patterns.base import serialize as serialize
from tf_lap.patterns.blocks import Blocks as Blocks
from tf_lap.patterns.channels import Channels as Channels
from tf_lap.patterns.forms import get as get
from tf_lap.patterns.forms import limit as limit
from tf_lap.patterns.n_of_m import NOfM as NOfM
