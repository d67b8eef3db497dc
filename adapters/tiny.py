"""Tiny random backbones of every architecture that the built-in strategies are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Encoders, and decoders used as classifiers.
ARCHITECTURES = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "mpnet",
    "deberta-v2",
    "modernbert",
    "gpt2",
    "llama",
)


def save_tiny_backbone(
    folder: Path,
    architecture: str = "bert",
    *,
    vocabulary: int = 40,
    layers: int = 2,
    width: int = 32,
) -> Path:
    """Save a random backbone without a classification head; no tokenizer.

    Args:
        folder: Where to.
        architecture: What transformers calls it; one of `ARCHITECTURES`, or one that takes the
            same settings.
        vocabulary: Token ids it knows; 0 is padding, 2 begins and 3 ends a text.
        layers: Number of layers.
        width: Width of the hidden states, a multiple of 4.

    Returns:
        The folder.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "initializer_range": 0.1,  # the usual 0.02 lets a shallow random model see next to nothing
    }
    if architecture == "distilbert":
        sizes |= {"dim": width, "n_layers": layers, "n_heads": 4, "hidden_dim": 2 * width}
    elif architecture == "gpt2":
        sizes |= {"n_embd": width, "n_layer": layers, "n_head": 4, "n_positions": 40}
        sizes |= {"n_inner": 2 * width}
    else:
        sizes |= {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "intermediate_size": 2 * width,
        }
    if architecture in ("electra", "albert"):
        sizes["embedding_size"] = width
    if architecture == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
        sizes |= {
            "position_biased_input": False,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        }
    if architecture == "modernbert":
        sizes |= {"cls_token_id": 2, "sep_token_id": 3}
    if architecture == "llama":
        sizes["num_key_value_heads"] = 2
    config = AutoConfig.for_model(architecture, **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder
