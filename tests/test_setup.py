"""Installing: the scripts with a stub in pip's place, the requirement files, the tracked files."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ["script/setup.sh", "script/demo.sh", "script/test.sh", ".ci/run"]

# Stands for the environment's Python: writes down what pip is asked, runs none of the project's
# programs, lint and tests, and passes everything else on.
STUB_PYTHON = """#!/usr/bin/env bash
if [ "${1:-} ${2:-}" = "-m pip" ]; then
    case "$*" in
        *--version*) exit 0 ;;
        *--dry-run*) printf '%s\\n' "${PIP_PLAN:-}"; exit 0 ;;
    esac
    echo "$*" >>"$PIP_LOG"
    exit "${PIP_STATUS:-0}"
fi
if [ "${1:-}" = "-m" ]; then exit 0; fi
exec "$REAL_PYTHON" "$@"
"""
STUB_PACKAGES = {
    "torch.py": "__version__ = '9.9'\ndef zeros(*shape): return shape\n",
    "torchvision.py": "__version__ = '8.8'\nclass ops:\n    nms = print\n",
    "visdom.py": "",
}


class Project:
    """A copy of the set-up files in its own folder, whose .venv has the stub for its Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "with space"
        self.pip_log = folder / "pip.log"
        self.packages = folder / "packages"
        self.variables = {}
        for script in ("setup", "demo", "test"):
            path = f"script/{script}.sh"
            self.write(self.folder / path, (ROOT / path).read_text())
        self.write(self.folder / "requirements.txt", "torch\n")
        self.write(self.folder / "requirements-dev.txt", "-r requirements.txt\npytest\n")
        self.write(self.folder / "constraints.txt", "torch==9.9\n")
        for name, text in STUB_PACKAGES.items():
            self.write(self.packages / name, text)
        self.make_environment(self.folder / ".venv")

    @staticmethod
    def write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def make_environment(self, folder: Path) -> Path:
        self.write(folder / "bin/python", STUB_PYTHON)
        (folder / "bin/python").chmod(0o755)
        return folder

    def set_up(self, script: str = "setup", **variables: str) -> subprocess.CompletedProcess:
        """Runs a script from another folder; the result's `installs` counts pip's installations,
        and `files` are the requirement files that they were given.
        """
        self.pip_log.write_text("")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.packages),
            "PIP_LOG": str(self.pip_log),
            "REAL_PYTHON": sys.executable,
            **variables,
        }
        run = subprocess.run(
            ["bash", str(self.folder / f"script/{script}.sh")],
            cwd=self.folder.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        log = self.pip_log.read_text()
        run.installs = len(log.splitlines())
        run.files = re.findall(r"--requirement (\S+)", log)
        return run


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_installs_once(project):
    first = project.set_up()
    assert first.returncode == 0, first.stderr
    assert first.installs == 2
    assert "torch 9.9, torchvision 8.8" in first.stderr
    second = project.set_up()
    assert (second.returncode, second.installs, second.stderr) == (0, 0, "")


@pytest.mark.parametrize("script", ["setup", "demo"])
def test_demo_installs_only_what_the_programs_need_and_test_the_rest(project, script):
    assert project.set_up(script).files == ["requirements.txt"]
    assert project.set_up("test").files == ["requirements-dev.txt"]
    for again in (script, "test"):
        run = project.set_up(again)
        assert (run.returncode, run.installs, run.stderr) == (0, 0, "")


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("requirements.txt", ["demo", "test"]),
        ("constraints.txt", ["demo", "test"]),
        ("requirements-dev.txt", ["test"]),
    ],
)
def test_installs_again_when_a_requirement_file_changes(project, name, again):
    """What test.sh installs is enough for demo.sh, until a file of demo.sh's changes."""
    project.set_up("test")
    (project.folder / name).write_text("torch>=9\n")
    assert [script for script in ("demo", "test") if project.set_up(script).installs] == again


def test_failed_installation_is_done_again(project):
    assert project.set_up("test").returncode == 0
    original = (project.folder / "requirements.txt").read_text()
    (project.folder / "requirements.txt").write_text("torch>=9\n")
    failed = project.set_up("demo", PIP_STATUS="1")
    assert failed.returncode == 1
    assert "the installation failed" in failed.stderr
    # Half of the new requirements may be there, so no old stamp holds either, test.sh's neither.
    (project.folder / "requirements.txt").write_text(original)
    assert project.set_up("test").installs == 2


def test_packages_that_do_not_match_are_named_and_not_stamped(project):
    error = "operator torchvision::nms does not exist"
    (project.packages / "torchvision.py").write_text(f"raise RuntimeError({error!r})\n")
    for _ in range(2):
        run = project.set_up()
        assert run.returncode == 1
        assert run.installs == 2
        message = run.stderr.splitlines()[-1]
        assert error in message and "matching pair" in message and str(project.folder) in message


