"""Where SAM 2 starts from when it learns from scratch: attention that looks at what is alike, from step one.

With independent random projections a click's token sees all places of a frame alike, and a frame all of its
memories; a small network needs thousands of steps to find out that places and features may be compared. Here
queries and keys begin with the same projection, and values pass through. What is learned is free to leave
that, and weights that are loaded replace it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from vosssl.layers.projected_attention import ProjectedAttention
from vosssl.layers.prompt_encoder import PromptEncoder
from vosssl.layers.two_way_transformer import TwoWayBlock, TwoWayTransformer
from vosssl.methods.sam2.mask_decoder import MaskDecoder
from vosssl.methods.sam2.memory_attention import MemoryAttention, MemoryAttentionLayer
from vosssl.methods.sam2.memory_encoder import MemoryEncoder

SHARPNESS = 2.0  # of queries and keys: singular values of their projections
EMBEDDING_SCALE = 0.3  # of tokens' own embeddings, which would drown places
MASK_SCALE = 2.0  # of the layers that masks are products of: their gradients begin small otherwise


@torch.no_grad()
def start_decoder_alike(prompts: PromptEncoder, decoder: MaskDecoder) -> None:
    """Tokens look at their own place in the image, and places at the tokens that point at them.

    Args:
        prompts: its embeddings are scaled down, in place.
        decoder: changed in place.
    """
    for attention in _between_tokens_and_image(decoder.transformer):
        _start_alike(attention, torch.eye(attention.q_proj.in_features))
    for part in (prompts, decoder):
        for module in part.modules():
            if isinstance(module, nn.Embedding):
                module.weight.mul_(EMBEDDING_SCALE)
    for head in decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.mul_(MASK_SCALE)  # type: ignore[union-attr, index, operator]
    for layer in decoder.output_upscaling:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight.mul_(MASK_SCALE)


@torch.no_grad()
def start_memory_alike(encoder: MemoryEncoder, attention: MemoryAttention) -> None:
    """Memories are features plus what is made of masks; frames look at memories of places like their own.

    Args:
        encoder: changed in place.
        attention: likewise.
    """
    dim, memory_dim = encoder.pix_feat_proj.in_channels, encoder.out_proj.out_channels
    narrow = nn.init.orthogonal_(torch.empty(memory_dim, dim))  # (D, C), what memories keep of features
    for convolution, weight in ((encoder.pix_feat_proj, torch.eye(dim)), (encoder.out_proj, narrow)):
        convolution.weight.copy_(weight[..., None, None])
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)
    for layer in attention.layers:
        assert isinstance(layer, MemoryAttentionLayer)
        _start_alike(layer.self_attn, torch.eye(dim))
        nn.init.normal_(layer.self_attn.out_proj.weight, std=0.02)  # features stay what they are at first
        _start_alike(layer.cross_attn_image, narrow)


def _between_tokens_and_image(transformer: TwoWayTransformer) -> Iterator[ProjectedAttention]:
    for block in transformer.layers:
        assert isinstance(block, TwoWayBlock)
        yield block.cross_attn_token_to_image
        yield block.cross_attn_image_to_token
    yield transformer.final_attn_token_to_image


def _start_alike(attention: ProjectedAttention, narrow: torch.Tensor) -> None:
    """Queries and keys by one projection, values through another and back.

    Args:
        attention: changed in place.
        narrow: (memory_dim, dim) with orthonormal rows, how keys and values came from what queries are.
    """
    compared = nn.init.orthogonal_(torch.empty_like(attention.q_proj.weight), SHARPNESS)
    passed = nn.init.orthogonal_(torch.empty_like(attention.q_proj.weight))
    attention.q_proj.weight.copy_(compared)
    attention.k_proj.weight.copy_(compared @ narrow.T)
    attention.v_proj.weight.copy_(passed @ narrow.T)
    attention.out_proj.weight.copy_(passed.T)
    for layer in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
        nn.init.zeros_(layer.bias)
