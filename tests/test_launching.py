"""What a launch script starts, beside what bash itself passes to the programs; and that no text is read with a traceback."""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import string
import subprocess
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preflight.finding import ConfigError, Finding
from preflight.launching import commandline, programs, script
from preflight.launching.launch import Unresolved
from preflight.launching.shell import Started, Word
from preflight.position import Position

BASH = shutil.which("bash")
#: Programs that write down their words instead of running, and commands that do nothing.
STUBS = """
_say() { { printf '%s\\0' "$@"; printf '\\1\\0'; } >> "$TRACE"; }
for name in python python3 accelerate torchrun deepspeed srun nohup uv; do eval "$name() { _say $name \\"\\$@\\"; }"; done
dirname() { local path="${1%/}"; case "$path" in */*) echo "${path%/*}";; *) echo .;; esac; }
bash() { command "$BASH" "$@"; }; sh() { command "$BASH" "$@"; }
cat() { :; }; tee() { :; }; mkdir() { :; }; date() { echo now; }
export -f _say python python3 accelerate torchrun deepspeed srun nohup uv dirname bash sh cat tee mkdir date
"""
#: Forms that people write, each with what they start.
FORMS = sorted((Path(__file__).parent / "launching" / "forms").glob("*.sh"))
Call = tuple[str, str, dict[str, Any], tuple[str, ...]]


def read(text: str, path: str = "train.sh", **others: str) -> list[Started]:
    return list(script.read(path, text, others.get).started)


def call(words: Sequence[str]) -> Call | None:
    """A command that bash ran, taken apart as the reader does."""
    found = programs.start([Word(word, Position(1, 1)) for word in words])
    if found is None or found.script is not None:
        return None
    flags = commandline.flags(found.words)
    data = {**flags.data, **({"launcher": commandline.flags(found.own).data} if found.own else {})}
    return found.program.text, found.launcher, data, tuple(word.text for word in flags.arguments)


def run(path: Path, folder: Path) -> list[Call]:
    """What bash starts when it runs the script, each thing once; only functions of ours are there to be started."""
    stubs, trace = folder / "stubs", folder / "trace"
    stubs.write_text(STUBS, encoding="utf-8")
    trace.write_text("", encoding="utf-8")
    env = {"BASH_ENV": str(stubs), "TRACE": str(trace), "PATH": ""}
    subprocess.run([BASH or "", str(path)], cwd=path.parent, env=env, capture_output=True, check=False, timeout=20)
    calls: list[Call] = []
    for said in trace.read_text(encoding="utf-8").split("\1\0")[:-1]:
        found = call(said.split("\0")[:-1])
        if found is not None and found not in calls:
            calls.append(found)
    return calls


def started(path: Path) -> list[Call]:
    def load(name: str) -> str | None:
        return Path(name).read_text(encoding="utf-8") if Path(name).is_file() else None

    found = script.read(str(path), path.read_text(encoding="utf-8"), load).started
    return [(one.launch.program, one.launch.launcher, one.data, one.launch.arguments) for one in found]


# ---- what bash does


@pytest.mark.skipif(BASH is None, reason="there is no bash to compare with")
@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_what_is_read_is_what_bash_passes(path: Path, tmp_path: Path) -> None:
    there = run(path, tmp_path)
    assert there, "the form starts something"
    assert started(path) == there


WORDS = st.text(st.sampled_from(string.ascii_letters + string.digits + " \t'\"$`\\*?[]{}()<>|&;#~!=,.:/-+é🌊\n"), max_size=12)


@given(st.lists(WORDS, max_size=6))
@example(["--a=$b"])
def test_what_shlex_quotes_is_read_as_it_was(words: list[str]) -> None:
    (one,) = read(f"python train.py {shlex.join(words)}")
    expected = commandline.flags([Word(word, Position(1, 1)) for word in words])
    assert one.data == expected.data
    assert one.launch.arguments == tuple(word.text for word in expected.arguments)


