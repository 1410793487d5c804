"""The networks that a method of fastvideo/train has beside the student, and which methods are modelled.

fastvideo/train/methods: every role is loaded alike, in dit_precision, and divided by the same mesh (utils/moduleloader.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import fastvideo_run as shared
from preflight.adapters.draft import Draft
from preflight.document import Document
from preflight.finding import ConfigError

FINE_TUNING = "FineTuneMethod"
DMD = "DMD2Method"
KD = "KDMethod"
TEACHER_FORCING, DIFFUSION_FORCING = "TeacherForcingSFTMethod", "DiffusionForcingSFTMethod"
CAUSAL = "WanCausalModel"
#: The roles of each method that is modelled beside the student; kd.py can do without its teacher once all its answers are on disk.
METHODS: Mapping[str, tuple[str, ...]] = {FINE_TUNING: (), TEACHER_FORCING: (), DIFFUSION_FORCING: (), DMD: ("teacher", "critic"),
                                          KD: ("teacher",)}  # fmt: skip
ROLES = ("student", "teacher", "critic")
#: Why another method is not, in a few words.
WITHOUT = {
    "SelfForcingMethod": "the student rolls out chunk by chunk over a cache of keys and values",
    "StreamingLongTuningMethod": "the student rolls out chunk by chunk over a cache of keys and values",
    "DiffusionNFTMethod": "samples and rewards alternate with training",
}


def only_modelled(document: Document) -> None:
    """Raises ConfigError for methods and networks that are not modelled, and for roles that a method needs and has not."""
    method = _group(document.data, "method")
    name = str(method.get("_target_", "")).rsplit(".", 1)[-1]
    if name not in METHODS:
        why = f": {WITHOUT[name]}" if name in WITHOUT else ""
        message = f"method._target_ is {name or 'missing'}, which is not modelled{why}; expected one of {', '.join(METHODS)}."
        raise ConfigError(document.finding("not-modelled", "error", message, key="method._target_"))
    models = _group(document.data, "models")
    for role in ROLES:
        kind = str(_group(models, role).get("_target_", "")).rsplit(".", 1)[-1]
        if kind in shared.CLASSES:
            message = f"models.{role}._target_ is {kind}: {shared.CLASSES[kind]} is not modelled yet."
            raise ConfigError(document.finding("not-modelled", "error", message, key=f"models.{role}._target_"))
        forcing = name in (TEACHER_FORCING, DIFFUSION_FORCING) and role == "student"
        if kind and (kind == CAUSAL) is not forcing:
            message = f"models.{role}._target_ {kind} with {name} is not modelled; expected {CAUSAL if forcing else 'WanModel'}."
            raise ConfigError(document.finding("not-modelled", "error", message, key=f"models.{role}._target_"))
    for role in METHODS[name]:
        if not _group(models, role).get("init_from") and (name != KD or role in models):
            message = f"models.{role} is missing, and {name} cannot do without it."
            raise ConfigError(document.finding("missing-key", "error", message, key=f"models.{role}"))


def causal(run: Draft) -> None:
    """Chunks of frames that see no later ones; tfsft.py puts the clean frames before the noisy."""
    method = str(run.get("_method")).rsplit(".", 1)[-1]
    if method not in (TEACHER_FORCING, DIFFUSION_FORCING):
        return
    run.put("model.dims.causal", True, like="_method")
    run.put("model.dims.teacher_forcing", method == TEACHER_FORCING, like="_method")
    if run.get("parallel.sequence") > 1:
        message = f"{run.origins.get('parallel.sequence', 'sp_size')} above 1 with a causal network is not modelled."
        run.note("error", "not-modelled", message, at="parallel.sequence")
        run.check()


def beside(run: Draft) -> None:
    """Puts the teacher and the critic of the method, and says what does not change memory."""
    method = str(run.get("_method")).rsplit(".", 1)[-1]
    needed = METHODS[method]
    for role in ("teacher", "critic"):
        path = f"_{role}"
        if path not in run.settled:
            continue
        if role not in needed:
            message = f"models.{role} is loaded and {method} does not ask it."
            run.note("warning", "role-unused", message, at=path)
        run.put(f"train.distillation.{role}", shared.network(str(run.get(path))), like=path)
    if method == KD and "_teacher" in run.settled:
        run.put("train.distillation.cached", True, like="_method")
        message = "the teacher is loaded, writes its paths where they are not on disk yet, and leaves before the first step."
        run.note("note", "teacher-leaves", message, at="_teacher")
    if run.get("_critic_checkpointing", run.get("train.checkpointing")) != run.get("train.checkpointing"):
        message = "the critic is checkpointed otherwise than the student, which is not modelled."
        run.note("error", "not-modelled", message, at="_critic_checkpointing")
        run.check()
    if run.get("model.dims.sparse") and needed:
        message = f"{method} with {shared.WORDS[run.get('model.dims.sparse')]} in all of its networks is not modelled."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=run.origins.get("model.dims.sparse")))
    if run.get("_lora") and needed:
        message = f"the student's adapters beside other networks: {method} with lora.enable is not modelled."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key="models.student.lora"))


#: What the text encoders are loaded in for the negative prompt (configs/pipelines/wan.py and hunyuan.py: text_encoder_precisions).
NEGATIVE = {"wan": "fp32", "hunyuanvideo": "fp16"}


def negative_prompt(run: Draft) -> None:
    """Every rank loads the text encoders beside the network for one prompt, and drops them before the first step.

    train/models/wan/wan.py: on_train_start, and train/utils/negative_prompt.py; models/hunyuan/hunyuan.py:
    ensure_negative_conditioning; dmd2.py: _uses_negative_prompt_conditioning.
    """
    said = run.block("method", "cfg_uncond").get("text")
    if str(run.get("_method")).endswith(DMD) and said is not None and str(said).strip().lower() != "negative_prompt":
        return
    for start, dtype in NEGATIVE.items():
        if str(run.get("model.name")).lower().startswith(start):
            run.put("data.text_loading", "beside")
            run.put("precision.text_encoder", dtype)


def _group(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}
