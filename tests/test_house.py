"""Is the house in order: which way imports point, what start-up loads, what is documented, what the gate runs?"""

import ast
import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tfprune

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfprune"
MODULES = sorted(PACKAGE.rglob("*.py"))

# part of the house -> the parts it may import. A new part takes its place here first.
MAY_IMPORT = {
    "registration": set(),  # by name, when Keras comes
    "writing": set(),
    "layers": set(),
    "losses": set(),
    "pointers": set(),
    "transfer": set(),
    "models": {"losses", "pointers", "transfer"},
    "layouts": set(),
    "corruptions": set(),
    "datasets": {"pointers"},
    "structure": {"layers"},
    "pruning": {"layers", "structure", "writing"},
    "callbacks": {"layers", "structure", "pruning"},
    "tickets": {"layers", "structure", "pruning", "callbacks"},
    "metrics": {"losses"},
    "significance": set(),
    "predictions": {"layers", "structure", "metrics"},
    "uncertainty": {"layers", "structure", "metrics", "predictions", "writing"},
    "evaluation": {"layers", "structure", "metrics", "predictions", "uncertainty", "corruptions"},
    "comparison": {"metrics", "predictions", "uncertainty", "evaluation", "significance"},
    "potential": {"significance"},
    # a budget is met on the pruning side; what it costs in confidence is measured on the other
    "budgets": {"layers", "structure", "pruning", "predictions", "evaluation"},
    "deployment": {"layers", "structure", "metrics", "predictions", "uncertainty", "evaluation"},
    "plots": {"layers", "structure"},
    "verification": {"layers", "structure", "pruning", "metrics", "uncertainty", "writing"},
    "study": {
        *("layers", "losses", "pointers", "models", "datasets", "structure", "pruning", "callbacks", "tickets"),
        *(
            "corruptions",
            "metrics",
            "predictions",
            "uncertainty",
            "evaluation",
            "comparison",
            "potential",
            "significance",
            "writing",
        ),
    },
    "cli": {
        *("layers", "losses", "pointers", "models", "datasets", "structure", "pruning", "callbacks", "tickets"),
        *("metrics", "predictions", "uncertainty", "evaluation", "comparison", "potential", "study", "verification"),
        "budgets",
        "deployment",
        "writing",
    },
    "__main__": {"cli"},
}
# Slow to import, or (TFMOT) changes the process: imported only inside the function that needs it.
ONLY_INSIDE_FUNCTIONS = {
    "tensorflow_model_optimization",
    "tensorflow_datasets",
    "matplotlib",
    "pandas",
    "joblib",
    "tf_keras",
}


def part(path):
    """The room a file belongs to: `pruning` for tfprune/pruning/masks.py, `losses` for tfprune/losses.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(nodes, path):
    """Yields every dotted name that these nodes import; `from a import b` counts as `a.b`."""
    package = ["tfprune", *path.relative_to(PACKAGE).parent.parts]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def at_module_level(tree):
    """Yields the nodes that run on import: everything outside functions, class bodies and `if` blocks included."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def parts_imported(path):
    names = [name.split(".") for name in imported_names(ast.walk(parse(path)), path)]
    # `from tfprune import wrap` reaches the module that defines wrap.
    contents = {name: module.split(".")[1] for name, module in tfprune._CONTENTS.items()}
    return {contents.get(name[1], name[1]) for name in names if name[0] == "tfprune" and len(name) > 1} - {
        "__version__"
    }


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=str)
def test_imports_point_one_way(path):
    home = part(path)
    assert home in MAY_IMPORT, f"Say in MAY_IMPORT which parts {home} may import."
    upward = parts_imported(path) - MAY_IMPORT[home] - {home}
    assert not upward, f"{path.relative_to(ROOT)} imports {sorted(upward)}, which stand above or beside {home}."


def test_allowed_imports_have_no_cycle_and_keep_the_two_sides_apart():
    reached = {}

    def reach(home):
        if home not in reached:
            reached[home] = set()  # a cycle meets this unfinished set and shows as a part that reaches itself
            reached[home] = MAY_IMPORT[home].union(*(reach(below) for below in MAY_IMPORT[home]))
        return reached[home]

    assert not [home for home in MAY_IMPORT if home in reach(home)]
    pruning_side, uncertainty_side = (
        {"pruning", "callbacks", "tickets"},
        {"metrics", "uncertainty", "evaluation", "comparison"},
    )
    assert not [home for home in pruning_side if reach(home) & uncertainty_side]
    assert not [home for home in uncertainty_side if reach(home) & pruning_side]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_module_keeps_the_house_rules(path):
    tree = parse(path)
    everywhere = set(imported_names(ast.walk(tree), path))
    on_import = {name.split(".")[0] for name in imported_names(at_module_level(tree), path)}
    assert ast.get_docstring(tree), "The first line of a module says which question it answers."
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}, "Name a module after its question."
    assert not on_import & ONLY_INSIDE_FUNCTIONS
    assert not {name for name in everywhere if name.split(".")[0] in {"pickle", "cloudpickle", "dill", "shelve"}}
    # tf.keras is tf_keras for the whole process once TFMOT has been imported.
    assert not {name for name in everywhere if name.startswith("tensorflow.keras")}
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in attributes if name.startswith(("tf.keras", "tensorflow.keras"))}


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options).stdout


