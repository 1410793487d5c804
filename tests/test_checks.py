"""Each check on configs that it has nothing to say of, and on configs that it has: `checks/positive` and `checks/negative`.

A file is called as the check is, with a word of its own after it where there are several. What is expected stands beside it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import preflight
from preflight import catalog, checks, listing
from preflight.checks import unknown_phase
from preflight.cli import main
from preflight.explain import READING, explanation, ids
from preflight.finding import ConfigError, Finding
from preflight.judge import judge
from preflight.memory.phases import Phase
from preflight.pipeline import inspect
from preflight.report import Result
from preflight.spec import Spec

HERE = Path(__file__).parent / "checks"
README = Path(__file__).parent.parent / "README.md"
PACKAGE = Path(preflight.__file__).parent
#: Every phase of every network is modelled, so no config is an example of one that is not; and no config is a machine.
WITHOUT_EXAMPLE = {"unknown-phase", "gpu-here", "gpu-in-use"}
Golden = Callable[[Path, str], None]


def examples(kind: str) -> list[Path]:
    return sorted((HERE / kind).glob("*.yaml"))


def check_of(path: Path) -> str:
    """The check that the example is of: the longest id that its name begins with."""
    name = path.stem.replace("_", "-")
    return max((id_ for id_ in checks.ids() if name == id_ or name.startswith(f"{id_}-")), key=len)


def judged(path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """The result seen from the folder of the examples, where `data/train.csv` is."""
    monkeypatch.chdir(HERE)
    return inspect(str(path.relative_to(HERE)))


def told(finding: Finding) -> str:
    place = f"{finding.line}:{finding.column}" if finding.line else "-"
    return (
        f"{place} {finding.severity} {finding.id}: {finding.message}" + (f"\n    fix: {finding.fix}" if finding.fix else "") + "\n"
    )


@pytest.mark.parametrize("path", examples("positive"), ids=lambda path: path.stem)
def test_a_check_is_silent_where_nothing_is_wrong(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = judged(path, monkeypatch)
    assert result.memory.peak_bytes is not None
    assert [told(finding) for finding in result.findings if finding.id == check_of(path)] == []


@pytest.mark.parametrize("path", examples("negative"), ids=lambda path: path.stem)
def test_a_check_says_what_it_finds(path: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [told(finding) for finding in judged(path, monkeypatch).findings if finding.id == check_of(path)]
    assert found
    golden(path.with_suffix(".txt"), "".join(found))


@pytest.mark.parametrize("id_", sorted(set(checks.ids()) - WITHOUT_EXAMPLE))
def test_every_check_has_an_example_of_each_kind(id_: str) -> None:
    for kind in ("positive", "negative"):
        assert id_ in {check_of(path) for path in examples(kind)}


@pytest.mark.parametrize("path", [*examples("positive"), *examples("negative")], ids=lambda path: path.stem)
def test_a_finding_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for finding in judged(path, monkeypatch).findings:
        assert finding.message.endswith((".", "?"))
        assert "\n" not in finding.message
        assert ". " not in finding.message, finding.message


def test_a_phase_that_is_not_modelled_is_named() -> None:
    spec = Spec.from_mapping(
        {
            "model": {"name": "wan2.1-t2v-1.3b"},
            "train": {"method": "lora", "lora": {"rank": 4}},
            "data": {"height": 64, "width": 64},
        }
    )
    case = judge(spec, catalog.gpu("a100-80gb"), 0.7).case
    lost = Phase(name="sample", peak=None, reason="nobody wrote it")
    (found,) = unknown_phase.check(replace(case, phases=(*case.phases, lost)))
    assert (found.severity, found.message) == ("error", "Cannot judge the sample phase: nobody wrote it.")


@pytest.mark.parametrize("id_", checks.ids())
def test_a_check_documents_what_why_and_fix(id_: str) -> None:
    question, blank, *rest = checks.documentation(id_).splitlines()
    assert question.endswith("?")
    assert blank == ""
    assert [line.split(":")[0] for line in rest if line.startswith(("What:", "Why:", "Fix:"))] == ["What", "Why", "Fix"]


def finding_ids(path: Path) -> Iterator[str]:
    """The ids of the findings that a module makes: what is given as `id`, or first to `finding` and `refusal`, second to `note`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        place = {"finding": 0, "refusal": 0, "_refusal": 0, "note": 1}.get(name)
        given = [keyword.value for keyword in node.keywords if keyword.arg in ("id", "problem")]
        given += node.args[place : place + 1] if place is not None else []
        yield from (value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str))


#: Problems of the command line, and the words after "is" in a schema's sentences.
NOT_IN_A_CONFIG = {"unknown-id", "command-line"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_finding_is_explained(path: Path) -> None:
    words = {word for word in finding_ids(path) if " " not in word}
    assert words - NOT_IN_A_CONFIG <= set(ids())


@pytest.mark.parametrize("id_", ids())
def test_an_explanation_begins_with_its_id(id_: str) -> None:
    assert explanation(id_).startswith(f"{id_}\n\n")


def test_no_id_is_explained_twice() -> None:
    assert not set(checks.ids()) & set(READING)


def test_an_unknown_id_is_told_from_a_slip() -> None:
    with pytest.raises(ConfigError, match=r"there is no finding 'bfloat1'; did you mean bfloat16\?"):
        explanation("bfloat1")


def test_the_command_line_explains_and_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "[bfloat16]"]) == 0
    assert capsys.readouterr().out == explanation("bfloat16")
    assert main(["list", "checks"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["id", *checks.ids()]


@pytest.mark.parametrize("words", [["explain"], ["explain", "bfloat1"], ["list"], ["list", "cheques"], ["list", "checks", "-x"]])
def test_a_wrong_question_is_a_wrong_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("place", "table"), [("checks", listing.checks_table), ("adapters", listing.adapters_table)])
def test_the_page_lists_what_there_is(place: str, table: Callable[[], str], request: pytest.FixtureRequest) -> None:
    begin, end = f"<!-- {place} -->\n", f"<!-- end of {place} -->"
    page = README.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    written = f"{before}{begin}{table()}{end}{after}"
    if request.config.getoption("--rewrite-goldens", default=False):
        README.write_text(written, encoding="utf-8")
        return
    assert page == written
