"""Write a comparison as one HTML page that needs nothing but a browser."""

from stnkit.runtime.equivalence.html.page import write_html

__all__ = ["write_html"]
