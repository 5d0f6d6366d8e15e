"""The network: a small Lfm2 (short convolutions and attention), its start values, and a fast forward pass to train it.

`hidden_states` computes what `Lfm2Model` computes, on the same parameters, for right-padded batches without a cache:
there a causal model needs no mask, and the depthwise convolution is three shifted products. A test holds the parity.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Lfm2Config, Lfm2ForCausalLM

from tokenizer import SPECIALS, WORKSPACE


def build(params: dict, rows: Tensor, seed: int) -> Lfm2ForCausalLM:
    """A fresh model; `rows` [vocabulary, width] are its word vectors, which stay as they are."""
    torch.manual_seed(seed)
    config = Lfm2Config(
        vocab_size=rows.shape[0],
        hidden_size=rows.shape[1],
        intermediate_size=params["feed_forward"],
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=len(params["layers"]),
        layer_types=["full_attention" if kind == "a" else "conv" for kind in params["layers"]],
        num_attention_heads=params["heads"],
        num_key_value_heads=params["heads"],
        conv_L_cache=3,
        max_position_embeddings=params["context"],
        rope_parameters={"rope_type": "default", "rope_theta": params["rope_theta"]},
        pad_token_id=SPECIALS.index("<|pad|>"),
        bos_token_id=None,
        eos_token_id=SPECIALS.index("<|end|>"),
        tie_word_embeddings=True,
    )
    model = Lfm2ForCausalLM(config)
    start_values(model, rows, params["same_word_gain"])
    return model


@torch.no_grad()
def start_values(model: Lfm2ForCausalLM, rows: Tensor, gain: float) -> None:
    """Start from a network that can copy, instead of waiting for one to be found.

    The word vectors leave WORKSPACE axes free and hold one constant axis. The first convolution writes a sketch of the
    token before into the workspace; three heads of the last layer look for a token whose predecessor is the present one
    and pass that token on (an induction head), so a copy once begun goes on. The heads of the other layers look for
    words like their own, and feed-forward layers start silent. What is left to learn is where a copy begins and ends.
    In the spirit of mimetic start values (Trockman and Kolter, 2023).
    """
    body = model.model
    body.embed_tokens.weight.copy_(rows)
    body.embed_tokens.weight.requires_grad_(False)
    body.embedding_norm.weight.fill_(0.1)  # rows have RMS 1: the logit of a good match starts near 20
    for layer in body.layers:
        torch.nn.init.zeros_(layer.feed_forward.w2.weight)
        for weight in (layer.feed_forward.w1.weight, layer.feed_forward.w3.weight):
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        if layer.is_attention_layer:
            start_attention(layer.self_attn, gain)
        else:
            start_convolution(layer.conv)
    words = rows.shape[1] - 2 * WORKSPACE - 1
    sketch, other = (torch.linalg.qr(torch.randn(words, WORKSPACE)).Q.T for _ in range(2))  # [workspace, words] each
    attentions = [layer.self_attn for layer in body.layers if layer.is_attention_layer]
    previous_token(body.layers[0].conv, sketch)
    recent_words(attentions[0], other)
    induction(attentions[-1], sketch)
    like_surroundings(attentions[-1], words)


def start_attention(block: torch.nn.Module, gain: float) -> None:
    """Queries equal to keys: each head looks for words like its own."""
    for weight in (block.k_proj.weight, block.v_proj.weight):
        torch.nn.init.orthogonal_(weight)
    block.q_proj.weight.copy_(block.k_proj.weight)
    torch.nn.init.normal_(block.out_proj.weight, std=0.2 * block.out_proj.weight.shape[1] ** -0.5)
    block.q_layernorm.weight.fill_(gain)
    block.k_layernorm.weight.fill_(gain)


def start_convolution(block: torch.nn.Module) -> None:
    width = block.in_proj.weight.shape[1]
    torch.nn.init.normal_(block.in_proj.weight, std=width**-0.5)
    torch.nn.init.normal_(block.out_proj.weight, std=0.2 * width**-0.5)
    torch.nn.init.normal_(block.conv.weight, std=0.5)


def previous_token(block: torch.nn.Module, sketch: Tensor) -> None:
    """The first channels carry a sketch of the token before into the workspace; the gates read the constant axis."""
    width, words = block.in_proj.weight.shape[1], sketch.shape[1]
    before, after, values = block.in_proj.weight.view(3, width, width)
    for part in (before, after, values):
        part[:WORKSPACE] = 0.0
    before[:WORKSPACE, words] = after[:WORKSPACE, words] = 1.0
    values[:WORKSPACE, :words] = sketch
    block.conv.weight[:WORKSPACE] = torch.tensor([0.0, 1.0, 0.0])
    block.out_proj.weight[words + 1 :] = 0.0
    block.out_proj.weight[:, :WORKSPACE] = 0.0
    block.out_proj.weight[words + 1 : words + 1 + WORKSPACE, :WORKSPACE] = torch.eye(WORKSPACE)


def recent_words(block: torch.nn.Module, sketch: Tensor) -> None:
    """The first head averages a sketch of the last ten tokens or so into the second workspace.

    Its queries and keys are one constant vector on the rotary axes that turn by 0.1 to 0.02 a token, so only the
    distance counts, and counts less the farther it is.
    """
    words, size = sketch.shape[1], block.head_dim
    for weight in (block.q_proj.weight, block.k_proj.weight, block.v_proj.weight):
        weight[:size] = 0.0
    for weight in (block.q_proj.weight, block.k_proj.weight):
        weight[size // 16 * 1 : size // 8, words] = 1.0
    block.v_proj.weight[:size, :words] = sketch[:size]
    block.out_proj.weight[:, :size] = 0.0
    block.out_proj.weight[-WORKSPACE : -WORKSPACE + size or None, :size] = 2.0 * torch.eye(size)


def pass_on(block: torch.nn.Module, head: int, columns: slice, strength: float) -> None:
    """One head hands some word axes of the tokens it looks at straight to the output."""
    size = block.head_dim
    rows = slice(head * size, head * size + columns.stop - columns.start)
    block.v_proj.weight[head * size : (head + 1) * size] = 0.0
    block.v_proj.weight[rows, columns] = torch.eye(columns.stop - columns.start)
    block.out_proj.weight[:, head * size : (head + 1) * size] = 0.0
    block.out_proj.weight[columns, rows] = strength * torch.eye(columns.stop - columns.start)


def induction(block: torch.nn.Module, sketch: Tensor) -> None:
    """Two heads: query the sketch of this token, keys the sketch of the token before, pass the word on."""
    words, size = sketch.shape[1], block.head_dim
    for head in range(2):
        rows = slice(head * size, (head + 1) * size)
        block.q_proj.weight[rows] = 0.0
        block.k_proj.weight[rows] = 0.0
        block.q_proj.weight[rows, :words] = sketch[:size]
        block.k_proj.weight[rows, words + 1 : words + 1 + size] = torch.eye(size)
        pass_on(block, head, slice(head * size, min((head + 1) * size, words)), 3.0)


def like_surroundings(block: torch.nn.Module, words: int) -> None:
    """Two heads: look for tokens after words like those just read, as an answer follows its question's words."""
    size = block.head_dim
    for head in (2, 3):
        rows = slice(head * size, (head + 1) * size)
        for weight in (block.q_proj.weight, block.k_proj.weight):
            weight[rows] = 0.0
            weight[rows, -WORKSPACE : -WORKSPACE + size or None] = torch.eye(size)
        pass_on(block, head, slice((head - 2) * size, min((head - 1) * size, words)), 0.1)


