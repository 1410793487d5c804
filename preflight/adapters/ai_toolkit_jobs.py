"""Which of ai-toolkit's jobs and processes train a network that is modelled, and an honest word on the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NoReturn

from preflight.document import Document
from preflight.finding import ConfigError, Finding, did_you_mean

#: extensions_built_in/sd_trainer/__init__.py: the same SDTrainer by all of these names.
TRAINERS = ("sd_trainer", "diffusion_trainer", "ui_trainer", "textual_inversion_trainer")
#: Processes that train a slider's adapters in steps that are modelled (ai_toolkit_sliders.py).
SLIDERS = ("concept_slider", "image_reference_slider_trainer")
#: toolkit/job.py: get_job.
JOBS = ("extension", "train", "extract", "mod", "generate")
#: Processes that train something else: jobs/TrainJob.py and the uids under extensions_built_in.
OTHERS = {
    "slider": "a slider", "slider_old": "a slider", "ultimate_slider_trainer": "a slider", "vae": "a VAE",
    "concept_replacer": "a concept's replacement", "esrgan": "an upscaler", "reference": "a reference slider",
    "rescale_sd": "a rescaled network", "lora_hack": "a LoRA hack", "fine_tune": "a fine-tune of the old kind",
}  # fmt: skip
#: Processes that train nothing.
TOOLS = (
    "dataset_tools", "sync_from_collection", "super_tagger", "reference_generator", "pure_lora_generator", "batch_img2img",
    "to_folder", "AceStepCaptioner", "Qwen3VLCaptioner", "Qwen3OmniCaptioner", "Ideogram4Captioner",
)  # fmt: skip
#: Blocks of a process that train something beside the network.
BLOCKS = {
    "adapter": "an adapter of the type {type}",
    "embedding": "a textual inversion",
    "decorator": "a decorator of the prompt",
    "slider": "a slider",
}


def job(document: Document) -> tuple[Document, list[Finding]]:
    """`document` with its first process alone, and what there is to say of the others.

    Raises ConfigError for a job that trains nothing, and for one whose kind of training is not modelled.
    """
    kind = document.data.get("job")
    if kind not in JOBS:
        _refuse(document, "invalid-value", f'job is "{kind}"; expected extension, or train.', "job", did_you_mean(str(kind), JOBS))
    if kind in ("extract", "mod", "generate"):
        message = f'job is "{kind}", which trains nothing; give the config of a job "extension" that does.'
        _refuse(document, "not-a-training-config", message, "job")
    config = document.data.get("config")
    processes = config.get("process") if isinstance(config, Mapping) else None
    if not isinstance(config, Mapping) or not isinstance(processes, list) or not processes or not isinstance(processes[0], Mapping):
        _refuse(
            document, "invalid-value", "config.process is not a list of processes, which the trainer asks for.", "config.process"
        )
    _process(document, processes[0])
    found = []
    if len(processes) > 1:
        message = f"config.process holds {len(processes)} processes, each with its own peak; one is judged at a time."
        key, fix = "config.process[1]", "give each process a config of its own"
        found.append(document.finding("several-processes", "error", message, key=key, fix=fix))
    data = {**document.data, "config": {**config, "process": [dict(processes[0])]}}
    return replace(document, data=data), found


def _process(document: Document, process: Mapping[str, object]) -> None:
    kind, key = process.get("type"), "config.process[0].type"
    if kind in TOOLS:
        _refuse(
            document, "not-a-training-config", f'{key} is "{kind}", which trains nothing; give the config of a training job.', key
        )
    if kind == "slider" and not process.get("datasets"):
        message = (
            f'ai-toolkit stops in the first step of {key} "slider" without datasets: it joins timesteps that have no dimension;'
            ' expected "concept_slider", which trains what this did.'
        )
        _refuse(document, "trainer-refuses", message, key)
    if isinstance(kind, str) and kind in OTHERS:
        message = (
            f'Cannot judge: {key} is "{kind}", and training {OTHERS[kind]} is not modelled; expected {", ".join(TRAINERS[:2])}.'
        )
        _refuse(document, "not-modelled", message, key)
    if kind not in (*TRAINERS, *SLIDERS):
        message = (
            f"{key} is {f'{chr(34)}{kind}{chr(34)}' if kind is not None else 'missing'}; expected one of {', '.join(TRAINERS)}."
        )
        _refuse(document, "invalid-value", message, key, did_you_mean(str(kind), (*TRAINERS, *SLIDERS, *OTHERS)))
    for name, kind_of in BLOCKS.items():
        block = process.get(name)
        if isinstance(block, Mapping) and not (name == "slider" and kind in SLIDERS):
            what = kind_of.format(type=block.get("type", "t2i"))
            place = f"config.process[0].{name}"
            _refuse(document, "not-modelled", f"Cannot judge: {place} asks for {what}, whose training is not modelled.", place)


def _refuse(document: Document, id_: str, message: str, key: str, meant: str | None = None) -> NoReturn:
    raise ConfigError(document.finding(id_, "error", message, key=key, fix=f"did you mean {meant}?" if meant else None))
