"""What does a network look like, and how reliable are its confidences, as a picture?"""

from tfprune.plots.network import draw_network
from tfprune.plots.reliability import draw_reliability
from tfprune.plots.structure import draw_structure

__all__ = ["draw_network", "draw_reliability", "draw_structure"]
