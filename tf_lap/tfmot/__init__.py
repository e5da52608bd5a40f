"""Lookahead pruning inside tfmot, TensorFlow's own pruning toolkit: `prune_lookahead` for `prune_low_magnitude`.

tfmot works on tf_keras models. This package imports both, and is imported when one of its two names is first used.
"""

import tf_keras

from tf_lap.compat.tfmot import pruning_schedule
from tf_lap.schedule import LookaheadPruningSchedule
from tf_lap.tfmot.wrapper import PrunableLayer as PrunableLayer
from tf_lap.tfmot.wrapping import prune_lookahead as prune_lookahead

# From here on tfmot takes the schedule for one of its own, and tf_keras finds it in the files that it loads.
pruning_schedule.PruningSchedule.register(LookaheadPruningSchedule)
tf_keras.utils.register_keras_serializable(package="tf_lap")(LookaheadPruningSchedule)
