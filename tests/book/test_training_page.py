"""The loop around torchrun on the page of training runs: what ends it, and what does not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "book" / "training.md"
# Takes the next line of a file: a code as torchrun reports it, a signal, or "plain" and a code.
STAND_IN = r"""#!/bin/sh
echo "$@" >> calls
set -- $(sed -n "$(wc -l < calls)p" plan)
case $1 in
    0) exit 0 ;;
    plain) exit $2 ;;
    signal) echo "torch...SignalException: Process 7 got signal: $2" >&2 ;;
    *) printf '[1]:\n  exitcode  : 1 (pid: 6)\nRoot Cause:\n[0]:\n' >&2
       printf '  exitcode  : %s (pid: 5) \n  error_file: <N/A>\n' "$1" >&2 ;;
esac
exit 1
"""


def loop(folder, stand_in):
    """The exit code of the page's loop with another torchrun, and how often it was called."""
    (script,) = re.findall(r"```bash\n(while .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("torchrun", stand_in), ("sleep", "#!/bin/sh\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f'PATH="{tools}:$PATH"\n{script}'],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, len((folder / "calls").read_text().splitlines())


@pytest.mark.starts_process
@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (["0"], 0),
        (["1", "-9", "-6", "0"], 0),
        (["1", "2"], 2),
        (["130"], 130),
        (["-9", "143"], 143),
        (["signal 2"], 130),
        (["1", "signal 15"], 143),
        (["plain 1", "plain 2"], 2),
    ],
)
def test_the_loop_ends_with_what_needs_no_other_start(tmp_path, plan, code):
    (tmp_path / "plan").write_text("\n".join([*plan, "0\n"]))
    done, calls = loop(tmp_path, STAND_IN)
    assert (done.returncode, calls) == (code, len(plan)), done.stdout + done.stderr
    called = (tmp_path / "calls").read_text()
    assert called.startswith("--standalone --nproc-per-node 2 -m ekd_lite train --out runs/student")


@pytest.mark.starts_process
def test_torchrun_reports_codes_as_the_loop_reads_them(tmp_path):
    """The real one, around a program that ends as the command does over a wrong option."""
    (tmp_path / "wrong.py").write_text("raise SystemExit(2)\n")
    run = f'"{sys.executable}" -m torch.distributed.run --standalone --nproc-per-node 2 wrong.py'
    done, calls = loop(tmp_path, f"#!/bin/sh\necho one >> calls\n{run}\n")
    assert (done.returncode, calls) == (2, 1), done.stdout + done.stderr
