"""YAML text to plain data with the place of every key, by the rules of OmegaConf's own loader.

OmegaConf keeps no positions and costs a tenth of a second to import, so the node graph is walked here; a test
asserts that both give the same values. Differences are refusals: only plain data is read (no tag beyond the core
ones), and keys are strings, spelled as in the file (`1:` is "1", `on:` is "on").
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from preflight.finding import ConfigError
from preflight.position import (
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_VALUES,
    Parsed,
    Path,
    Position,
    dotted,
    refusal,
    shorten,
    too_deep,
    too_many_values,
)

TAG = "tag:yaml.org,2002:"
SCALARS = {TAG + name for name in ("str", "int", "float", "bool", "null")}
TEXT_TOO = {TAG + "value", TAG + "merge"}  # a plain `=` or `<<` that is a value is a string

# omegaconf 2.3 `_utils.get_yaml_loader`: YAML 1.1 alone reads `1e-4` as a string.
FLOAT = re.compile(
    r"""^(?:
     [-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)

# What libyaml or PyYAML says (a part of it) -> what a person has to change.
WORDS = {
    "found character '\\t' that cannot start any token": "a tab stands where only spaces may indent",
    "found a tab character that violates indentation": "a tab stands where only spaces may indent",
    "found undefined alias": "an alias (*name) whose anchor (&name) is not above it",
    "found character that cannot start any token": "a character stands here that cannot start a value; quote the text",
    "mapping values are not allowed here": "a second ':' on this line, or wrong indentation; quote the text",
    "mapping values are not allowed in this context": "a second ':' on this line, or wrong indentation; quote the text",
    "could not find expected ':'": "a key without its ':'",
    "did not find expected key": "wrong indentation, or a missing comma or bracket",
    "did not find expected '-' indicator": "a list item that does not start with '-', or wrong indentation",
    "expected ',' or ']'": "a list that is not closed with ']'",
    "expected ',' or '}'": "a group that is not closed with '}'",
    "found unexpected end of stream": "a quoted text that is never closed",
}


def read(text: str) -> Parsed:
    """The one document in `text`.

    Raises ConfigError: not YAML, several documents, an empty one, a key twice, a tag that is not plain
    data, an anchor that contains itself, or more than the limits of `position` allow.
    """
    tree = _Tree()
    data = tree.value(compose(text), (), 0)
    if data is None:
        raise refusal("empty-config", "The config is empty.")
    return Parsed(data, tree.positions)


def value(text: str) -> Any:
    """The value that `text` stands for when written after a key; raises ConfigError as `read` does."""
    return _Tree().value(compose(text), (), 0)


def compose(text: str) -> Any:
    """The node graph of `text`, whose marks say where each value stands; raises ConfigError as `read` does."""
    import yaml

    try:
        _measure(text)
        return yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise _broken(error) from None
    except RecursionError:
        raise too_deep() from None


def _measure(text: str) -> None:
    """Refuses what would cost too much to compose; events cost no memory and are read until the limit only."""
    import yaml

    values = depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            if values > 2 * MAX_VALUES:  # a key and its value are two events
                raise too_many_values(_at(event.start_mark))
            if depth > MAX_DEPTH:
                raise too_deep(_at(event.start_mark))


def _broken(error: Any) -> ConfigError:
    problem = str(getattr(error, "problem", None) or "it cannot be read")
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = _at(mark) if mark else None
    if "another document" in problem:
        return refusal("several-documents", "A second document starts here; expected one config a file.", position)
    words = next((ours for theirs, ours in WORDS.items() if theirs in problem), shorten(problem, 200))
    return refusal("invalid-yaml", f"This is not valid YAML: {words}.", position)


@cache
def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("Loader", (base,), {})
    loader.add_implicit_resolver(TAG + "float", FLOAT, list("-+0123456789."))
    loader.yaml_implicit_resolvers = {  # dates stay strings
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TAG + "timestamp"]
        for first, resolvers in loader.yaml_implicit_resolvers.items()
    }
    return loader


