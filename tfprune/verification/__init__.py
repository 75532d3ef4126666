"""Does tfprune do what it says? Commands that try again: on published models, and against other packages."""
