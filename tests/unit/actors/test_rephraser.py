"""The rephraser without its model: prompts, grammar, parser, composition, retry."""

import json

import numpy as np
import pytest

from actors import rephraser
from actors.engine import Reply
from actors.rephraser import (
    ASPECTS,
    MAX_WORDS,
    MODEL_STYLES,
    STYLES,
    Rephrase,
    UnparsableAnswer,
    compose,
    parse,
    prompt,
    rephrase,
    schema,
)
from cluster.errors import UserError

KEYWORDS = {
    "light": "soft light",
    "composition": "rule of thirds",
    "colours": "rich colours",
    "detail": "sharp focus",
    "mood": "calm",
}
VALID = {
    "kw_dict": KEYWORDS,
    "k_list": {"qualities": ["soft light", "rule of thirds", "sharp focus", "rich colours"]},
    "detail": {"description": "A red boat in soft light, well composed"},
    "reorg": {"sentence": "Red boat at dusk in dramatic light"},
}


class ScriptedEngine:
    """Returns the scripted replies in turn and records the requests."""

    def __init__(self, *batches: list[Reply]):
        self.batches = list(batches)
        self.requests = []

    def generate(self, requests):
        self.requests.append(list(requests))
        return self.batches.pop(0)


def said(content: dict) -> Reply:
    return Reply(text=json.dumps(content), finish_reason="stop")


@pytest.mark.parametrize("style", MODEL_STYLES)
@pytest.mark.parametrize(
    "surrounding",
    ["{}", "```json\n{}\n```", "Sure! Here it is:\n{}\nEnjoy.", "  {}\n\n"],
    ids=["bare", "fenced", "with words around", "with whitespace"],
)
def test_parse_reads_a_valid_answer_inside_other_text(style, surrounding):
    assert parse(surrounding.replace("{}", json.dumps(VALID[style], indent=1)), style) == VALID[style]


MALFORMED = {
    "empty": ("kw_dict", ""),
    "no json": ("kw_dict", "soft light, rule of thirds"),
    "truncated": ("kw_dict", json.dumps(KEYWORDS)[:-20]),
    "truncated after a brace in a value": ("kw_dict", '{"light":"a } b","composition":"x'),
    "a list": ("k_list", '["soft light","sharp"]'),
    "missing aspect": ("kw_dict", json.dumps({**KEYWORDS, "light": None} | {"mood": "calm"})),
    "aspect left out": ("kw_dict", json.dumps({k: v for k, v in KEYWORDS.items() if k != "mood"})),
    "number for words": ("kw_dict", json.dumps({**KEYWORDS, "light": 5})),
    "nested": ("kw_dict", json.dumps({**KEYWORDS, "light": {"kind": "soft"}})),
    "empty value": ("kw_dict", json.dumps({**KEYWORDS, "colours": "  "})),
    "only punctuation": ("kw_dict", json.dumps({**KEYWORDS, "colours": "...!"})),
    "rambling": ("kw_dict", json.dumps({**KEYWORDS, "mood": "very " * 40})),
    "one quality": ("k_list", '{"qualities":["soft light"]}'),
    "no qualities": ("k_list", '{"qualities":[]}'),
    "qualities as text": ("k_list", '{"qualities":"soft light, sharp"}'),
    "quality that is a number": ("k_list", '{"qualities":["soft light", 3, "sharp"]}'),
    "chinese": ("detail", '{"description":"红色的小船在夕阳下"}'),
    "russian": ("reorg", '{"sentence":"красная лодка на закате"}'),
    "another style's answer": ("detail", json.dumps(VALID["reorg"])),
    "not json": ("kw_dict", "{'light': 'soft'}"),
}


@pytest.mark.parametrize("style, text", MALFORMED.values(), ids=MALFORMED.keys())
def test_parse_refuses_a_malformed_answer(style, text):
    with pytest.raises(UnparsableAnswer):
        parse(text, style)


def test_parse_cleans_values_and_keeps_accents():
    messy = {**KEYWORDS, "light": "  soft \n light. ", "mood": "café, naïve"}
    answer = parse(json.dumps(messy), "kw_dict")
    assert answer["light"] == "soft light"
    assert answer["mood"] == "café, naïve"


def test_parse_keeps_the_first_qualities_of_too_many():
    assert parse(json.dumps({"qualities": list("abcdefgh")}), "k_list") == {"qualities": list("abcd")}


@pytest.mark.parametrize(
    "style, answer, expected",
    [
        ("original", {}, "red boat"),
        ("repeat", {}, "red boat, red boat"),
        ("kw_dict", KEYWORDS, "red boat, soft light, rule of thirds, rich colours, sharp focus, calm"),
        ("k_list", {"qualities": ["soft light", "calm", "soft light"]}, "red boat, soft light, calm"),
        ("detail", VALID["detail"], "A red boat in soft light, well composed"),
        ("reorg", {"sentence": "A vessel at dusk"}, "red boat, A vessel at dusk"),
    ],
)
def test_compose_puts_the_query_first(style, answer, expected):
    assert compose(" red  boat ", style, answer) == expected


