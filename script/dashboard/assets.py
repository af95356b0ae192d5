"""The files of other projects that visdom's page needs: which are missing, and how to get them.

visdom comes without them: its own start downloads them from several content networks, and it dies
or hangs where it cannot reach those.
"""

import base64
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from util.errors import UserError
from util.packages import not_installed

NPM_COMMAND = "python -m script.dashboard --assets=npm"
NPM_SECONDS = 300
VISDOM_SECONDS = 120
MARKER = "version.built"  # tells visdom's own command that nothing is to be downloaded


@dataclass(frozen=True)
class Package:
    """A package of the npm registry.

    Attributes:
        name: in the registry.
        version: exact.
        sha512: of its archive, base64: the registry's `dist.integrity`.
        files: path in visdom's static folder by path in the package.
    """

    name: str
    version: str
    sha512: str
    files: dict[str, str]


_MATHJAX = (
    "MathJax.js",
    "config/Safe.js",
    "config/TeX-AMS-MML_HTMLorMML.js",
    "extensions/Safe.js",
    "jax/output/SVG/jax.js",
    "jax/output/SVG/config.js",
    "jax/output/SVG/fonts/TeX/fontdata.js",
    "jax/output/SVG/fonts/TeX/Size1/Regular/Main.js",
)
_GLYPHS = "fonts/glyphicons-halflings-regular"
_FONT_KINDS = ("eot", "woff2", "woff", "ttf")

