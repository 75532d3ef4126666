"""Does the documentation work: its Python, its links, its navigation, and the examples that become blocks of code?"""

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from tfprune import study

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# In the user's order, that of the navigation: a page goes on with the names of those before it.
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
GUIDE = [path for path in (DOCS / name for name in re.findall(r"guide/\w+\.md", NAVIGATION)) if path.exists()]


def blocks(path, language="python"):
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for found, text in fences if found == language]


def execute(path, names):
    for number, code in enumerate(blocks(path)):
        exec(compile(code, f"{path.relative_to(ROOT)}, Python block {number + 1}", "exec"), names)


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_guide_runs_from_the_first_page_to_the_last(in_a_folder, capsys):
    names = {"__name__": "guide"}
    for path in GUIDE:
        execute(path, names)
    shown = capsys.readouterr().out
    assert names["ticket"].count_params() < names["model"].count_params()
    assert "verdict" in shown
    assert "was fitted on" in shown  # the leak guard spoke


def test_grid_of_the_guide_is_a_study(in_a_folder, monkeypatch):
    [code] = [code for code in blocks(DOCS / "guide/study.md") if "def network" in code]
    Path("flowers.py").write_text(code, encoding="utf-8")
    [grid] = blocks(DOCS / "guide/study.md", "toml")
    Path("flowers.toml").write_text(grid, encoding="utf-8")
    monkeypatch.syspath_prepend(Path.cwd())
    found = study.read_study("flowers.toml")
    assert len(found.trials()) == 2 * 2 * 3 * (5 * 3 + 1)
    trial = dataclasses.replace(found.trials()[0], recipe=study.Recipe(batch_size=50, epochs=1))
    assert {"accuracy", "noise/auroc_knn", "shift/fog/5/ece", "latency_ms"} <= study.run_trial(trial).keys()


@pytest.mark.slow
def test_extensions_are_short_and_run(in_a_folder):
    from tfprune.structure import roles

    path = DOCS / "extend.md"
    assert len(blocks(path)) == 6
    for code in blocks(path):
        lines = [line for line in code.splitlines() if line.strip() and not line.strip().startswith(('"""', "#"))]
        assert len(lines) <= 15
    names, known = {"__name__": "extend"}, dict(roles.ROLES)
    try:
        execute(path, names)
    finally:
        roles.ROLES.clear()
        roles.ROLES.update(known)
    # Each of the five did something: half the units by their largest weight, ... a ticket of two rounds.
    assert [int(mask.sum()) for mask in names["masks"].values()] == [8, 8]
    assert [round(entry["ratio"], 1) for entry in names["callback"].history] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert names["row"]["far/auroc_feature_norm"] != names["row"]["far/auroc_msp"]
    assert len(names["ticket"].history) == 3
    assert names["roles"].role_of(names["Bend"]()) is None  # taught for the page only


def test_every_block_has_a_language_that_someone_executes_or_that_is_shown_only():
    for path in PAGES:
        languages = set(re.findall(r"^```(\w*)$", path.read_text(encoding="utf-8"), re.MULTILINE)) - {""}
        assert languages <= {"python", "bash", "text", "toml"}, path.name


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "bash")], ids=lambda path: path.name)
def test_shell_lines_name_commands_scripts_and_flags_that_exist(path):
    from tfprune.cli import program

    commands = program.build_parser()
    for line in "\n".join(blocks(path, "bash")).splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            if word.endswith(".py"):
                assert (ROOT / word).is_file(), line
        script = next((ROOT / word for word in words if word.endswith(".py")), None)
        if script:
            text = script.read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in words if word.startswith("--")), line
        elif words and words[0] == "tfprune":
            commands.parse_args(words[1:])


def heading_ids(path):
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        # The site takes the notebooks in beside the pages (docs/hooks.py).
        home = path.parent.relative_to(DOCS)
        linked = (ROOT / home / file if file.endswith(".ipynb") else path.parent / file).resolve() if file else path
        assert linked.is_file(), f"{path.name} links to {target}."
        if anchor:
            assert anchor in heading_ids(linked), f"{path.name} links to {target}."


def test_notebooks_and_scripts_that_pages_name_exist():
    for path in PAGES:
        for name in re.findall(r"`?((?:notebooks|scripts|docs)/[\w/]+\.\w+)", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.name} names {name}."


def test_every_page_is_in_the_navigation():
    names = [path.relative_to(DOCS).as_posix() for path in PAGES]
    missing = [name for name in names if f": {name}\n" not in NAVIGATION]
    assert not missing


def test_reference_names_what_there_is():
    """mkdocstrings reads the sources; this imports them, so that a module that moved shows here first."""
    import importlib

    for path in sorted((DOCS / "api").glob("*.md")):
        names = re.findall(r"^::: ([\w.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert names, path.name
        for name in names:
            module, _, attribute = name.rpartition(".")
            found = importlib.util.find_spec(name) if _is_package(module) else None
            assert found or hasattr(importlib.import_module(module), attribute), f"{path.name} names {name}."


def _is_package(name):
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None


def test_public_names_are_in_the_reference():
    import tfprune

    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    missing = [name for name in tfprune._CONTENTS if f"heading: tfprune.{name}\n" not in text]
    assert not missing, "Add them to a page in docs/api/."


@pytest.mark.skipif(importlib.util.find_spec("griffe") is None, reason="needs the extra 'docs'")
def test_examples_of_docstrings_become_blocks_of_code():
    spec = importlib.util.spec_from_file_location("examples", DOCS / "examples.py")
    examples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(examples)
    indented = "Adds.\n\nExample:\n    >>> add(1)\n    2\n\nSource: nobody."
    assert examples.fence(indented) == ("Adds.\n\n**Example**\n\n```pycon\n>>> add(1)\n2\n```\n\nSource: nobody.")
    flush = "Adds.\n\nExample:\n\n>>> add(1)\n2\n"
    assert examples.fence(flush).splitlines()[2:] == ["**Example**", "", "```pycon", ">>> add(1)", "2", "```"]
