"""One process against a transformer written once more in plain PyTorch, and PyTorch's own AdamW."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from towtank.executor.distributed.mesh import Mesh
from towtank.executor.equality.cases import Case, case
from towtank.executor.equality.models import MODELS
from towtank.executor.equality.training import full_weights, run, tokens_of
from towtank.executor.layers.dropout import kept, stream_key
from towtank.executor.step.trainer import Trainer
from towtank.simulator.models.layers import is_expert_layer, layer_window
from towtank.simulator.models.records import Attention, ModelSpec

Weights = dict[str, torch.Tensor]
Drop = Callable[[torch.Tensor, str], torch.Tensor]


def linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w: Weights, name: str, x: torch.Tensor, model: ModelSpec) -> torch.Tensor:
    weight = w[f"{name}.weight"]
    if model.norm == "layernorm":
        return functional.layer_norm(x, (len(weight),), weight, w.get(f"{name}.bias"), 1e-5)
    return functional.rms_norm(x, (len(weight),), weight, 1e-5)


def rotated(x: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, heads, d], as complex numbers of the two halves."""
    half = x.shape[-1] // 2
    turn = torch.arange(x.shape[1]).double()[:, None] * 10000.0 ** (-torch.arange(half).double() / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(turn), turn)[:, None]
    return torch.cat((turned.real, turned.imag), -1)


def attention(w: Weights, name: str, x: torch.Tensor, model: ModelSpec, window: int | None) -> torch.Tensor:
    shape = model.attention
    assert isinstance(shape, Attention)
    q, k, v = (
        linear(w, f"{name}.{part}", x).unflatten(-1, (-1, shape.head_dim))
        for part in ("query", "key", "value")
    )
    if shape.qk_norm:
        q, k = norm(w, f"{name}.query-norm", q, model), norm(w, f"{name}.key-norm", k, model)
    if model.positions == "rope":
        q, k = rotated(q), rotated(k)
    k, v = (each.repeat_interleave(shape.heads // shape.kv_heads, 2) for each in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(shape.head_dim)
    place = torch.arange(x.shape[1])
    seen = place[None] <= place[:, None]
    if window is not None:
        seen &= place[None] > place[:, None] - window
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return linear(w, f"{name}.output", torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))


def dense(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    up = linear(w, f"{name}.up", x)
    if f"{name}.gate.weight" in w:
        return linear(w, f"{name}.down", functional.silu(linear(w, f"{name}.gate", x)) * up)
    return linear(w, f"{name}.down", functional.gelu(up, approximate="tanh"))


def one_expert(w: Weights, name: str, expert: int, x: torch.Tensor) -> torch.Tensor:
    parts = {part: w[f"{name}.{part}.weight"][:, expert] for part in ("up", "down")}
    up = parts["up"] @ x
    if f"{name}.gate.weight" in w:
        return parts["down"].T @ (functional.silu(w[f"{name}.gate.weight"][:, expert] @ x) * up)
    return parts["down"].T @ functional.gelu(up, approximate="tanh")


def experts(w: Weights, name: str, x: torch.Tensor, model: ModelSpec) -> torch.Tensor:
    """Token by token: no permutation, no groups."""
    shape = model.experts
    assert shape is not None
    probabilities = linear(w, f"{name}.experts.router", x).softmax(-1)
    most = shape.num_experts * 99
    if shape.capacity_factor is not None:
        most = math.ceil(shape.capacity_factor * x.shape[1] * shape.top_k / shape.num_experts)
    rows = []
    for sequence, chances in zip(x, probabilities, strict=True):
        served = [0] * shape.num_experts
        for token, chance in zip(sequence, chances, strict=True):
            chosen = chance.argsort(descending=True)[: shape.top_k].tolist()
            total = torch.zeros_like(token)
            for expert in chosen:
                served[expert] += 1
                if served[expert] <= most:
                    share = chance[expert] / chance[chosen].sum()
                    total = total + share * one_expert(w, f"{name}.experts", expert, token)
            rows.append(total)
    routed = torch.stack(rows).view_as(x)
    shared = dense(w, f"{name}.shared", x)
    if shape.shared_gate:
        shared = shared * (x @ w[f"{name}.shared.token-gate.weight"]).sigmoid()[..., None]
    return routed + shared


def layer(w: Weights, index: int, x: torch.Tensor, model: ModelSpec, drop: Drop) -> torch.Tensor:
    name = f"layer.{index}"
    normed = norm(w, f"{name}.attention.norm", x, model)
    attended = attention(w, f"{name}.attention", normed, model, layer_window(model, index))
    if model.parallel_block:
        also = norm(w, f"{name}.mlp.norm", x, model) if model.norms_per_layer > 1 else normed
        return x + drop(attended + dense(w, f"{name}.mlp", also), f"{name}.mlp.residual.dropout")
    if model.norms_per_layer == 4:
        attended = norm(w, f"{name}.post.0.norm", attended, model)
    x = x + drop(attended, f"{name}.attention.residual.dropout")
    normed = norm(w, f"{name}.mlp.norm", x, model)
    routed = is_expert_layer(model, index)
    made = experts(w, name, normed, model) if routed else dense(w, f"{name}.mlp", normed)
    if model.norms_per_layer == 4:
        made = norm(w, f"{name}.post.1.norm", made, model)
    return x + drop(made, f"{name}.mlp.residual.dropout")


def loss_of(
    w: Weights, model: ModelSpec, tokens: torch.Tensor, targets: torch.Tensor, drop: Drop
) -> torch.Tensor:
    x = w["model.embedding.weight"][tokens]
    if model.positions == "learned":
        x = x + w["model.positions.weight"][: tokens.shape[1]]
    if model.embedding_norm:
        x = norm(w, "model.embedding.norm", x, model)
    x = drop(x, "model.embedding.dropout")
    for index in range(model.num_layers):
        x = layer(w, index, x, model, drop)
    x = norm(w, "model.final-norm", x, model)
    table = w["model.embedding.weight" if model.tied_embeddings else "model.head.weight"]
    logits = functional.linear(x, table, w.get("model.head.bias"))
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def dropping(one: Case, step: int) -> Drop:
    """The executor's masks, multiplied on."""

    def drop(x: torch.Tensor, site: str) -> torch.Tensor:
        if not one.dropout:
            return x
        rows = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2])
        mask = kept(stream_key(one.settings.seed, step, site), rows, 0, x.shape[-1], one.dropout)
        return x * mask / (1 - one.dropout)

    return drop


