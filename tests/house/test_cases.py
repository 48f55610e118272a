"""Every attack case has a test that names it, or a reason why not; the docs show both.

`python -m tests.house.test_cases --write` makes docs/security-cases.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs/security-cases.md"
TITLES = {
    "FS": "Files",
    "NET": "Network",
    "SEC": "Secrets and environment",
    "RES": "Resources",
    "TYP": "Types, values, handles",
    "MAN": "Manifest and other texts",
    "SIG": "Signatures and provenance",
    "LIFE": "Lifecycle and threads",
    "LOG": "Logs and audit",
    "PER": "Persistence and faults",
    "NAT": "Native plugins",
    "IPC": "Between processes",
}
SIZES = {
    "FS": 28, "NET": 29, "SEC": 10, "RES": 26, "TYP": 13, "MAN": 11,
    "SIG": 26, "LIFE": 13, "LOG": 11, "PER": 10, "NAT": 24, "IPC": 12,
}  # fmt: skip


def cases() -> dict[str, tuple[str, str]]:
    """Id to what the attack is, and why there is no test (or "")."""
    out = {}
    for line in (TESTS / "data/cases.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        head, _, reason = line.partition(" | ")
        name, _, title = head.partition(" ")
        assert name not in out, f"{name} stands twice"
        out[name] = title, reason
    return out


def covered() -> dict[str, list[str]]:
    """Id to the tests that name it, as `file::function`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = str(path.relative_to(ROOT))
        for top in tree.body:
            for node in ast.walk(top):
                if not (isinstance(node, ast.Call) and _is_case_mark(node.func)):
                    continue
                where = _within(top, node)
                entry = f"{name}::{where}" if where else name
                for arg in node.args:
                    # A table may hold the ids and spread them over its rows: `case(*row.cases)`.
                    ids = [arg.value] if isinstance(arg, ast.Constant) else _spread(tree)
                    for case in ids:
                        if entry not in found[case]:
                            found[case].append(entry)
    return found


_ID = re.compile(rf"(?:{'|'.join(TITLES)})-\d\d")


def _spread(tree: ast.Module) -> list[str]:
    """All ids that stand in the file as plain strings."""
    strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return sorted({s for s in strings if isinstance(s, str) and _ID.fullmatch(s)})


def _is_case_mark(func: ast.expr) -> bool:
    return ast.unparse(func) in ("pytest.mark.case", "mark.case")


def _within(top: ast.stmt, node: ast.AST) -> str:
    if isinstance(top, ast.FunctionDef | ast.ClassDef):
        for inner in ast.walk(top):
            if isinstance(inner, ast.FunctionDef) and any(n is node for n in ast.walk(inner)):
                return inner.name
        return top.name
    return ""


def page() -> str:
    """docs/security-cases.md."""
    known, tests = cases(), covered()
    lines = [
        "# Attack cases",
        "",
        "Made by `python -m tests.house.test_cases --write`; a test fails when it is out of date.",
        "Each test carries the ids that it answers as `@pytest.mark.case(…)`.",
    ]
    for family, title in TITLES.items():
        ids = [name for name in known if name.rpartition("-")[0] == family]
        done = sum(1 for name in ids if tests.get(name))
        lines += ["", f"## {title}", "", f"{done} of {len(ids)} have a test.", ""]
        lines += ["| id | attack | tests |", "| --- | --- | --- |"]
        for name in ids:
            what, reason = known[name]
            shown = tests.get(name, [])
            cell = "<br>".join(f"`{t.removeprefix('tests/')}`" for t in shown[:4])
            if len(shown) > 4:
                cell += f"<br>and {len(shown) - 4} more"
            lines.append(f"| {name} | {what} | {cell or 'none: ' + reason} |")
    return "\n".join(lines) + "\n"


def test_the_list_is_whole() -> None:
    found: dict[str, int] = defaultdict(int)
    for name in cases():
        found[name.rpartition("-")[0]] += 1

    assert found == SIZES


def test_every_case_has_a_test_or_a_reason() -> None:
    tests = covered()

    assert [n for n, (_, reason) in cases().items() if not tests.get(n) and not reason] == []


def test_a_case_with_a_test_needs_no_reason() -> None:
    tests = covered()

    assert [n for n, (_, reason) in cases().items() if tests.get(n) and reason] == []


def test_no_test_names_an_unknown_case() -> None:
    assert set(covered()) - set(cases()) == set()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python -m tests.house.test_cases --write"
    )


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        missing = [n for n, (_, r) in cases().items() if not covered().get(n) and not r]
        print("without a test:", " ".join(missing) or "none")
