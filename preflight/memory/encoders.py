"""The text and image encoders beside the network: what their weights take, narrow, wide, or waiting on the host."""

from __future__ import annotations

from preflight import catalog
from preflight.job import Job
from preflight.memory.quantization import Scheme, scheme, share_on_host, streamed
from preflight.networks.component import Component
from preflight.networks.components import component_module
from preflight.tape.dtypes import BYTES
from preflight.tape.module import Linear
from preflight.tape.quantized import Quantized

#: Vocabularies of encoders whose passes are not modelled, as the sources in the catalog say; their embeddings stay wide.
VOCABULARIES = {
    "chatglm3-6b": 65_024,
    "cosmos3-reasoner-edge": 131_072,
    "cosmos3-reasoner-nano": 151_936,
    "cosmos3-reasoner-super": 151_936,
}


def encoders_bytes(job: Job) -> dict[str, int]:
    """Bytes of each encoder's weights while it is on the GPU."""
    return {component.id: encoder_bytes(job, component, dtype) for component, dtype in job.encoders}


def encoder_bytes(job: Job, component: catalog.Component, dtype: catalog.Dtype) -> int:
    """Bytes of one, its linear layers quantised or on the host as the spec says."""
    form = _scheme(job, dtype)
    wide = component.parameters * BYTES[dtype]
    if form is None:
        return wide
    linear = _linear_elements(component)
    return wide - linear * BYTES[dtype] + int(linear * form.form.bits / 8)


def narrow(job: Job, module: Component, dtype: catalog.Dtype) -> None:
    """Keep the loaded `module`'s linear layers as the spec says."""
    found = _scheme(job, dtype)
    if found is None:
        return
    for _, layer, _ in module.modules():
        if isinstance(layer, Linear):
            layer.weight = Quantized(layer.weight, found.form)


def _scheme(job: Job, dtype: catalog.Dtype) -> Scheme | None:
    found, away = scheme(job.spec.precision.text_encoder_quantization), share_on_host(job.spec.offload.text_layers)
    return streamed(found, away, dtype) if away else found


def _linear_elements(component: catalog.Component) -> int:
    module = component_module(component.id)
    if module is None:
        return component.parameters - VOCABULARIES.get(component.id, 0) * (component.width or 0)
    tuple(module.parameters())  # sets how many each stands for
    return sum(m.weight.numel * m.weight.copies for _, m, _ in module.modules() if isinstance(m, Linear))
