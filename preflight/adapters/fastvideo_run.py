"""What FastVideo's two trainers do alike: networks, FSDP2 over shards of master weights, sizes in latent frames.

fastvideo/models/loader/component_loader.py: TransformerLoader; fsdp_load.py: maybe_load_fsdp_model; fastvideo_args.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from preflight import catalog
from preflight.adapters.draft import Draft
from preflight.finding import ConfigError

#: Of the class that a config names: the network that is not modelled.
CLASSES = {
    "MiniMaxH3Model": "MiniMax H3",
    "LongCatModel": "LongCat Video",
    "Kandinsky5Model": "Kandinsky 5",
    "MatrixGame2Model": "Matrix-Game 2",
    "MatrixGame2CausalModel": "Matrix-Game 2",
}
#: Of weights that are only run with an attention that leaves out most of it.
SPARSE = {"fastwan": "vsa", "turbowan": "sla", "turbodiffusion": "sla"}
WORDS = {"vsa": "video sparse attention", "sla": "sparse linear attention"}
#: Layers of FastVideo's own networks in the names of the diffusers network that is modelled.
MODULES = {
    "to_q": ("to_q",),
    "to_k": ("to_k",),
    "to_v": ("to_v",),
    "to_out": ("to_out.0",),
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "txt_attn_proj": ("to_add_out",),
    "self_attn_qkv": (),
    "self_attn_proj": (),
    "q_proj": (),
    "k_proj": (),
    "v_proj": (),
    "o_proj": (),
    "to_qkv": (),
    "to_gate_compress": ("to_gate_compress",),
}
TARGETS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
]  # of train/utils/lora.py: DEFAULT_LORA_TARGET_MODULES, those that Wan and Cosmos have
CHECKPOINTING: Mapping[str, bool] = {"full": True, "block_skip": True}  # block_skip skips one block of one: all are checkpointed


def model(run: Draft, source: str, at: str, sparse: str | None) -> None:
    """Puts the student's network, Wan in FastVideo's own code (models/dits/wanvideo.py); its attention may be `sparse`."""
    name = network(source)
    run.put("model.name", name, like=at)
    if name.startswith("wan") and "i2v-" not in name:
        run.put("model.code", "fastvideo")
        if sparse is not None:
            run.put("model.dims.sparse", sparse, like="_sparsity" if run.get("_sparsity") else at)
            if sparse == "vsa" and run.get("_sparsity"):
                run.put("model.dims.sparsity", run.get("_sparsity"), like="_sparsity")
    elif sparse is not None:
        message = f"{name} with {WORDS[sparse]} is not modelled."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=run.origins.get(at, at)))


def trained_for(source: str) -> str | None:
    """The attention that these weights cannot do without."""
    return next((kind for part, kind in SPARSE.items() if part in source.lower()), None)


def network(source: str) -> str:
    """The network by the hub's id, or by the last part of a path; what neither names as it is written."""
    folder = source.rstrip("/").rsplit("/", 1)[-1].lower()
    for part in ("fastwan", "turbowan"):
        if part in folder:
            folder, source = folder.replace(part, "wan"), "./" + source
    local = source.startswith(("/", "./", "../", "~"))
    names = {
        (alias.rsplit("/", 1)[-1] if local else alias).lower(): known.id for known in catalog.networks() for alias in known.aliases
    }
    return names.get(folder if local else source.lower(), source)


def whole(run: Draft, paths: Mapping[str, str]) -> None:
    """Raises ConfigError where one of `paths` asks for what its word names: attention or weights that are not modelled."""
    for path, what in paths.items():
        if run.get(path):
            message = f"{run.origins[path]} {run.get(path)} asks for {what}, which is not modelled yet."
            run.note("error", "not-modelled", message, at=path)
    run.check()


def precision(run: Draft, *, like: str) -> None:
    """Parameters rest in dit_precision and are gathered in bfloat16, gradients are reduced in float32; all under autocast."""
    run.put("precision.weights", run.get("_dit"), like=like)
    run.put("precision.autocast", "bf16")
    run.put("precision.attention", "bf16")
    run.put("parallel.strategy", "fsdp")
    run.put("parallel.fsdp_version", 2)
    run.put("parallel.compute", "bf16")
    run.put("parallel.reduce", "fp32")
    run.put("parallel.loading", "sharded")
    if run.get("train.method") == "lora":  # layers/lora/linear.py: as the layer's own weight
        run.put("train.lora.dtype", run.get("_dit"), like=like)
        run.put("train.lora.sharded", False)  # train/utils/lora.py: _replicate_lora_parameters
    run.put("train.optimizer.name", "adamw")
    run.put("data.latents", "cached")
    run.put("data.text", "cached")