def _at(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


class _Tree:
    """One walk over a node graph: expands aliases and `<<`, counts what it makes, and notes where keys stand."""

    def __init__(self) -> None:
        self.positions: dict[Path, Position] = {}
        self._made = 0
        self._open: set[int] = set()
        self._scalars: Any = _loader()("")

    def value(self, node: Any, path: Path, depth: int) -> Any:
        import yaml

        if node is None:
            return None
        self._count(1, node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if depth >= MAX_DEPTH:
            raise too_deep(_at(node.start_mark))
        self._enter(node, path)
        if isinstance(node, yaml.MappingNode):
            result: Any = self._mapping(node, path, depth)
        else:
            result = self._sequence(node, path, depth)
        self._open.discard(id(node))
        return result

    def _enter(self, node: Any, path: Path) -> None:
        if id(node) in self._open:
            raise refusal("recursive-anchor", "An anchor contains itself.", _at(node.start_mark), path)
        self._open.add(id(node))

    def _count(self, values: int, node: Any) -> None:
        self._made += values
        if self._made > MAX_VALUES:
            raise too_many_values(_at(node.start_mark))

    def _sequence(self, node: Any, path: Path, depth: int) -> list[Any]:
        self._plain_tag(node, {TAG + "seq"}, path)
        items = []
        for index, item in enumerate(node.value):
            self.positions[(*path, index)] = _at(item.start_mark)
            items.append(self.value(item, (*path, index), depth + 1))
        return items

    def _mapping(self, node: Any, path: Path, depth: int) -> dict[str, Any]:
        data = {}
        for key, (key_node, value_node) in self._pairs(node, path, depth).items():
            self.positions[(*path, key)] = _at(key_node.start_mark)
            data[key] = self.value(value_node, (*path, key), depth + 1)
        return data

    def _pairs(self, node: Any, path: Path, depth: int) -> dict[str, tuple[Any, Any]]:
        """The mapping's keys with their nodes; its own keys win over those that `<<` brings in."""
        self._plain_tag(node, {TAG + "map"}, path)
        own: dict[str, tuple[Any, Any]] = {}
        merged: dict[str, tuple[Any, Any]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == TAG + "merge":
                merged |= self._merged(value_node, path, depth)
                continue
            key = self._key(key_node, path)
            if key in own:
                first = _at(own[key][0].start_mark)
                raise refusal(
                    "duplicate-key",
                    f"{dotted((*path, key))} is set twice, first on line {first.line}; expected once.",
                    _at(key_node.start_mark),
                    (*path, key),
                )
            own[key] = (key_node, value_node)
        return merged | own

    def _merged(self, node: Any, path: Path, depth: int) -> dict[str, tuple[Any, Any]]:
        import yaml

        if depth >= MAX_DEPTH:
            raise too_deep(_at(node.start_mark))
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, tuple[Any, Any]] = {}
        for source in reversed(sources):  # the first of a list wins
            if not isinstance(source, yaml.MappingNode):
                raise refusal("invalid-yaml", "'<<' takes a group of keys or a list of groups.", _at(source.start_mark), path)
            self._enter(source, path)
            merged |= self._pairs(source, path, depth + 1)
            self._open.discard(id(source))
            self._count(len(merged) + 1, source)
        return merged

    def _key(self, node: Any, path: Path) -> str:
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            raise refusal("bad-key", "A key is a list or a group; expected a name.", _at(node.start_mark), path)
        self._plain_tag(node, SCALARS | TEXT_TOO, path)
        if not node.value.strip():
            raise refusal("bad-key", "A key is empty; expected a name.", _at(node.start_mark), path)
        return str(node.value)

    def _scalar(self, node: Any, path: Path) -> Any:
        if node.tag in TEXT_TOO:
            return node.value
        self._plain_tag(node, SCALARS, path)
        if node.tag == TAG + "int" and len(node.value) > MAX_DIGITS:
            raise self._unreadable(node, path)
        try:
            return self._scalars.construct_object(node)
        except (ValueError, LookupError):  # `0x_`, `!!int abc`
            raise self._unreadable(node, path) from None

    def _unreadable(self, node: Any, path: Path) -> ConfigError:
        where = dotted(path) or "The top level"
        message = f"{where} is {shorten(repr(node.value))}; expected {NAMES[node.tag]}."
        return refusal("invalid-yaml", message, _at(node.start_mark), path)

    def _plain_tag(self, node: Any, known: set[str], path: Path) -> None:
        if node.tag in known:
            return
        tag = shorten(node.tag.replace(TAG, "!!"))
        raise refusal(
            "unsafe-tag",
            f"The tag {tag} is not plain data; expected a value without a tag.",
            _at(node.start_mark),
            path,
        )


NAMES = {
    TAG + "int": f"a whole number of at most {MAX_DIGITS} digits",
    TAG + "float": "a number",
    TAG + "bool": "true or false",
    TAG + "null": "null",
}