# Versions and names in the static folder are those of visdom 0.2.4.
PACKAGES = (
    Package(
        "jquery", "3.1.1",
        "zuiWRmx65Kd1oFGdWLvAjbsumdOBFvs3r1vuqCyKFF79R7exBHNbiNEJ8LR+xkzgfxqBznMD/4Cv6PHXS6mvEw==",
        {"dist/jquery.min.js": "js/jquery.min.js"},
    ),
    Package(
        "bootstrap", "3.3.7",
        "qcFaisBrcBhTFkz1IUnGDYnX6ZWfFzH8zOixUDtHW9Ip+r+7MfMFav2rzy7cIHc7rgIg7xjhWBoo1mS/U26j4g==",
        {
            "dist/js/bootstrap.min.js": "js/bootstrap.min.js",
            "dist/css/bootstrap.min.css": "css/bootstrap.min.css",
            **{f"dist/{_GLYPHS}.{kind}": f"{_GLYPHS}.{kind}" for kind in _FONT_KINDS},
            f"dist/{_GLYPHS}.svg": f"{_GLYPHS}.svg#glyphicons_halflingsregular",
        },
    ),
    Package(
        "react", "16.2.0",
        "ZmIomM7EE1DvPEnSFAHZn9Vs9zJl5A9H7el0EGTE6ZbW9FKe/14IYAlPbC8iH25YarEQxZL+E8VW7Mi7kfQrDQ==",
        {"umd/react.production.min.js": "js/react-react.min.js"},
    ),
    Package(
        "react-dom", "16.2.0",
        "zpGAdwHVn9K0091d+hr+R0qrjoJ84cIBFL2uU60KvWBPfZ7LPSrfqviTxGHWN0sjPZb2hxWzMexwrvJdKePvjg==",
        {"umd/react-dom.production.min.js": "js/react-dom.min.js"},
    ),
    Package(
        "react-modal", "3.1.10",
        "7b77AGWCkdg0YOf/qcYIGCpuwbxRwOA8P3UrUovk4grUNv+idOmHovJAx/Dcd3fuwHtgixxVjpcjVG60985MSA==",
        {"dist/react-modal.min.js": "js/react-modal.min.js"},
    ),
    Package(
        "plotly.js-dist-min", "2.11.1",
        "F9WWNht0D3yBLZGHbLoJNfvplXvy+GUPSsA/lCbMuYd/UwzSu6Vmyprxlps9Einw1LDS1hYBrJeioK0lE3ieXA==",
        {"plotly.min.js": "js/plotly-plotly.min.js"},
    ),
    Package(
        "sjcl", "1.0.7",
        "xQbiwKfiAj6vyk44ANJ5RRymALRdRZOuRoKNYkWUU404p/RFXmMaay1Z5vRn30GJjkD+psox4Jd38jZojSuNYA==",
        {"sjcl.js": "js/sjcl.js"},
    ),
    Package(
        "layout-bin-packer", "1.4.0",
        "dQOZnajbOBGIcS9YlzKrkRtMCGa2oEpyf1zGRn93suphSvPclJe54Sbgtb053GJ21DUk84IBzaeQvjn+Gb10fA==",
        {
            "dist/layout-bin-packer.js": "js/layout_bin_packer.js",
            "dist/layout-bin-packer.js.map": "js/layout-bin-packer.js.map",
        },
    ),
    Package(
        "d3", "3.5.17",
        "yFk/2idb8OHPKkbAL8QaOaqENNoMhIaSHZerk3oQsECwkObkCpJyjYwCe+OHiq6UEdhe1m8ZGARRRO3ljFjlKg==",
        {"d3.min.js": "js/d3.v3.min.js"},
    ),
    Package(
        "d3-selection-multi", "1.0.1",
        "mEnRkJ6A+Otd1LuRPV3az+s/RLDmIEhuz/MnT21O2nPcWNH7wZotdIlRjMA4Wpr+n7AESQ5fD8v1J3nL2Mnw9g==",
        {"build/d3-selection-multi.js": "js/d3-selection-multi.v1.js"},
    ),
    Package(
        "save-svg-as-png", "1.4.17",
        "7QDaqJsVhdFPwviCxkgHiGm9omeaMBe1VKbHySWU6oFB2LtnGCcYS13eVoslUgq6VZC6Tjq/HddBd1K6p2PGpA==",
        {"lib/saveSvgAsPng.js": "js/saveSvgAsPng.js"},
    ),
    Package(
        "mathjax", "2.7.5",
        "OzsJNitEHAJB3y4IIlPCAvS0yoXwYjlo2Y4kmm9KQzyIBZt2d8yKRalby3uTRNN4fZQiGL2iMXjpdP1u2Rq2DQ==",
        {name: f"js/mathjax/2.7.5/{name}" for name in _MATHJAX},
    ),
    Package(
        "react-resizable", "1.4.6",
        "4zLORO51u0/mlDsrVCAA4p266d+3mb2ZMNdiWOotAh/PdnfrRzZhgePmKE08PSQatXVIfMjmyD+Sapay8tmxdQ==",
        {"css/styles.css": "css/react-resizable-styles.css"},
    ),
    Package(
        "react-grid-layout", "0.16.3",
        "ytP92EqUjqcFhGzvdeKrK610dQ04GdFwRCWtD6PoeL5wR3liETcFISO7k8RBqnosV86JtXf/DwIfrL0COLs0gg==",
        {"css/styles.css": "css/react-grid-layout-styles.css"},
    ),
    Package(
        "classnames", "2.2.5",
        "DTt3GhOUDKhh4ONwIJW4lmhyotQmV2LjNlGK/J2hkwUcqcbKkCLAdJPtxQnxnlc7SR3f1CEXCyMmc7WLUsWbNA==",
        {"index.js": "fonts/classnames"},
    ),
)  # fmt: skip


def static_folder() -> Path:
    """The folder that visdom's server serves as /static.

    Raises:
        UserError: visdom is not installed.
    """
    found = importlib.util.find_spec("visdom")
    if found is None or found.origin is None:
        raise UserError(not_installed(ModuleNotFoundError(name="visdom")))
    return Path(found.origin).parent / "static"


def missing_assets(folder: Path) -> list[str]:
    """Names of the files that the page needs and `folder` has not, or not as it should.

    An HTML page in the place of a script is what a failed download leaves.
    """
    names = [name for package in PACKAGES for name in package.files.values()]
    return [name for name in names if not _is_good(folder / name)]


