"""The reward of a reward model."""

from __future__ import annotations

import warnings
from contextlib import suppress
from math import inf
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from instructgpt.functional.layout import Layout, pieces
from instructgpt.models.artefact import read_artefact
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.choice import Choice, choose_template
from instructgpt.models.digest import weights_digest
from instructgpt.models.forward import virtual_tokens
from instructgpt.models.heads import ScalarModel
from instructgpt.models.load import Network, context_length, load_scalar
from instructgpt.models.quantized import quantize
from instructgpt.models.source import is_planning
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import load_tokenizer, pad_id, tokenizer_fingerprint
from instructgpt.rewards.base import RewardFunction
from instructgpt.rewards.combine import COMBINE, Combine, Combined
from instructgpt.types import Diagnosis, FlatRows, Origin, Sample, UserError, require

Pair = tuple[list[int], list[int]]
"""Tokens of a prompt and of a response to it."""
FORMATS = ("float32", "bfloat16", "float16")


class LearnedReward(RewardFunction):
    """Score of a reward model at the end of the response, minus its offset.

    A reward model with the policy's tokenizer and template reads the policy's tokens; any other
    reads the text, in its own template and tokens. It reads a prompt once for all responses to it.

    Args:
        init_from: folder or hub id of the reward model.
        network: how the reward model is held and computed.
        combine: what several heads of it say into one score: their mean, the lowest (min), or
            their mean minus ``std_coef`` times their standard deviation (mean_minus_std).
        std_coef: how much the heads' disagreement costs with mean_minus_std.
    """

    def __init__(
        self,
        init_from: str,
        network: Network = Network(),
        combine: Combine = "mean",
        std_coef: float = 1.0,
    ) -> None:
        require(combine in get_args(Combine), "reward.combine", COMBINE, combine)
        require(0 <= std_coef < inf, "reward.std_coef", ">= 0", std_coef)
        needless = combine != "mean_minus_std" and std_coef != 1.0
        require(not needless, "reward.std_coef", "left out without mean_minus_std", std_coef)
        self.init_from = init_from
        self.network = network
        self.combine = combine
        self.std_coef = std_coef
        self.model: ScalarModel | None = None
        self.said: Tensor | None = None  # [N, H] by each head about the samples scored last
        self._digest = ""  # of the model, once it is loaded
        self.choice: Choice | None = None  # of its template, once it is loaded
        self.same_tokens = False  # whether the policy's ids are what the model reads
        self.cut = False  # whether a response was scored without the beginning of its prompt

    def prepare(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, device: torch.device
    ) -> None:
        """Load the model once, and find out whether it reads the policy's tokens."""
        if self.model is None:
            self._load()
        assert self.model is not None
        if is_planning():
            return
        self.model.to(device)
        ours = tokenizer_fingerprint(self.tokenizer), self.template.fingerprint(self.tokenizer)
        self.same_tokens = (
            tokenizer_fingerprint(tokenizer),
            template.fingerprint(tokenizer),
        ) == ours

    def _load(self) -> None:
        code = self.network.trust_remote_code
        try:
            tokenizer = None if is_planning() else load_tokenizer(self.init_from, code)
            model = load_scalar(self.init_from, None, self.network, tokenizer, head="stored")
        except UserError as error:
            # The policy can come from the same place: say which of the two is meant.
            raise UserError(f"model.reward: {error}") from error
        if model.heads == 1 and self.combine != "mean":
            raise UserError(
                f"model.reward: combine must be mean for '{self.init_from}', which has one head, "
                f"got {self.combine}"
            )
        self.model = model
        quantize(self.model.requires_grad_(False).eval(), self.network.quantization)
        if tokenizer is None:
            return
        self.tokenizer = tokenizer
        self.choice = choose_template(None, self.init_from, tokenizer)
        self.template = self.choice.template
        reads = tokenizer_fingerprint(tokenizer), self.template.fingerprint(tokenizer)
        self._digest = weights_digest(model, *reads)

    def networks(self) -> list[nn.Module]:
        """The model."""
        return [] if self.model is None else [self.model]

    @torch.no_grad()
    def raw_scores(self, samples: list[Sample]) -> Tensor:
        """The scores; samples of the same prompt share it."""
        if self.model is None:
            raise RuntimeError("call prepare first")
        limit = context_length(self.model.config)
        room = None if limit is None else limit - virtual_tokens(self.model.trunk)
        rows = [self._tokens(sample, room) for sample in samples]
        groups = sharing(rows, self.network.max_tokens)
        scores = torch.zeros(len(rows), self.model.heads, dtype=torch.float32)
        for piece in pieces([one.size(rows) for one in groups], self.network.max_tokens):
            together = groups[piece.start : piece.stop]
            numbers = [number for one in together for number in one.numbers]
            scores[numbers] = self._score(together, rows).cpu()
        self.said = scores
        self.spread = scores.std(1, correction=0) if self.model.heads > 1 else None
        return self._combined(scores)

    def _combined(self, scores: Tensor) -> Tensor:
        """One score of what the heads say, [N] of [N, H]."""
        if self.combine == "min":
            return scores.amin(1)
        mean = scores.mean(1)
        if self.combine == "mean":
            return mean
        return mean - self.std_coef * scores.std(1, correction=0)

    def _tokens(self, sample: Sample, room: int | None) -> Pair:
        """Prompt and response as the model reads them, within its context."""
        prompt, response = sample.prompt_tokens, sample.response_tokens
        if not self.same_tokens:
            prompt = self.template.encode_prompt(self.tokenizer, sample.prompt)
            response = self.template.encode_response(
                self.tokenizer, sample.response, end=sample.finished
            )
        if not prompt and not response:
            return [pad_id(self.tokenizer)], response  # there must be something to read
        if room is None or len(prompt) + len(response) <= room:
            return prompt, response
        if not self.cut:
            self.cut = True
            warnings.warn(
                f"reward model '{self.init_from}' reads responses without the beginning of their "
                f"prompt where both do not fit into its context of {room} tokens",
                stacklevel=3,
            )
        left = room - len(response)
        with suppress(RefusedPromptError):  # a long response leaves no room for a frame
            prompt = self.template.shorten_prompt(self.tokenizer, sample.prompt, prompt, left)
        return prompt[max(0, len(prompt) - max(0, left)) :], response[-room:]

    def _score(self, groups: list[Sharing], rows: list[Pair]) -> Tensor:
        """What each head says of the responses of each group, group after group, [n, H]."""
        assert self.model is not None
        layout = Layout.shared(
            [len(one.prompt) for one in groups],
            [[len(rows[number][1]) for number in one.numbers] for one in groups],
        )
        tokens: list[int] = []
        for one in groups:
            tokens += one.prompt
            for number in one.numbers:
                tokens += rows[number][1]
        device = self.model.offset.device
        flat = FlatRows(torch.tensor(tokens, device=device), layout.to(device))
        # In its own number format everywhere: a score must not depend on who asks for it.
        with torch.autocast(device.type, enabled=False):
            scores: Tensor = self.model.each(flat)
        return scores[(layout.parents >= 0).to(device)]

    def origins(self) -> dict[str, Origin]:
        """The reward model, known by its weights and by how it reads text."""
        return {"init_from": Origin(self.init_from, self._digest)}

    def warnings(self) -> list[Diagnosis]:
        """Say that the scores have no zero, and that nobody knows how the model reads prompts."""
        found = []
        artefact = read_artefact(self.init_from)
        if artefact is None and self.choice is not None:
            what = f"reward model '{self.init_from}' says no template, so {self.choice}"
            why = "a model that reads prompts in another form than it was trained on scores worse"
            remedy = "look at the model's card"
            found.append(Diagnosis("reward_template", what, why, remedy))
        if artefact is None or artefact.offset is None:
            what = f"reward model '{self.init_from}' has no offset"
            why = "0 is not the score of demonstrations, which missing_eos_score is compared with"
            found.append(Diagnosis("offset", what, why, "train it with --data.demonstrations"))
        return found


