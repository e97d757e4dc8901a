"""What the README tells a reader to type works."""

import re
import warnings
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EKD names the levels that 128 images cannot show
            exec(compile(block, "README.md", "exec"), {})  # noqa: S102


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_work_outside_the_repository():
    """On a package index relative links lead nowhere; those into the repository name files."""
    given = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    url, branch = given["url"], given["branch"]
    raw = url.replace("github.com", "raw.githubusercontent.com")
    ours = re.compile(rf"({re.escape(url)}/(?:blob|tree)/|{re.escape(raw)}/){branch}/([^#\s]+)")
    links = re.findall(r"\]\(([^)]+)\)|<(?:img|a)[^>]*(?:src|href)=\"([^\"]+)", README)
    assert links
    for link in map("".join, links):
        assert link.startswith(("https://", "#")), f"{link} is relative"
        inside = ours.match(link)
        if inside:
            assert (ROOT / inside[2]).exists(), link
            is_folder = (ROOT / inside[2]).is_dir()
            assert is_folder == ("/tree/" in inside[1]), link
        else:
            assert not link.startswith((url + "/blob", url + "/tree", url + "/raw", raw)), link
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert not picture.startswith(url), f"{picture} is the page about a picture"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_named_files_and_targets_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    folders = "ekd_lite|tests|book|scripts|data|studies|benchmarks"
    for path in re.findall(rf"`((?:{folders})/[\w./]+)", text):
        if not re.search(r"\b(NAME|NN_name)\b|book\.pdf", path):
            assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


HOURS = {"an hour and a half": "1½", "two hours": "2"}
MINUTES = {
    "the cells run in seconds": "½",
    "well under a minute": "½",
    "half a minute": "½",
    "under a minute": "1",
    "about a minute": "1",
    "about a minute and a half": "1½",
}


def test_the_tables_of_chapters_say_what_the_chapters_say():
    book = ROOT / "book"
    index = (book / "index.md").read_text(encoding="utf-8")
    rows = {
        k: row for k, *row in re.findall(r"^\| (\d+) \| .*\| (\S+) h \| (\S+) min \|$", index, re.M)
    }
    told = dict(re.findall(r"^\| (\d+) \[.* \| (\S+) min \|$", README, re.M))
    chapters = sorted((book / "_md").glob("*.md"))
    assert len(chapters) == len(rows) == len(told)
    for path in chapters:
        time = re.search(r"^\*\*Time\*\*: ([^.]+)", path.read_text(encoding="utf-8"), re.M)
        assert time, path
        to_read, to_run = time[1].split(";")
        hours = HOURS[re.split(" to read| with", to_read)[0]]
        minutes = MINUTES[
            re.split(" to run|, on any", to_run)[0].strip().replace("about half", "half")
        ]
        number = str(int(path.name[:2]))
        assert (rows[number], told[number]) == ([hours, minutes], minutes), path
