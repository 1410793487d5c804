"""The whole flow: a config in, a result out. Problems are findings; nothing here raises for a bad config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from preflight import adapters, catalog, document, schema, scripts
from preflight.adapters.reading import Reading
from preflight.document import Document
from preflight.finding import ConfigError, Finding
from preflight.launching import kinds
from preflight.launching.launch import Unresolved
from preflight.report import Result
from preflight.silence import silenced
from preflight.spec import Spec


def inspect(path: str, **options: Any) -> Result:
    """`inspect_all` for what is one run; a launch script that starts several cannot be judged as one."""
    first, *others = inspect_all(path, **options)
    if not others:
        return first
    names = ", ".join(result.config for result in (first, *others))
    message = f"{path} starts {1 + len(others)} programs; expected one of them, named by its line: {names}."
    return Result(config=path, findings=(Finding(id="several-launches", severity="error", message=message),))


def inspect_all(
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
) -> tuple[Result, ...]:
    """Judge the config at `path` (its `text` when it came from standard input), or each program that a launch script starts.

    The GPU is `gpu` or one of `gpu_memory_gib`, else the config's, else what `fallback_gpu` answers. Activations may take
    `threshold` of its memory. Findings whose id is in `ignore` are counted and left out.
    With `grow` the reductions of a config that fits are what there is room for.
    """
    try:
        configs = document.read_all(path, overrides=overrides, text=text)
        chosen, aside = _chosen(configs, adapter)
    except ConfigError as problem:
        return (Result(config=path, findings=problem.findings),)
    gpus = partial(_gpu, name=gpu, memory_gib=gpu_memory_gib, fallback=fallback_gpu)
    results = [
        _inspected(config, scripts.name(config, configs), () if number else aside, adapter, gpus, threshold, ignore, grow=grow)
        for number, config in enumerate(chosen)
    ]
    return tuple(results) if len(configs) == 1 else tuple(_in_file(result, path) for result in results)


def _in_file(result: Result, path: str) -> Result:
    """`result`, which is named by a line of the script at `path`, with findings that say which file they are in."""
    path = kinds.named(path)[0]
    placed = (replace(f, file=f.file or path) if f.line is not None else f for f in result.findings)
    return replace(result, findings=tuple(placed))


def _chosen(configs: Sequence[Document], adapter: str | None) -> tuple[list[Document], tuple[Finding, ...]]:
    """Those that are judged, and what there is to say of the script and of the programs beside the training."""
    launch = configs[0].launch
    if launch is None or adapter is not None:
        return list(configs), launch.findings if launch is not None else ()
    known = [(config, _detected(config)) for config in configs]
    training = [config for config, family in known if (family.trains(config) if family else scripts.trains(config))]
    aside = [_aside(config, family) for config, family in known if training and config not in training]
    return training or list(configs), (*launch.findings, *aside)


def _detected(config: Document) -> adapters.Adapter | None:
    try:
        return adapters.detect(config)
    except ConfigError:
        return None


def _aside(config: Document, family: adapters.Adapter | None) -> Finding:
    program, line = (config.launch.program, config.launch.line) if config.launch is not None else ("", None)
    why = "is no training that an adapter knows" if family is None else "prepares a training and trains nothing itself"
    message = f"{program}, which is started as well, {why}, so it is not judged."
    return Finding(id="not-judged", severity="note", message=message, line=line, column=1)


def _inspected(
    config: Document,
    name: str,
    said: tuple[Finding, ...],
    adapter: str | None,
    gpus: Callable[[Spec, Document, Reading], catalog.Gpu | None],
    threshold: float,
    ignore: Collection[str],
    *,
    grow: bool,
) -> Result:
    """One run, judged; `said` are findings about the file as a whole."""
    result = Result(config=name, findings=said)
    try:
        chosen = adapters.by_name(adapter) if adapter else adapters.detect(config)
        result = replace(result, adapter=chosen.name)
        reading = chosen.read(config)
        result = replace(result, findings=(*said, *_family(config, chosen.name), *reading.findings))
        config = reading.document or config
        refused = schema.findings(schema.check(reading.spec, "spec"), config, reading.origins)
        if any(finding.severity == "error" for finding in (*refused, *result.findings)):
            return replace(result, findings=(*result.findings, *refused))
        spec = Spec.from_mapping(reading.spec)
        result = replace(result, spec=spec)
        card = gpus(spec, config, reading)
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
    """What the family's schema refuses; a launch script's flags are texts, which their adapter reads."""
    if name == "native" or config.launch is not None or not schema.exists(name):
        return ()
    return schema.findings(schema.check(_known(config.data), name), config)


def _known(value: Any) -> Any:
    """`value` without what only the machine knows that runs the training: its adapter has said what there is to say of that."""
    if isinstance(value, Mapping):
        return {key: _known(item) for key, item in value.items() if not isinstance(item, Unresolved)}
    return [_known(item) for item in value] if isinstance(value, list) else value


def _gpu(
    spec: Spec,
    config: Document,
    reading: Reading,
    *,
    name: str | None,
    memory_gib: float | None,
    fallback: Callable[[], str | None],
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
