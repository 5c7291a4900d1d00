"""A policy as a model of lm-eval: scored in flat rows, decoded in slots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from instructgpt.callbacks.progress import display
from instructgpt.commands.policy import load
from instructgpt.evaluation.likelihood import Choices, Coder, Likelihood, likelihoods
from instructgpt.functional.layout import pieces
from instructgpt.models.forward import base_network
from instructgpt.models.load import Network
from instructgpt.models.tokenizer import eos_id
from instructgpt.rollout.drawing import Ends, Request, Sampling, StopText
from instructgpt.rollout.sampler import respond
from instructgpt.types import UserError, require

DEFAULT_LENGTH = 2048
"""Of the context of a model that says none, as in lm-eval."""


@register_model("instructgpt")
class InstructGPTModel(TemplateLM):
    """What lm-eval asks; texts become tokens by the rules of its model ``hf``.

    Args:
        pretrained: folder or hub id of a policy.
        device: where to compute; "cuda:0", lm-eval's default, takes a CPU where there is no GPU.
        dtype: number format of the weights.
        max_tokens: of one forward pass.
        slots: responses that are decoded at once.
        seed: of responses that are drawn.
        trust_remote_code: run code that comes with the model.
        batch_size: given by lm-eval, and not used: nothing depends on it.
        max_batch_size: likewise.
    """

    def __init__(
        self,
        pretrained: str,
        device: str = "cuda:0",
        dtype: Any = "float32",
        max_tokens: int = 1024,
        slots: int = 64,
        seed: int = 0,
        trust_remote_code: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        formats = ("float32", "bfloat16", "float16")
        require(dtype in formats, "dtype", f"one of {', '.join(formats)}", dtype)
        require(max_tokens >= 1, "max_tokens", ">= 1", max_tokens)
        require(slots >= 1, "slots", ">= 1", slots)
        place = "auto" if device == "cuda:0" else device.partition(":")[0]
        network = Network(dtype, trust_remote_code=trust_remote_code)
        self._policy = load(pretrained, "plain", network, place)
        self.tokenizer = self._policy.tokenizer
        self._device = next(self._policy.network.parameters()).device
        self._coder = Coder(self.tokenizer, self.max_length)
        self._max_tokens, self._slots, self._seed = max_tokens, slots, seed

    @property
    def max_length(self) -> int:
        """Tokens that the model can see."""
        return self._policy.context or DEFAULT_LENGTH

    @property
    def max_gen_toks(self) -> int:
        """Of a response where a task says nothing."""
        return 256

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return eos_id(self.tokenizer)

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        return self._coder.prefix

    @property
    def tokenizer_name(self) -> str:
        """By which lm-eval keeps requests."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as the tokenizer's chat template writes it.

        Args:
            chat_history: turns.
            add_generation_prompt: whether the assistant's next turn begins; else its last goes on.
        """
        if not self.tokenizer.chat_template:
            name = self.tokenizer.name_or_path
            raise UserError(
                f"--apply_chat_template must be left out: '{name}' has no such template"
            )
        written = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(written)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The tokens of a text; one that begins with BOS gets none put before it."""
        if add_special_tokens is None:
            return self._coder.ids(string)
        ids = self.tokenizer.encode(string, add_special_tokens=add_special_tokens, verbose=False)
        return cast("list[int]", ids)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """How likely continuations are, and whether each token is the likeliest.

        Requests with the same context share it, wherever they stand.
        """
        sharing: dict[tuple[int, ...], list[int]] = {}
        for number, (_, ids, _) in enumerate(requests):
            sharing.setdefault(tuple(ids), []).append(number)
        asked: list[tuple[Choices, list[int]]] = []
        for context, every in sharing.items():
            room = max(1, self._max_tokens - len(context))
            for part in pieces([len(requests[number][2]) for number in every], room):
                numbers = [every[i] for i in part]
                some = self._coder.fitted([requests[number][1:] for number in numbers])
                parts = [numbers] if len(some) == 1 else [[number] for number in numbers]
                asked += zip(some, parts, strict=True)
        found: list[Likelihood] = [Likelihood(0.0, False)] * len(requests)
        shown, done = display(), 0
        try:
            for piece in pieces([one.tokens for one, _ in asked], self._max_tokens):
                together = asked[piece.start : piece.stop]
                said = likelihoods(self._policy.network, [one for one, _ in together])
                for (_, numbers), values in zip(together, said, strict=True):
                    done += len(numbers)
                    for number, value in zip(numbers, values, strict=True):
                        found[number] = value
                if not disable_tqdm:
                    shown.show("log-probabilities", done, len(requests))
        finally:
            shown.close()
        for (key, _, _), value in zip(requests, found, strict=True):
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, tuple(value))
        return [(value.logprob, value.greedy) for value in found]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """How likely whole texts are; one that is too long in windows, each token once."""
        texts = [request.args[0] for request in requests]
        windows, owners = [], []
        for number, text in enumerate(texts):
            ids = self.tok_encode(text)
            rolling = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            some = [(None, *make_disjoint_window(one)) for one in rolling]
            windows += some
            owners += [number] * len(some)
        sums = [0.0] * len(texts)
        found = self._loglikelihood_tokens(windows, disable_tqdm)
        for owner, (value, _) in zip(owners, found, strict=True):
            sums[owner] += value
        for text, value in zip(texts, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), value)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes to each context, up to a text or a token that ends it."""
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            key = json.dumps(request.args[1], sort_keys=True, default=str)
            alike.setdefault(key, []).append(number)
        found = [""] * len(requests)
        for numbers in alike.values():
            wanted = normalize_gen_kwargs(requests[numbers[0]].args[1], self.max_gen_toks)
            texts = [requests[number].args[0] for number in numbers]
            for number, said in zip(
                numbers, self._written(texts, numbers, dict(wanted)), strict=True
            ):
                found[number] = said
                self.cache_hook.add_partial("generate_until", requests[number].args, said)
        return found

    def _written(
        self, texts: Sequence[str], numbers: Sequence[int], wanted: dict[str, Any]
    ) -> list[str]:
        """What is written to contexts of which the same is wanted."""
        until, most = wanted.pop("until", None) or [], wanted.pop("max_gen_toks")
        stops = [until] if isinstance(until, str) else [one for one in until if one]
        room = self.max_length - most
        require(room >= 1, "max_gen_toks", f"less than the {self.max_length} of the context", most)
        sampling, network = self._sampling(wanted), self._policy.network
        requests = [
            Request(self.tok_encode(text)[-room:] or [self.prefix_token_id], number, "")
            for text, number in zip(texts, numbers, strict=True)
        ]
        text = StopText(stops[0], self.tokenizer) if stops else None
        ends = Ends(most, self._ending_ids(), text)
        said = [""] * len(texts)
        shown = display()
        try:
            for response in respond(network, requests, ends, sampling, (self._seed, 0), shown.show):
                words = self.tokenizer.decode(response.tokens, skip_special_tokens=True)
                said[response.number] = postprocess_generated_text(str(words), stops, None)
        finally:
            shown.close()
        return said

    def _ending_ids(self) -> list[int]:
        """EOS, and what else the model's settings of generation say."""
        settings: Any = base_network(self._policy.network).generation_config
        also = None if settings is None else settings.eos_token_id
        ids = also if isinstance(also, list) else [] if also is None else [also]
        return sorted({self.eot_token_id, *ids})

    def _sampling(self, wanted: dict[str, Any]) -> Sampling:
        """How to draw.

        Args:
            wanted: of a task; ``do_sample`` says nothing that its temperature does not.

        Raises:
            UserError: something is wanted that is not known here.
        """
        wanted.pop("do_sample", None)
        known = ("temperature", "top_p", "top_k", "repetition_penalty")
        for name in wanted:
            require(name in known, "gen_kwargs", f"of {', '.join(known)}", name)
        return Sampling(batch_size=self._slots, **wanted)
