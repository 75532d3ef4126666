"""How does Keras come to know the classes of tfprune that saved models hold, though tfprune loads them lazily?"""

import importlib
import importlib.machinery
import sys

_SAVED = ("layers", "losses", "metrics", "uncertainty", "pruning.schedules", "study.rates")
_LEAVES = ("layers", "losses")  # these import nothing of tfprune


def register():
    """Has Keras know them: now where it is loaded, as soon as somebody imports it where it is not.

    Example:

    >>> import tfprune                             # calls it
    >>> keras.models.load_model("masked.keras")    # finds `tfprune.layers.ChannelMask`
    """
    if "keras" in sys.modules:
        _load(_SAVED)
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _load(names):
    for name in names:
        importlib.import_module(f"tfprune.{name}")


class _AfterKeras:
    """Looks on while modules are imported, until it is Keras' turn."""

    def find_spec(self, name, path=None, target=None):
        """Gives Python's own answer for Keras, with what is to be done after it; nothing for any other module."""
        spec = importlib.machinery.PathFinder.find_spec(name, path, target) if name == "keras" else None
        if spec is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(execute, module)
        return spec

    def _execute(self, execute, module):
        # Where a module of tfprune asked for Keras, it is half loaded, and only what does not need it can be.
        inside = any(name.startswith("tfprune.") and name != __name__ for name in sys.modules)
        execute(module)
        sys.meta_path.remove(self)
        _load(_LEAVES if inside else _SAVED)
