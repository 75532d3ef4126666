"""What does mkdocs do beside its pages? It takes in the notebooks, and leaves out pages that are not written yet."""

from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]


def on_config(config):
    """Drops entries of the navigation whose file does not exist."""
    config.nav = _existing(config.nav, Path(config.docs_dir))
    return config


@event_priority(100)  # before the plugin that draws them
def on_files(files, config):
    """Adds the notebooks, which live beside the documentation."""
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def _existing(entries, folder):
    kept = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _existing(target, folder)})
        elif (folder / target).is_file() or (ROOT / target).is_file():
            kept.append(entry)
    return kept
