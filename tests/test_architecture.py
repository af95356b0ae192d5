"""The house has storeys: imports go down or stay on one, and never in a circle."""

import ast
import re

import pytest

from tests.support.helpers import PROJECT

# From the ground up; what stands in one tuple is on one storey.
STOREYS = [("util",), ("data",), ("models",), ("options",), ("train", "test", "script"),
           ("benchmarks",), ("tests",)]  # fmt: skip
HEIGHTS = {name: height for height, names in enumerate(STOREYS) for name in names}
PRODUCT = [name for name in HEIGHTS if name not in ("benchmarks", "tests")]


def modules_of(root):
    """Path by dotted name of all modules of the product and the benchmarks."""
    paths = [*root.glob("*.py"), *(p for name in HEIGHTS for p in (root / name).rglob("*.py"))]
    found = {}
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        # A file beside a folder of its name only starts it.
        if parts[0] in HEIGHTS and not (parts[-1] != "__init__" and path.with_suffix("").is_dir()):
            found[name] = path
    return found


def imports_of(name, path, modules):
    """Modules of the project that one imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where they go"
            targets = [
                full if (full := f"{node.module}.{alias.name}") in modules else node.module
                for alias in node.names
            ]
        for target in targets:
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != name:
                found.add(target)
    return found


def problems(root):
    """What breaks the rules, each with the two files."""
    modules = modules_of(root)
    graph = {name: imports_of(name, path, modules) for name, path in modules.items()}

    def height(name):
        return HEIGHTS[name.partition(".")[0]]

    def file(name):
        return str(modules[name].relative_to(root))

    found = [
        f"{file(name)} imports {file(other)}, which stands above it"
        for name in graph
        for other in graph[name]
        if height(other) > height(name)
    ]
    for name in graph:
        ways = sorted(file(other) for other in graph[name] if name in reached_from(other, graph))
        if ways:
            found.append(f"{file(name)} imports itself by way of {', '.join(ways)}")
    return found


def reached_from(name, graph):
    reached, new = set(), set(graph[name])
    while new:
        reached |= new
        new = {further for other in new for further in graph[other]} - reached
    return reached


def test_imports_go_down_and_never_in_a_circle():
    assert problems(PROJECT) == []


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("util/flow.py", "import models.pg2_model", "util/flow.py imports models/pg2_model.py"),
        ("data/items.py", "    from options import base_options", "options/base_options.py"),
        ("models/gfla/blocks.py", "from benchmarks import direct", "benchmarks/direct.py"),
        ("util/errors.py", "from util import files", "util/errors.py imports itself"),
        ("script/demo.py", "from tests.support.helpers import same", "tests/support/helpers.py"),
    ],
)
def test_a_line_in_the_wrong_place_is_told(tmp_path, file, line, told):
    for name in modules_of(PROJECT).values():
        copy = tmp_path / name.relative_to(PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(name.read_bytes())
    path = tmp_path / file
    text = path.read_text() if path.exists() else ""
    path.write_text(f"{text}\n\ndef moved():\n    {line.strip()}\n")
    assert any(told in problem for problem in problems(tmp_path)), problems(tmp_path)


def test_nothing_executes_a_file_of_the_tests():
    ways = ("run_path", "run_module", "spec_from_file_location", "import_module", "exec")
    calls = [
        (path, node)
        for name, path in modules_of(PROJECT).items()
        if not name.startswith("tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(ways)
    ]
    assert calls
    for path, node in calls:
        assert "tests" not in ast.unparse(node), f"{path}, line {node.lineno}"


def test_the_map_has_every_file_once():
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    told, folder = [], ""
    for line in text.split("## The map")[1].splitlines():
        if heading := re.match(r"\S+/(?=\s|$)", line):
            folder = heading[0]
        elif name := re.match(r"\s*(\S+\.py)\s+\d+  \S", line):
            told.append((folder if line.startswith(" ") else "") + name[1])
    files = [
        str(path.relative_to(PROJECT))
        for name, path in modules_of(PROJECT).items()
        if not name.startswith(("tests", "benchmarks")) and path.stat().st_size
    ]
    assert sorted(told) == sorted(files)
