"""The report for a person: under 40 lines a config, plain when piped, coloured on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from preflight.finding import Finding, Severity
from preflight.report import COMPONENTS, HostMemory, HostPhase, Memory, Reduction, Report, Result, Verdict
from preflight.reporters import PLAIN, Style
from preflight.units import GIB, gib

# A line is its pieces, each with the style a terminal shows it in ("" is plain).
Piece = tuple[str, str]
Line = tuple[Piece, ...]

VERDICTS: Mapping[Verdict, Piece] = {
    "fits": ("fits", "bold green"),
    "tight": ("fits, but tightly", "bold yellow"),
    "does-not-fit": ("does not fit", "bold red"),
    "cannot-judge": ("cannot be judged", "bold red"),
}
COUNTED: Mapping[str, str] = {
    "fits": "fit",
    "tight": "tight",
    "does-not-fit": "too large",
    "cannot-judge": "not judged",
}
SEVERITIES: Mapping[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "dim"}
# How many lines findings and notes may take before the rest is folded; offers take what is left of a page.
FINDING_LINES, NOTE_LINES, PAGE = 9, 3, 39
NOTE_WIDTH = 116
# How many of its parts the line on the host names.
HOST_PARTS = 3
# (there is room, it does not fit) -> (one offer, several)
OFFERED = (("There is room for this:", "There is room for any one of these:"), ("This fits:", "Any one of these fits:"))

# A config may hold any character; on a terminal a control character is shown, not obeyed.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def render(report: Report, style: Style = PLAIN) -> str:
    """`report` as text in the given style; empty when quiet and everything passed."""
    shown = [r for r in report.results if not (style.quiet and r.passes(strict=style.strict))]
    lines: list[Line] = []
    for result in shown:
        lines += [*([()] if lines else []), *_result(result, style)]
    if len(report.results) > 1 and shown:
        lines += [(), ((_count(report.results), "bold"),)]
    return _coloured(lines) if style.colour else "".join(_plain(line) for line in lines)


def _result(result: Result, style: Style) -> list[Line]:
    """One config's page: under 40 lines, unless all is asked for."""
    lines: list[Line] = [((result.header, "bold"),)] if result.header is not None else []
    lines.append(_verdict(result, style))
    if result.memory.peak_bytes is not None:
        lines += [(), *_bars(result.memory, style), *_facts(result.memory, style)]
    by_severity = sorted(result.findings, key=lambda finding: tuple(SEVERITIES).index(finding.severity))
    loud = [f for f in by_severity if f.severity != "note" or style.verbose]
    if loud:
        lines += [()] if result.memory.peak_bytes is not None else []
        lines += _fold([list(_finding(result.config, f)) for f in loud], FINDING_LINES, "findings", style)
    notes = [f for f in result.findings if f.severity == "note"]
    tail = [(), *_notes(notes)] if notes and not style.verbose else []
    tail += [((f"{_plural(result.silenced, 'finding')} silenced", "dim"),)] if result.silenced else []
    if result.reductions:
        many = len(result.reductions) > 1
        title = OFFERED[result.verdict == "does-not-fit"][many]
        lines += [(), ((title, "bold"),)]
        offers = [list(_reduction(number, r)) for number, r in enumerate(result.reductions, 1)]
        lines += _fold(offers, PAGE - 1 - len(lines) - len(tail), "offers", style)
    return lines + tail


def _verdict(result: Result, style: Style) -> Line:
    memory, (word, colour) = result.memory, VERDICTS[result.verdict]
    refused = sum(f.severity == "error" for f in result.findings)
    warned = sum(f.severity == "warning" for f in result.findings)
    text = ""
    if memory.peak_bytes is not None:
        text = f": needs {gib(memory.peak_bytes)}"
        if memory.usable_bytes is not None:
            text += f" of {gib(memory.usable_bytes)} usable"
        if memory.capacity_bytes is not None:
            text += f" ({gib(memory.capacity_bytes)} on the GPU)"
    if result.verdict in ("fits", "tight") and not result.passes(strict=style.strict):
        colour = "bold red"
        text += f"; refused for {_plural(refused, 'error') if refused else _plural(warned, 'warning') + ' (--strict)'}"
    return ((f"{result.config} ", ""), (word, colour), (text, ""))


def _bars(memory: Memory, style: Style) -> Iterator[Line]:
    full = max(memory.capacity_bytes or 0, memory.peak_bytes or 0, 1)
    room = max(10, min(style.width, 100) - 30)
    for name in COMPONENTS:
        size = memory.components.get(name)
        if size is not None:
            bar = "█" * round(room * size / full) or ("▏" if size else "")
            colour = "cyan" if name == "activations" else "blue"
            yield ((f"  {name:<11} {gib(size) if size else '0':>13}  ", ""), (bar, colour))


