"""A spec on a GPU, judged: memory, verdict and findings. Everything after reading and before advice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from preflight import catalog, checks
from preflight.checks.case import Case
from preflight.finding import Finding
from preflight.job import Job, job
from preflight.memory.budget import budget
from preflight.memory.host import host
from preflight.memory.limits import limits
from preflight.memory.peak import least, reserved, worst
from preflight.memory.phases import phases
from preflight.memory.pipeline import busiest
from preflight.memory.rules import held
from preflight.report import Held, HostMemory, HostPhase, Memory, Phase, Verdict
from preflight.spec import Spec
from preflight.units import GIB


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What there is to say of a case, computed when asked, as most judgements only serve a search."""

    case: Case

    @cached_property
    def verdict(self) -> Verdict:
        return _verdict(self.case)

    @cached_property
    def memory(self) -> Memory:
        return _memory(self.case)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What every check finds, with canonical keys."""
        return tuple(checks.run(self.case))


def judge(spec: Spec, gpu: catalog.Gpu | None, threshold: float) -> Judgement:
    """Compute what `spec` needs on `gpu` and hold it against the two rules. Raises ConfigError where that cannot be done."""
    return judge_job(job(spec, gpu), threshold)


def judge_job(work: Job, threshold: float) -> Judgement:
    """`judge` for a job whose facts are looked up already."""
    model = busiest(work)
    need = budget(work, model)
    case = Case(
        job=work,
        model=model,
        budget=need,
        phases=tuple(phases(work, model, need)),
        limits=limits(work.gpu, work.spec.parallel, threshold) if work.gpu is not None else None,
    )
    return Judgement(case=case)


def _verdict(case: Case) -> Verdict:
    if case.limits is None:
        return "cannot-judge"
    if least(case.budget, case.phases) > case.limits.reachable or case.budget.activations > case.limits.activations:
        return "does-not-fit"
    peak = worst(case.budget, case.phases)
    if peak.total > case.limits.reachable:
        return "does-not-fit"
    if any(finding.severity == "error" for finding in checks.run(case, deciding=True)):
        return "cannot-judge"
    return "fits" if peak.total <= case.limits.usable else "tight"


def _memory(case: Case) -> Memory:
    peak = worst(case.budget, case.phases)
    stays = case.budget.resident
    beside = {name: size for name, size in (("teacher", stays.teacher), ("critic", stays.critic)) if size}
    detail = {
        "network": stays.network,
        **beside,
        "adapters": stays.adapters,
        "optimizer": stays.optimizer,
        "buckets": stays.buckets,
    }
    return Memory(
        peak_bytes=peak.total,
        peak_phase=peak.phase,
        capacity_bytes=case.limits.capacity if case.limits else None,
        usable_bytes=case.limits.usable if case.limits else None,
        activation_bytes=int(case.budget.activations),
        activation_limit_bytes=case.limits.activations if case.limits else None,
        phases=tuple(
            Phase(
                name=phase.name,
                allocated_bytes=int(phase.peak.allocated) if phase.peak else None,
                reserved_bytes=reserved(phase, case.budget),
            )
            for phase in case.phases
        ),
        components=peak.components,
        resident={**detail, **stays.encoders, "ema": stays.ema},
        held=tuple(Held(name=name, bytes=size, rule=rule) for name, size, rule in held(case.job, case.model, case.budget)),
        host=_host(case),
    )


def _host(case: Case) -> HostMemory:
    need = host(case.job, case.model, case.budget)
    stated = case.job.spec.hardware.host_memory_gib
    phases = {
        name: HostPhase(
            name=name,
            bytes=need.total(name),
            pinned_bytes=sum(part.nbytes for part in parts if part.pinned),
            parts={part.name: part.nbytes for part in parts},
        )
        for name, parts in need.phases.items()
    }
    worst = phases[need.worst]
    return HostMemory(
        peak_bytes=worst.bytes,
        peak_phase=worst.name,
        pinned_bytes=worst.pinned_bytes,
        parts=worst.parts,
        phases=tuple(phases.values()),
        capacity_bytes=int(stated * GIB) if stated is not None else None,
    )
