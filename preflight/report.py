"""What `inspect` answers: values that reporters write down and never compute from.

The names and the shape are Contract B (`schemas/report.schema.json`); what could not be computed is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from preflight.finding import Finding
from preflight.spec import Spec

Verdict = Literal["fits", "tight", "does-not-fit", "cannot-judge"]
COMPONENTS = ("weights", "adapters", "gradients", "optimizer", "activations", "overhead")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of the run with its own peak, in bytes on the worst GPU: load, distil, encode, step, sample, save."""

    name: str
    allocated_bytes: int | None
    reserved_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """One line of what the busiest GPU holds, and the rule by which it is that much."""

    name: str
    bytes: int
    rule: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPhase:
    """Bytes on one node during a stretch of the run; `parts` sum to `bytes`, `pinned_bytes` of them page-locked."""

    name: str
    bytes: int
    pinned_bytes: int
    parts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostMemory:
    """What one node holds in each phase, and in the worst of them: there `parts` sum to `peak_bytes`."""

    peak_bytes: int
    peak_phase: str
    pinned_bytes: int
    parts: Mapping[str, int]
    phases: tuple[HostPhase, ...]
    capacity_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on one GPU. `components` sum to `peak_bytes`; `resident` names in detail what stays between steps.

    `held` explains it, with what the step adds; it and `host` are not part of the contract.
    """

    peak_bytes: int | None = None
    peak_phase: str | None = None
    capacity_bytes: int | None = None
    usable_bytes: int | None = None
    activation_bytes: int | None = None
    activation_limit_bytes: int | None = None
    phases: tuple[Phase, ...] = ()
    components: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(COMPONENTS))
    resident: Mapping[str, int] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    host: HostMemory | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reduction:
    """A change that was computed again and fits: `changes` in canonical words, `keys` in the user's own."""

    changes: Mapping[str, Any]
    keys: Mapping[str, Any]
    peak_bytes: int
    summary: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One config, judged. `header` is the one line a person recognises the run by, `silenced` counts what is not in `findings`."""

    config: str
    adapter: str | None = None
    verdict: Verdict = "cannot-judge"
    header: str | None = None
    spec: Spec | None = None
    memory: Memory = field(default_factory=Memory)
    findings: tuple[Finding, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    silenced: int = 0

    @property
    def trains(self) -> bool:
        """Whether the file may be a training config: false for what is known to be a data set's, a launcher's …"""
        return all(finding.id != "not-a-training-config" for finding in self.findings)

    def passes(self, *, strict: bool = False) -> bool:
        """Whether the launch may go on: fits or tight, no error found, and under `strict` no warning either."""
        refused = {"error", "warning"} if strict else {"error"}
        return self.verdict in ("fits", "tight") and not any(f.severity in refused for f in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    results: tuple[Result, ...]

    def exit_status(self, *, strict: bool = False) -> int:
        """0 when every config passes, else 1."""
        return 0 if all(result.passes(strict=strict) for result in self.results) else 1