def test_active_environment_is_used(project, tmp_path):
    active = project.make_environment(tmp_path / "active one")
    assert project.set_up(VIRTUAL_ENV=str(active)).installs == 2
    assert project.set_up(VIRTUAL_ENV=str(active)).installs == 0
    assert project.set_up(CONDA_PREFIX=str(active), CONDA_DEFAULT_ENV="work").installs == 0
    assert not list((project.folder / ".venv").glob("*.stamp"))
    base = project.set_up(CONDA_PREFIX=str(active), CONDA_DEFAULT_ENV="base")
    assert base.installs == 2
    assert list((project.folder / ".venv").glob("*.stamp"))


def test_versions_that_do_are_left_alone_in_an_active_environment(project, tmp_path):
    active = project.make_environment(tmp_path / "active")
    run = project.set_up(VIRTUAL_ENV=str(active), PIP_PLAN='{"version": "1", "install": []}')
    assert (run.returncode, run.installs) == (0, 0)
    assert "ready" in run.stderr


def test_active_environment_without_python_is_one_message(project, tmp_path):
    run = project.set_up(VIRTUAL_ENV=str(tmp_path / "gone"))
    assert run.returncode == 1
    assert run.installs == 0
    assert len(run.stderr.splitlines()) == 1
    assert str(tmp_path / "gone") in run.stderr and "deactivate" in run.stderr


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("*version_info*", "Python 3.11 or newer is needed, and PATH has Python 3.9.1"),
        ("*ensurepip*", "apt install python3-venv"),
    ],
)
def test_python_that_cannot_make_an_environment_is_one_message(project, tmp_path, refused, message):
    (project.folder / ".venv/bin/python").unlink()
    stub = f'#!/bin/sh\ncase "$*" in {refused}) exit 1 ;; --version) echo Python 3.9.1 ;; esac\n'
    for name in ["python", "python3", *(f"python3.{minor}" for minor in range(11, 15))]:
        project.write(tmp_path / "bin" / name, stub)
        (tmp_path / "bin" / name).chmod(0o755)
    run = project.set_up(PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert message in run.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash_that_parses(script):
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


def read_requirements(name: str) -> dict[str, Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    found = {}
    for line in filter(None, lines):
        if line.startswith("-r "):
            found |= read_requirements(line.removeprefix("-r "))
        else:
            requirement = Requirement(line)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def test_constraints_are_exact_versions_within_the_requirements():
    requirements = read_requirements("requirements-dev.txt")
    constraints = read_requirements("constraints.txt")
    assert requirements.keys() == constraints.keys()
    for name, constraint in constraints.items():
        (pin,) = constraint.specifier
        assert pin.operator == "==" and "*" not in pin.version, constraint
        assert requirements[name].specifier.contains(pin.version), constraint


def test_every_import_has_a_requirement():
    """The programs need nothing of requirements-dev.txt; tests and benchmarks may."""
    of_programs, of_all = map(read_requirements, ("requirements.txt", "requirements-dev.txt"))
    distributions = packages_distributions()
    folders = [path for path in ROOT.iterdir() if any(path.glob("*.py"))]
    sources = [*ROOT.glob("*.py"), *(source for path in folders for source in path.rglob("*.py"))]
    own = {path.name for path in folders} | {path.stem for path in ROOT.glob("*.py")}
    missing = {}
    optional = {"triton"}  # comes with PyTorch where it can be used; else the plain path serves
    for source in sources:
        imported = set()
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
        above = source.relative_to(ROOT).parts[0] in ("benchmarks", "tests")
        beside = {path.stem for path in source.parent.glob("*.py")}
        for name in imported - own - beside - optional - set(sys.stdlib_module_names):
            packages = {canonicalize_name(found) for found in distributions.get(name, [name])}
            if packages.isdisjoint(of_all if above else of_programs):
                missing[name] = str(source.relative_to(ROOT))
    assert sources
    assert not missing, f"imported, but not in the requirements: {missing}"


def test_tracked_files_name_no_index_and_no_path_of_one_machine():
    # Written in halves, so that this file does not hold them.
    forbidden = [
        "pypi" + r"\.org",
        "python" + "hosted",
        "find" + "-links",
        "index" + "-url",
        *(rf"(?<![\w.])/{folder}/" for folder in ("ro" + "ot", "wo" + "rk", "ho" + "me")),
        "/opt/" + "(wheels|pypi)",
    ]
    pattern = re.compile("|".join(forbidden))
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(text.splitlines(), 1)
            if pattern.search(line)
        ]
    assert not found, "\n".join(found)


def test_links_between_the_pages_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "dataset" / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target
    ]
    assert len(links) > 20
    lost = [f"{page.name}: {to}" for page, to in links if not (page.parent / to).exists()]
    assert lost == []
