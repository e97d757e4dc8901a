"""From MyST to the Markdown and LaTeX that every notebook shows: Colab, VS Code, GitHub.

Labels become numbers, boxes become quotations, solutions fold. What is not known here stops the
build: half-translated markup would be noticed by a reader first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from labels import Target, Work

BOXES = {
    *("admonition", "note", "tip", "hint", "important", "warning", "caution", "attention"),
    *("danger", "seealso", "margin", "sidebar"),
}
UNTITLED = {"admonition", "margin", "sidebar"}  # boxes whose kind says nothing to a reader
FOLDED = {"dropdown", "toggle"}
PROOFS = re.compile(r"prf:(\w+)$")
CODE_ROLES = {"func", "class", "meth", "mod", "attr", "data", "exc", "obj"}
FENCE = re.compile(r"^(?P<marks>:{3,}|`{3,})\s*(?P<rest>.*)$")
DIRECTIVE = re.compile(r"^\{(?P<name>[\w:-]+)\}\s*(?P<argument>.*)$")
LABEL = re.compile(r"^\([\w:.-]+\)=\s*$")
INLINE = re.compile(
    r"(?P<code>(?P<ticks>``+)(?!`).*?(?<!`)(?P=ticks)(?!`))"
    r"|\{(?P<role>[\w:]+)\}`(?P<body>[^`]+)`"
    r"|(?P<span>`[^`\n]+`)"
    r"|(?P<image>!)?\[(?P<text>[^\]\n]*)\]\((?P<path>[^)\s]+)\)",
    re.DOTALL,
)
LEFT_OVER = re.compile(r"\{[\w:-]+\}`|^:{3,}|^\([\w:.-]+\)=\s*$", re.MULTILINE)


class UnknownMarkupError(ValueError):
    """A role, directive, label or work that the plain form has no words for."""


@dataclass
class Plain:
    """Rewrites the Markdown of one chapter.

    Attributes:
        page: the chapter's page, such as "chapters/02_measuring".
        labels: what each label stands for.
        works: what each citation stands for.
        address: from (page or path of a file, whether it is a picture) to its address.
        cited: keys of the works cited so far, in order.
    """

    page: str
    labels: dict[str, Target]
    works: dict[str, Work]
    address: Callable[[str, bool], str]
    cited: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> str:
        """The plain form of a whole cell."""
        done = "\n".join(self.blocks(text.split("\n"))).strip("\n")
        left = LEFT_OVER.search(re.sub(r"^```.*?^```$|`[^`\n]+`", "", done, flags=re.M | re.S))
        if left:
            raise UnknownMarkupError(f"left as it was: {left.group()!r}")
        return re.sub(r"\n{3,}", "\n\n", done)

    # -- blocks -------------------------------------------------------------------------------

    def blocks(self, lines: list[str]) -> list[str]:
        """Fences and labels by line; everything between them by paragraph."""
        out: list[str] = []
        prose: list[str] = []

        def flush() -> None:
            out.extend(self.prose("\n".join(prose)).split("\n") if prose else [])
            prose.clear()

        at = 0
        while at < len(lines):
            fence = FENCE.match(lines[at])
            if fence:
                flush()
                end = closing(lines, at, fence["marks"])
                out += self.fence(fence["rest"], lines[at : end + 1])
                at = end
            elif lines[at].startswith("$$"):
                flush()
                end = at
                while not re.search(r"\$\$\s*(\([\w:.-]+\))?\s*$", lines[end][2 * (end == at) :]):
                    end += 1
                    if end == len(lines):
                        raise UnknownMarkupError(f"formula without an end: {lines[at]!r}")
                out += self.formula("\n".join(lines[at : end + 1]))
                at = end
            elif not LABEL.match(lines[at]) and not lines[at].startswith(("% ", "+++")):
                prose.append(lines[at])
            at += 1
        flush()
        return out

    def fence(self, rest: str, lines: list[str]) -> list[str]:
        """A directive, or code, which stays as it is."""
        directive = DIRECTIVE.match(rest)
        if directive is None:
            if lines[0].startswith(":"):
                raise UnknownMarkupError(f"a fence without a directive: {lines[0]!r}")
            return lines
        options, body = options_of(lines[1:-1])
        return ["", *self.directive(directive["name"], directive["argument"], options, body), ""]

    def directive(
        self, name: str, argument: str, options: dict[str, str], body: list[str]
    ) -> list[str]:
        """The plain form of one directive."""
        proof = PROOFS.match(name)
        if name in BOXES:
            title = argument if name in UNTITLED else (argument or name.capitalize())
            folds = "dropdown" in options.get("class", "")
            return self.folded(title, body) if folds else self.quoted(title, body)
        if name in FOLDED:
            return self.folded(argument, body)
        if name == "exercise":
            return [f"#### {self.named(options['label'], argument)}", "", *self.blocks(body)]
        if name == "exercise-start":
            return [f"#### {self.named(options['label'], argument)}"]
        if name == "solution":
            return self.folded(f"Solution to {self.named(argument)}", body)
        if name == "solution-start":
            return [f"##### Solution to {self.named(argument)}"]
        if name in {"solution-end", "exercise-end"}:
            return []
        if proof and "label" in options:
            return self.quoted(self.named(options["label"], argument), body)
        if proof:
            return self.quoted(f"{proof[1].capitalize()} {argument}".strip(), body)
        if name in {"figure", "image"}:
            return self.picture(argument, options, body)
        if name == "table":
            head = self.captioned(options["name"], argument) if "name" in options else argument
            return [*self.blocks(body), "", head]
        if name == "math":
            label = f" ({options['label']})" if "label" in options else ""
            return self.formula("\n".join(["$$", *body, "$$" + label]))
        if name == "code-block":
            return [f"```{argument}", *body, "```"]
        raise UnknownMarkupError(f"directive {{{name}}}")

    def quoted(self, title: str, body: list[str]) -> list[str]:
        """A box as a quotation with its title in bold."""
        head = [f"**{self.inline(title)}**", ""] if title else []
        text = "\n".join(self.blocks(body)).strip("\n").split("\n")
        return [f"> {line}".rstrip() for line in [*head, *text]]

    def folded(self, title: str, body: list[str]) -> list[str]:
        """A box that opens on a click; the empty lines make its inside Markdown again."""
        head = f"<details><summary><b>{self.inline(title)}</b></summary>"
        return [head, "", *self.blocks(body), "", "</details>"]

    def picture(self, path: str, options: dict[str, str], body: list[str]) -> list[str]:
        """A picture from the repository, with its caption below."""
        caption = " ".join(self.blocks(body)).strip()
        if "name" in options:
            caption = self.captioned(options["name"], caption)
        return [f"![{options.get('alt', '')}]({self.address(path, True)})", "", caption]

    def captioned(self, label: str, caption: str) -> str:
        """The number in bold and the words: "**Fig. 2.1.** What the figure shows."."""
        return f"**{self.target(label).number}.** {self.inline(caption)}"

    def formula(self, text: str) -> list[str]:
        """A displayed formula; its label becomes the number at its right."""
        found = re.fullmatch(r"\$\$(.*)\$\$\s*(?:\(([\w:.-]+)\))?\s*", text, re.DOTALL)
        if found is None:
            raise UnknownMarkupError(f"formula: {text!r}")
        body, label = found.groups()
        if label:
            body = f"{body.rstrip()}\n\\tag{{{self.target(label).number.strip('()')}}}"
        return f"$$\n{body.strip()}\n$$".split("\n")

    def prose(self, text: str) -> str:
        """Paragraphs; a definition list, which notebooks do not know, becomes bold words."""
        text = re.sub(r"^(\S.*)\n:\s+(?=\S)", r"**\1.** ", text, flags=re.MULTILINE)
        return self.inline(text)

    # -- inside a line ------------------------------------------------------------------------

    def inline(self, text: str) -> str:
        """Roles and links; code stays as it is."""

        def rewrite(found: re.Match[str]) -> str:
            if found["role"]:
                return self.role(found["role"], found["body"])
            if found["path"] is None:
                return found.group()
            path = found["path"]
            if not re.match(r"\w+:", path):
                path = self.address(path.split("#")[0], bool(found["image"]))
            return f"{found['image'] or ''}[{found['text']}]({path})"

        return INLINE.sub(rewrite, text)

    def role(self, name: str, body: str) -> str:
        """The plain form of one role."""
        named = re.fullmatch(r"(.*?)\s*<([^>]+)>", body, re.DOTALL)
        words, label = named.groups() if named else ("", body)
        if name in {"cite", "cite:p", "cite:t"}:
            return self.citation(body, in_brackets=name != "cite:t")
        if name == "term":
            return words or label
        if name == "math":
            return f"${body}$"
        if name in CODE_ROLES or name.startswith("py:"):
            short = label.rsplit(".", 1)[-1] if label.startswith("~") else label
            return words or f"`{short}{'()' if name.endswith(('func', 'meth')) else ''}`"
        if name == "doc":
            page = label if label.startswith("/") else f"/{relative(self.page, label)}"
            return self.linked(words or self.target(page).title, self.target(page))
        if name not in {"eq", "numref", "ref", "prf:ref"}:
            raise UnknownMarkupError(f"role {{{name}}}`{body}`")
        target = self.target(label)
        is_heading = target.number.startswith(("Section", "Chapter")) or not target.number
        shown = target.title if name == "ref" and is_heading else target.number
        words = words.replace("%s", target.number.split()[-1]) if name == "numref" else words
        return self.linked(words or shown, target)

    def citation(self, keys: str, *, in_brackets: bool) -> str:
        """(Huang et al., 2022) or Huang et al. (2022), linked where a link is known."""
        shown = []
        for key in re.split(r"\s*,\s*", keys.strip()):
            if key not in self.works:
                raise UnknownMarkupError(f"work {key!r} is not in references.bib")
            if key not in self.cited:
                self.cited.append(key)
            work = self.works[key]
            text = f"{work.names}, {work.year}" if in_brackets else f"{work.names} ({work.year})"
            shown.append(f"[{text}]({work.link})" if work.link else text)
        return f"({'; '.join(shown)})" if in_brackets else ", ".join(shown)

    def target(self, label: str) -> Target:
        """What a label stands for."""
        found = self.labels.get(label) or self.labels.get(
            re.sub(r"[^a-z0-9/]+", "-", label.lower())
        )
        if found is None:
            raise UnknownMarkupError(f"label {label!r} is on no page")
        return found

    def named(self, label: str, title: str = "") -> str:
        """The number and the title, as in "Exercise 2.1: The equal error rate"."""
        target = self.target(label.strip())
        title = title or target.title
        return f"{target.number}: {self.inline(title)}" if title else target.number

    def linked(self, words: str, target: Target) -> str:
        """Words that lead to another page; within a chapter there is nowhere to lead."""
        if target.page == self.page:
            return words
        return f"[{words}]({self.address('/' + target.page, False)})"


def relative(page: str, label: str) -> str:
    """The page that `label` names when it stands on `page`."""
    parts = page.split("/")[:-1]
    for step in label.split("/"):
        parts = parts[:-1] if step == ".." else [*parts, step]
    return "/".join(parts)


def closing(lines: list[str], start: int, marks: str) -> int:
    """The line that closes the fence opened at `start`."""
    for at in range(start + 1, len(lines)):
        line = lines[at].rstrip()
        if line and set(line) == {marks[0]} and len(line) >= len(marks):
            return at
    raise UnknownMarkupError(f"a fence without an end: {lines[start]!r}")


def options_of(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """The `:name: value` lines at the top of a directive, and the rest."""
    options: dict[str, str] = {}
    at = 0
    while at < len(lines) and (option := re.match(r":([\w-]+):\s*(.*)$", lines[at])):
        options[option[1]] = option[2].strip()
        at += 1
    return options, lines[at:]
