"""What is said where a package is not installed."""

import sys

# Of this project: where one of these is not found, that is a defect, not the environment's.
_OWN = frozenset({"benchmarks", "data", "models", "options", "script", "util"})
_PACKAGES = {  # by module, where pip's name is another
    "PIL": "pillow",
    "skimage": "scikit-image",
    "google": "protobuf",
    "websocket": "websocket-client",
}
# pip alone gets a tornado that visdom cannot serve its page with, and cannot build visdom: see
# requirements.txt.
_SETUP_ONLY = frozenset({"visdom", "tornado"})


def not_installed(error: ModuleNotFoundError) -> str | None:
    """Name the package that an import did not find, and the way out; None for our own modules."""
    module = (error.name or "").partition(".")[0]
    if not module or module in _OWN:
        return None
    package = _PACKAGES.get(module, module.replace("_", "-"))
    alone = "" if package in _SETUP_ONLY else f", or pip install {package}"
    return (
        f"{package} is not installed in this environment ({sys.prefix}): activate the project's, "
        f"or run bash script/setup.sh{alone}"
    )
