"""What finetrainers makes of its flags: the network and what of it trains, how GPUs share it, and what stands beside it.

trainer/sft_trainer/trainer.py, trainer/control_trainer/trainer.py and parallel/*.py of github.com/a-r-r-o-w/finetrainers (commit
f476c37), and trainer.py of its v0.0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from preflight import catalog
from preflight.adapters import finetrainers_values, launcher
from preflight.adapters.draft import Draft
from preflight.document import Document
from preflight.finding import ConfigError

#: The network of a family whose model's name says nothing; of Wan's, the larger.
USUAL = {
    "cogvideox": "cogvideox-5b",
    "flux": "flux.1-dev",
    "hunyuan_video": "hunyuanvideo",
    "ltx_video": "ltx-video-2b",
    "wan": "wan2.1-t2v-14b",
}
ATTENTION = "(to_q|to_k|to_v|to_out.0)"
#: trainer/sft_trainer/config.py and trainer/control_trainer/config.py: --target_modules.
DEFAULT = {
    "lora": f"(transformer_blocks|single_transformer_blocks).*{ATTENTION}",
    "control-lora": "(transformer_blocks|single_transformer_blocks).*(to_q|to_k|to_v|to_out.0|ff.net.0.proj|ff.net.2)",
}
IMAGES = ("flux", "cogview4")
DEGREES = ("pp", "dp", "shards", "cp", "tp")
SHAPE = ("data.frames", "data.height", "data.width")


def value(document: Document, name: str) -> Any:
    """What the flag `name` says, as it stands; None where nothing does."""
    return next((said for key, said in document.data.items() if str(key).lstrip("-").replace("-", "_") == name), None)


def settle(run: Draft, types: Mapping[str, str]) -> None:
    """Puts what the flags mean together into `run`. Raises ConfigError for what cannot be, and what is not modelled."""
    old = value(run.document, "dataset_config") is None
    for path, key in (("_family", "model_name"), ("_type", "training_type")):
        if path not in run.settled:
            run.findings.append(
                run.document.finding("missing-key", "error", f"{key} is missing; finetrainers needs it.", key=f"--{key}")
            )
    run.check()
    kind = str(run.get("_type"))
    _model(run)
    _method(run, kind, types[kind], old)
    _shape(run, old)
    _parallel(run, old)
    _placed(run)
    _sampled(run, old)
    run.put("save.final", True)
    run.put("schedule.unit", "pass")  # train_state.step counts each pass of the loop
    if run.get("_compiled"):
        run.note("note", "compiled", "a compiled network is judged as one that is not.", at="_compiled")
    run.check()


def _model(run: Draft) -> None:
    named = "_transformer" if "_transformer" in run.settled else "_model"
    told, family = str(run.get(named, "")), str(run.get("_family"))
    found = [_found(run, named, name) for name in (told, told.rstrip("/").rpartition("/")[2])]
    network = next(filter(None, found), None)
    if network is not None:
        run.put("model.name", network, like=named)
        return
    if family not in USUAL:
        message = f'{run.origins["_family"]} is "{family}", a network that is not modelled yet.'
        run.note("error", "not-modelled", message, at="_family")
        run.check()
    run.put("model.name", USUAL[family], like="_family")
    message = f'"{told}" names no model that is known, so {USUAL[family]} is counted, as {run.origins["_family"]} has it.'
    run.note("warning", "model-assumed", message, at=named, fix="pass --set --pretrained_model_name_or_path=NAME")


def _found(run: Draft, named: str, name: str) -> str | None:
    """The catalog's id of `name`, None where it has none. Raises ConfigError where it says that the network is not modelled."""
    try:
        network = catalog.network(name).id
    except ConfigError as problem:
        finding = problem.findings[0]
        if finding.id == "not-modelled":
            run.note("error", "not-modelled", f"{run.origins.get(named, named)}: {finding.message}", at=named)
            run.check()
        return None
    return network


def _method(run: Draft, kind: str, method: str, old: bool) -> None:
    run.put("train.method", method, like="_type")
    if run.get("_narrow"):
        run.put("train.optimizer.bits", 8, like="_narrow")
    upcast = run.get("_upcast") is not None
    if method == "full":
        run.drop("train.lora")
        if upcast:
            message = "layerwise upcasting is for lora: finetrainers refuses it where all weights train."
            run.note("error", "quantized-training", message, at="_upcast", fix="remove --layerwise_upcasting_modules")
    else:
        _targets(run, kind, old)
    if upcast:
        run.put("precision.quantization", "fp8-layerwise", like="_upcast")
    if kind.startswith("control"):
        _control(run)