def _facts(memory: Memory, style: Style) -> Iterator[Line]:
    if memory.phases:
        parts: list[Piece] = [("  phases      ", "")]
        for phase in memory.phases:
            worst = phase.name == memory.peak_phase
            size = "not computed" if phase.allocated_bytes is None else gib(phase.allocated_bytes)
            parts += [(" · " if len(parts) > 1 else "", ""), (f"{phase.name} {size}", "bold" if worst else "")]
            parts += [(" (worst)", "bold")] if worst else []
        yield tuple(parts)
    if style.verbose:
        for number, line in enumerate(memory.held):
            yield ((f"  {'' if number else 'one GPU':<11} {line.name} {gib(line.bytes) if line.bytes else '0'}: {line.rule}", ""),)
    if memory.activation_bytes is not None and memory.activation_limit_bytes is not None:
        broken = memory.activation_bytes > memory.activation_limit_bytes
        share = f"{100 * memory.activation_limit_bytes / (memory.capacity_bytes or 1):.0f} % rule"
        limit = f"activations {gib(memory.activation_bytes)} of at most {gib(memory.activation_limit_bytes)}"
        yield (
            (f"  {share if memory.capacity_bytes else 'rule':<11} ", ""),
            (f"{limit}: {'broken' if broken else 'kept'}", "red" if broken else ""),
        )
    if memory.host is not None and (style.verbose or memory.host.peak_bytes >= GIB):
        yield from _host(memory.host, style)
    if style.tolerance is not None:
        yield ((f"  tolerance   ± {100 * style.tolerance:g} %, already kept free of what is usable", ""),)


def _host(host: HostMemory, style: Style) -> Iterator[Line]:
    """What the busiest node holds in the phase that holds most there, the largest parts first; verbosely, in every phase."""
    limit = f" of {gib(host.capacity_bytes)}" if host.capacity_bytes is not None else ""
    shown = sorted(host.phases, key=lambda phase: phase.name != host.peak_phase)[: None if style.verbose else 1]
    for number, phase in enumerate(shown):
        over = host.capacity_bytes is not None and phase.bytes > host.capacity_bytes
        need = f"{gib(phase.bytes)}{'' if number else limit} a node ({phase.name})"
        yield ((f"  {'' if number else 'host':<11} {need}{_parts(phase, style)}", "yellow" if over else ""),)


def _parts(phase: HostPhase, style: Style) -> str:
    found = sorted(((name, size) for name, size in phase.parts.items() if size), key=lambda part: -part[1])
    named = found if style.verbose else found[:HOST_PARTS]
    said = f": {' · '.join(f'{name} {gib(size)}' for name, size in named)}" if named else ""
    left = f" · {len(found) - len(named)} more" if len(found) > len(named) else ""
    return said + left + (f"; {gib(phase.pinned_bytes)} page-locked" if phase.pinned_bytes and style.verbose else "")


def _finding(config: str, finding: Finding) -> Iterator[Line]:
    place = ":".join(str(part) for part in (finding.file or config, finding.line, finding.column) if part is not None)
    yield (
        (f"{place}: ", ""),
        (f"{finding.severity}: ", SEVERITIES[finding.severity]),
        (f"{finding.message} ", ""),
        (f"[{finding.id}]", "dim"),
    )
    if finding.fix:
        yield ((f"    fix: {finding.fix}", "green"),)


def _reduction(number: int, reduction: Reduction) -> Iterator[Line]:
    yield ((f"  {number}. ", "dim"), (f"{reduction.summary}: {gib(reduction.peak_bytes)}", ""))
    if reduction.keys:
        yield ((f"     {_keys(reduction.keys)}", "green"),)


def _keys(keys: Mapping[str, Any]) -> str:
    """The flags among the keys as a command line has them, then the others as YAML."""
    flags = " ".join(_flag(key, value) for key, value in keys.items() if _is_flag(key))
    others = ", ".join(f"{key}: {_yaml(value)}" for key, value in keys.items() if not _is_flag(key))
    return ", ".join(filter(None, (flags, others)))


def _is_flag(key: str) -> bool:
    return key.rpartition(".")[2].startswith("--")


def _flag(key: str, value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return f"(no {key})" if value is False else " ".join([key, *(str(item) for item in values if item is not True)])


def _yaml(value: Any) -> str:
    """A value as YAML writes it on one line."""
    import yaml

    plain = list(value) if isinstance(value, tuple) else value
    return str(yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000)).removesuffix("...\n").strip()


def _notes(notes: Sequence[Finding]) -> Iterator[Line]:
    first = f", the first {NOTE_LINES} of them" if len(notes) > NOTE_LINES else ""
    yield ((f"{_plural(len(notes), 'note')}{first} (-v shows all):", "dim"),)
    for note in notes[:NOTE_LINES]:
        text = note.message
        yield ((f"  {text if len(text) <= NOTE_WIDTH else text[: NOTE_WIDTH - 1].rstrip() + '…'}", "dim"),)


def _fold(items: Sequence[list[Line]], room: int, name: str, style: Style) -> Iterator[Line]:
    """The lines of `items` while there is room for them, then how many are left; the first is always whole."""
    used = 0
    for number, lines in enumerate(items):
        used += len(lines)
        if number and used > room and not style.verbose:
            yield ((f"  … {len(items) - number} more {name} (-v shows all)", "dim"),)
            return
        yield from lines


def _count(results: Iterable[Result]) -> str:
    verdicts = [result.verdict for result in results]
    parts = [f"{verdicts.count(name)} {word}" for name, word in COUNTED.items() if name in verdicts]
    return f"{len(verdicts)} configs: {', '.join(parts)}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line).translate(_CONTROLS).rstrip() + "\n"


def _coloured(lines: Iterable[Line]) -> str:
    import io

    from rich.console import Console
    from rich.text import Text

    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True, color_system="standard", highlight=False, legacy_windows=False, _environ={})
    for line in lines:
        console.print(Text.assemble(*((text.translate(_CONTROLS), colour) for text, colour in line)), soft_wrap=True)
    return buffer.getvalue()