def norm(x: Tensor, weight: Tensor, epsilon: float = 1e-5) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), epsilon)


def short_convolution(block: torch.nn.Module, x: Tensor) -> Tensor:
    """[batch, time, width] -> the same: a gated convolution over this token and the two before it."""
    before, after, values = F.linear(x, block.in_proj.weight).chunk(3, dim=-1)
    gated = before * values
    taps = block.conv.weight.squeeze(1).to(x.dtype)  # [width, 3]
    padded = F.pad(gated, (0, 0, 2, 0))
    length = x.shape[1]
    mixed = padded[:, :length] * taps[:, 0] + padded[:, 1 : length + 1] * taps[:, 1] + gated * taps[:, 2]
    return F.linear(after * mixed, block.out_proj.weight)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions on [batch, heads, time, head width]."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def attention(block: torch.nn.Module, x: Tensor, cosine: Tensor, sine: Tensor, future: Tensor) -> Tensor:
    """[batch, time, width] -> the same: causal attention with normed queries and keys."""
    batch, length, width = x.shape
    shape = (batch, length, -1, block.head_dim)
    queries = norm(F.linear(x, block.q_proj.weight).view(shape), block.q_layernorm.weight).transpose(1, 2)
    keys = norm(F.linear(x, block.k_proj.weight).view(shape), block.k_layernorm.weight).transpose(1, 2)
    values = F.linear(x, block.v_proj.weight).view(shape).transpose(1, 2)
    queries, keys = rotate(queries, cosine, sine), rotate(keys, cosine, sine)
    # Written out: at these lengths torch's fused attention takes more than twice as long on a CPU, going back.
    scores = (queries * block.scaling) @ keys.transpose(-1, -2) + future  # [batch, heads, time, time]
    mixed = scores.softmax(-1) @ values
    return F.linear(mixed.transpose(1, 2).reshape(batch, length, width), block.out_proj.weight)


def hidden_states(model: Lfm2ForCausalLM, ids: Tensor, tap: int = 0) -> tuple[Tensor, Tensor]:
    """[batch, time] -> the last layer's [batch, time, width] before the output's norm, and that after layer `tap`."""
    body = model.model
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else body.embed_tokens.weight.dtype
    x = F.embedding(ids, body.embed_tokens.weight).to(dtype)
    positions = torch.arange(ids.shape[1])[None, :, None] * body.rotary_emb.inv_freq  # [1, time, half a head]
    angles = torch.cat((positions, positions), dim=-1)[:, None]
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    future = torch.full((ids.shape[1], ids.shape[1]), -torch.inf, dtype=dtype).triu(1)
    tapped = x
    for index, layer in enumerate(body.layers):
        inside = norm(x, layer.operator_norm.weight)
        if layer.is_attention_layer:
            x = x + attention(layer.self_attn, inside, cosine, sine, future)
        else:
            x = x + short_convolution(layer.conv, inside)
        inside = norm(x, layer.ffn_norm.weight)
        block = layer.feed_forward
        gate, up = F.linear(inside, block.w1.weight), F.linear(inside, block.w3.weight)
        x = x + F.linear(F.silu(gate) * up, block.w2.weight)
        tapped = x if index == tap else tapped
    return x, tapped


def logits(model: Lfm2ForCausalLM, states: Tensor, rows: Tensor) -> Tensor:
    """[positions, width] -> [positions, rows]: the output layer for some pieces only."""
    return F.linear(norm(states, model.model.embedding_norm.weight), model.model.embed_tokens.weight[rows])