def test_import_takes_less_than_a_fifth_of_a_second_and_loads_no_tensorflow():
    code = """if True:
        import sys, time
        start = time.perf_counter()
        import tfprune
        print(time.perf_counter() - start)
        print(*sorted({"tensorflow", "keras", "tf_keras", "numpy", "matplotlib", "pandas"} & set(sys.modules)))
    """
    seconds, loaded = zip(*(python(code).split("\n")[:2] for _ in range(3)), strict=True)
    assert set(loaded) == {""}
    assert min(map(float, seconds)) < 0.2


def test_help_opens_in_half_a_second():
    def seconds():
        start = time.perf_counter()
        shown = subprocess.run([sys.executable, "-m", "tfprune", "--help"], capture_output=True, text=True, check=True)
        assert "study" in shown.stdout
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def undocumented(value):
    """The arguments that Args leaves out; `ignore, only: ...` counts for both."""
    lines = re.findall(r"^ +([\w, *]+):", value.__doc__ or "", re.MULTILINE)
    documented = {name.strip(" *") for line in lines for name in line.split(",")}
    return [name for name in inspect.signature(value).parameters if name not in documented]


@pytest.mark.parametrize("name", tfprune.__all__)
def test_public_name_resolves_and_is_documented(name):
    value = getattr(tfprune, name)
    if name == "__version__":
        assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", value)
        return
    assert value.__doc__
    takes_arguments = callable(value) and inspect.signature(value).parameters
    if takes_arguments:
        assert "Args:" in value.__doc__
        assert not undocumented(value)


def test_callbacks_document_every_argument():
    callbacks = importlib.import_module("tfprune.callbacks")
    public = [getattr(callbacks, name) for name in callbacks.__all__]
    public = [value for value in public if inspect.isclass(value)]
    assert public
    for value in public:
        assert not undocumented(value), f"{value.__name__} leaves arguments out under Args."


def test_unknown_public_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'unwrap'\. It has: .*shrink"):
        tfprune.unwrap  # noqa: B018


def test_changelog_has_an_unreleased_section_with_entries():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(r"^## \[?Unreleased\]?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, "CHANGELOG.md lacks '## Unreleased'."
    assert re.search(r"^- \S", section.group(1), re.MULTILINE)


def readme_commands():
    """The two commands the README opens with: start, and test."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("python3 -m venv")]


def test_readme_opens_with_one_command_to_start_and_one_to_test():
    start, test = readme_commands()
    assert start.endswith("tfprune study moons --quick")
    assert re.search(r"&& \.venv/bin/pytest[^&]*$", test)
    assert "[test]" in test


def test_gate_runs_the_commands_of_the_readme():
    """.ci/run reads its commands out of the README: asked to print them, it prints the README's own lines."""
    environment = {**os.environ, "CI_RUN_PRINT_COMMANDS": "1"}
    shown = subprocess.run(
        ["bash", str(ROOT / ".ci" / "run")], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert shown.splitlines() == readme_commands()
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(f'\nbash -c "${name}"\n' in gate for name in ("start", "install", "test"))


def text_files():
    """Yields the text files that git would carry; found without git, so that a copy of the tree will do."""
    skipped = {".git", ".hypothesis", ".venv", "build", "dist", "runs", "__pycache__", "node_modules"}
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = [
            s for s in subfolders if s not in skipped and not s.endswith((".egg-info", "_cache", "checkpoints"))
        ]
        for name in set(names) - skipped:  # in a worktree of git, .git is a file
            path = Path(folder) / name
            if path.suffix in {".py", ".md", ".toml", ".ipynb", ".jinja", ".txt", ".yml", ".cfg", ""}:
                yield path


def test_no_file_names_a_place_or_an_event_on_one_machine():
    # Written in pieces, so that this file does not find itself.
    patterns = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", r"\b(?:this|earlier|later|previous|next) ses" + r"sion\b"]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in text_files()
        for match in re.finditer("|".join(patterns), path.read_text(encoding="utf-8", errors="ignore"), re.IGNORECASE)
    ]
    assert not found


def test_version_of_package_and_installation_agree():
    assert importlib.metadata.version("tfprune") == tfprune.__version__


def test_every_data_file_of_the_package_is_installed():
    """A template that setup.py forgets works in the tree and fails for everyone else."""
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    patterns = re.search(r'package_data=\{"": \[(.*?)\]\}', setup).group(1)
    suffixes = set(re.findall(r'"\*(\.\w+)"', patterns))
    others = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert not [path.name for path in others if path.suffix not in suffixes]
