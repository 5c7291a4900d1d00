"""How likely choices are after a context, by the rules of ``lm-eval``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from instructgpt.functional.layout import Layout, pieces
from instructgpt.models.flat import predict
from instructgpt.models.forward import run
from instructgpt.models.tokenizer import eos_id
from instructgpt.types import FlatRows, UserError


class Choices(NamedTuple):
    """A context and the choices that continue it, as tokens."""

    context: list[int]
    choices: list[list[int]]
    whole: bool = True  # else the last token of the only choice is not read: there is no room

    @property
    def tokens(self) -> int:
        """All of them; those of the context once."""
        return len(self.context) + sum(map(len, self.choices))


class Coder(NamedTuple):
    """Makes tokens of contexts and choices.

    Args:
        tokenizer: of the model; a token that begins every text stands before the context.
        room: tokens that the model can see; None: any number.
    """

    tokenizer: PreTrainedTokenizerBase
    room: int | None

    def ids(self, text: str) -> list[int]:
        """The tokens of a text; one that says how it begins gets nothing put before it."""
        prefix = str(self.tokenizer.decode(self.prefix))
        begun = bool(prefix) and text.startswith(prefix)
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=not begun, verbose=False)
        return ids

    @property
    def prefix(self) -> int:
        """The token that stands for an empty context: BOS, or EOS where there is none."""
        bos = self.tokenizer.bos_token_id
        return eos_id(self.tokenizer) if bos is None else int(bos)

    def pair(self, context: str, choice: str) -> tuple[list[int], list[int]]:
        """Context and choice.

        The tokens of the choice are those that both together have beyond the context's own;
        whitespace at the end of the context belongs to the choice.

        Args:
            context: what is read.
            choice: what continues it, with what stands between.
        """
        if not context:
            ids = self.tokenizer.encode(choice, add_special_tokens=False, verbose=False)
            before = ids[:1] if ids[:1] == [self.prefix] else [self.prefix]
            return before, ids[1:] if ids[:1] == [self.prefix] else ids
        bare = context.rstrip()
        before = self.ids(bare)
        return before, self.ids(bare + context[len(bare) :] + choice)[len(before) :]

    def asked(self, where: str, context: str, choices: Sequence[str]) -> list[Choices]:
        """The choices in order, with a context that they share where it fits the model whole.

        Else it loses tokens at its beginning, and each choice has as much of it as it has room for.

        Args:
            where: file and line.
            context: what is read.
            choices: what may continue it, with what stands between.

        Raises:
            UserError: a choice has no tokens, or too many.
        """
        pairs = [self.pair(context, choice) for choice in choices]
        for choice, (_, ids) in zip(choices, pairs, strict=True):
            if not ids or (self.room is not None and len(ids) > self.room):
                fits = "any number" if self.room is None else f"{self.room} at most"
                raise UserError(
                    f"{where}: the choice {choice[:60]!r} must have tokens of its own, {fits}, "
                    f"got {len(ids)}"
                )
        return self.fitted(pairs)

    def fitted(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Choices]:
        """Contexts and their choices together where all have the same one and fit, else each alone.

        A context that does not fit loses its beginning. The last token of a choice is predicted,
        not read, so there is room for one more than the model can see.

        Args:
            pairs: tokens of context and choice.
        """
        room, (before, _) = self.room, pairs[0]
        longest = max(len(ids) for _, ids in pairs)
        fits = room is None or len(before) + longest <= room
        if fits and all(one == before for one, _ in pairs):
            return [Choices(before, [ids for _, ids in pairs])]
        return [_alone(one, ids, room) for one, ids in pairs]


def _alone(context: list[int], choice: list[int], room: int | None) -> Choices:
    if room is None or len(context) + len(choice) <= room:
        return Choices(context, [choice])
    return Choices(context[-(room + 1 - len(choice)) :], [choice], whole=False)


class Likelihood(NamedTuple):
    """How likely a choice is."""

    logprob: float  # summed over its tokens
    greedy: bool  # each of its tokens is the likeliest


@torch.no_grad()
def likelihoods(model: nn.Module, asked: Sequence[Choices]) -> list[list[Likelihood]]:
    """How likely each choice is, in one forward pass but for those that are not read whole.

    Ids without a token count as others do, as in lm-eval.

    Args:
        model: a causal language model in evaluation mode.
        asked: contexts, each read once for all of its choices.
    """
    whole = [one for one in asked if one.whole]
    found = iter(_of_whole(model, whole) if whole else [])
    return [next(found) if one.whole else [_unread(model, one)] for one in asked]


def _of_whole(model: nn.Module, asked: Sequence[Choices]) -> list[list[Likelihood]]:
    device = next(model.parameters()).device
    layout = Layout.shared(
        [len(one.context) for one in asked], [[len(ids) for ids in one.choices] for one in asked]
    )
    tokens = [token for one in asked for ids in (one.context, *one.choices) for token in ids]
    chosen = layout.parents >= 0
    places = chosen.repeat_interleave(layout.lengths).nonzero().squeeze(1)
    rows = FlatRows(torch.tensor(tokens).to(device), layout.to(device))
    read = predict(model, rows, places.to(device), every_id=True)
    lengths = layout.lengths[chosen].tolist()
    parts = zip(
        read.logprobs.double().cpu().split(lengths), read.correct.cpu().split(lengths), strict=True
    )
    rest = iter([Likelihood(each.sum().item(), bool(best.all())) for each, best in parts])
    return [[next(rest) for _ in one.choices] for one in asked]


def _unread(model: nn.Module, asked: Choices) -> Likelihood:
    """Of a choice whose last token there is no room for."""
    [choice], device = asked.choices, next(model.parameters()).device
    tokens = torch.tensor([[*asked.context, *choice][:-1]], device=device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    logits = run(model, tokens, mask, keep=len(choice), every_id=True).logits[0].float()
    targets = torch.tensor(choice, device=device)
    each = logits.log_softmax(-1).gather(1, targets[:, None]).double()
    return Likelihood(each.sum().item(), bool((logits.argmax(-1) == targets).all()))


def choice_logprobs(model: nn.Module, asked: Sequence[Choices]) -> list[list[float]]:
    """The summed log-probability of each choice; arguments as of ``likelihoods``."""
    return [[one.logprob for one in some] for some in likelihoods(model, asked)]


def scored(
    model: nn.Module, problems: Sequence[Sequence[Choices]], max_tokens: int | None, start: int = 0
) -> Iterator[list[list[float]]]:
    """The log-probabilities of each problem's choices, forward pass after forward pass.

    Args:
        model: a causal language model in evaluation mode.
        problems: what each asks.
        max_tokens: of a forward pass; a problem with more is alone.
        start: so many problems are not asked for: theirs is known. The others are computed with
            the same neighbours as if they were, so that not a digit differs.
    """
    lengths = [sum(one.tokens for one in asked) for asked in problems]
    for piece in pieces(lengths, max_tokens):
        if piece.stop <= start:
            continue
        some = iter(choice_logprobs(model, [one for i in piece for one in problems[i]]))
        whole = [[value for _ in problems[i] for value in next(some)] for i in piece]
        yield whole[max(0, start - piece.start) :]
