"""Rows for the tests of rules."""

from instructgpt.hygiene.clean_row import CleanRow


def prompt(asked, **given):
    """A prompt."""
    turns = [{"role": "user", "content": asked}]
    values = {"where": "f:1", "kind": "prompts", "id": "1", "prompt": asked, "messages": turns}
    values |= {"responses": [], "ranking": [], "text": "", "user": "", "labeler": ""}
    values |= {"source": "f", "split": "train", "meta": {}}
    return CleanRow(**{**values, **given})


def demonstration(text, response, **given):
    """A prompt with its response."""
    return prompt(text, **{"kind": "demonstrations", "responses": [response], **given})


def comparison(text, responses, ranking, **given):
    """A prompt with ranked responses."""
    more = {"kind": "comparisons", "responses": responses, "ranking": ranking}
    return prompt(text, **{**more, **given})


def document(text, **given):
    """A piece of plain text."""
    return prompt("", **{"kind": "text", "text": text, "messages": [], **given})
