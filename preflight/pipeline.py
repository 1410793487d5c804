"""The whole flow: a config in, a result out. Problems are findings; nothing here raises for a bad config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from preflight import adapters, catalog, document, schema
from preflight.adapters.reading import Reading
from preflight.document import Document
from preflight.finding import ConfigError, Finding
from preflight.report import Result
from preflight.silence import silenced
from preflight.spec import Spec


def inspect(
    path: str,
    *,
    adapter: str | None = None,
    overrides: Sequence[str] = (),
    text: str | None = None,
    gpu: str | None = None,
    gpu_memory_gib: float | None = None,
    fallback_gpu: Callable[[], str | None] = lambda: None,
    threshold: float = 0.7,
    ignore: Collection[str] = (),
    grow: bool = False,
) -> Result:
    """Judge the config at `path` (its `text` when it came from standard input).

    The GPU is `gpu` or one of `gpu_memory_gib`, else the config's, else what `fallback_gpu` answers. Activations may take
    `threshold` of its memory. Findings whose id is in `ignore` are counted and left out.
    With `grow` the reductions of a config that fits are what there is room for.
    """
    result = Result(config=path)
    try:
        config = document.read(path, overrides=overrides, text=text)
        chosen = adapters.by_name(adapter) if adapter else adapters.detect(config)
        result = replace(result, adapter=chosen.name)
        reading = chosen.read(config)
        result = replace(result, findings=(*_family(config, chosen.name), *reading.findings))
        refused = schema.findings(schema.check(reading.spec, "spec"), config, reading.origins)
        if any(finding.severity == "error" for finding in (*refused, *result.findings)):
            return replace(result, findings=(*result.findings, *refused))
        spec = Spec.from_mapping(reading.spec)
        result = replace(result, spec=spec)
        card = _gpu(spec, gpu, gpu_memory_gib, fallback_gpu, config, reading)
        judged = _judged(result, spec, card, config, chosen, reading, threshold, grow=grow)
        return silenced(judged, config.ignored, ignore)
    except ConfigError as problem:
        return replace(result, findings=(*result.findings, *problem.findings))


def _judged(
    result: Result,
    spec: Spec,
    card: catalog.Gpu | None,
    config: Document,
    chosen: adapters.Adapter,
    reading: Reading,
    threshold: float,
    *,
    grow: bool,
) -> Result:
    from preflight.header import header
    from preflight.judge import judge
    from preflight.restate import restater

    try:
        judgement = judge(spec, card, threshold)
    except ConfigError as problem:
        return replace(result, findings=(*result.findings, *_placed(problem.findings, config, reading)))
    missing = (_NO_GPU,) if card is None else catalog.remarks(card)
    result = replace(
        result,
        verdict=judgement.verdict,
        header=header(result.adapter or "", judgement.case),
        memory=judgement.memory,
        findings=(*result.findings, *missing, *_placed(judgement.findings, config, reading), *_assumptions(reading)),
    )
    if judgement.verdict == "does-not-fit":
        from preflight.advice.reductions import reductions

        offers, advice = reductions(judgement, threshold, restater(config, chosen, reading))
        return replace(result, reductions=offers, findings=(*result.findings, *_placed(advice, config, reading)))
    if judgement.verdict == "fits" and grow:
        from preflight.advice.growth import growth

        return replace(result, reductions=growth(judgement, threshold, restater(config, chosen, reading)))
    return result


_NO_GPU = Finding(
    id="no-gpu",
    severity="error",
    message="No GPU is named, so nothing can be said about fitting: give --gpu NAME or --gpu-memory GIB.",
    fix="--gpu v100-32gb, hardware.gpu in the config, PREFLIGHT_GPU, or gpu in the project's settings",
)


def _family(config: Document, name: str) -> tuple[Finding, ...]:
    return () if name == "native" else schema.findings(schema.check(config.data, name), config)


def _gpu(
    spec: Spec,
    name: str | None,
    memory_gib: float | None,
    fallback: Callable[[], str | None],
    config: Document,
    reading: Reading,
) -> catalog.Gpu | None:
    if memory_gib is not None:
        return catalog.custom_gpu(memory_gib, name)
    named = name or spec.hardware.gpu
    if named is None:
        other = fallback()
        return catalog.gpu(other) if other is not None else None
    try:
        return catalog.gpu(named)
    except ConfigError as problem:
        about = problem if name else problem.about("hardware.gpu")
        raise ConfigError(*_placed(about.findings, config, reading)) from None


def _placed(findings: Sequence[Finding], config: Document, reading: Reading) -> tuple[Finding, ...]:
    """Findings about canonical keys at the user's own, where the config says them."""
    return tuple(config.finding(f.id, f.severity, f.message, key=_origin(f.key, reading.origins), fix=f.fix) for f in findings)


def _origin(key: str | None, origins: Mapping[str, Any]) -> str | None:
    """The user's key for a canonical one, or for the nearest value around or inside it."""
    if key is None:
        return None
    if key in origins:
        return str(origins[key])
    inside = (user for canonical, user in origins.items() if canonical.startswith(f"{key}."))
    return next(inside, None)


def _assumptions(reading: Reading) -> tuple[Finding, ...]:
    return tuple(
        Finding(id="assumed", severity="note", message=f"{path} is taken to be {_said(assumed.value)}: {assumed.source}.")
        for path, assumed in reading.assumed.items()
    )


def _said(value: Any) -> str:
    return (
        {True: "true", False: "false", None: "none"}.get(value, str(value))
        if value is None or isinstance(value, bool)
        else str(value)
    )
