"""The harness of the verbs and the `kallos` command, tested through what they print."""

import importlib
import json
import os
import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from pydantic import Field
from ray.exceptions import ActorDiedError, RayTaskError

from cluster.command import (
    JobConfig,
    Options,
    main,
    merged,
    parse,
    profile_of,
    save_config,
    settings,
    to_json,
    validated,
)
from cluster.errors import UserError
from cluster.profile import ROOT, Settings, load_profile
from jobs import cli
from jobs.align.config import AlignConfig
from jobs.label.config import LabelConfig
from lab.bench.label.config import BenchLabelConfig
from lab.bench.serve import __main__ as bench_serve
from lab.demo.config import DemoConfig
from serve_app.client.config import SearchConfig
from serve_app.config import ServeConfig, resolve_profile

CONFIGS = [
    path for house in ("jobs", "lab", "serve_app") for path in sorted(ROOT.glob(f"{house}/**/config.py"))
]
SERVE_YAMLS = sorted((ROOT / "cluster" / "serve").glob("*.yaml"))


class CountConfig(JobConfig):
    """Counts."""

    num_images: int = Field(default=3, ge=1, description="images, a count")
    where: str | None = Field(default=None, description="a filter; default: no filter")


def count(config: CountConfig) -> dict:
    print("progress, not a report")
    if config.where:
        raise UserError(f"--where {config.where!r} is not a filter: omit it.")
    return {"num_images": config.num_images, "mean": np.float32(0.5)}


def test_the_report_is_the_only_line_on_stdout(capfd):
    main(CountConfig, ["--num-images", "7"], run=count)
    assert capfd.readouterr() == ('{"num_images": 7, "mean": 0.5}\n', "")


def test_late_output_of_ray_comes_before_the_report(capfd, monkeypatch):
    session = SimpleNamespace(end=lambda: print("a late warning of a raylet"))
    monkeypatch.setitem(sys.modules, "cluster.session", session)
    main(CountConfig, [], run=lambda config: {})
    assert capfd.readouterr() == ("{}\n", "")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--where", "x"], "error: --where 'x' is not a filter: omit it.\n"),
        (["--num-images", "0"], "error: num_images = 0: Input should be greater than or equal to 1.\n"),
        (["--colour", "red"], "--colour"),
        (["--num-image", "3"], "Perhaps you meant:"),
    ],
)
def test_mistake_of_the_user_ends_with_status_2_and_no_traceback(argv, words, capfd):
    with pytest.raises(SystemExit) as ended:
        main(CountConfig, argv, run=count)
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def end_with(error: BaseException, capfd) -> tuple[int | str | None, list[str]]:
    """Exit status and lines on stderr of a verb that raises the error."""

    def fail(config):
        raise error

    with pytest.raises(SystemExit) as ended:
        main(CountConfig, [], run=fail)
    return ended.value.code, capfd.readouterr().err.splitlines()


def test_other_errors_are_one_sentence_with_their_traceback_in_the_log(capfd):
    status, (line, log) = end_with(ZeroDivisionError("by zero"), capfd)
    assert (status, line) == (1, "error: ZeroDivisionError: by zero")
    assert "Traceback" in Path(log.removeprefix("log: ")).read_text()


def test_keyboard_interrupt_ends_with_130_and_one_word(capfd):
    assert end_with(KeyboardInterrupt(), capfd) == (130, ["Interrupted."])


def chained(*errors: BaseException) -> BaseException:
    """The first error, with each of the others as the cause of the one before it."""
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def in_a_worker(error: Exception) -> RayTaskError:
    """The error as Ray raises it in the driver."""
    return RayTaskError("f", "Traceback (most recent call last):\n" + "  a line\n" * 100, error)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (chained(RuntimeError("the pipeline failed"), OSError("no such device")), "no such device"),
        (in_a_worker(ValueError("the weights are NaN")), "the weights are NaN"),
        (in_a_worker(ValueError("a")).as_instanceof_cause(), "a"),
        (chained(RuntimeError("a stage failed"), in_a_worker(KeyError("b"))), "KeyError: 'b'"),
        (RuntimeError("first\n\n  second"), "RuntimeError: first second"),
        (ActorDiedError(), "ActorDiedError: The actor died unexpectedly before finishing this task"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("x" * 100_000), f"RuntimeError: {'x' * 386}..."),
    ],
)
def test_unexpected_error_is_reported_by_its_first_cause_in_one_line(error, sentence, capfd):
    status, lines = end_with(error, capfd)
    assert (status, lines[0]) == (1, f"error: {sentence}")
    assert len(lines) == 2


