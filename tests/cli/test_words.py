"""How the words of a command line are sorted to the options: every form that the help and the README advertise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cradlevae.cli.invoke import parse
from cradlevae.cli.options import arguments_of, options_of
from cradlevae.cli.usage import help_of
from cradlevae.cli.words import UsageError
from cradlevae.commands.registry import COMMANDS


def parsed(line: str | list[str]) -> dict[str, Any]:
    """The arguments that a command's function gets from a command line."""
    name, *arguments = line.split() if isinstance(line, str) else line
    command = COMMANDS[name]
    function = command.function()
    options = options_of(function)
    return arguments_of(function, parse(command, options, arguments)[1].as_dict())


@pytest.mark.parametrize(
    "words",
    [
        "data.h5ad --output x.h5ad --criteria umi genes",
        "--criteria umi genes data.h5ad --output x.h5ad",
        "--output x.h5ad --criteria umi genes data.h5ad",
        "--criteria umi,genes data.h5ad --output x.h5ad",
        "--criteria [umi,genes] data.h5ad --output x.h5ad",
        "--criteria=umi,genes data.h5ad --output=x.h5ad",
        "--criteria=umi data.h5ad --criteria genes --output x.h5ad",
        "--data data.h5ad --criteria umi genes --output x.h5ad",
    ],
)
def test_a_list_does_not_swallow_what_the_command_needs(words: str) -> None:
    arguments = parsed(f"qc {words}")
    assert arguments["data"] == Path("data.h5ad")
    assert arguments["output"] == Path("x.h5ad")
    assert arguments["criteria"] == ["umi", "genes"]


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["--control_labels", "NT"], ("NT",)),
        (["--control_labels", "[NT]"], ("NT",)),
        (["--control-labels", "NT", "ctrl"], ("NT", "ctrl")),
        (["--control_labels", "NT,ctrl"], ("NT", "ctrl")),
        (["--control_labels=NT,ctrl"], ("NT", "ctrl")),
        (["--control_labels", '["a,b", c]'], ("a,b", "c")),
        (["--control_labels", "[NO, null, 1]"], ("NO", "null", "1")),
        (["--control_labels", "NO"], ("NO",)),
    ],
)
def test_control_labels_are_words_commas_or_brackets(words: list[str], labels: tuple[str, ...]) -> None:
    assert parsed(["train", "data.h5ad", "--output", "run", *words])["fields"].control_labels == labels
    assert parsed(["train", *words, "data.h5ad", "--output", "run"])["fields"].control_labels == labels


@pytest.mark.parametrize(
    ("words", "columns"),
    [("a", "a"), ("[a]", ("a",)), ("a b", ("a", "b")), ("a,b", ("a", "b")), ("true", "true")],
)
def test_artifact_columns_are_one_or_several(words: str, columns: str | tuple[str, ...]) -> None:
    assert parsed(f"train data.h5ad --output run --artifact_key {words}")["fields"].artifact_key == columns


@pytest.mark.parametrize(
    "words",
    ["run A+B C --output x", "run A+B,C --output x", "run [A+B,C] --output x", "--output x run A+B C",
     "run --output x A+B C", "--run run --perturbations A+B C --output x"],
)  # fmt: skip
def test_predict_takes_conditions_as_words(words: str) -> None:
    arguments = parsed(f"predict {words}")
    assert (arguments["run"], arguments["perturbations"]) == (Path("run"), ["A+B", "C"])


def test_a_condition_may_hold_a_comma() -> None:
    assert parsed(["predict", "run", '["a,b+c"]', "--output", "x"])["perturbations"] == ["a,b+c"]


@pytest.mark.parametrize(
    "words", ["run --perturbations A+B C", "--perturbations A+B C run", "--perturbations=A+B,C run"]
)
def test_effects_takes_conditions_as_words(words: str) -> None:
    assert parsed(f"effects {words} --output x.csv")["perturbations"] == ["A+B", "C"]


@pytest.mark.parametrize(
    ("words", "artifact"),
    [("", False), ("--artifact", True), ("--artifact true", True), ("--artifact False", False), ("--artifact a", "a"),
     ("--artifact a b", ["a", "b"]), ("--no-artifact", False)],
)  # fmt: skip
def test_artifact_is_a_switch_or_names(words: str, artifact: Any) -> None:
    assert parsed(f"predict run A --output x {words}")["artifact"] == artifact


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--tensorboard", {"tensorboard": True}),
        ("--tensorboard true", {"tensorboard": True}),
        ("--tensorboard no", {"tensorboard": False}),
        ("--no-progress", {"progress": False}),
        ("--no_progress", {"progress": False}),
        ("--progress false", {"progress": False}),
        ("--max-epochs 3", {"max_epochs": 3}),
        ("--max_epochs=3", {"max_epochs": 3}),
        ("--max-epochs=3", {"max_epochs": 3}),
        ("--max_epochs null", {"max_epochs": None}),
        ("--learning-rate 1e-3", {"learning_rate": 1e-3}),
    ],
)
def test_switches_and_hyphens(words: str, expected: dict[str, Any]) -> None:
    for line in (f"train data.h5ad --output run {words}", f"train {words} --output run data.h5ad"):
        training = parsed(line)["training"]
        assert {name: getattr(training, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "backed"), [("", "auto"), ("--backed", True), ("--backed auto", "auto"), ("--no-backed", False)]
)
def test_a_switch_with_a_third_value(words: str, backed: Any) -> None:
    arguments = parsed(f"train {words} data.h5ad --output run --resume")
    assert arguments["backed"] == backed
    assert arguments["resume"] is True


