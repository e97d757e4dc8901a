"""What the README tells a reader to type works."""

import re
import warnings
from pathlib import Path

import pytest
import yaml

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_python_examples_run():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EKD names the levels that 128 images cannot show
            exec(compile(block, "README.md", "exec"), {})  # noqa: S102


def test_make_targets_exist():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_work_outside_the_repository():
    """On a package index relative links lead nowhere; those into the repository name files."""
    root = Path(__file__).parent.parent
    given = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    url, branch = given["url"], given["branch"]
    raw = url.replace("github.com", "raw.githubusercontent.com")
    ours = re.compile(rf"({re.escape(url)}/(?:blob|tree)/|{re.escape(raw)}/){branch}/([^#\s]+)")
    links = re.findall(r"\]\(([^)]+)\)|<(?:img|a)[^>]*(?:src|href)=\"([^\"]+)", README)
    assert links
    for link in map("".join, links):
        assert link.startswith(("https://", "#")), f"{link} is relative"
        inside = ours.match(link)
        if inside:
            assert (root / inside[2]).exists(), link
            is_folder = (root / inside[2]).is_dir()
            assert is_folder == ("/tree/" in inside[1]), link
        else:
            assert not link.startswith((url + "/blob", url + "/tree", url + "/raw", raw)), link
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert not picture.startswith(url), f"{picture} is the page about a picture"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_named_files_and_targets_exist(name):
    root = Path(__file__).parent.parent
    text = (root / name).read_text(encoding="utf-8")
    folders = "ekd_lite|tests|book|scripts|data|studies|benchmarks"
    for path in re.findall(rf"`((?:{folders})/[\w./]+)", text):
        if not re.search(r"\b(NAME|NN_name)\b|book\.pdf", path):
            assert (root / path).exists(), path
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