def test_full_disk_anywhere_ends_with_status_2_and_the_way_out(capfd):
    def fail(config):
        raise RuntimeError("a worker failed") from OSError(28, "No space left on device", "/data/out")

    with pytest.raises(SystemExit) as ended:
        main(CountConfig, [], run=fail)
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "'/data/out'" in line and line.endswith("continues from what was stored.")


def test_help_names_every_option_and_its_description(capfd):
    with pytest.raises(SystemExit) as ended:
        main(CountConfig, ["--help"], run=count)
    out, _ = capfd.readouterr()
    assert ended.value.code == 0
    for name, field in CountConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in out
        assert " ".join(field.description.split()[:2]) in " ".join(out.split())
    assert "(default: 3)" in out
    assert "(default: None)" not in out


def test_empty_store_option_is_refused_and_does_not_mean_the_default():
    with pytest.raises(UserError, match="store = ''"):
        settings(CountConfig(store=""))


def test_store_option_takes_precedence_over_the_profile(tmp_path):
    profile, store = settings(CountConfig(store=str(tmp_path)))
    assert profile.store == store.uri == str(tmp_path)
    profile, store = settings(CountConfig())
    assert profile.store == "runs/mini/store"
    assert os.path.isabs(store.uri), "worker processes may run in another folder"


def test_resolved_config_is_written_with_every_option(tmp_path):
    config = CountConfig(num_images=9, set=("align.beta=2", "label.style=reorg"))
    path = save_config(config, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "resolved_config.yaml"
    assert yaml.safe_load(path.read_text())["set"] == ["align.beta=2", "label.style=reorg"]
    assert CountConfig(**yaml.safe_load(path.read_text())) == config


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "align.beta=2", "label.style=reorg", "serve.keys_file=", "align.learning_rate=1e-3"],
        ["--set=align.beta=2", "--set", "label.style=reorg", "serve.keys_file=null", "--store", "there",
         "--set", "align.learning_rate=0.001"],
    ],
)  # fmt: skip
def test_set_takes_several_values_and_can_be_repeated(words):
    profile = profile_of(parse(CountConfig, words))
    assert (profile.align.beta, profile.label.style, profile.align.learning_rate) == (2.0, "reorg", 1e-3)
    assert profile.serve.keys_file is None
    assert profile.align.epochs == load_profile("mini").align.epochs


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("align.epoch=3", r"align\.epoch is unknown: did you mean align\.epochs\?"),
        ("align.beta=much", r"align\.beta = 'much': Input should be a valid number"),
        ("label.style=haiku", r"label\.style = 'haiku': .*'kw_dict'"),
        ("align.beta", r"--set 'align\.beta' is not of the form key=value"),
        ("align.beta={2", r"--set 'align\.beta=\{2': '\{2' is not valid YAML"),
        ("align.beta=" + "[" * 3000, r"3,0\d\d characters.* is not valid YAML"),
        ("align.epochs=" + "9" * 5000, r"5,0\d\d characters.* is not valid YAML"),
    ],
)
def test_wrong_set_is_refused_with_the_key_and_what_is_allowed(word, message):
    with pytest.raises(UserError, match=message):
        profile_of(CountConfig(set=(word,)))


def test_option_takes_precedence_over_set_and_set_over_the_profile():
    config = AlignConfig(set=("align.epochs=7", "align.beta=2"), epochs=3)
    align = merged(profile_of(config).align, config)
    assert (align.epochs, align.beta, align.mode) == (3, 2.0, "both")
    assert merged(load_profile("mini").align, AlignConfig(seed=0)).seed == 0


def test_merged_options_that_do_not_fit_together_are_refused():
    with pytest.raises(UserError, match="top_k 96 is too small"):
        merged(load_profile("mini").label, LabelConfig(top_k=96))


