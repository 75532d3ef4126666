"""Does everything the README shows work as printed: its Python in order, then its shell lines?"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
FENCES = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def shell_lines():
    """The README's `tfprune ...` lines; its two set-up commands are executed by .ci/run, which reads them there."""
    lines = [line for language, text in FENCES if language == "bash" for line in text.splitlines()]
    return [line for line in lines if line.startswith("tfprune ")]


@pytest.fixture(scope="module")
def after_python(tmp_path_factory):
    """The names and the folder that the README's Python leaves behind."""
    folder = tmp_path_factory.mktemp("readme")
    names = {"__name__": "readme"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, code in enumerate(text for language, text in FENCES if language == "python"):
            exec(compile(code, f"README.md, Python block {number + 1}", "exec"), names)
    return names, folder


def test_python_makes_a_ticket_that_is_smaller_and_evaluated(after_python):
    names, folder = after_python
    assert names["ticket"].count_params() < names["model"].count_params()
    assert names["result"]["accuracy"] > 0.9
    assert (folder / "ticket.keras").exists()


def test_every_language_in_the_readme_is_executed_by_someone():
    """A block in a language nobody runs is a block that rots; `text` is for output and is not run."""
    assert {language for language, _ in FENCES} <= {"python", "bash", "text"}


@pytest.mark.slow
@pytest.mark.parametrize("line", shell_lines())
def test_shell_line_works(line, after_python):
    """Studies are cut down here; a reader runs the whole grid, and .ci/run the quick one."""
    _, folder = after_python
    command = line.split("#")[0].split()
    if command[1] == "study":
        command += ["--quick", "--strategies", "one_shot", "--seeds", "0", "--epochs", "3"]
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
    found = 1 if command[1] == "compare" else 0  # 1: something is worse beyond chance, which is an answer
    assert done.returncode in (0, found), done.stderr[-3000:]
    assert done.stdout
