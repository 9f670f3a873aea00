"""Every relative link of the documentation leads to a file and a heading."""

import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]

FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1`*\s*$", re.MULTILINE | re.DOTALL)
IMAGE = re.compile(r"^`{3,}\{(?:image|figure)\}\s+(\S+)", re.MULTILINE)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
# [text](target "title"), ![image](target), [text]: target, href="target", :link: target
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\s*\[[^\]\n]+\]:\s*(\S+)"
    r"|(?:href|src)=\"([^\"]+)\"|^:link:\s*(\S+)",
    re.MULTILINE,
)
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:", re.IGNORECASE)
HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$", re.MULTILINE)
TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)


def links(text):
    """List the targets of a page's links, those in code left out."""
    targets = IMAGE.findall(text)
    prose = CODE.sub("`code`", FENCE.sub("", text))
    targets += [next(filter(None, groups)) for groups in LINK.findall(prose)]
    return [target for target in targets if not ELSEWHERE.match(target)]


@functools.cache
def anchors(page):
    """Return the anchors of a page: its labels, and the slugs of its headings."""
    prose = FENCE.sub("", page.read_text("utf-8"))
    deepest = 3 if (ROOT / "docs") in page.parents else 6  # as in docs/conf.py
    found = set(TARGET.findall(prose))
    for level, heading in HEADING.findall(prose):
        slug = name = slug_of(heading)
        count = 0
        while slug in found:
            count += 1
            slug = f"{name}-{count}"
        if len(level) <= deepest:
            found.add(slug)
    return found


def slug_of(heading):
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def fault(page, target):
    """Return what is wrong with a link of a page, or None."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        # Cards name a page as Sphinx does, without the ending.
        file = file.with_name(f"{file.name}.md")
    if not file.exists():
        return f"{target}: no such file"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return f"{target}: no such heading; there are {sorted(anchors(file))}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda x: str(x.relative_to(ROOT)))
def test_every_link_resolves(page):
    text = page.read_text("utf-8")
    assert [x for target in links(text) if (x := fault(page, target))] == []


def test_links_and_anchors_are_found():
    text = """
# A `title`, of (some) length

[one](a.md) ![two](b.svg "title") `[three](c.md)` <a href="d.md#e">four</a>
[five]: f.md

```{image} g.svg
```

```python
x = [six](h.md)
```

:::{grid-item-card} Seven
:link: i
:::

[eight](https://example.com) [nine](#here)
"""
    found = ["g.svg", "a.md", "b.svg", "d.md#e", "f.md", "i", "#here"]
    assert links(text) == found
    assert slug_of("A `title`, of (some) length") == "a-title-of-some-length"


def test_faults_are_reported(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Twice\n\n## Twice\n\n```text\n# Not a heading\n```\n", "utf-8")
    for target in ("page.md", "#twice", "page.md#twice-1", "page"):
        assert fault(page, target) is None
    assert "no such file" in fault(page, "other.md")
    for anchor in ("#not-a-heading", "page.md#twice-2"):
        assert "no such heading" in fault(page, anchor)
