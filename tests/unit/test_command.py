"""The harness of the verbs and the `kallos` command, through their whole outputs."""

import json
import os
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pydantic import Field

from cluster.command import JobConfig, main, save_config, settings, to_json
from cluster.errors import UserError
from cluster.profile import ROOT
from jobs import cli


class CountConfig(JobConfig):
    """Counts."""

    num_images: int = Field(3, ge=1, description="images, a count")
    where: str = Field("", description="a filter")


def count(config: CountConfig) -> dict:
    print("progress, not a report")
    if config.where:
        raise UserError(f"where {config.where!r} is no filter: leave it out.")
    return {"num_images": config.num_images, "mean": np.float32(0.5)}


def test_the_report_is_the_only_line_on_stdout(capfd):
    main(CountConfig, ["--num-images", "7"], run=count)
    out, err = capfd.readouterr()
    assert out == '{"num_images": 7, "mean": 0.5}\n'
    assert "progress, not a report" in err


def test_what_a_child_process_prints_goes_to_stderr_too(capfd):
    def run(config):
        subprocess.run(["echo", "from a child"], check=True)
        return {}

    main(CountConfig, [], run=run)
    out, err = capfd.readouterr()
    assert out == "{}\n"
    assert "from a child" in err


def test_what_ray_still_has_to_say_comes_before_the_report(capfd, monkeypatch):
    ray = SimpleNamespace(is_initialized=lambda: True, shutdown=lambda: print("a late warning of a raylet"))
    monkeypatch.setitem(sys.modules, "ray", ray)
    main(CountConfig, [], run=lambda config: {})
    out, err = capfd.readouterr()
    assert out == "{}\n"
    assert "a late warning of a raylet" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--where", "x"], "error: where 'x' is no filter: leave it out.\n"),
        (["--num-images", "0"], "num_images"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_a_users_mistake_ends_with_status_2_and_no_traceback(argv, words, capfd):
    with pytest.raises(SystemExit) as ended:
        main(CountConfig, argv, run=count)
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_another_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        main(CountConfig, [], run=lambda config: 1 // 0)


def test_help_names_every_option_and_its_description(capfd):
    with pytest.raises(SystemExit) as ended:
        main(CountConfig, ["--help"], run=count)
    out, _ = capfd.readouterr()
    assert ended.value.code == 0
    for name, field in CountConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in out
        assert " ".join(field.description.split()[:2]) in " ".join(out.split())


def test_the_store_of_the_command_line_comes_before_the_profiles(tmp_path):
    profile, store = settings(CountConfig(store=str(tmp_path)))
    assert profile.store == store.uri == str(tmp_path)
    profile, store = settings(CountConfig())
    assert profile.store == "runs/mini/store"
    assert os.path.isabs(store.uri), "worker processes may run in another folder"


def test_the_resolved_config_is_written_whole(tmp_path):
    path = save_config(CountConfig(num_images=9), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "resolved_config.yaml"
    assert CountConfig(**yaml.safe_load(path.read_text())) == CountConfig(num_images=9)


def test_reports_become_strict_json():
    report = {"a": np.int64(2), "b": np.array([1.5, np.nan]), "c": (float("inf"), None, True), 4: ROOT}
    assert json.loads(to_json(report)) == {"a": 2, "b": [1.5, None], "c": [None, None, True], "4": str(ROOT)}


def test_kallos_without_a_verb_lists_all_of_them(capsys):
    cli.main([])
    out = capsys.readouterr().out
    verbs, lab = out.split("lab verbs:")
    assert all(f"  {verb} " in verbs for verb in cli.VERBS)
    assert all(f"  {verb} " in lab for verb in ("demo", "studio", "suite", "pretrain", "bench"))


@pytest.mark.parametrize(
    ("words", "module", "options"),
    [
        (["ingest", "--source", "x"], "jobs.ingest", ["--source", "x"]),
        (["serve"], "serve_app", []),
        (["pretrain", "judge", "--seed", "1"], "lab.pretrain", ["judge", "--seed", "1"]),
    ],
)
def test_a_verb_names_its_module(words, module, options):
    assert cli.resolve(words) == (module, options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ingset"], "no verb 'ingset'"),
        (["--profile", "mini"], "no verb '--profile'"),
        (["pretrain"], "choose one of encoder, rephraser, judge"),
        (["bench", "speed"], "'speed'"),
        (["label", "--submit"], "--submit ''"),
        (["label", "--submit", "head:8265"], "--submit 'head:8265'"),
    ],
)
def test_a_wrong_verb_ends_with_status_2(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", [["--submit", "http://head:8265"], ["--submit=http://head:8265"]])
def test_submit_is_taken_from_anywhere_among_the_words(flag):
    assert cli.take_submit(["label", *flag, "--seed", "1"]) == (["label", "--seed", "1"], "http://head:8265")


def test_a_verb_runs_through_kallos_in_a_process_of_its_own(tmp_path):
    files = {
        "config": """
            from cluster.command import JobConfig
            class HelloConfig(JobConfig):
                '''Greets.'''
                word: str = "none"
        """,
        "job": "def run(config): return {'word': config.word}",
        "__main__": """
            from cluster import command
            from hello.config import HelloConfig
            def main(): command.main(HelloConfig)
        """,
    }
    (tmp_path / "hello").mkdir()
    for name, text in files.items():
        (tmp_path / "hello" / f"{name}.py").write_text(textwrap.dedent(text))
    code = "from jobs import cli; cli.VERBS['hello'] = ('hello', ''); cli.main()"
    command = [sys.executable, "-c", code, "hello", "--word", "good day"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == '{"word": "good day"}\n'


def test_submitting_to_a_cluster_that_is_not_there_is_one_clear_sentence(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["label", "--submit", "http://127.0.0.1:9"])
    assert ended.value.code == 2
    assert "No Ray cluster answers at http://127.0.0.1:9" in capsys.readouterr().err
