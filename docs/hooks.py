"""Which pages of the navigation are there? Those that are not written yet are left out of the site."""

from pathlib import Path


def on_config(config):
    """Drops entries of the navigation whose file does not exist."""
    config.nav = _existing(config.nav, Path(config.docs_dir))
    return config


def _existing(entries, folder):
    kept = []
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            kept.append({title: _existing(target, folder)})
        elif (folder / target).is_file():
            kept.append(entry)
    return kept
