"""Does the Tab key complete what it should, in every shell that is here?"""

import json
import shutil
import subprocess
import sys

import pytest

from tfprune import cli
from tfprune.cli import completion, program, words

CASES = {
    "tfprune ": {"study", "compare", "completion", "verify-models"},
    "tfprune ev": {"evaluate"},
    "tfprune study mo": {"moons"},
    "tfprune study moons --strat": {"--strategies"},
    "tfprune study moons --criterion geo": {"geometric_median"},
    "tfprune study moons --strategies one_shot iterative_f": {"iterative_finetune"},
    "tfprune study moons --strategies one_shot,iterative_f": {"one_shot,iterative_finetune"},
    "tfprune evaluate m.keras --data dig": {"digits"},
    "tfprune evaluate m.keras --detectors msp,kn": {"msp,knn"},
    "tfprune evaluate m.keras --corruptions fo": {"fog"},
    "tfprune prune m.keras --scope ": {"layer", "global"},
    "tfprune inspect m": {"model.keras"},
    "tfprune study my": {"my.toml"},
    "tfprune completion f": {"fish"},
}
EXACT = {words for words in CASES if not words.endswith(" ") or "--scope" in words}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files to complete, and the scripts."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("model.keras", "my.toml", "runs.txt"):
        (folder / name).touch()
    for shell in ("bash", "zsh", "fish"):
        (folder / f"script.{shell}").write_text(completion.write_script(shell))
    return folder


def ask(folder, shell, program):
    """Runs a program in a shell that prints `words -> candidate candidate ...`; returns {words: set of candidates}."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert not done.stderr
    pairs = [line.split(" -> ") for line in done.stdout.splitlines()]
    return {words: set(found.split()) for words, found in pairs}


def check(found):
    assert len(found) >= len(CASES) - 1
    for line, candidates in found.items():
        expected = CASES[line]
        assert expected <= candidates, line
        assert line not in EXACT or candidates == expected, line


def test_bash_completes_commands_flags_names_and_files(folder):
    tries = "\n".join(f"try '{words}'" for words in CASES)
    check(
        ask(
            folder,
            "bash",
            f"""
source script.bash
try() {{
    IFS=' ' read -r -a COMP_WORDS <<< "$1"
    [[ $1 == *' ' ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    _tfprune
    echo "$1 -> ${{COMPREPLY[*]}}"
}}
{tries}
""",
        )
    )


def test_bash_completes_behind_an_equals_sign(folder):
    # bash hands --data=dig over as three words
    found = ask(
        folder,
        "bash",
        "source script.bash; COMP_WORDS=(tfprune evaluate m.keras --data = dig); COMP_CWORD=5; _tfprune\n"
        'echo "$COMP_CWORD -> ${COMPREPLY[*]}"',
    )
    assert found == {"5": {"digits"}}


def test_fish_completes_commands_flags_names_and_files(folder):
    # fish knows no flags with several values: it completes lists with commas only
    tries = "\n".join(f"try '{words}'" for words in CASES if "one_shot " not in words)
    check(
        ask(
            folder,
            "fish",
            "source script.fish\nfunction try; set -l found (complete -C $argv[1] | string replace -r '\\t.*' '')\n"
            f'echo "$argv[1] -> $found"; end\n{tries}',
        )
    )


def test_zsh_completes_commands_flags_names_and_files(folder):
    # zsh completes only at a terminal: its functions are put in place of by ones that print
    stubs = r"""
compdef() { }
_describe() { local name; for name in "${(@P)2}"; do offer "${name%%:*}"; done }
_files() { [[ $1 == -g ]] && for name in ${~2}(N); do offer "$name"; done }
compadd() { offer "$2" }
compset() { [[ $PREFIX == ${~2}* ]] && { HEAD+=${PREFIX%${PREFIX##${~2}}}; PREFIX=${PREFIX##${~2}} } }
offer() { [[ $1 == "$PREFIX"* ]] && FOUND+=("$HEAD$1") }
try() {
    local -a words FOUND; local HEAD= PREFIX
    words=(${=1}); [[ $1 == *' ' ]] && words+=("")
    CURRENT=$#words; PREFIX=$words[-1]
    _tfprune
    echo "$1 -> $FOUND"
}
"""
    tries = "\n".join(f"try '{words}'" for words in CASES)
    check(ask(folder, "zsh", f"{stubs}\nsource script.zsh\n{tries}"))


def test_every_flag_that_takes_no_numbers_says_what_completes_it():
    free = {"--only", "--ignore", "--import"} | {
        "--params",
        "--multiply-adds",
        "--bytes",
        "--latency",
        "--ood",
        "--cluster",
    }
    for name, command in program.commands_action(program.build_parser()).choices.items():
        for action in command._actions:
            flags = list(completion._flags(name, action))
            if flags[0].takes == "none" or action.type in (int, float, words.numbers, words.integers, words.seeds):
                continue
            assert flags[0].values or flags[0].name in free, f"{name} {flags[0].name}"


def test_scripts_are_written_without_tensorflow():
    code = (
        "import sys\nfrom tfprune.cli import main\nmain(['completion', 'bash'])\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib'} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "complete -F _tfprune tfprune" in done.stdout


def test_script_is_an_answer_for_machines_too(capsys):
    assert cli.main(["completion", "fish", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == completion.write_script("fish")
