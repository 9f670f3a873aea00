"""Inline code that names a public class, function or method links to its page."""

import api_names
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

# Elsewhere `Distiller` may be another library's.
BARE_CLASSES = ("api/", "reference/", "guide/")


class CodeLinks(SphinxTransform):
    """Replace inline code by a reference around it where its name is documented."""

    default_priority = 500

    def apply(self, **kwargs):
        """Link the inline code of a page, except in headings and in links."""
        page = self.env.docname
        for node in list(self.document.findall(nodes.literal)):
            name = api_names.documented_name(
                node.astext(), bare_classes=page.startswith(BARE_CLASSES)
            )
            if name and page != f"api/{name}" and not _is_in(node, nodes.title):
                self._link(node, name)

    def _link(self, node, name):
        if _is_in(node, nodes.reference) or _is_in(node, pending_xref):
            return
        link = pending_xref(
            "",
            refdoc=self.env.docname,
            refdomain="py",
            reftype="obj",
            reftarget=name,
            refexplicit=True,
            refwarn=False,
        )
        node.replace_self(link)
        link += node


def _is_in(node, kind):
    while node is not None and not isinstance(node, kind):
        node = node.parent
    return node is not None


def setup(app):
    """Add the transform, which runs on every page as it is read."""
    app.add_transform(CodeLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