@pytest.mark.parametrize("word", ["null", "none", "None", "NONE"])
def test_none_is_no_value_where_an_option_may_have_none(word: str) -> None:
    fields = parsed(f"train data.h5ad --output run --separator {word} --layer={word}")["fields"]
    assert (fields.separator, fields.layer) == (None, None)
    assert parsed(f"qc data.h5ad --output x --criteria {word}")["criteria"] is None
    assert parsed(f"train data.h5ad --output run --control_labels {word}")["fields"].control_labels == (word,)
    assert parsed(f"train data.h5ad --output run --perturbation_key {word}")["fields"].perturbation_key == word


def test_help_says_null_where_leaving_an_option_out_is_something_else() -> None:
    text = " ".join(help_of(COMMANDS["train"]).split())
    assert "null where no label is a combination" in text
    assert "leaving it out where no label is a combination" not in text
    assert "Leaving it out reads X" in text or "leaving it out reads X" in text


def test_negative_numbers_are_values() -> None:
    assert parsed("simulate --output x --confounded -0.5")["confounded"] == -0.5


def test_yaml_files_hold_any_option_and_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("run: folder\nperturbations: [A+B, 'a,b']\nn_cells: 7\nseed: 1\n")
    arguments = parsed(["predict", "--n_cells", "9", "--config", str(config), "--output", "x"])
    assert arguments["perturbations"] == ["A+B", "a,b"]
    assert (arguments["run"], arguments["n_cells"], arguments["seed"]) == (Path("folder"), 9, 1)
    config.write_text("control_labels: [NT, ctrl]\nartifact_key: [a, b]\n")
    fields = parsed(["train", "data.h5ad", "--output", "run", "--config", str(config)])["fields"]
    assert (fields.control_labels, fields.artifact_key) == (("NT", "ctrl"), ("a", "b"))


@pytest.mark.parametrize(
    "content",
    [
        "run: folder\nn-cells: 7\nseed: 1\nlibrary-size: 1e4\n",
        "{run: folder, n-cells: 7, seed: 1, 'library-size': 1e4}",
        "# n-cells\n'n-cells': 7\nrun: folder  # n-cells: 8\nseed: 1\nlibrary_size: 1e4\n",
    ],
)
def test_options_of_a_yaml_file_may_have_hyphens(tmp_path: Path, content: str) -> None:
    config = tmp_path / "options.yaml"
    config.write_text(content)
    arguments = parsed(["predict", "A", "--config", str(config), "--output", "x"])
    assert (arguments["run"], arguments["n_cells"], arguments["seed"]) == (Path("folder"), 7, 1)
    assert float(arguments["library_size"]) == 1e4
    assert parsed(["predict", "A", "--config", str(config), "--output", "x", "--n-cells", "9"])["n_cells"] == 9


def test_none_in_a_yaml_file_is_no_value_unless_it_is_quoted(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    config.write_text("separator: None\nlayer: 'none'\nguides-key: ~\nperturbation-key: none\n")
    fields = parsed(["train", "data.h5ad", "--output", "run", "--config", str(config)])["fields"]
    assert (fields.separator, fields.layer, fields.guides_key) == (None, "none", None)
    assert fields.perturbation_key == "none"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("qc --output x", "DATA is missing"),
        ("qc", "DATA and --output are missing"),
        ("qc a b --output x", "'b' belongs to no option"),
        ("qc a --output", "--output needs a value"),
        ("qc a --output x --criteria --seed 1", "--criteria needs a value"),
        ("qc a --output x --criteria umi,", "--criteria has an empty value in 'umi,'"),
        ("qc a --output x --criteria [umi,[a]]", "is no list of words"),
        ("qc a --output x --critera umi", "unknown option --critera; did you mean 'criteria'"),
        ("train a --output x --tensorboard maybe", "'maybe' belongs to no option"),
        ("train a --output x --max_epochs some", "--max_epochs is 'some'; it must be a whole number"),
        ("train a --output x --decode mean", "--decode is 'mean'; it must be one of concat, sum"),
        ("train a --output x --config", "--config needs a file"),
        ("train a --output x --config absent.yaml", "absent.yaml"),
        (
            "train --control_labels a b --artifact_key c d --output x",
            "where the values of --control_labels and",
        ),
        (
            "predict --artifact run A B --output x",
            "where the values of --artifact end; write RUN PERTURBATIONS",
        ),
    ],
)
def test_wrong_usage_is_one_line(line: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parsed(line)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_and_ill_typed_keys_of_a_yaml_file_are_named(tmp_path: Path) -> None:
    config = tmp_path / "options.yaml"
    for content, message in (("n_latents: 3\n", "n_latents"), ("n_latent: few\n", "--n_latent is 'few'"),
                             ("n-latents: 3\n", "n-latents"),
                             ("n-latent: 3\nn_latent: 4\n", "has n_latent twice"),
                             ("n-latent: few\n", "--n_latent is 'few'"),
                             ("", "options.yaml holds no options"),
                             ("control_labels: NT\n", "--control_labels"),
                             ("a: [\n", "options.yaml is not YAML")):  # fmt: skip
        config.write_text(content)
        with pytest.raises(UsageError, match=message) as raised:
            parsed(["train", "a", "--output", "x", "--config", str(config)])
        assert "\n" not in str(raised.value)