def _targets(run: Draft, kind: str, old: bool) -> None:
    """One text is a pattern for whole names, which peft's re.fullmatch reads; several are the ends of names."""
    told, network = run.get("_targets"), str(run.get("model.name"))
    if told is None and old:
        told = ["to_k", "to_q", "to_v", "to_out.0"]
    found = finetrainers_values.targets(network, told or [DEFAULT[kind]], listed=old)
    if found:
        if "_targets" in run.origins:
            run.put("train.lora.targets", found, like="_targets")
        else:
            run.assume("train.lora.targets", found, "trainer/*/config.py: --target_modules")
        return
    said = f'--target_modules "{" ".join(told)}"' if told else f'without --target_modules it is "{DEFAULT[kind]}", which'
    inside = " and ".join(finetrainers_values.blocks(network))
    message = f"{said} matches no layer of {network}, whose blocks are called {inside}: peft stops."
    pattern = f'--target_modules "{finetrainers_values.blocks(network)[0]}.*{ATTENTION}"'
    run.note("error", "lora-target", message, at="_targets" if "_targets" in run.origins else "_type", fix=pattern)


def _control(run: Draft) -> None:
    """The control's latents stand beside the sample's in the channels, for which the first layer is made twice as wide."""
    try:
        channels = catalog.network(str(run.get("model.name"))).dims["in_channels"]
    except (ConfigError, KeyError):
        channels = None
    if run.get("_family") != "wan" or not isinstance(channels, int):
        run.note("error", "not-modelled", f'training_type "{run.get("_type")}" of this model is not modelled yet.', at="_type")
        return
    run.put("model.dims.in_channels", 2 * channels, like="_type")
    if run.get("train.method") == "lora":
        more = " and the norms of queries and keys" if run.get("_norms") else ""
        message = f"the layer that takes the control{more} trains as well, which is not counted: some megabytes."
        run.note("note", "not-counted", message, at="_type")


def _shape(run: Draft, old: bool) -> None:
    """The largest bucket of all data sets, of pictures or of clips."""
    image = [run.get(f"_image.{side}") for side in ("height", "width")]
    clip = [run.get(path) for path in SHAPE]
    if None not in image and (None in clip or prod(image) > prod(clip)):
        run.put("data.frames", 1)
        run.origins.pop("data.frames", None)
        for side, length in zip(("height", "width"), image, strict=True):
            run.put(f"data.{side}", length, like=f"_image.{side}")
        return
    if None not in clip:
        return
    path = value(run.document, "dataset_config")
    flag = "--image_resolution_buckets=512x768" if run.get("_family") in IMAGES else "--video_resolution_buckets=49x512x768"
    if old:
        message = "no resolution buckets are given, and the trainer's own go up to 1536 x 1536."
        finding = run.document.finding("missing-key", "error", message, key="--video_resolution_buckets", fix=f"add {flag}")
        run.findings.append(finding)
    else:
        there = "names no resolution buckets" if "dataset" in run.document.included else "is not there"
        message = f"{path} {there}, and it says how large samples are."
        fix = f"run preflight where the file is found, or give --set {flag}"
        key = next((key for key in run.document.data if str(key).lstrip("-") == "dataset_config"), None)
        run.findings.append(run.document.finding("file-not-read", "error", message, key=key, fix=fix))
    run.check()


def _parallel(run: Draft, old: bool) -> None:
    degrees = {name: int(run.get(f"_degree.{name}")) for name in DEGREES}
    ptd = run.get("_backend") == "ptd"
    if ptd and not old:
        sharded, copied = degrees["shards"] > 1, degrees["dp"] > 1
        like = "_degree.shards" if sharded else "_degree.dp"
        run.put("parallel.strategy", "fsdp" if sharded else "ddp" if copied else "none", like=like)
        for path, name in (("parallel.sequence", "cp"), ("parallel.tensor", "tp")):
            if degrees[name] > 1:
                run.put(path, degrees[name], like=f"_degree.{name}")
        if degrees["cp"] > 1:  # trainer/base.py: torch's ring, rotate_method allgather
            run.put("parallel.ring", degrees["cp"], like="_degree.cp")
            run.put("parallel.sequence_code", "torch", like="_degree.cp")
        if sharded:
            run.put("parallel.compute", run.get("precision.weights"), like="precision.weights")
            run.put("parallel.reduce", "fp32")
            run.put("parallel.shard", degrees["shards"] * degrees["cp"], like=like)
            run.put("train.lora.dtype", run.get("precision.weights"), like="precision.weights")
    launched = launcher.settle(run, accumulates=old)  # sft_trainer/trainer.py divides the loss itself
    if run.get("train.method") == "full":
        run.drop("train.lora")
    elif "train.lora.dtype" not in run.settled:
        run.put("train.lora.dtype", "fp32")  # cast_training_params
    mixed = launched.mixed_precision if old or not ptd else None
    if mixed in ("bf16", "fp16"):
        run.put("precision.autocast", mixed, like="_launcher.mixed_precision")
        run.put("precision.attention", mixed, like="_launcher.mixed_precision")
    if not old:
        _counted(run, degrees, ptd, launched.processes)


