"""Scores say how much a weight matters: non-negative float32 numbers, of which the lowest are pruned first."""

from tf_lap.scores.activity import LookaheadActivation as LookaheadActivation
from tf_lap.scores.base import Score as Score
from tf_lap.scores.base import ScoreLike as ScoreLike
from tf_lap.scores.base import channel_factors as channel_factors
from tf_lap.scores.base import deserialize as deserialize
from tf_lap.scores.base import get as get
from tf_lap.scores.base import names as names
from tf_lap.scores.base import register as register
from tf_lap.scores.base import serialize as serialize
from tf_lap.scores.curvature import OBD as OBD
from tf_lap.scores.curvature import OBDLookahead as OBDLookahead
from tf_lap.scores.inputs import OBS as OBS
from tf_lap.scores.inputs import LookaheadWanda as LookaheadWanda
from tf_lap.scores.inputs import OBSLookahead as OBSLookahead
from tf_lap.scores.inputs import Wanda as Wanda
from tf_lap.scores.weights import Lookahead as Lookahead
from tf_lap.scores.weights import Magnitude as Magnitude
from tf_lap.scores.weights import Random as Random
