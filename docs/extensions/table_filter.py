"""The table of papers is filtered by a word, and fits a phone."""

PAGES = ("papers",)


def add_files(app, page, template, context, doctree):
    """Add the script and its style to the pages that have such a table."""
    if page in PAGES:
        app.add_js_file("table_filter.js", loading_method="defer")
        app.add_css_file("table_filter.css")


def setup(app):
    """Register the hook that runs as a page is written."""
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
