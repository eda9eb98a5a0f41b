# qwen3-30b-a3b on dgx-h100:nodes=8 (64 devices, 8 x 8), written by `towtank export` for Megatron Bridge 0.6
#
# ranks fill nodes of 8 devices in order: rank r is on node r // 8
# data (with context): 32 ranks on 4 nodes, 8 of them on each, the first group: 0, 1, 2, 3, 4, 5, 6, 7, ... 31
# pipeline: 2 ranks on 2 nodes, the first group: 0, 32
# expert: 8 ranks on one node, the first group: 0, 1, 2, 3, 4, 5, 6, 7
# expert data: 4 ranks on 4 nodes, the first group: 0, 8, 16, 24
#
# note: the shape of qwen3-30b-a3b does not name its activation function: SwiGLU is written, GeGLU costs the
#   same
# note: experts are predicted with equal load; a run's depends on its router
import torch
import torch.nn.functional as F

from megatron.bridge.recipes.gpt import vanilla_gpt_pretrain_config
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.mixed_precision import get_mixed_precision_config
from megatron.bridge.training.pretrain import pretrain


def config():
    """Plain GPT recipe with model and plan; data, optimizer and length of the run are yours to replace."""
    cfg = vanilla_gpt_pretrain_config()
    cfg.model.num_layers = 48
    cfg.model.hidden_size = 2048
    cfg.model.ffn_hidden_size = 6144
    cfg.model.num_attention_heads = 32
    cfg.model.num_query_groups = 4
    cfg.model.kv_channels = 128
    cfg.model.qk_layernorm = True
    cfg.model.position_embedding_type = "rope"
    cfg.model.normalization = "RMSNorm"
    cfg.model.gated_linear_unit = True
    cfg.model.activation_func = F.silu
    cfg.model.add_bias_linear = False
    cfg.model.share_embeddings_and_output_weights = False
    cfg.model.attention_dropout = 0.0
    cfg.model.hidden_dropout = 0.0
    cfg.model.num_moe_experts = 128
    cfg.model.moe_router_topk = 8
    cfg.model.moe_ffn_hidden_size = 768
    cfg.model.moe_grouped_gemm = True
    cfg.model.moe_token_dispatcher_type = "alltoall"
    cfg.tokenizer.vocab_size = 151936
    cfg.model.make_vocab_size_divisible_by = 128
    cfg.train.micro_batch_size = 1
    cfg.train.global_batch_size = 256
    cfg.model.tensor_model_parallel_size = 1
    cfg.model.context_parallel_size = 1
    cfg.model.pipeline_model_parallel_size = 2
    cfg.model.virtual_pipeline_model_parallel_size = 3
    cfg.model.expert_model_parallel_size = 8
    cfg.model.expert_tensor_parallel_size = 1
    cfg.model.seq_length = 4096
    cfg.dataset.seq_length = 4096
    cfg.ddp.use_distributed_optimizer = True
    cfg.optimizer.use_distributed_optimizer = True
    cfg.ddp.overlap_grad_reduce = True
    cfg.ddp.overlap_param_gather = True
    cfg.optimizer.overlap_param_gather = True
    cfg.model.tp_comm_overlap = False
    cfg.model.overlap_p2p_comm = True
    cfg.model.batch_p2p_comm = False
    cfg.model.overlap_moe_expert_parallel_comm = False
    cfg.mixed_precision = get_mixed_precision_config("bf16_mixed")
    cfg.mixed_precision.grad_reduce_in_fp32 = True
    return cfg


if __name__ == "__main__":
    pretrain(config=config(), forward_step_func=forward_step)
