"""Views of Data Docs whose page templates are compiled once for an installation, and an index that removes no page.

Great Expectations compiles some fifty templates for each of the three pages that a verdict writes, which takes longer than the
judging. Its configuration names these classes (``audit.judge``), so that nothing of this module is imported before it is needed.
"""

from typing import Any

from great_expectations.render.renderer.site_builder import DefaultSiteIndexBuilder
from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import FileSystemBytecodeCache


class IndexBuilder(DefaultSiteIndexBuilder):
    """The index of the stored results. By default the pages of others are removed, which errors and manifests name."""

    def build(self, skip_and_clean_missing: bool = False, build_index: bool = True) -> tuple[Any, Any]:
        """Write the index."""
        return super().build(skip_and_clean_missing=skip_and_clean_missing, build_index=build_index)


class PageView(DefaultJinjaPageView):
    """A page of Data Docs."""

    def __init__(self, compiled: str, **styles: Any) -> None:
        super().__init__(**styles)
        self.env.bytecode_cache = FileSystemBytecodeCache(compiled)


class IndexPageView(DefaultJinjaIndexPageView):
    """The index of Data Docs."""

    def __init__(self, compiled: str, **styles: Any) -> None:
        super().__init__(**styles)
        self.env.bytecode_cache = FileSystemBytecodeCache(compiled)
