"""The copies for Colab: plain Markdown, the chapters' own code and outputs, never out of date."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import labels  # noqa: E402
import portable  # noqa: E402
import printing  # noqa: E402
from labels import Target, Work  # noqa: E402
from plain_markdown import Plain, UnknownMarkupError  # noqa: E402

HERE = "chapters/02_here"
LABELS = {
    "/" + HERE: Target(HERE, "Chapter 2", "Here"),
    "/chapters/04_there": Target("chapters/04_there", "Chapter 4", "There"),
    "ch-there": Target("chapters/04_there", "Chapter 4", "There"),
    "sec-a": Target(HERE, "Section 2.1", "A pair"),
    "eq-a": Target(HERE, "(2.3)", ""),
    "eq-there": Target("chapters/04_there", "(4.1)", ""),
    "fig-a": Target(HERE, "Fig. 2.1", "Two curves."),
    "ex-a": Target(HERE, "Exercise 2.1", "Silence"),
    "thm-a": Target(HERE, "Theorem 2.1", "Rays"),
    "tab-a": Target(HERE, "Table 2.1", "Costs"),
}
WORKS = {
    "huang2022": Work("Huang et al.", "2022", "https://arxiv.org/abs/2206.02325", "Huang, 2022."),
    "owen2007": Work("Owen", "2007", None, "Owen, 2007."),
}


def plain(text):
    return Plain(HERE, LABELS, WORKS, lambda path, picture: f"at:{path}:{picture}")(text)


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("(sec-a)=\n## A pair", "## A pair"),
        ("% a remark\ntext", "text"),
        ("by {eq}`eq-a`, {numref}`fig-a`", "by (2.3), Fig. 2.1"),
        ("{eq}`eq-there`", "[(4.1)](at:/chapters/04_there:False)"),
        ("{ref}`sec-a` and {ref}`ch-there`", "A pair and [There](at:/chapters/04_there:False)"),
        ("{ref}`above <sec-a>`, {ref}`fig-a`", "above, Fig. 2.1"),
        ("{numref}`sec-a`, {numref}`figure %s <fig-a>`", "Section 2.1, figure 2.1"),
        ("{ref}`ex-a`, {prf:ref}`thm-a`", "Exercise 2.1, Theorem 2.1"),
        ("{doc}`04_there`", "[There](at:/chapters/04_there:False)"),
        ("{doc}`/chapters/04_there`", "[There](at:/chapters/04_there:False)"),
        ("{term}`FPR` {term}`rates <FPR>` {math}`D`", "FPR rates $D$"),
        ("{func}`ekd_lite.ops.f` {class}`~a.B`", "`ekd_lite.ops.f()` `B`"),
        (
            "{cite:p}`huang2022,owen2007`",
            "([Huang et al., 2022](https://arxiv.org/abs/2206.02325); Owen, 2007)",
        ),
        ("{cite:t}`owen2007` says", "Owen (2007) says"),
        ("[text](../glossary.md#x) [out](https://a.b)", "[text](at:../glossary.md:False) "
         "[out](https://a.b)"),
        ("![words](../figures/a.jpg)", "![words](at:../figures/a.jpg:True)"),
        ("`{eq}` stays, ``{eq}`eq-a` `` too", "`{eq}` stays, ``{eq}`eq-a` `` too"),
        ("```python\nx = '{eq}`eq-a`'\n(a)=\n```", "```python\nx = '{eq}`eq-a`'\n(a)=\n```"),
        ("$$\nx = y\n$$ (eq-a)", "$$\nx = y\n\\tag{2.3}\n$$"),
        ("$$ x $$ (eq-a)", "$$\nx\n\\tag{2.3}\n$$"),
        ("$$\nx\n$$", "$$\nx\n$$"),
        ("Term\n: What it is", "**Term.** What it is"),
        (":::{note}\nCare.\n:::", "> **Note**\n>\n> Care."),
        (":::{admonition} Read {eq}`eq-a`\n:class: tip\n\n- a\n- b\n:::",
         "> **Read (2.3)**\n>\n> - a\n> - b"),
        (":::{margin}\nAside.\n:::", "> Aside."),
        ("::::{note}\n:::{margin}\nIn.\n:::\nOut.\n::::", "> **Note**\n>\n> > In.\n>\n> Out."),
        (":::{dropdown} More\ntext\n:::",
         "<details><summary><b>More</b></summary>\n\ntext\n\n</details>"),
        (":::{exercise} Silence\n:label: ex-a\n\nAsk.\n:::",
         "#### Exercise 2.1: Silence\n\nAsk."),
        (":::{solution} ex-a\n:class: dropdown\n\n$$ x $$\n:::",
         "<details><summary><b>Solution to Exercise 2.1: Silence</b></summary>\n\n"
         "$$\nx\n$$\n\n</details>"),
        (":::{solution-start} ex-a\n:class: dropdown\n:::", "##### Solution to Exercise 2.1: "
         "Silence"),
        (":::{solution-end}\n:::", ""),
        (":::{prf:theorem} Rays\n:label: thm-a\n\nAll.\n:::", "> **Theorem 2.1: Rays**\n>\n> All."),
        (":::{prf:proof}\nTrivial.\n:::", "> **Proof**\n>\n> Trivial."),
        (":::{figure} ../a.jpg\n:alt: words\n:name: fig-a\n\nTwo.\n:::",
         "![words](at:../a.jpg:True)\n\n**Fig. 2.1.** Two."),
        (":::{table} Costs\n:name: tab-a\n\n| a |\n|---|\n| 1 |\n:::",
         "| a |\n|---|\n| 1 |\n\n**Table 2.1.** Costs"),
        (":::{math}\n:label: eq-a\nx\n:::", "$$\nx\n\\tag{2.3}\n$$"),
        (":::{code-block} bash\nls\n:::", "```bash\nls\n```"),
    ],
)  # fmt: skip
def test_markup_becomes_plain(myst, markdown):
    assert plain(myst) == markdown


@pytest.mark.parametrize(
    ("myst", "why"),
    [
        ("{kbd}`Ctrl`", "role {kbd}"),
        (":::{tab-set}\n:::", "directive {tab-set}"),
        ("{eq}`eq-none`", "label 'eq-none'"),
        ("{cite:p}`nobody1900`", "nobody1900"),
        (":::{note}\nno end", "without an end"),
        ("$$\nx", "without an end"),
        ("text {ref}`\nsec-a", "left as it was"),
    ],
)
def test_what_has_no_plain_form_stops(myst, why):
    with pytest.raises(UnknownMarkupError, match=why):
        plain(myst)


PAGE = """
<div class="onlyprint"><h1>Measuring</h1></div>
<section id="measuring"><span id="ch-m"></span><h1><span class="section-number">2. </span>Measuring
<a class="headerlink" href="#measuring">#</a></h1>
<h2><span class="section-number">2.1. </span>Of \\(x\\) &amp; y<a
 class="headerlink" href="#of">#</a>
