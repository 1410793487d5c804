"""What a command starts: a program, which is a launch, or another script, which is read in its turn."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from preflight.finding import Finding
from preflight.launching import commandline, files
from preflight.launching.grammar import Source
from preflight.launching.launch import Launch, Unresolved
from preflight.launching.limits import MAX_LAUNCHES, MAX_SCRIPTS
from preflight.launching.programs import Start
from preflight.launching.shell import Shell, Started, Word
from preflight.position import Position, refusal


def launch(shell: Shell, start: Start, place: Position) -> None:
    """Records what is started. Raises ConfigError ("too-large") past what any real script starts."""
    flags = commandline.flags(start.words)
    data, positions = flags.data, flags.positions
    if start.own:
        own = commandline.flags(start.own)
        data = {**data, "launcher": own.data}
        positions |= {("launcher", *path): at for path, at in own.positions.items()}
        positions["launcher",] = place
    started = Started(
        launch=Launch(
            program=start.program.text,
            launcher=start.launcher,
            line=place.line if place.file is None or shell.entered is None else shell.entered,
            environment={**shell.environment(), **start.environment},
            arguments=tuple(word.text for word in flags.arguments),
            script=place.file,
            findings=tuple(shell.reading.findings),
        ),
        data=data,
        positions=positions,
    )
    shell.reading.started.append(started)
    if len(shell.reading.started) > MAX_LAUNCHES:
        raise refusal("too-large", f"The script starts more than {MAX_LAUNCHES} programs.", place)


def cut_off(shell: Shell, word: Word) -> None:
    """A flag where a command should be: the line before it ended the command that it was meant for."""
    last = shell.reading.last
    if last is None:
        return
    name = word.text.partition("=")[0]
    message = (
        f"{name} is no part of the command on line {last.place.line}, which a comment or a line without \\ before it has ended,"
        f" so this flag and those after it never reach {last.text}."
    )
    shell.reading.say(refusal("flags-cut-off", message, word.place).findings[0])


def script(own: Shell, shell: Shell, start: Start, read: Callable[[Shell], None]) -> None:
    """Goes on in the script that `start` names: as part of `shell` where it is sourced, else in a shell of its own (`own`'s)."""
    place = start.program.place
    if start.script == "text":
        _text(own, start, place, read)
        return
    found = _found(own, start.program)
    if found is None:
        return
    path, text = found
    if posixpath.normpath(path) in own.calls:
        return
    own.reading.scripts += 1
    if own.reading.scripts > MAX_SCRIPTS:
        raise refusal("too-large", f"The script reads more than {MAX_SCRIPTS} others.", place)
    calls = (*own.calls, posixpath.normpath(path))
    entered = place.line if own.source.file is None else own.entered
    source = Source(text, path, path)
    if start.script == "source":
        outer = shell.source, shell.calls, shell.arguments, shell.entered
        shell.source, shell.calls, shell.entered = source, calls, entered
        shell.arguments = tuple(start.words) or shell.arguments
        read(shell)
        shell.source, shell.calls, shell.arguments, shell.entered = outer
        if shell.returned:
            shell.over = shell.returned = False
        return
    kept = {name: value for name, value in own.variables.items() if name in own.exported}
    read(
        own.inside(
            source=source, name=path, arguments=tuple(start.words), variables=kept, functions={}, calls=calls, entered=entered
        )
    )


def _text(own: Shell, start: Start, place: Position, read: Callable[[Shell], None]) -> None:
    code = start.program.text
    if len(own.calls) < MAX_SCRIPTS and not isinstance(code, Unresolved):
        source = Source(code, own.source.path, own.source.file, place)
        name = start.words[0].text if start.words else own.name
        read(own.inside(source=source, name=name, arguments=tuple(start.words[1:]), functions={}, calls=(*own.calls, "-c")))


def _found(shell: Shell, program: Word) -> tuple[str, str] | None:
    """The script's path from here, and its text; None, and a finding, where it is not there."""
    path = program.text
    if not isinstance(path, Unresolved):
        for place in files.places(shell, path):
            text = shell.reading.load(place)
            if text is not None:
                return place, text
    shell.reading.missing.append(path)
    why = program.text.why + "," if isinstance(program.text, Unresolved) else "is not there,"
    message = f"{path} {'is not read: ' if isinstance(path, Unresolved) else ''}{why} so what it sets and starts is not known."
    at = program.place
    shell.reading.say(
        Finding(id="script-not-read", severity="warning", message=message, line=at.line, column=at.column, file=at.file)
    )
    return None
