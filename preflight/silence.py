"""Findings that a project does not want to hear: comments in the config, and the project's settings.

`# preflight: ignore[id]` after a key silences that line's findings, alone on a line the whole file's. Several ids are separated by
commas, and what follows the bracket is the reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace

from preflight.finding import Finding, did_you_mean
from preflight.report import Result

WHOLE_FILE = 0
COMMENT = re.compile(r"(?P<before>.*?)(?:#|//)\s*preflight:\s*ignore\[(?P<ids>[^\]]*)\]", re.IGNORECASE)


def comments(text: str) -> Mapping[int, frozenset[str]]:
    """The ids that comments in `text` silence, by line; those of the whole file under WHOLE_FILE."""
    found: dict[int, frozenset[str]] = {}
    if "preflight" not in text:
        return found
    for number, line in enumerate(text.splitlines(), start=1):
        if comment := COMMENT.match(line):
            place = number if comment["before"].strip() else WHOLE_FILE
            ids = frozenset(word.strip() for word in comment["ids"].split(",") if word.strip())
            found[place] = found.get(place, frozenset()) | ids
    return found


def silenced(result: Result, lines: Mapping[int, frozenset[str]], ids: Collection[str] = ()) -> Result:
    """`result` without what `lines` of its config or the settings' `ids` silence, and how many that were.

    An error stays where there is no verdict that the config fits: it may be the reason. An id that no finding has is a warning.
    """
    judged = result.verdict in ("fits", "tight")
    everywhere = {*ids, *lines.get(WHOLE_FILE, ())}

    def heard(finding: Finding) -> bool:
        here = lines.get(finding.line or WHOLE_FILE, ()) if finding.file is None else ()
        wanted = finding.id in everywhere or finding.id in here
        return not wanted or (finding.severity == "error" and not judged)

    kept = tuple(finding for finding in result.findings if heard(finding))
    strangers = tuple(_strange(result.config, line, lines[line]) for line in sorted(lines)) if lines else ()
    return replace(
        result,
        findings=(*kept, *(finding for several in strangers for finding in several)),
        silenced=len(result.findings) - len(kept),
    )


def _strange(config: str, line: int, ids: Collection[str]) -> tuple[Finding, ...]:
    from preflight.explain import ids as known

    def finding(word: str) -> Finding:
        near = did_you_mean(word, known())
        message = f"A comment in {config} ignores {word!r}, which is the id of no finding" + (
            f"; did you mean {near}?" if near else "."
        )
        return Finding(id="unknown-ignore", severity="warning", message=message, line=line or None, column=1 if line else None)

    return tuple(finding(word) for word in sorted(ids) if word not in known())
