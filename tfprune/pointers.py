"""Which function does "module:function" point to?"""

import importlib
import os
import sys


def follow(pointer):
    """Returns the function that "module:function" names; modules of the working directory are found, too.

    Args:
        pointer: Such as "my_project.data:load" or "data:load" for data.py in the working directory.

    Raises:
        ValueError: The module cannot be imported, or has no such function.

    Example:

    >>> follow("math:sqrt")(9.0)
    3.0
    """
    module_name, _, name = pointer.partition(":")
    module = _module(pointer, module_name)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(
            f"{pointer!r} points nowhere: module {module_name!r} has no function {name!r}. Expected 'module:function'."
        )
    return function


def _module(pointer, name):
    here = os.getcwd()
    # as `python -m` does; child processes of a study start in the same directory
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{pointer!r} points nowhere: {type(error).__name__}: {error}. Expected 'module:function', with a module "
            "that Python can import from here."
        ) from error