@pytest.mark.parametrize(
    ("config_type", "section", "names"),
    [
        (AlignConfig, "align", {"mode", "objective", "epochs", "learning_rate", "num_workers", "seed"}),
        (LabelConfig, "label", {"style", "source", "semantic", "top_k", "rows", "columns", "stride"}),
        (BenchLabelConfig, "label", {"style"}),
        (ServeConfig, "serve", {"host", "port", "keys_file", "num_replicas"}),
        (DemoConfig, "serve", {"port"}),
    ],
)
def test_options_with_the_name_of_a_profile_field_default_to_the_profile(config_type, section, names):
    group: Settings = getattr(load_profile("mini"), section)
    assert type(group).model_fields.keys() & config_type.model_fields.keys() == names
    for name in names:
        field = config_type.model_fields[name]
        assert field.default is None
        assert f"the profile's {section}.{name}" in field.description


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_option_that_is_not_set_is_none_and_says_what_happens_then(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    configs = [
        value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Options)
    ]
    fields = {name: field for config in configs for name, field in config.model_fields.items()}
    assert fields
    for name, field in fields.items():
        assert (field.default is None) == ("default: " in field.description), name
        assert field.default not in ("auto", -1) and (field.default != "" or name == "query"), name


def test_search_finds_the_server_of_the_changed_profile():
    config = parse(SearchConfig, ["boat", "--set", "serve.port=8123"])
    assert (config.query, profile_of(config).serve.port) == ("boat", 8123)


def test_replicas_of_the_command_line_are_a_fixed_count():
    serve = resolve_profile(ServeConfig(profile="fleet", set=("serve.keys_file=",), num_replicas=3)).serve
    assert (serve.num_replicas, serve.max_replicas, serve.port) == (3, 3, 8000)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "cluster" / "serve").glob("*.yaml")), ids=lambda path: path.stem
)
def test_arguments_of_every_serve_yaml_are_options_of_serve(path):
    (application,) = yaml.safe_load(path.read_text(encoding="utf-8"))["applications"]
    assert validated(ServeConfig, application["args"] | {"set": ["serve.max_k=7"]}).profile == path.stem
    with pytest.raises(UserError, match="systms is unknown: did you mean systems"):
        validated(ServeConfig, application["args"] | {"systms": ["live"]})


def test_reports_become_strict_json():
    report = {"a": np.int64(2), "b": np.array([1.5, np.nan]), "c": (float("inf"), None, True), 4: ROOT}
    assert json.loads(to_json(report)) == {"a": 2, "b": [1.5, None], "c": [None, None, True], "4": str(ROOT)}


def test_kallos_without_a_verb_lists_all_verbs_the_products_first(capsys):
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
def test_verb_resolves_to_its_package(words, module, options):
    assert cli.resolve(words) == (module, options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ingset"], "error: There is no verb 'ingset': did you mean ingest?\n"),
        (["studo"], "error: There is no verb 'studo': did you mean studio?\n"),
        (["--profile", "mini"], "There is no verb '--profile': choose one of ingest, label, align, "),
        (["pretrain"], "choose one of encoder, rephraser, judge"),
        (["bench", "speed"], "'speed'"),
        (["label", "--submit"], "--submit ''"),
        (["label", "--submit", "head:8265"], "--submit 'head:8265'"),
    ],
)
def test_wrong_verb_ends_with_status_2(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["studio"]])
def test_plugin_that_cannot_be_imported_is_one_clear_sentence(words, monkeypatch, capsys):
    broken = EntryPoint(name="extra", value="no_such_package.verbs:VERBS", group=cli.PLUGINS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [broken])
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: The verbs of plugin 'extra' cannot be imported from no_such_package.verbs:VERBS "
        "(ModuleNotFoundError: No module named 'no_such_package'): install its package again, or remove it.\n"
    )
    assert cli.resolve(["label"]) == ("jobs.label", []), "the product's verbs need no plugin"


def test_benchmark_names_the_extra_that_it_lacks(monkeypatch, capsys):
    monkeypatch.setattr(bench_serve, "find_spec", lambda name: None if name != "psutil" else object())
    with pytest.raises(SystemExit) as ended:
        bench_serve.main([])
    assert ended.value.code == 2
    message = "error: kallos bench serve needs flask and aiohttp: pip install 'kallos[bench]'\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("flag", [["--submit", "http://head:8265"], ["--submit=http://head:8265"]])
def test_submit_is_recognised_anywhere_among_the_words(flag):
    assert cli.take_submit(["label", *flag, "--seed", "1"]) == (["label", "--seed", "1"], "http://head:8265")


def test_kallos_runs_a_verb_in_a_new_process(tmp_path):
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


def test_submitting_to_an_address_without_a_cluster_is_refused_in_one_sentence(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["label", "--submit", "http://127.0.0.1:9"])
    assert ended.value.code == 2
    assert "No Ray cluster answers at http://127.0.0.1:9" in capsys.readouterr().err
