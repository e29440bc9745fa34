"""Completion in the shell: what bash offers for words that are begun."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cradlevae.cli import main
from cradlevae.cli.completion import completion_of
from cradlevae.cli.words import UsageError
from cradlevae.commands.registry import COMMANDS

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [sys.executable, "-m", "cradlevae", "--print-completion", "bash"]
    path = tmp_path_factory.mktemp("completion") / "cradlevae.sh"
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


def offered(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    line = " ".join(("cradlevae", *words))
    code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_cradlevae; echo ${{COMPREPLY[@]}}"
    return set(subprocess.run([BASH, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_choices(script: Path) -> None:
    assert offered(script, "int") == {"interactions"}
    assert offered(script, "de") == {"demo"}
    assert offered(script, "train", "--max-ep") == {"--max-epochs"}
    assert offered(script, "simulate", "--n-c") == {"--n-cells", "--n-contexts", "--n-combinations"}
    assert offered(script, "split", "--recipe", "pert") == {"perturbations"}


def test_every_command_is_in_the_script_of_every_shell() -> None:
    for shell in ("bash", "zsh"):
        text = completion_of(shell)
        assert all(name in text for name in COMMANDS)


def test_an_unknown_shell_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"bash.*'cmd'"):
        completion_of("cmd")
    assert main(["--print-completion"]) == 2
    assert "bash" in capsys.readouterr().err
