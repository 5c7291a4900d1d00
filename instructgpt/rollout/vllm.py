"""Rollouts by vLLM (extra ``vllm``), which is given the weights before each of them.

It runs in this process, on the same device as the policy. Its arithmetic is not that of training,
and depends on what is answered together: what it recorded differs from what the policy says, which
PPO measures; and a response is no exact function of (policy, prompt, seed, phase, sample id).
"""

from __future__ import annotations

import importlib
import math
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from instructgpt.models.forward import base_network, known_ids
from instructgpt.rollout.drawing import Ends, Request, Response, Sampling, Told
from instructgpt.seeds import mix
from instructgpt.types import RunFailedError, UserError

SHARE = 0.3
"""Of the device's memory, for its weights and its cache: the rest is for training."""
_RUNNING: WeakKeyDictionary[nn.Module, tuple[str, Any]] = WeakKeyDictionary()
"""Of a network, which log-probabilities its engine records, and the engine."""


class VLLMEngine:
    """Lets vLLM answer."""

    def respond(
        self,
        model: nn.Module,
        requests: Sequence[Request],
        ends: Ends,
        sampling: Sampling,
        names: tuple[int, int],
        told: Told | None = None,
    ) -> Iterator[list[Response]]:
        """The responses, all at once; arguments as for ``RolloutEngine``."""
        network = base_network(model)
        if network is not model:
            raise UserError(
                'sampling.engine must be "own" for a policy with an adapter, got "vllm"'
            )
        head = network.get_output_embeddings().weight
        if head.device.type == "cpu" and head is network.get_input_embeddings().weight:
            rule = 'must be "own" on a CPU where head and embedding are one weight, got "vllm"'
            raise UserError(f"sampling.engine {rule}: it would keep the head of the beginning")
        llm = _running(network, sampling)
        prompts = [{"prompt_token_ids": request.tokens} for request in requests]
        wishes = [_wish(network, request, ends, sampling, names) for request in requests]
        outputs = llm.generate(prompts, wishes, use_tqdm=False)
        least = sampling.min_response_tokens
        found = [_response(number, output, ends, least) for number, output in enumerate(outputs)]
        if told is not None:
            for number, tokens, *_ in found:
                told(torch.full((len(tokens),), number), torch.tensor(tokens))
        yield found


def _running(network: PreTrainedModel, sampling: Sampling) -> Any:
    """The engine with the weights of the moment."""
    mode = "raw_logprobs" if plain(sampling) else "processed_logprobs"
    records, llm = _RUNNING.get(network, ("", None))
    if records == mode:
        weights = [(n, w.detach()) for n, w in network.named_parameters()]
        # Not ``load_weights`` of its model: some devices keep them in a form that only this makes.
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        llm.reset_prefix_cache()  # keys and values of prompts, by the weights before
        return llm
    llm = None  # what records the others is fixed when it starts, and goes before another comes
    _RUNNING.pop(network, None)
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # so that weights need no copy
    try:
        vllm = importlib.import_module("vllm")
    except ImportError as error:
        rule = "must be installed for sampling.engine vllm (pip install 'instructgpt[vllm]')"
        raise UserError(f"vllm {rule}, got: {error}") from None
    with tempfile.TemporaryDirectory() as folder, _same_noise(network.device):
        network.save_pretrained(folder)
        llm = vllm.LLM(
            model=folder,
            dtype=str(network.dtype).removeprefix("torch."),
            skip_tokenizer_init=True,
            max_num_seqs=sampling.batch_size,
            gpu_memory_utilization=SHARE,
            logprobs_mode=mode,
        )
    _RUNNING[network] = mode, llm
    return llm


@contextmanager
def _same_noise(device: torch.device) -> Iterator[None]:
    """Its start seeds every generator of the process, which then go on as if it had not."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)


def plain(sampling: Sampling) -> bool:
    """Whether the policy's own probabilities are recorded: vLLM takes them before all it does.

    Args:
        sampling: how to draw.

    Raises:
        UserError: only those after everything could be had.
    """
    if sampling.temperature in (0, 1):
        return True
    bent = sampling.top_p < 1 or sampling.top_k or sampling.repetition_penalty != 1
    if bent or sampling.min_response_tokens:
        rule = "must be 0 or 1 with top_p, top_k, a penalty or a least length and engine vllm"
        raise UserError(f"sampling.temperature {rule}, got {sampling.temperature}")
    return False


def _wish(
    network: PreTrainedModel,
    request: Request,
    ends: Ends,
    sampling: Sampling,
    names: tuple[int, int],
) -> Any:
    count, holes = known_ids(network)
    size: int = network.get_output_embeddings().weight.shape[0]
    known = [i for i in range(count) if i not in set(holes)] if holes or count < size else None
    return importlib.import_module("vllm").SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or -1,
        min_tokens=sampling.min_response_tokens,
        repetition_penalty=sampling.repetition_penalty,
        seed=mix(*names, request.sample_id),
        max_tokens=ends.limit,
        stop_token_ids=list(ends.ids),
        ignore_eos=True,  # what ends a response is said by the template
        allowed_token_ids=known,
        logprobs=0,  # of the tokens that are drawn
        detokenize=False,
    )


def _response(number: int, output: Any, ends: Ends, least: int) -> Response:
    (one,) = output.outputs
    tokens = [int(token) for token in one.token_ids]
    logprobs = [float(at[token].logprob) for at, token in zip(one.logprobs, tokens, strict=True)]
    if not all(map(math.isfinite, logprobs)):
        raise RunFailedError("the log-probabilities of vLLM are not finite")
    finished = bool(tokens) and tokens[-1] in set(ends.ids)
    if ends.text is not None and (end := ends.text.end(tokens[least:])):
        return Response(number, tokens[: least + end], logprobs[: least + end], True)
    return Response(number, tokens, logprobs, finished)
