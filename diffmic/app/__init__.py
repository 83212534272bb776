"""The page: predictions in a browser, with doubt, regions and the diffusion; needs gradio."""

from .page import launch, make_page
from .space import write_space

__all__ = ["launch", "make_page", "write_space"]
