"""The reward of a reward model."""

from __future__ import annotations

import warnings
from contextlib import suppress

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from instructgpt.functional.lengths import length_groups
from instructgpt.models.artefact import read_artefact
from instructgpt.models.chat import RefusedPromptError
from instructgpt.models.choice import choose_template
from instructgpt.models.digest import weights_digest
from instructgpt.models.forward import virtual_tokens
from instructgpt.models.heads import ScalarModel
from instructgpt.models.load import Network, context_length, load_scalar
from instructgpt.models.template import Template
from instructgpt.models.tokenizer import load_tokenizer, pad_id, tokenizer_fingerprint
from instructgpt.rewards.base import RewardFunction
from instructgpt.types import Origin, Sample, UserError, require


class LearnedReward(RewardFunction):
    """Score of a reward model at the end of the response, minus its offset.

    A reward model with the policy's tokenizer and template reads the policy's tokens; any other
    reads the text, in its own template and tokens.

    Args:
        init_from: folder or hub id of the reward model.
        microbatch_size: responses scored at once on each process.
        network: how the reward model is held and computed.
    """

    def __init__(
        self,
        init_from: str,
        microbatch_size: int = 16,
        network: Network = Network(),
    ) -> None:
        require(microbatch_size >= 1, "reward.microbatch_size", ">= 1", microbatch_size)
        self.init_from = init_from
        self.microbatch_size = microbatch_size
        self.network = network
        self.model: ScalarModel | None = None
        self._digest = ""  # of the model, once it is loaded
        self.same_tokens = False  # whether the policy's ids are what the model reads
        self.cut = False  # whether a response was scored without the beginning of its prompt

    def prepare(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, device: torch.device
    ) -> None:
        """Load the model once, and find out whether it reads the policy's tokens."""
        if self.model is None:
            self._load()
        assert self.model is not None
        self.model.to(device)
        ours = tokenizer_fingerprint(self.tokenizer), self.template.fingerprint(self.tokenizer)
        self.same_tokens = (
            tokenizer_fingerprint(tokenizer),
            template.fingerprint(tokenizer),
        ) == ours

    def _load(self) -> None:
        try:
            tokenizer = load_tokenizer(self.init_from, self.network.trust_remote_code)
            model = load_scalar(self.init_from, None, self.network, tokenizer, head="stored")
        except UserError as error:
            # The policy can come from the same place: say which of the two is meant.
            raise UserError(f"model.reward: {error}") from error
        self.tokenizer, self.model = tokenizer, model
        self.model.requires_grad_(False).eval()
        self.choice = choose_template(None, self.init_from, tokenizer)
        self.template = self.choice.template
        reads = tokenizer_fingerprint(tokenizer), self.template.fingerprint(tokenizer)
        self._digest = weights_digest(model, *reads)

    def networks(self) -> list[nn.Module]:
        """The model."""
        return [] if self.model is None else [self.model]

    @torch.no_grad()
    def raw_scores(self, samples: list[Sample]) -> Tensor:
        """The scores; rows of like length are scored together."""
        if self.model is None:
            raise RuntimeError("call prepare first")
        limit = context_length(self.model.config)
        room = None if limit is None else limit - virtual_tokens(self.model.trunk)
        rows = [self._tokens(sample, room) for sample in samples]
        scores = torch.zeros(len(rows), dtype=torch.float32)
        for group in length_groups(torch.tensor([len(row) for row in rows]), self.microbatch_size):
            scores[group] = self._score([rows[i] for i in group.tolist()]).cpu()
        return scores

    def _tokens(self, sample: Sample, room: int | None) -> list[int]:
        """Prompt and response as the model reads them, within its context."""
        prompt, response = sample.prompt_tokens, sample.response_tokens
        if not self.same_tokens:
            prompt = self.template.encode_prompt(self.tokenizer, sample.prompt)
            response = self.template.encode_response(
                self.tokenizer, sample.response, end=sample.finished
            )
        if room is None or len(prompt) + len(response) <= room:
            return prompt + response
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
        return (prompt + response)[-room:]

    def _score(self, rows: list[list[int]]) -> Tensor:
        assert self.model is not None
        width = max(1, *map(len, rows), 1)
        fill, device = pad_id(self.tokenizer), self.model.offset.device
        tokens = torch.tensor([row + [fill] * (width - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(width, device=device) < lengths[:, None]
        # In its own number format everywhere: a score must not depend on who asks for it.
        with torch.autocast(device.type, enabled=False):
            return self.model.padded_score(tokens, mask)

    def origins(self) -> dict[str, Origin]:
        """The reward model, known by its weights and by how it reads text."""
        return {"init_from": Origin(self.init_from, self._digest)}

    def warnings(self) -> list[str]:
        """Say that the scores have no zero."""
        lines = []
        artefact = read_artefact(self.init_from)
        if artefact is None and self.model is not None:
            lines.append(f"reward model '{self.init_from}' says no template: {self.choice}")
        if artefact is None or artefact.offset is None:
            lines.append(
                f"reward model '{self.init_from}' has no offset, so 0 is not the score of "
                "demonstrations (train it with --data.demonstrations)"
            )
        return lines
