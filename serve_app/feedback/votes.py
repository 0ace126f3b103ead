"""Which earlier events a new one repeats or replaces. Events are rows of `feedback`."""

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.votes.events import blind_question, comparison, same_words


def order(event: Mapping[str, Any]) -> tuple:
    return event["at"], event["event_id"]


def voter(row: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> str:
    """The client for which the event counts: the first that sent an event on this answer."""
    same_answer = [event for event in events if event["answer"] == row["answer"]]
    return min(same_answer, key=order, default=row)["client"]


def answers_question_of(row: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether an earlier event is a vote of the same person on the same question."""
    if event["client"] != row["client"]:
        return False
    if row["kind"] == "prefer":
        same_query = same_words(event["query"]) == same_words(row["query"])
        return same_query and {row["image_id"], row["over"]} in _compared(event)
    if event["kind"] != row["kind"]:
        return False
    if row["kind"] == "click":
        return (event["answer"], event["image_id"]) == (row["answer"], row["image_id"])
    return blind_question(event) == blind_question(row)


def _compared(event: Mapping[str, Any]) -> list[set[str]]:
    """The pairs of images that an event compares."""
    chosen = event["image_id"]
    if event["kind"] == "click":
        ids = event["image_ids"]
        return [{chosen, other} for other in ids[: ids.index(chosen)]]
    return [{chosen, event["over"]}] if event["kind"] == "prefer" else []


def is_same_choice(row: Mapping[str, Any], last: Mapping[str, Any]) -> bool:
    """Whether an event repeats the person's last one on its question."""
    if row["kind"] == "blind":
        return comparison(row) == comparison(last)
    return (row["kind"], row["image_id"]) == (last["kind"], last["image_id"])


def clicked_before(row: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> set[str]:
    """The images of the same answer that were opened before."""
    return {
        event["image_id"]
        for event in events
        if (event["kind"], event["answer"], event["client"]) == ("click", row["answer"], row["client"])
    }
