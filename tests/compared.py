"""What is in a batch of comparisons, one response at a time, as an oracle reads it."""

from torch import Tensor, cat


def sequence(batch, prompt, response) -> Tensor:
    """Tokens of a prompt and of one of the responses to it."""
    layout, segment = batch.rows.layout, int(batch.responses[prompt, response])
    parts = batch.rows.tokens.split(layout.lengths.tolist())
    return cat([parts[int(layout.parents[segment])], parts[segment]])


def ranked(batch):
    """Of each prompt the places of its responses with their ranks."""
    for prompt, (ranking, mask) in enumerate(zip(batch.ranking, batch.ranking_mask, strict=True)):
        yield prompt, [(k, int(ranking[k])) for k in range(len(mask)) if mask[k]]
