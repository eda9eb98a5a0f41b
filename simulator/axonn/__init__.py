"""AxoNN's published communication model and its ranking of 4D grids (Singh et al., SC'24).

    workload = Workload.gpt(num_layers=32, hidden=7168, sequences=1024, sequence_length=2048)
    ranking = rank_grids(workload, devices=32, machine=load_machine("perlmutter"), min_tensor=16)

The model knows the volume of each collective and one bandwidth for each group: no latency, no overlap, no
compute. It ranks grids in milliseconds before anything is simulated; differences of a few percent between the
first grids of a ranking mean nothing.

Evidence. The formulas, the passes under recomputation and the bandwidths were read in the authors' code,
axonn-ai/Megatron-AxoNN (branch gordon-bell-perlmutter):examples/comm_model.py; equations 1 to 6 of the
paper were recalled and agree with it. `compat=True` gives the numbers of that script to the last digit.
Without it, two of its habits are put right:

1. sizes: for a transposed layer with k input and n output features the forward all-reduce carries the n
   outputs and the backward one the k inputs. The script has them the other way round, which matters where
   k and n differ (4h to h);
2. units: the script divides GiB by GB/s. The bandwidths were measured in powers of ten
   (axonn-ai/Megatron-AxoNN:megatron/initialize.py, test_bw divides by 1e9), so its times are 7 % too short:
   the right ones are 1024^3 / 10^9 = 1.0737 times as long.
"""

from towtank.simulator.axonn.bandwidth import (
    THEORETICAL_ASSUMPTIONS,
    AxisBandwidths,
    axis_bandwidths,
    bandwidth,
    basis_used,
    theoretical_bandwidth,
)
from towtank.simulator.axonn.grid import Grid, feasible_grids, minimum_tensor_product
from towtank.simulator.axonn.rank import RankedGrid, Ranking, rank_grids, workload_times
from towtank.simulator.axonn.traffic import (
    FULL_RECOMPUTE,
    FULL_RECOMPUTE_REGATHER,
    NO_RECOMPUTE,
    CommunicationTimes,
    FullyConnected,
    Passes,
    Traffic,
    Workload,
    gpt_block,
    layer_times,
    layer_traffic,
    model_block,
)

__all__ = [
    "FULL_RECOMPUTE",
    "FULL_RECOMPUTE_REGATHER",
    "NO_RECOMPUTE",
    "THEORETICAL_ASSUMPTIONS",
    "AxisBandwidths",
    "CommunicationTimes",
    "FullyConnected",
    "Grid",
    "Passes",
    "RankedGrid",
    "Ranking",
    "Traffic",
    "Workload",
    "axis_bandwidths",
    "bandwidth",
    "basis_used",
    "feasible_grids",
    "gpt_block",
    "layer_times",
    "layer_traffic",
    "minimum_tensor_product",
    "model_block",
    "rank_grids",
    "theoretical_bandwidth",
    "workload_times",
]