@pytest.mark.parametrize("style", STYLES)
def test_composed_text_is_short_and_begins_with_the_query(style):
    long = "many words of light and colour and mood that go on"
    answers = {
        "kw_dict": dict.fromkeys(ASPECTS, long) | {"mood": "calm"},
        "k_list": {"qualities": [long, long + " and on", long + " further", "calm"]},
        "detail": {"description": "red boat " + "shining " * 60},
        "reorg": {"sentence": "shining " * 60},
    }
    text = compose("red boat", style, answers.get(style, {}))
    assert text.startswith("red boat")
    assert len(text.split()) <= MAX_WORDS


@pytest.mark.parametrize(
    "query, sentence, expected",
    [
        ("yellow tennt", "yellowtennnt in soft light, calm", "yellow tennt in soft light, calm"),
        ("hot air balloon", "hot air ball oon in soft light", "hot air balloon in soft light"),
        ("a cat and a dog", "a cat and a horse in soft light", "a cat and a dog in soft light"),
        ("a cat and a dog", "a cat dog with rich colours", "a cat and a dog with rich colours"),
        ("mill at sea", "milk at seal and calm", "mill at sea and calm"),
        ("red boat", "Red bot", "red boat"),
        ("red boat", "A vessel in soft light", "red boat, A vessel in soft light"),
    ],
    ids=[
        "misspelt",
        "split",
        "another subject",
        "a word left out",
        "no addition",
        "nothing more",
        "other words",
    ],
)
def test_sentence_without_the_query_contributes_only_its_addition(query, sentence, expected):
    assert compose(query, "reorg", {"sentence": sentence}) == expected


def test_sentence_with_the_query_too_late_is_appended_to_it():
    late = "shining " * MAX_WORDS + "red boat"
    text = compose("red boat", "detail", {"description": late})
    assert text == "red boat, " + " ".join(["shining"] * (MAX_WORDS - 2))
    just = "shining " * (MAX_WORDS - 2) + "red boat in soft light"
    assert compose("red boat", "detail", {"description": just}).endswith("shining red boat")


def test_long_query_is_never_cut():
    query = " ".join(f"word{i}" for i in range(MAX_WORDS + 5))
    assert compose(query, "kw_dict", KEYWORDS) == query
    assert compose(query, "detail", {"description": query + " in soft light"}) == query


def test_prompt_quotes_the_query_and_names_the_keys_of_the_schema():
    for style in MODEL_STYLES:
        text = prompt('a "red" boat', style)[-1]["content"]
        assert 'Query: "a \\"red\\" boat"' in text
        assert all(f'"{key}"' in text for key in schema(style)["required"])


def test_prompts_are_short():
    for style in MODEL_STYLES:
        assert sum(len(message["content"].split()) for message in prompt("red boat", style)) <= 60


@pytest.mark.parametrize("style", ["original", "repeat", "haiku"])
def test_prompt_refuses_styles_without_a_model(style):
    with pytest.raises(UserError, match=style):
        prompt("red boat", style)


def test_rephrase_retries_only_failures_with_the_strict_grammar():
    engine = ScriptedEngine(
        [said(KEYWORDS), Reply(text='{"light":"so', finish_reason="length"), said(KEYWORDS)],
        [said({**KEYWORDS, "mood": "bright"})],
    )
    results = rephrase(engine, ["cat", "dog", "owl"], "kw_dict")
    assert [text.split(",")[0] for text, _ in results] == ["cat", "dog", "owl"]
    assert results[1][0].endswith("bright")
    assert all(error == "" for _, error in results)
    assert [request.schema for request in engine.requests[0]] == [schema("kw_dict")] * 3
    assert [request.schema for request in engine.requests[1]] == [schema("kw_dict", strict=True)]
    assert "dog" in engine.requests[1][0].messages[-1]["content"]


def test_rephrase_returns_an_error_after_the_second_failure():
    cut = Reply(text='{"light":"so', finish_reason="length")
    refused = Reply(error="too long")
    engine = ScriptedEngine([cut, refused], [cut, refused])
    (text, error), (other_text, other_error) = rephrase(engine, ["cat", "dog"], "kw_dict")
    assert text == other_text == ""
    assert "token limit" in error
    assert other_error == "too long"
    assert not engine.batches


def actor_with(engine, style: str) -> Rephrase:
    actor = Rephrase.__new__(Rephrase)
    actor.style, actor.engine = style, engine
    return actor


def test_actor_adds_its_columns_and_keeps_the_others():
    failed = Reply(text="", finish_reason="length")
    actor = actor_with(ScriptedEngine([said(KEYWORDS), failed], [failed]), "kw_dict")
    batch = {"query": np.array(["cat", "dog"], dtype=object), "number": np.array([7, 8])}
    rows = actor(batch)
    assert list(rows["number"]) == [7, 8]
    assert list(rows["style"]) == ["kw_dict", "kw_dict"]
    assert rows["rephrased"][0].startswith("cat, soft light") and rows["rephrased"][1] == ""
    assert rows["rephrase_error"][0] == "" and rows["rephrase_error"][1] != ""


@pytest.mark.parametrize("style, expected", [("original", "cat"), ("repeat", "cat, cat")])
def test_styles_without_a_model_load_no_engine(style, expected, monkeypatch):
    monkeypatch.setattr(rephraser, "make_engine", lambda settings: pytest.fail("an engine was loaded"))
    rows = Rephrase(language_model=None, style=style)({"query": np.array(["cat"], dtype=object)})
    assert list(rows["rephrased"]) == [expected]
