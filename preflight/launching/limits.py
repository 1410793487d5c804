"""How much of a script is read: real ones stay far below, and a hostile one stops here before it costs a second."""

from __future__ import annotations

MAX_TEXT = 2**17  # bytes of one script
MAX_PIPES = 1000  # in it: what the parser needs for a pipeline that breaks off grows with their square
MAX_SECONDS = 2.0  # of a processor, for one parse; a real script takes a hundredth of one
MAX_RECOVERY = 100  # hundreds of steps that the parser may take past a mistake, each of which costs more than the last
MAX_SCRIPTS = 24  # that source and call one another
MAX_LAUNCHES = 64
MAX_DEPTH = 60  # blocks, calls and substitutions within one another
MAX_STEPS = 20_000  # commands walked, each turn of a loop counted
MAX_TURNS = 64  # of one loop
MAX_WORD = 2**16  # characters that one word expands to
MAX_WORDS = 2**12  # that one command expands to
