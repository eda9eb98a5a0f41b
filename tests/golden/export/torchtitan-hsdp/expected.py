# llama3-70b on dgx-h100:nodes=16 (128 devices, 16 x 8), written by `towtank export` for torchtitan 0.3
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# tensor x: 4 ranks on one node, the first group: 0, 1, 2, 3
# data (with context): 16 ranks on 8 nodes, 2 of them on each, the first group: 0, 4, 8, 12, 16, 20, 24, 28,
#   ... 60
# shards of states: 4 ranks on 2 nodes, 2 of them on each, the first group: 0, 4, 8, 12
# replicas of shards: 4 ranks on 4 nodes, the first group: 0, 16, 32, 48
# pipeline: 2 ranks on 2 nodes, the first group: 0, 64
#
# note: batches count sequences; releases after 0.3 count tokens: num_tokens_per_microbatch_per_dp_rank =
#   16384, num_tokens_per_train_step = 1048576, max_context_length = 8192
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.models.llama3 import model_registry
from torchtitan.models.llama3.config_registry import llama3_70b


def towtank_plan():
    """llama3-70b by the plan; data, optimizer and number of steps are yours to replace."""
    cfg = llama3_70b()
    cfg.model_spec = model_registry("70B")
    cfg.training.seq_len = 8192
    cfg.training.local_batch_size = 8
    cfg.training.global_batch_size = 128
    cfg.training.dtype = "float32"
    cfg.training.mixed_precision_param = "bfloat16"
    cfg.training.mixed_precision_reduce = "float32"
    cfg.training.disable_cuda_graphs = True
    cfg.parallelism.tensor_parallel_degree = 4
    cfg.parallelism.enable_sequence_parallel = True
    cfg.parallelism.context_parallel_degree = 1
    cfg.parallelism.data_parallel_shard_degree = 4
    cfg.parallelism.data_parallel_replicate_degree = 4
    cfg.parallelism.fsdp_reshard_after_forward = "never"
    cfg.parallelism.expert_parallel_degree = 1
    cfg.parallelism.pipeline_parallel_degree = 2
    cfg.parallelism.pipeline_parallel_schedule = "1F1B"
    cfg.parallelism.pipeline_parallel_microbatch_size = 2
    cfg.parallelism.module_fqns_per_model_part = [
        ["tok_embeddings"] + [f"layers.{i}" for i in range(0, 40)],
        [f"layers.{i}" for i in range(40, 80)] + ["norm", "lm_head"],
    ]
    cfg.activation_checkpoint = FullAC.Config()
    cfg.compile.enable_async_tensor_parallel = False
    return cfg
