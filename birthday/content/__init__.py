"""What is said: a template becomes text. Pure: it reads no file, setting or clock, and waits for nothing."""

from birthday.content.errors import RenderError
from birthday.content.template import Rendered, Template

__all__ = ["RenderError", "Rendered", "Template"]
