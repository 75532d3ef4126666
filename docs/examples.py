"""How do the examples of docstrings become blocks of code on the site? mkdocstrings loads this as an extension."""

import textwrap

import griffe


class Examples(griffe.Extension):
    """Turns what follows "Example:" in each docstring into a fenced block."""

    def on_instance(self, *, obj, **_):
        """Called by griffe for every module, class and function."""
        if obj.docstring:
            obj.docstring.value = fence(obj.docstring.value)


def fence(docstring):
    """Returns a docstring with its examples, indented below "Example:" or not, as fenced blocks.

    Args:
        docstring: Text without common indentation.
    """
    lines, done = docstring.splitlines(), []
    while lines:
        line = lines.pop(0)
        if line.strip() != "Example:":
            done.append(line)
            continue
        block = []
        while lines and (not lines[0].strip() or lines[0].startswith((" ", ">>>", "...")) or _is_output(block)):
            block.append(lines.pop(0))
        code = textwrap.dedent("\n".join(block)).strip("\n")
        done += ["**Example**", "", "```pycon", code, "```", ""]
    return "\n".join(done)


def _is_output(block):
    """Whether the next line, not indented, is what the line before it prints."""
    return bool(block) and bool(block[-1].strip())
