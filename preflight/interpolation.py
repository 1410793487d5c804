"""`${a.b}` to the value it stands for, through OmegaConf; what only the launch knows becomes Unresolved.

No resolver runs (`${oc.env:HOME}` would read the environment, and differ on the machine that trains): OmegaConf sees a mark in
its place. What an expansion may cost is bounded before OmegaConf sees it, since ten lines of `${a}${a}` can stand for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from preflight.finding import ConfigError, Finding
from preflight.launching.launch import Reason, Unresolved
from preflight.position import Path, Position, dotted, refusal, shorten

MISSING = "???"
MAX_COST = 2 * 2**20  # characters, and 100 for each `${…}` that is evaluated: about two seconds at worst
DYNAMIC_COST = MAX_COST // 8  # of `${a.${b}}`: what it will refer to is not known beforehand
REFERENCE = re.compile(r"\\.|\$\{\s*([^${}:]*)(:?)", re.DOTALL)
DYNAMIC = re.compile(r"\$\{[^}]*(?:\$\{|\\)")
MARK = re.compile("\0(\\d+)\0")  # where a text stood that calls a resolver


def resolve(data: dict[str, Any], positions: Mapping[Path, Position], within: Path = ()) -> tuple[dict[str, Any], frozenset[Path]]:
    """`data` with every `${…}` replaced by its value, and the paths where one stood.

    A value that needs a resolver is Unresolved, one that refers to a key which is not there, and one that refers to such a value.
    `within` is the path under which `positions` and the user know this data.
    Raises ConfigError with one finding for each value that is `???` or cannot be resolved.
    """
    marked = {path: text for path, text in _texts(data, ()) if "${" in text or text == MISSING}
    if not marked:
        return data, frozenset()
    later: dict[Path, tuple[Reason, str]]
    later = {path: ("resolver", text) for path, text in marked.items() if _needs_resolver(text)}
    _mark(data, later)
    try:
        later |= {path: ("absent", text) for path, text in _dangling(data, marked.items())}
    except RecursionError:
        raise refusal("too-deep", "The config's ${…} refer to one another in too long a chain.") from None
    if later:
        foreign = (path for path, text in _texts(data, ()) if "\0" in text and path not in later)
        _refuse(dict.fromkeys(foreign, "holds the character NUL; expected text"), positions, within)
    _mark(data, later)
    known, inside = _known(data, {path: text for path, text in marked.items() if path not in later}, positions, within)
    return (_opened(known, list(later.values())) if later else known), inside | later.keys()


def _dangling(data: dict[str, Any], marked: Iterable[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """Those that refer to a key which is not in the config."""
    costs = _Costs(data)
    for path, text in marked:
        if text != MISSING and MARK.fullmatch(_at(data, path)) is None and _well_formed(text) and costs.absent(path) is not None:
            yield path, text


def _mark(data: dict[str, Any], later: Mapping[Path, object]) -> None:
    for number, path in enumerate(later):
        _at(data, path[:-1])[path[-1]] = f"\0{number}\0"


def _needs_resolver(text: str) -> bool:
    return any(resolver for _, resolver in _references(text)) or bool(DYNAMIC.search(text) and ":" in text)


def _opened(value: Any, later: Sequence[tuple[Reason, str]]) -> Any:
    """`value` with Unresolved in place of every text that holds a mark."""
    if isinstance(value, dict):
        return {key: _opened(item, later) for key, item in value.items()}
    if isinstance(value, list):
        return [_opened(item, later) for item in value]
    inside = [later[int(number)] for number in MARK.findall(value)] if isinstance(value, str) else []
    if not inside:
        return value
    reason, text = inside[0]
    # within a longer text it is cut short, since a long one may be referred to very often
    spelled = text if MARK.fullmatch(value) else MARK.sub(lambda match: shorten(later[int(match[1])][1]), value)
    return Unresolved(spelled, text, reason)


def _known(
    data: dict[str, Any], marked: Mapping[Path, str], positions: Mapping[Path, Position], within: Path
) -> tuple[dict[str, Any], frozenset[Path]]:
    """`data` with what is in `marked` resolved, none of which needs a resolver."""
    costs = _Costs(data)
    _refuse({path: problem for path, text in marked.items() if (problem := _refused(path, text, costs))}, positions, within)
    if sum(costs.of(path) for path in marked) > MAX_COST:
        raise refusal("too-large", f"The config's ${{…}} may expand to more than {MAX_COST:,} characters.")
    return _evaluated(data, marked, positions, within), frozenset(path for path in marked if _references(marked[path]))


def _refuse(problems: Mapping[Path, str], positions: Mapping[Path, Position], within: Path) -> None:
    findings: list[Finding] = []
    for inside, problem in problems.items():
        path = (*within, *inside)
        id_ = "missing-value" if problem.startswith("is ???") else "unresolved-value"
        message = f"{dotted(path)} {problem}, or --set {dotted(path)}=VALUE."
        findings += refusal(id_, message, positions.get(path), path).findings
    if findings:
        raise ConfigError(*findings)


def _refused(path: Path, text: str, costs: _Costs) -> str | None:
    """Why `text` cannot be resolved, as far as that shows without evaluating it."""
    spelled = shorten(repr(text))
    if text == MISSING:
        return "is ???, a value that must be given; expected a value"
    if not _well_formed(text):
        return rf"is {spelled}, which is no ${{key}}; expected ${{key}}, or \${{ for the characters themselves"
    return f"is {spelled}, which refers to itself; expected a value" if costs.circular(path) else None


def _well_formed(text: str) -> bool:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.create({"text": text})
    except OmegaConfBaseException:
        return False
    return True


def _evaluated(
    data: dict[str, Any], marked: Mapping[Path, str], positions: Mapping[Path, Position], within: Path
) -> dict[str, Any]:
    from omegaconf import OmegaConf

    config = OmegaConf.create(data)
    values = {path: _value(config, path) for path in marked}
    _refuse(
        {
            path: f"is {shorten(repr(text))}, which leads to no value; expected one"
            for path, text in marked.items()
            if values[path] is _NO_VALUE
        },
        positions,
        within,
    )
    for path, value in values.items():
        _at(data, path[:-1])[path[-1]] = value
    return data


_NO_VALUE = object()


def _value(config: Any, path: Path) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = _at(config, path)
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if OmegaConf.is_config(value) else value
    except (OmegaConfBaseException, RecursionError):
        return _NO_VALUE


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _references(text: str) -> list[tuple[str, str]]:
    """(key up to the first special character, ":" when it names a resolver) of every `${` that is not escaped."""
    return [(match[1].strip(), match[2]) for match in REFERENCE.finditer(text) if match[1] is not None]


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


class _Costs:
    """An upper bound of what evaluating a value costs, each reference counted with all that it refers to."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._known: dict[Path, int] = {}
        self._open: dict[Path, None] = {}
        self._circular: set[Path] = set()
        self._absent: dict[Path, str] = {}

    def circular(self, path: Path) -> bool:
        """Whether evaluating the value at `path` comes back to it, or to another one that never ends."""
        self.of(path)
        return path in self._circular

    def absent(self, path: Path) -> str | None:
        """The key that the value at `path` refers to and that is not in the config, if there is one."""
        self.of(path)
        return self._absent.get(path)

    def of(self, path: Path) -> int:
        """The bound for the value at `path`: its characters, and 100 a reference, over everything it refers to."""
        if path in self._known:
            return self._known[path]
        if path in self._open:
            self._circular.update(self._open)
            return 0
        self._open[path] = None
        value = _at(self._data, path)
        if isinstance(value, dict | list):
            steps = value if isinstance(value, dict) else range(len(value))
            cost = sum(self.of((*path, step)) for step in steps)
        else:
            cost = 1 + (self._text(path, value) if isinstance(value, str) else 0)
        del self._open[path]
        self._known[path] = min(cost, MAX_COST + 1)
        return self._known[path]

    def _text(self, path: Path, text: str) -> int:
        cost = len(text)
        dynamic = DYNAMIC.search(text)
        for reference, _ in _references(text):
            target = None if dynamic else self._target(path, reference)
            if target is not None:
                cost += 100 + self.of(target)
            elif dynamic:
                cost += DYNAMIC_COST
            else:
                self._absent[path] = reference
        return cost

    def _target(self, path: Path, reference: str) -> Path | None:
        """The value that `reference` at `path` leads to, or the `${…}` on the way to it; None where nothing is."""
        key = reference.lstrip(".")
        up = len(reference) - len(key)
        at: Path = path[: max(0, len(path) - up)] if up else ()
        for part in filter(None, re.split(r"[.\[\]]", key)):
            value = _at(self._data, at)
            if isinstance(value, str):
                return at if "${" in value else None
            step: str | int = int(part) if isinstance(value, list) and re.fullmatch(r"\d{1,9}", part) else part
            if not (step in value if isinstance(value, dict) else isinstance(step, int) and step < len(value or ())):
                return None
            at = (*at, step)
        return at