def reads_alone(
    init_from: str,
    option: str,
    device: torch.device,
    network: Network = Network(),
    heads: Combined = Combined(),
) -> LearnedReward:
    """A reward model that reads text where there is no policy: in its own template and tokens.

    Args:
        init_from: folder or hub id.
        option: that names it, for messages.
        device: where to compute.
        network: how it is held.
        heads: what several of it say into one score.
    """
    try:
        reward = LearnedReward(init_from, network, heads.combine, heads.std_coef)
        tokenizer = load_tokenizer(init_from, network.trust_remote_code)
        reward.prepare(tokenizer, choose_template(None, init_from, tokenizer).template, device)
    except UserError as error:
        message = str(error).removeprefix("model.reward: ").removeprefix("reward.")
        raise UserError(f"{option}: {message}") from error
    return reward


def number_format(init_from: str) -> Literal["float32", "bfloat16", "float16"]:
    """That in which a head on a frozen trunk was trained on its states; else float32.

    Args:
        init_from: folder or hub id of a reward model.
    """
    artefact = read_artefact(init_from)
    if artefact is None or artefact.features is None:
        return "float32"
    found: Any = artefact.config
    for key in ("model", "init_args", "network", "dtype"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if found in FORMATS else "float32"


class Sharing(NamedTuple):
    """Samples whose prompt is read once for all of them."""

    prompt: list[int]
    numbers: list[int]  # of the samples

    def size(self, rows: list[Pair]) -> int:
        """Tokens of the prompt and of the responses."""
        return len(self.prompt) + sum(len(rows[number][1]) for number in self.numbers)


def sharing(rows: list[Pair], max_tokens: int | None) -> list[Sharing]:
    """Samples by their prompt, in parts where a forward pass does not hold them all.

    Args:
        rows: prompt and response of each sample.
        max_tokens: of a forward pass; None: no limit.

    Examples:
        >>> rows = [([7, 8], [1]), ([9], [2]), ([7, 8], [3, 4]), ([7, 8], [5])]
        >>> [one.numbers for one in sharing(rows, None)]
        [[0, 2, 3], [1]]
        >>> [one.numbers for one in sharing(rows, 5)]
        [[0, 2], [3], [1]]
    """
    known: dict[tuple[int, ...], list[int]] = {}
    for number, (prompt, _) in enumerate(rows):
        known.setdefault(tuple(prompt), []).append(number)
    groups = []
    for shared, numbers in known.items():
        room = None if max_tokens is None else max_tokens - len(shared)
        parts = pieces([len(rows[number][1]) for number in numbers], room)
        groups += [Sharing(list(shared), [numbers[i] for i in part]) for part in parts]
    return groups
