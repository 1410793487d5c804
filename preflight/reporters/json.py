"""The report for other programs: `preflight.report/1`, the same shape whatever the flags.

`schemas/report.schema.json` describes it. Every key is always there; what was not computed is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from preflight.finding import Finding
from preflight.report import COMPONENTS, Memory, Reduction, Report, Result
from preflight.reporters import PLAIN, Style

SCHEMA = "preflight.report/1"


def render(report: Report, style: Style = PLAIN) -> str:
    """`report` as one JSON document in ASCII; `style` changes nothing."""
    del style
    document = {"schema": SCHEMA, "results": [_result(result) for result in report.results]}
    return json.dumps(_plain(document), indent=2, allow_nan=False) + "\n"


def _result(result: Result) -> dict[str, Any]:
    return {
        "config": result.config,
        "adapter": result.adapter,
        "verdict": result.verdict,
        "spec": result.spec.to_mapping() if result.spec is not None else None,
        "memory": _memory(result.memory),
        "findings": [_finding(finding) for finding in result.findings],
        "reductions": [_reduction(reduction) for reduction in result.reductions],
    }


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "peak_bytes": memory.peak_bytes,
        "peak_phase": memory.peak_phase,
        "capacity_bytes": memory.capacity_bytes,
        "usable_bytes": memory.usable_bytes,
        "activation_bytes": memory.activation_bytes,
        "activation_limit_bytes": memory.activation_limit_bytes,
        "phases": [
            {"name": p.name, "allocated_bytes": p.allocated_bytes, "reserved_bytes": p.reserved_bytes} for p in memory.phases
        ],
        "components": {name: memory.components.get(name) for name in COMPONENTS},
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "severity": finding.severity,
        "message": finding.message,
        "key": finding.key,
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "fix": finding.fix,
    }


def _reduction(reduction: Reduction) -> dict[str, Any]:
    return {
        "changes": reduction.changes,
        "keys": reduction.keys,
        "peak_bytes": reduction.peak_bytes,
        "summary": reduction.summary,
    }


def _plain(value: Any) -> Any:
    """`value` in JSON's own types: mappings become objects, tuples arrays, and what JSON has no number for is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
