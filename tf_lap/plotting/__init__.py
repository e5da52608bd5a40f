"""Pictures of models and of what was measured of them. They need matplotlib, `pip install "tf_lap[plot]"`."""

from tf_lap.plotting.graph_chart import plot_graph as plot_graph
from tf_lap.plotting.mask_chart import plot_masks as plot_masks
from tf_lap.plotting.sparsity_chart import plot_sparsity as plot_sparsity
from tf_lap.plotting.tradeoff_chart import plot_tradeoff as plot_tradeoff
