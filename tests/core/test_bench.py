"""`impchat bench`, with the demo model: every figure is there, reports can be compared, and bad input gives one
sentence before anything is measured."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from impchat import prompts, texts
from impchat.bench import chat, peers, report, resources, users
from impchat.bench.asking import Questions
from impchat.bench.programs import ALL_FLAGS, MARK, Programs, bench_speeds, started_server
from impchat.bench.report import Figure
from impchat.bundle import Bundle
from impchat.cli.main import main
from impchat.engines.local.llama import Model
from impchat.errors import SettingsError
from impchat.messages import Picture, Prompt, Turn
from impchat.models import header

Capture = pytest.CaptureFixture[str]


def bench(data: Path, *words: object) -> int:
    return main(["--data", str(data), "--language", "en", "bench", *map(str, words)])


def quiet(key: str, **values: object) -> None:
    """Ignores progress."""


def named(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_the_table_has_the_papers_columns_and_can_be_compared_with_itself(tmp_path: Path, capsys: Capture) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert bench(tmp_path / "data", "table", "--rounds", 1, "--json", first) == 0
    out = capsys.readouterr().out
    for column in ("T_VE", "S_prompt", "S_gen", "T_total", "first token", "RssAnon", "RssFile", "bandwidth"):
        assert column in out
    found = report.load(first)
    assert found.model == "imp-demo-196"
    assert all(value > 0 for figure in found.figures for value in figure.values)

    assert bench(tmp_path / "data", "table", "--rounds", 2, "--compare", first, "--json", second) == 0
    out = capsys.readouterr().out
    assert "now / before" in out
    again = report.load(second)
    assert [figure.key for figure in again.figures] == [figure.key for figure in found.figures]
    assert not (tmp_path / "data" / "history.db").exists(), "the user's history is not opened"


def test_a_conversation_gives_every_figure(demo: Bundle) -> None:
    pace = chat.Pace(turns=3, think_s=0.0, characters_per_s=500.0, rest_s=0.0)
    figures = named(chat.run(demo, 1, quiet, pace))
    assert {
        "first_token_cold",
        "first_token_thought",
        "first_token_typed",
        "attach_ready",
        "follow_up_growth",
        "reopened_part",
        "python_share",
    } <= figures.keys()
    assert figures["same_picture_vision"].values == (0.0,), "a picture is encoded once"
    assert 0 < figures["python_share"].median < 1
    assert figures["reopened_tokens"].median <= figures["read_again_tokens"].median


def test_people_at_once_are_measured_for_each_number(demo: Bundle) -> None:
    figures = users.run(demo, 2, quiet, people=(1, 3))
    assert {(figure.name, figure.case) for figure in figures} == {
        (name, case)
        for name in ("people_speed", "people_first", "people_first_worst", "people_pause")
        for case in ("1", "3")
    }
    assert all(len(figure.values) == 2 for figure in figures)


def test_a_question_has_as_many_tokens_as_it_should(demo: Bundle) -> None:
    questions = Questions(demo)
    model = Model(demo.language)
    assert [len(model.tokenize(" " + questions.of(count))) for count in (1, 12, 300)] == [1, 12, 300]
    model.free()


@pytest.mark.parametrize("answers", [[], ["A red circle."]])
def test_other_programs_get_the_prompt_as_text_with_the_same_tokens(demo: Bundle, answers: list[str]) -> None:
    turns = [Turn("user", "What is it?", (Picture("0" * 64, b""),))]
    for answer in answers:
        turns += [Turn("assistant", answer), Turn("user", "Sure?")]
    prompt = Prompt("Be brief.", tuple(turns))
    model = Model(demo.language)
    eos = Questions(demo).eos
    before, after = peers.as_text(demo, prompt, eos).split(MARK)
    pieces = prompts.render(prompt, demo.writing, model.tokenize, demo.text.eos[0])
    ids = [piece.ids if isinstance(piece, prompts.Tokens) else None for piece in pieces]
    at = ids.index(None)
    together = [[i for part in side if part for i in part] for side in (ids[:at], ids[at + 1 :])]
    assert [model.tokenize(before, True), model.tokenize(after, True)] == together
    model.free()


def test_the_sizes_of_tensors_add_up_to_the_file(demo: Bundle) -> None:
    sizes = header.tensor_bytes(demo.language)
    whole = demo.language.stat().st_size
    assert 0.8 * whole < sum(sizes.values()) < whole
    assert 0 < resources.token_bytes(demo) <= sum(sizes.values())
    assert resources.kv_bytes(demo, 2) == 2 * resources.kv_bytes(demo, 1) > 0


def test_ratios_have_a_spread() -> None:
    new, old = Figure("open", "s", (1.0, 2.0, 4.0)), Figure("open", "s", (2.0, 2.0, 2.0))
    assert report.compared(new, old) == report.Spread(1.0, 0.5, 2.0)
    assert report.paired(new, Figure("open", "s", (1.0, 1.0, 8.0))) == report.Spread(1.0, 0.5, 2.0)
    assert report.compared(new, Figure("open", "s", (0.0,))) is None


def test_every_figure_has_a_description() -> None:
    names = set()
    for file in (Path(report.__file__).parent).glob("*.py"):
        source = file.read_text(encoding="utf-8")
        names |= set(re.findall(r'(?:Figure|add|_same_picture)\((?:[^"()]*, )?"([a-z_0-9]+)"', source))
        names |= {f"{name}_prompt" for name in re.findall(r'self\._add\("([a-z_]+)"', source)}
    assert {"vision", "people_pause", "follow_up", "follow_up_prompt", "reopened_part", "same_picture"} <= names
    assert [name for name in sorted(names) if f"bench.figure.{name}" not in texts.LANGUAGES["en"]] == []


def refused(data: Path, capsys: Capture, *words: object) -> str:
    """The sentence on stderr of a command that is refused."""
    assert bench(data, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def test_bad_input_gives_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    users_report, newer, wrong = (tmp_path / name for name in ("users.json", "newer.json", "wrong.json"))
    report.save(report.Report("users", "m", (Figure("people_speed", "tokens/s", (1.0,), "1"),)), users_report)
    newer.write_text(json.dumps({"format": report.FORMAT + 1, "work": "table"}))
    data = tmp_path / "data"
    assert "impchat bench users" in refused(data, capsys, "table", "--compare", users_report)
    assert "newer ImpChat" in refused(data, capsys, "table", "--compare", newer)
    negative = json.loads(users_report.read_text()) | {"work": "table"}
    negative["figures"][0]["values"] = [-1.0, 1.0]
    for text in (
        "",
        "[1]",
        "{}",
        json.dumps(negative),
        '{"format": 1, "work": "table", "model": "m", "about": {}, "figures": [{}]}',
    ):
        wrong.write_text(text)
        assert "is not a report" in refused(data, capsys, "table", "--compare", wrong)
    assert "cannot be read" in refused(data, capsys, "table", "--compare", tmp_path / "none.json")
    assert "cannot be written" in refused(data, capsys, "table", "--json", tmp_path / "none" / "a.json")
    assert "cannot be written" in refused(data, capsys, "table", "--json", tmp_path)
    assert "--rounds takes a number" in refused(data, capsys, "table", "--rounds", "0")
    assert "There is no model" in refused(data, capsys, "table", "--model", tmp_path / "none")


def test_peers_without_the_programs_gives_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    data = tmp_path / "data"
    sentence = refused(data, capsys, "peers", "--peers", tmp_path / "none")
    assert "make peers" in sentence
    assert "--peers DIR" in sentence
    for name in ("llama-server", "llama-bench"):
        (tmp_path / name).touch()
    assert "--mmproj FILE" in refused(data, capsys, "peers", "--peers", tmp_path)
    assert "cannot be read" in refused(data, capsys, "peers", "--peers", tmp_path, "--mmproj", tmp_path / "none.gguf")


def test_a_program_that_ends_is_reported_with_its_last_words(demo: Bundle, tmp_path: Path) -> None:
    for name in ("llama-server", "llama-bench"):
        (tmp_path / name).write_text("#!/bin/sh\necho no such architecture >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    broken = Programs(tmp_path, demo.language, demo.vision, 1)
    with pytest.raises(SettingsError, match=r"llama-server could not .* architecture"), started_server(broken, 1, 512):
        pass
    with pytest.raises(SettingsError, match=r"llama-bench could not .* architecture"):
        bench_speeds(broken, ALL_FLAGS[0], 350, 50, 32)


def test_a_plot_without_matplotlib_gives_one_sentence(tmp_path: Path, capsys: Capture) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert "matplotlib" in refused(tmp_path, capsys, "table", "--plot", tmp_path / "plot.png")
        return
    assert bench(tmp_path, "table", "--rounds", 1, "--plot", tmp_path / "plot.png") == 0
    width, height = struct.unpack(">II", (tmp_path / "plot.png").read_bytes()[16:24])
    assert width > 500 < height
