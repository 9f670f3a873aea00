"""A link on each notebook's page that opens it in a browser notebook (Google Colab).

The address of the project's copy is that of the build: `GITHUB_REPOSITORY`, which GitHub
sets, such as `owner/name`. A build elsewhere has no links.
"""

import os

SERVICE = "https://colab.research.google.com/github"
LINK = (
    '<p><a class="browser-notebook" href="{address}">Open in a browser notebook</a></p>'
)


def address_of(page: str, repository: str) -> str | None:
    """Return where a page's notebook opens; None for other pages, and without a project."""
    folder, _, name = page.rpartition("/")
    if folder != "notebooks" or name == "index" or not repository:
        return None
    return f"{SERVICE}/{repository}/blob/main/docs/{page}.ipynb"


def add_link(app, page, template, context, doctree):
    """Put the link in front of a notebook's page."""
    address = address_of(page, os.environ.get("GITHUB_REPOSITORY", ""))
    if address is not None:
        context["body"] = LINK.format(address=address) + context["body"]


def setup(app):
    """Register the hook."""
    app.connect("html-page-context", add_link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
