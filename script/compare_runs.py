"""For `python script/compare_runs.py`: the program is the folder beside this file."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":  # Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("script.compare_runs", run_name="__main__", alter_sys=True)
