"""What does mkdocs do beside its pages? It takes in the notebooks."""

from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


@event_priority(100)  # before the plugin that draws them
def on_files(files, config):
    """Adds the notebooks, which live beside the documentation."""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files