def ensure_assets(folder: Path, ways: str = "auto", say: Callable[[str], None] = print) -> None:
    """Get what the page needs if it is not there; nothing is downloaded when it is.

    Args:
        folder: visdom's static folder.
        ways: "npm": only from npm packages, checked against the hashes above. "auto": from these
            where there is npm, else, or when that fails, by visdom's own download.
        say: gets a line before anything is downloaded.

    Raises:
        UserError: it cannot be written, or no way worked.
    """
    missing = missing_assets(folder)
    if not missing:
        return
    if not os.access(folder, os.W_OK):
        raise UserError(
            f"visdom's page lacks {len(missing)} files, and {folder} is not writable: run "
            f"'{NPM_COMMAND} --setup_only' as its owner, or use an environment of your own"
        )
    say(f"visdom's page lacks {len(missing)} files, such as {missing[0]}: getting them")
    problems = []
    for name, get in (("npm", get_with_npm), ("visdom's own download", get_with_visdom)):
        if ways == "npm" and name != "npm":
            continue
        try:
            get(folder)
            return
        except UserError as error:
            problems.append(f"{name}: {error}")
    raise UserError(
        f"no page without {len(missing)} files in {folder}. {'. '.join(problems)}. With npm and a "
        f"package registry in reach, '{NPM_COMMAND}' gets them; by hand: docs/dashboard.md"
    )


def get_with_npm(folder: Path) -> None:
    """Take the files from npm packages, from the registry that this machine's npm is set to.

    Raises:
        UserError: no npm, it fails or takes too long, a package is not the one expected, or a
            file cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError("no npm on PATH (Debian, Ubuntu: apt install npm)")
    with tempfile.TemporaryDirectory() as temporary:
        _run(
            [
                npm, "pack", "--loglevel=error", "--fetch-timeout=60000", "--fetch-retries=1",
                *(f"{package.name}@{package.version}" for package in PACKAGES),
            ],
            Path(temporary),
            NPM_SECONDS,
        )  # fmt: skip
        contents = {}
        for package in PACKAGES:
            archive = Path(temporary) / f"{package.name}-{package.version}.tgz"
            contents.update(_unpack(package, archive))
    contents[MARKER] = (folder.parent / "VERSION").read_bytes().strip()
    try:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".partial")
            partial.write_bytes(content)
            partial.replace(path)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from error


def get_with_visdom(folder: Path) -> None:
    """Have visdom download the files from content networks, for two minutes at most.

    Raises:
        UserError: it fails, takes too long, or leaves files out.
    """
    for name in [MARKER, *missing_assets(folder)]:  # else it keeps what a failed download left
        (folder / name).unlink(missing_ok=True)
    code = "from visdom.server.build import download_scripts; download_scripts()"
    _run([sys.executable, "-c", code], None, VISDOM_SECONDS)
    missing = missing_assets(folder)
    if missing:
        (folder / MARKER).unlink(missing_ok=True)  # visdom says "built" even so
        raise UserError(f"{len(missing)} files did not arrive, such as {missing[0]}")


def _is_good(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip()
    except OSError:
        return False
    return bool(start) and (".svg" in path.name or not start.startswith(b"<"))


def _unpack(package: Package, archive: Path) -> dict[str, bytes]:
    """Contents by path in the static folder."""
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise UserError(f"npm did not give {archive.name} ({error.strerror})") from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != package.sha512:
        raise UserError(f"{archive.name} is not the package expected: its SHA-512 differs")
    with tarfile.open(archive) as files:
        # Only named members are read, into memory: no path of the archive is written to.
        return {
            target: files.extractfile(f"package/{name}").read()
            for name, target in package.files.items()
        }


def _run(command: list[str], folder: Path | None, seconds: float) -> None:
    try:
        run = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"not finished after {seconds:g} s") from None
    except OSError as error:
        raise UserError(f"{command[0]} does not start ({error.strerror})") from error
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        # npm says the reason first, Python last.
        said = " ".join(lines[:2]) if "npm" in Path(command[0]).name else " ".join(lines[-1:])
        raise UserError(f"exit code {run.returncode}: {said[:300]}")