def plain_run(one: Case) -> tuple[list[float], list[float], Weights]:
    settings = one.settings
    begun = full_weights(Trainer(settings, Mesh(settings.plan)))[0]
    w = {name: torch.tensor(value, requires_grad=True) for name, value in begun.items()}
    groups = [
        {"params": [value for value in w.values() if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in w.values() if value.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon
    )
    losses, norms = [], []
    for step in range(settings.steps):
        loss = loss_of(w, settings.model, *tokens_of(settings, step), dropping(one, step))
        optimizer.zero_grad()
        loss.backward()
        assert settings.gradient_clip is not None
        norms.append(float(torch.nn.utils.clip_grad_norm_(w.values(), settings.gradient_clip)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {name: value.detach() for name, value in w.items()}


FAST = (("llama", 0.0), ("gpt", 0.1))
SLOW = tuple((name, 0.0) for name in MODELS if name != "llama")


@pytest.mark.parametrize(
    ("model", "dropout"), [*FAST, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_one_process_trains_like_plain_pytorch(model: str, dropout: float) -> None:
    one = case("plain", model, micro_batch=4, global_batch=4, dropout=dropout)
    outcome = run(one)
    losses, norms, weights = plain_run(one)
    assert len(set(losses)) == 10
    assert outcome.losses == pytest.approx(losses, rel=1e-9)
    assert outcome.gradient_norms == pytest.approx(norms, rel=1e-9)
    assert sorted(outcome.weights) == sorted(weights)
    for name, value in weights.items():
        scale = max(float(value.abs().max()), one.settings.learning_rate)
        assert torch.from_numpy(outcome.weights[name]).sub(value).abs().max() <= 1e-9 * scale, name