def shards(run: Draft) -> None:
    """How the mesh divides the GPUs. What does not come to all of them leaves ranks without a part."""
    gpus = int(run.get("parallel.gpus"))
    if "parallel.shard" not in run.settled:
        run.assume("parallel.shard", gpus, "hsdp_shard_dim is num_gpus where nothing is said (fastvideo_args.py)")
    shard, copies = int(run.get("parallel.shard")), int(run.get("_copies", 1))
    if shard * copies != gpus:
        where = run.origins.get("parallel.shard", "hsdp_shard_dim")
        message = f"{where} {shard} times hsdp_replicate_dim {copies} is {shard * copies}, and the mesh must hold all {gpus} GPUs."
        run.note("error", "mesh-size", message, at="parallel.shard", fix=f"{where} {gpus // copies}")
    if gpus % int(run.get("parallel.sequence", 1)):
        message = f"{gpus} GPUs cannot be divided into groups of {run.get('parallel.sequence')}, and FastVideo stops."
        run.note("error", "mesh-size", message, at="parallel.sequence")
    run.check()


def frames(run: Draft) -> None:
    """num_latent_t is what is trained; num_frames what is written out in validation and made while preprocessing."""
    latent, step = int(run.get("_latents")), _stride(run)
    run.put("data.frames", (latent - 1) * step + 1, like="_latents")
    said = run.get("_frames")
    if said is not None and (said - 1) // step + 1 != latent:
        message = f"{run.origins['_frames']} {said} makes {(said - 1) // step + 1} latent frames, and {latent} are trained on."
        run.note("warning", "frames-differ", message, at="_frames")
    run.check()


def _stride(run: Draft) -> int:
    """How many frames the VAE makes one latent frame of."""
    return 8 if str(run.get("model.name")).lower().startswith("ltx") else 4


def inverse(run: Draft, changes: dict[str, object]) -> dict[str, object]:
    """A number of frames is said twice here."""
    if "data.frames" in changes:
        number = int(str(changes["data.frames"]))
        changes["_latents"] = (number - 1) // _stride(run) + 1
        if "_frames" in run.settled:
            changes["_frames"] = number
    if "parallel.gpus" in changes and "parallel.shard" in run.origins:
        changes["parallel.shard"] = int(str(changes["parallel.gpus"])) // int(run.get("_copies", 1))
    return changes


def missing(run: Draft, names: Mapping[str, str]) -> None:
    """Raises ConfigError for each of `names`, path to key, that nothing is said of."""
    for path, key in names.items():
        if path not in run.settled:
            message = f"{key} is missing, and without it FastVideo has nothing to train on."
            run.findings.append(run.document.finding("missing-key", "error", message, key=key))
    run.check()


def tiling(run: Draft) -> None:
    """fastvideo/configs/pipelines/base.py: vae_tiling is true; wan.py and cosmos2_5.py turn it off."""
    name = str(run.get("model.name")).lower()
    run.put("sample.tiling", "wan" not in name and "2.5" not in name)


#: vae_precision of the pipelines' configurations, by the first part of a network's id (configs/pipelines/*.py, basic/ltx2).
VAES = {
    "wan2.1": "fp32",
    "wan2.2": "fp32",
    "hunyuanvideo": "fp16",
    "cosmos-predict2": "fp16",
    "cosmos-predict2.5": "bf16",
    "ltx": "bf16",
}


def vae(run: Draft) -> None:
    """It stays on the GPU for its statistics (the models' init_preprocessors), and validation's pipeline loads another."""
    name = str(run.get("model.name")).lower()
    run.put("precision.vae", next((dtype for start, dtype in reversed(VAES.items()) if name.startswith(start)), "fp32"))
    run.put("data.vae_resident", True)
    if any(path.startswith("sample.") for path in run.settled):
        run.put("sample.own_vae", True)