<span class="eqno">(2.4)<a class="headerlink" href="#equation-eq-a">#</a></span>
<figure class="align-default" id="fig-a"><img src="x"/><figcaption><p><span class="caption-number"
>Fig. 2.1 </span><span class="caption-text">Two <code><span>a</span></code> curves.</span><a
 class="headerlink" href="#fig-a">#</a></p></figcaption></figure>
<div class="exercise admonition" id="ex-a">
<p class="admonition-title"><span class="caption-number">Exercise 2.1 </span> (Silence)</p></div>
""".replace('"\n>', '">').replace("<a\n ", "<a ")


def test_numbers_and_titles_are_read_from_the_pages(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "02_here.html").write_text(PAGE)
    found = labels.labels_of(tmp_path)
    assert found["ch-m"] == found["/" + HERE] == Target(HERE, "Chapter 2", "Measuring")
    assert found["of"] == Target(HERE, "Section 2.1", "Of $x$ & y")
    assert found["eq-a"] == Target(HERE, "(2.4)", "")
    assert found["fig-a"] == Target(HERE, "Fig. 2.1", "Two a curves.")
    assert found["ex-a"] == Target(HERE, "Exercise 2.1", "Silence")


def test_works_are_read_from_the_bibliography():
    works = labels.works_of(ROOT / "book" / "references.bib")
    ekd = works["huang2022ekd"]
    assert (ekd.names, ekd.year, ekd.link) == (
        "Huang et al.",
        "2022",
        "https://arxiv.org/abs/2206.02325",
    )
    assert "Evaluation-oriented knowledge distillation" in ekd.entry
    assert works["hanley1983"].names == "Hanley and Lippman-Hand"


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """Two solutions: the first ends before a heading, the second before a sentence."""
    monkeypatch.setattr(portable, "BOOK", tmp_path)
    monkeypatch.setattr(portable, "COPIES", tmp_path / "colab")
    monkeypatch.setattr(portable, "labels_of", lambda site: LABELS)
    monkeypatch.setattr(portable, "works_of", lambda path: WORKS)
    printed = [new_output("stream", name="stdout", text="0.123\n")]
    figure = {"figure": {"name": "fig-a", "caption": "Two, see {eq}`eq-a`."}, "image": {"alt": "a"}}
    start, end = ":::{solution-start} ex-a\n:::", ":::{solution-end}\n:::"
    cells = [
        new_markdown_cell("# Here\n\n{cite:t}`owen2007`", id="a"),
        new_code_cell("plt.show()", id="b", outputs=printed, metadata={"mystnb": figure}),
        new_code_cell("%pip install x", id="c", metadata={"tags": ["hide-input"]}),
        new_markdown_cell(start, id="d"),
        new_code_cell("x = 1", id="e"),
        new_markdown_cell(f"So.\n\n{end}\n\n## Next\n\n{start}\n\nBecause.", id="f"),
        new_code_cell("x = 2", id="g"),
        new_markdown_cell(f"{end}\n\nOn we go.", id="h"),
        new_code_cell("assert x == 2", id="i", metadata={"tags": ["remove-cell"]}),
    ]
    path = tmp_path / "chapters" / "02_here.ipynb"
    path.parent.mkdir()
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def test_code_and_outputs_are_untouched_and_captions_follow_figures(chapter):
    book = portable.portable(chapter, LABELS, WORKS)
    nbformat.validate(book)
    ours = [(c.source, c.outputs) for c in book.cells if c.cell_type == "code"]
    theirs = nbformat.read(chapter, as_version=4).cells
    *rest, checks = [(c.source, c.outputs) for c in theirs if c.cell_type == "code"]
    assert (ours, checks) == (rest, ("assert x == 2", []))
    by_id = {cell.id: cell for cell in book.cells}
    assert by_id["b-caption"].source == "**Fig. 2.1.** Two, see (2.3)."
    assert by_id["c"].metadata["cellView"] == "form"
    assert "cellView" not in by_id["b"].metadata
    assert book.cells[-1].source == "## Works cited\n\n- Owen, 2007."


def test_a_solution_folds_only_if_nothing_else_would_be_hidden(chapter):
    book = portable.portable(chapter, LABELS, WORKS)
    sources = {cell.id: cell.source for cell in book.cells}
    folded = book.metadata["colab"]["collapsed_sections"]
    assert [sources[one] for one in folded] == ["##### Solution to Exercise 2.1: Silence"]
    second = [c for c in book.cells if c.cell_type == "code"][-1]
    assert second.source == "x = 2"
    assert second.metadata["cellView"] == "form"  # not folded, so its code is


def test_old_missing_and_left_over_copies_are_found(chapter, tmp_path):
    (copy,) = portable.write(tmp_path)
    assert portable.check(tmp_path) == []
    copy.write_text(copy.read_text(encoding="utf-8").replace("x = 1", "x = 3"))
    assert "02_here.ipynb is not up to date" in portable.check(tmp_path)[0]
    copy.rename(copy.with_name("03_gone.ipynb"))
    missing, left = portable.check(tmp_path)
    assert "02_here.ipynb is missing" in missing
    assert "03_gone.ipynb has no chapter" in left
    portable.write(tmp_path)
    assert portable.check(tmp_path) == []


def test_addresses_come_from_the_configuration():
    repository = portable.Repository()
    chapter = ROOT / "book" / "chapters" / "02_measuring.ipynb"
    assert repository.address(chapter, "/chapters/02_measuring", False) == (
        "https://colab.research.google.com/github/ekd-lite/ekd-lite/blob/main/book/colab/"
        "02_measuring.ipynb"
    )
    page = repository.address(chapter, "../glossary.md", False)
    assert page == "https://ekd-lite.github.io/ekd-lite/glossary.html"
    page = repository.address(chapter, "/api/methods", False)
    assert page == "https://ekd-lite.github.io/ekd-lite/api/methods.html"
    assert repository.page(chapter).endswith("github.io/ekd-lite/chapters/02_measuring.html")
    data = repository.address(chapter, "../../data/README.md", False)
    assert data == "https://github.com/ekd-lite/ekd-lite/blob/main/data/README.md"
    picture = repository.address(chapter, "../figures/faces.jpg", True)
    assert picture == "https://github.com/ekd-lite/ekd-lite/raw/main/book/figures/faces.jpg"
    with pytest.raises(UnknownMarkupError, match="no such file"):
        repository.address(chapter, "../nothing.md", False)


def test_one_page_for_print_keeps_links_and_takes_no_ids_twice(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: index\nparts:\n- chapters:\n  - file: c/a\n")
    head = '<html><head><title>T</title><script src="../_static/mathjax/m.js"></script></head>'
    body = '<article class="bd-article">{}</article></html>'
    (tmp_path / "c").mkdir()
    (tmp_path / "index.html").write_text(head + body.format('<p id="x"/><a href="c/a.html#x">'))
    text = '<p id="x"/><a href="#x"><a href="../index.html"><img src="../i.png"><a href="http://b">'
    (tmp_path / "c" / "a.html").write_text(head + body.format(text))
    page = printing.one_page(tmp_path, tmp_path / "_toc.yml").read_text(encoding="utf-8")
    assert '<p id="index--x"/><a href="#c-a--x">' in page
    assert '<p id="c-a--x"/><a href="#c-a--x"><a href="#index"><img src="i.png">' in page
    assert '<a href="http://b">' in page
    assert 'src="_static/mathjax/m.js"' in page


def test_on_paper_solutions_stand_last_and_folded_code_is_gone(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: index\nparts:\n- chapters:\n  - file: c/a\n")
    page = '<html><head></head><article class="bd-article"><h1>T</h1>{}</article></html>'
    (tmp_path / "c").mkdir()
    (tmp_path / "index.html").write_text(page.format("<p>first</p>"))
    cell = '<details class="hide"><summary>Show</summary>{}</details>'
    texts = [
        '<div class="cell">'
        + cell.format("import this")
        + '<div class="cell_output">7</div></div>',
        cell.format('<div class="cell_output">kept</div>'),
        '<div class="solution dropdown" id="s"><div><div>deep</div></div>answer</div>',
        "<p>after</p>",
        '<div class="solution dropdown">second</div>',
    ]
    (tmp_path / "c" / "a.html").write_text(page.format("".join(texts)))
    text = printing.one_page(tmp_path, tmp_path / "_toc.yml").read_text(encoding="utf-8")
    assert "import this" not in text
    assert text.count("<h2") == text.count("On paper") == 1
    wanted = [">first<", ">7<", ">kept<", ">after<", "Solutions</h2>", ">deep<", ">second<"]
    assert [text.index(one) for one in wanted] == sorted(text.index(one) for one in wanted)
    assert (
        '<div class="solution dropdown" id="c-a--s"><div><div>deep</div></div>answer</div>' in text
    )
    with pytest.raises(ValueError, match="does not end"):
        printing.take_solutions('<div class="solution x"><div></div>')
