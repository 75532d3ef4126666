"""Does tfprune do what it says? Commands that try it again: on published models, and against other packages' metrics."""