def _counted(run: Draft, degrees: Mapping[str, int], ptd: bool, gpus: int) -> None:
    """parallel/ptd.py and parallel/accelerate.py: what their constructors refuse."""
    if degrees["pp"] > 1:
        run.note("error", "trainer-refuses", "finetrainers has no pipeline parallelism yet: it stops.", at="_degree.pp")
    if not ptd and (others := [name for name in DEGREES if name != "dp" and degrees[name] > 1]):
        message = "the accelerate backend copies the network to each GPU and knows no other degree: finetrainers stops."
        run.note("error", "trainer-refuses", message, at=f"_degree.{others[0]}", fix="--parallel_backend ptd")
        return
    made = prod(degrees.values())
    if made != gpus and ("parallel.gpus" in run.origins or made == 1):
        at = next((f"_degree.{name}" for name in DEGREES if f"_degree.{name}" in run.origins), "parallel.gpus")
        message = f"the degrees multiply to {made}, but {gpus} processes are started: finetrainers stops."
        run.note("error", "conflicting-keys", message, at=at, fix=f"--dp_degree {gpus}" if made == 1 else None)
    elif made != gpus:
        run.put("parallel.gpus", made, like=next(f"_degree.{name}" for name in DEGREES if degrees[name] > 1))
    if run.get("sample.offload") and made > 1:
        message = "--enable_model_cpu_offload is for one GPU: finetrainers stops at it with more."
        run.note("error", "trainer-refuses", message, at="sample.offload", fix="remove --enable_model_cpu_offload")


def _placed(run: Draft) -> None:
    """With precomputation the encoders come and go, and one GPU alone sends the network away for them."""
    cached = run.get("_cached")
    run.put("data.latents", "cached" if cached else "online", like="_cached")
    run.put("data.text", "cached" if cached else "online", like="_cached")
    if cached and not run.get("_reused"):
        run.put("data.text_loading", "alone" if run.get("parallel.gpus") == 1 else "beside", like="_cached")
    if not cached and run.get("sample.tiling"):
        message = "--enable_tiling lets the VAE encode tile by tile as well; samples are counted as encoded whole."
        run.note("note", "not-counted", message, at="sample.tiling")


def _sampled(run: Draft, old: bool) -> None:
    prompted = "sample.every" in run.origins and value(run.document, "validation_prompts") is not None
    if not (prompted if old else "_validation" in run.settled):
        for path in [path for path in run.settled if path.startswith("sample.")]:
            run.drop(path)
        return
    for side in ("frames", "height", "width"):
        if f"_validated.{side}" in run.settled:
            run.put(f"sample.{side}", run.get(f"_validated.{side}"), like=f"_validated.{side}")
    if run.get("_family") in IMAGES:
        run.put("sample.frames", 1)
    if not old and "validation" not in run.document.included:
        message = f"{run.get('_validation')} is not read, so what it generates is taken to be as large as what is trained on."
        run.note("warning", "file-not-read", message, at="_validation")
    run.put("sample.final", True)
    run.put("sample.guidance", run.get("_guidance", 2) > 1, like="_guidance")
    if run.get("data.text") != "online":
        run.put("sample.text", True)  # the pipeline loads all that has gone


def inverse(run: Draft, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Both sides of a bucket, the degrees for GPUs, and the flags that stand for several settings."""
    answer = dict(changes)
    if "data.latents" in answer or "data.text" in answer:
        wanted = {answer.pop(path, run.get(path)) for path in ("data.latents", "data.text")}
        if wanted == {"cached"}:
            answer["_cached"] = True
    if set(SHAPE) & answer.keys():
        shape = {path: answer.get(path, run.get(path)) for path in SHAPE}
        if "_image.height" in run.settled and run.origins.get("data.height") == run.origins.get("_image.height"):
            answer = {path: said for path, said in answer.items() if path not in SHAPE}
            answer.update({"_image.height": shape["data.height"], "_image.width": shape["data.width"]})
        else:
            answer.update(shape)
    if {"parallel.gpus", "parallel.strategy", "parallel.sequence", "parallel.tensor"} & answer.keys():
        answer.update(_degrees(run, answer))
    if answer.pop("precision.quantization", None) == "fp8-layerwise":
        answer["_upcast"] = "transformer"
    if answer.pop("train.optimizer.bits", None) == 8 and not str(run.get("train.optimizer.name")).endswith("8bit"):
        answer["train.optimizer.name"] = "adamw8bit" if "adamw" in str(run.get("train.optimizer.name")) else "adam8bit"
    return answer


def _degrees(run: Draft, answer: dict[str, Any]) -> dict[str, int]:
    """The degrees that make what is wanted of GPUs; what they say is taken out of `answer`."""
    gpus = int(answer.get("parallel.gpus", run.get("parallel.gpus")))
    strategy = answer.pop("parallel.strategy", run.get("parallel.strategy"))
    for path in ("parallel.compute", "parallel.reduce", "parallel.shard", "parallel.reshard", "parallel.ring", "train.lora.dtype"):
        answer.pop(path, None)
    cp, tp = (int(answer.pop(path, run.get(path, 1))) for path in ("parallel.sequence", "parallel.tensor"))
    copies = int(run.get("_degree.dp")) if strategy == "fsdp" and run.get("parallel.strategy") == "fsdp" else 1
    rest = gpus // (cp * tp)
    shards = max(1, rest // copies) if strategy == "fsdp" else 1
    wanted = {"dp": rest // shards, "shards": shards, "cp": cp, "tp": tp}
    return {f"_degree.{name}": degree for name, degree in wanted.items() if degree != run.get(f"_degree.{name}")}
