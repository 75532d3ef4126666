"""How is a mistake told? In one line: what came, what was expected, what to do, and what was probably meant."""

import re


def in_one_line(error):
    """Returns an error's message in one line, with a guess at what was meant where it lists what it knows.

    Every error of tfprune that refuses a name says "Received: 'a'" and "Expected one of 'b', 'c'": from these the guess
    is made, whichever part of tfprune complains.

    Args:
        error: An exception.

    Example:

    >>> in_one_line(ValueError("Unknown study. Received: 'mons'. Expected one of 'moons', 'digits'."))
    "Unknown study. Received: 'mons'. Expected one of 'moons', 'digits'. Did you mean 'moons'?"
    """
    message = " ".join(str(error).split()) or type(error).__name__
    choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
    if choice:  # argparse says it in its own words
        known = choice[2].replace("'", "")
        message = message.replace(choice[0], f"Received: {choice[1]!r}. Expected one of {known}")
    guess = _guess(message)
    return f"{message} Did you mean {guess!r}?" if guess else message


def _guess(message):
    import difflib

    received = re.search(r"(?:Received: \[?'?|Unknown [\w ]+? ')([\w./:+-]*[\w+-])", message)
    expected = re.search(r"Expected (?:one|some) of (.*)", message)
    if not received or not expected:
        return None
    known = re.findall(r"[\w./:-]+", expected[1])
    return next(iter(difflib.get_close_matches(received[1], [name.rstrip(".") for name in known], n=1)), None)