PIECES = st.sampled_from(
    ["a", "$A", "${A}", '"$A"', "'$A'", "${B:-x y}", '"${B:-x y}"', "${A:+z}", "${A%1}", "${A#o}", "${A/n/m}", "\\$A", "${#A}",
     "$((N * 2 + 1))", '"${L[@]}"', "${L[1]}", '"${L[*]}"', "$(echo e)", "${B-$A}", "${A^^}", "${A:1:2}", "$N.5", "$A/$N.sh",
     '"$A $N"',
     "-$N"]
)  # fmt: skip


@pytest.mark.skipif(BASH is None, reason="there is no bash to compare with")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=3).map(":".join), min_size=1, max_size=5))
def test_any_mixture_of_expansions_is_as_bash_has_it(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    folder = tmp_path_factory.mktemp("mixture")
    path = folder / "mixture.sh"
    path.write_text(f'A="one 1"\nN=3\nL=(p "q r" s)\npython train.py --words {" ".join(words)}\n', encoding="utf-8")
    assert started(path) == run(path, folder)


# ---- what only the machine knows


@pytest.mark.parametrize(
    ("text", "variable", "reason"),
    [
        ("python t.py --x $RANK", "RANK", "unset"),
        ('python t.py --x "r$RANK.pt"', "RANK", "unset"),
        ("python t.py --x $1", "1", "unset"),
        ("N=$(nvidia-smi -L | wc -l)\npython t.py --x $N", "$(nvidia-smi -L | wc -l)", "command"),
        ("python t.py --x `date`", "`date`", "command"),
        ("python t.py --x $((GPUS * 2))", "GPUS", "unset"),
        ("A=$B\npython t.py --x ${A%.pt}", "B", "unset"),
        ("A=1\nif [ -f x ]; then A=2; fi\npython t.py --x $A", "A", "condition"),
        ("for f in *.yaml; do python t.py --x $f; done", "f", "command"),
        ("while read -r f; do python t.py --x $f; done < list", "f", "command"),
    ],
)
def test_a_value_that_is_not_known_says_why(text: str, variable: str, reason: str) -> None:
    (one,) = read(text)
    value = one.data["--x"]
    assert isinstance(value, Unresolved)
    assert (value.variable, value.reason) == (variable, reason)
    for same in (deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert (same, same.variable, same.reason) == (value, variable, reason)


def test_of_a_text_that_is_split_only_the_unknown_words_are_unknown() -> None:
    (one,) = read('ARGS="--a 1 --b $B --c $(x y) --d 2"\npython t.py $ARGS')
    assert {name: isinstance(value, Unresolved) for name, value in one.data.items()} == {
        "--a": False,
        "--b": True,
        "--c": True,
        "--d": False,
    }


# ---- several scripts, several launches


def test_each_turn_of_a_loop_is_a_launch_and_the_same_one_counts_once() -> None:
    found = read("for r in 16 32; do python t.py --rank $r; done\nfor i in 1 2 3; do python u.py; done")
    assert [(one.launch.program, one.data) for one in found] == [
        ("t.py", {"--rank": "16"}),
        ("t.py", {"--rank": "32"}),
        ("u.py", {}),
    ]


def test_what_another_script_sets_and_starts_is_found_from_the_folders_around() -> None:
    others = {
        "a/env.sh": "RANK=8\nexport GPUS=2\nHIDDEN=1",
        "a/run.sh": 'torchrun --nproc_per_node $GPUS t.py --hidden "$HIDDEN" "$@"',
    }
    (one,) = read('. ./env.sh\nbash a/run.sh --rank $RANK "two words"', "a/train.sh", **others)
    assert one.data == {"--hidden": "$HIDDEN", "--rank": ["8", "two words"], "launcher": {"--nproc_per_node": "2"}}
    assert (one.launch.line, one.launch.script, one.launch.environment) == (2, "a/run.sh", {"GPUS": "2"})
    assert one.positions["--hidden",] == Position(1, 38, "a/run.sh")
    assert one.positions["--rank",] == Position(2, 15)


def test_a_script_that_is_not_there_is_a_warning_and_with_it_nothing_is_known() -> None:
    (one,) = read("source missing.sh\npython t.py")
    assert [finding.id for finding in one.launch.findings] == ["script-not-read"]
    with pytest.raises(ConfigError, match=r"missing.sh, which it calls, is not there"):
        read("bash missing.sh")


def test_scripts_that_call_each_other_end() -> None:
    with pytest.raises(ConfigError, match="starts no training"):
        read("source b.sh; bash b.sh", "a.sh", **{"b.sh": "source a.sh", "a.sh": "source b.sh"})


def test_a_file_that_the_script_writes_is_kept_with_its_line() -> None:
    found = script.read(
        "t.sh", "R=4\ncat > ./x.yaml <<EOF\nrank: $R\nEOF\ncat <<'E' > y.yaml\na: $R\nE\npython t.py", lambda _: None
    )
    assert {path: tuple(heredoc) for path, heredoc in found.heredocs.items()} == {
        "x.yaml": ("rank: 4\n", 3),
        "y.yaml": ("a: $R\n", 6),
    }


def test_flags_after_a_comment_between_lines_do_not_reach_the_program() -> None:
    (one,) = read("python t.py --a 1 \\\n  # --b 2 \\\n  --c 3\n")
    assert one.data == {"--a": "1"}
    (finding,) = one.launch.findings
    assert (finding.id, finding.line) == ("flags-cut-off", 3)
    assert "never reach t.py" in finding.message


def test_a_usage_message_is_not_what_is_judged() -> None:
    (one,) = read('if [ $# -lt 1 ]; then echo usage; exit 1; fi\n[ -z "$1" ] && exit 2\npython t.py --x "$1"')
    assert one.data["--x"].variable == "1"


# ---- whatever the text is

SHELL = st.lists(
    st.sampled_from(
        ["python t.py", "if", "then", "fi", "for x in", "do", "done", "case $x in", "esac", "a)", ";;", "(", ")", "{", "}",
         "f()", "$(",
         "`", '"', "'", "${", "$((", "))", "[[", "]]", "&&", "||", "|", "&", ";", "\n", "\\\n", " ", "<<E", "\nE\n", ">",
         "<(", "A=",
         "A+=(", "$A", "${A[@]}", "$1", "--x", "1", "#", "!", "export ", "source t.sh", "bash t.sh", "eval ", "set -- ",
         "shift", "cd ",
         "exit", "function f", "while", "sbatch <<E", "\r\n", "é", "\x00", "torchrun -m", "accelerate launch", "nohup",
         "${A/*/", "}",
         "$'", "{1..9}", "A=$A$A"]
    ),
    max_size=40,
).map("".join)  # fmt: skip


def findings(text: str, **others: str) -> tuple[Finding, ...]:
    """Why the text is refused, or nothing."""
    try:
        read(text, **others)
    except ConfigError as problem:
        return problem.findings
    return ()


@settings(deadline=None)
@given(st.one_of(SHELL, st.text(max_size=200)))
def test_no_text_is_answered_with_anything_but_launches_or_a_sentence(text: str) -> None:
    assert all(finding.severity in ("error", "warning") and finding.message for finding in findings(text, **{"t.sh": text}))


@pytest.mark.parametrize(
    "text",
    [
        "python t.py " + "--x 1 " * 30_000,
        "python t.py\n" * 100,
        "A=xx\n" + "A=$A$A\n" * 60 + "python $A",
        'A=(1 2)\nA=("${A[@]}" "${A[@]}")\n' + 'A=("${A[@]}" "${A[@]}")\n' * 60,
        "for a in {1..60}; do for b in {1..60}; do for c in {1..60}; do x=$a; done; done; done",
        "f() { g; g; }\ng() { f; f; }\n" * 50 + "f",
        "a | " * 30_000,
        "A=(" * 9_000,
        "(" * 60_000,
        "$(" * 30_000,
        "if " + "! " * 3_000 + "true; then python t.py; fi",
        'x="eval \\$x"; eval $x',
    ],
    ids=range(12),
)
def test_a_hostile_script_is_refused_at_once(text: str) -> None:
    before = os.times().user
    assert all(finding.severity == "error" for finding in findings(text)[:1])
    assert os.times().user - before < 10
