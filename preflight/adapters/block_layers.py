"""Every linear layer of a network's repeated blocks, for trainers that adapt all of them by the class of the block.

The names are those of the network that is modelled, as preflight/networks/ writes it. Where the trainer's own code keeps query, key
and value in one layer its adapter is smaller, by a sixth of what is counted here.
"""

from __future__ import annotations

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
JOINT = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


def _of(module: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{module}.{name}" for name in names)


_FEED = ("net.0.proj", "net.2")
_GATED = ("w1", "w2", "w3")
_TWICE = (*_of("attn1", ATTENTION), *_of("attn2", ATTENTION))
_DOUBLE = (*_of("attn", JOINT), *_of("ff", _FEED), *_of("ff_context", _FEED))
_SINGLE = ("proj_mlp", "proj_out")
_MODULATED = ("norm1.linear", "norm1_context.linear")
_SWIGLU = _of("ff", ("linear_1", "linear_2", "out_projection"))
_QUERIES = ("to_query", "to_key", "to_value", "out_layer")
_AUDIO = ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn", "video_to_audio_attn")

#: By the beginning of a network's id in the catalog; the longest that fits holds.
LAYERS: dict[str, tuple[str, ...]] = {
    "wan": (*_TWICE, *_of("ffn", _FEED)),
    "wan2.1-i2v": (*_TWICE, "attn2.add_k_proj", "attn2.add_v_proj", *_of("ffn", _FEED)),
    "wan2.1-vace": (*_TWICE, *_of("ffn", _FEED), "proj_in", "proj_out"),
    "wan2.1-fun": (*_TWICE, "attn2.add_k_proj", "attn2.add_v_proj", *_of("ffn", _FEED)),
    "flux.1": (*_DOUBLE, *_MODULATED, "norm.linear", *_SINGLE),
    "flex.": (*_DOUBLE, *_MODULATED, "norm.linear", *_SINGLE),
    "flux.2": (
        *_of("attn", JOINT),
        "attn.to_qkv_mlp_proj",
        "attn.to_out",
        *_of("ff", ("linear_in", "linear_out")),
        *_of("ff_context", ("linear_in", "linear_out")),
    ),
    "cogvideox": (*_of("attn1", ATTENTION), *_of("ff", _FEED), "norm1.linear", "norm2.linear"),
    "hunyuanvideo": (*_DOUBLE, *_MODULATED, "norm.linear", *_SINGLE),
    "hunyuanvideo-1.5": (*_DOUBLE, *_MODULATED),
    "chroma": (*_DOUBLE, *_SINGLE),
    "sd3": (*_DOUBLE, *_MODULATED),
    "qwen-image": (*_of("attn", JOINT), *_of("img_mlp", _FEED), *_of("txt_mlp", _FEED), "img_mod.1", "txt_mod.1"),
    "auraflow": (*_of("attn", JOINT), *_SWIGLU, *(f"ff_context{name[2:]}" for name in _SWIGLU), *_MODULATED),
    "lumina-image": (*_of("attn", ATTENTION), *_of("feed_forward", ("linear_1", "linear_2", "linear_3")), "norm1.linear"),
    "omnigen2": (*_of("attn", ATTENTION), *_of("feed_forward", ("linear_1", "linear_2", "linear_3")), "norm1.linear"),
    "z-image": (*_of("attention", ATTENTION), *_of("feed_forward", ("w1", "w2", "w3")), "adaLN_modulation.0"),
    "ltx-video": (*_TWICE, *_of("ff", _FEED)),
    "ltx-2": (*(f"{name}.{part}" for name in _AUDIO for part in ATTENTION), *_of("ff", _FEED), *_of("audio_ff", _FEED)),
    "ltx-2.3": (
        *(f"{name}.{part}" for name in _AUDIO for part in (*ATTENTION, "to_gate_logits")),
        *_of("ff", _FEED),
        *_of("audio_ff", _FEED),
    ),
    "cosmos-predict2": (
        *_TWICE,
        *_of("ff", _FEED),
        *(f"{norm}.{part}" for norm in ("norm1", "norm2", "norm3") for part in ("linear_1", "linear_2")),
    ),
    "cosmos3": (
        *_of("self_attn", ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
        *_of("mlp_moe_gen", ("gate_proj", "up_proj", "down_proj")),
    ),
    "cosmos3-edge": (
        *_of("self_attn", ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
        *_of("mlp_moe_gen", ("up_proj", "down_proj")),
    ),
    "longcat-video": (
        "attn.qkv",
        "attn.proj",
        *_of("cross_attn", ("q_linear", "kv_linear", "proj")),
        *_of("ffn", _GATED),
        "adaLN_modulation.1",
    ),
    "kandinsky5": (
        *(f"{module}.{name}" for module in ("self_attention", "cross_attention") for name in _QUERIES),
        *_of("feed_forward", ("in_layer", "out_layer")),
        *_of("visual_modulation", ("out_layer",)),
        *_of("text_modulation", ("out_layer",)),
    ),
    # and all that musubi-tuner adapts outside of the blocks
    "krea2": (
        *("wq", "wk", "wv", "wo", "gate", "up", "down", "projector", "first", "last.linear"),
        *("tmlp.0", "tmlp.2", "txtmlp.1", "txtmlp.3", "tproj.1"),
    ),
    "hidream": (
        *_of("attn1", ("to_q", "to_k", "to_v", "to_out", "to_q_t", "to_k_t", "to_v_t", "to_out_t")),
        *(name for expert in ("shared_experts", *(f"experts.{n}" for n in range(4))) for name in _of(f"ff_i.{expert}", _GATED)),
        *_of("ff_t", _GATED),
        "block.adaLN_modulation.1",
    ),
    # the UNet's down, middle and up blocks whole, their convolutions excepted
    "sdxl": (*_TWICE, *_of("ff", _FEED), "proj_in", "proj_out", "time_emb_proj"),
    "sd1.5": (*_TWICE, *_of("ff", _FEED), "time_emb_proj"),
}


def layers(name: str) -> list[str]:
    """The linear layers in the blocks of the network called `name`; none where they are not listed."""
    known = [beginning for beginning in LAYERS if name.startswith(beginning)]
    return list(LAYERS[max(known, key=len)]) if known else []
