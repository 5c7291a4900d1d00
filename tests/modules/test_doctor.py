"""The doctor finds what is wrong before a run begins, says it once, and keeps it."""

import pytest
import torch
from lightning.pytorch import Callback
from small_chat_model import make_chat_model
from small_ppo import make
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from instructgpt.callbacks.doctor import Doctor
from instructgpt.callbacks.plan import PlanPrinter
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.models.artefact import save_scalar
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template
from instructgpt.modules.sft import SFTModule
from instructgpt.rewards.learned import LearnedReward
from instructgpt.rewards.rules import CountReward
from instructgpt.rollout.drawing import Sampling
from instructgpt.rollout.updates import Batches
from instructgpt.types import UserError

ONE_STEP = {"max_steps": 1, "max_epochs": -1}


@pytest.fixture
def found(fit):
    """Names of what is found in a run of a step, or longer."""

    def look(module, data, callbacks=(), **options):
        doctor = Doctor()
        fit(module, data, callbacks=[*callbacks, doctor], **{**ONE_STEP, **options})
        assert all(one["what"] and one["why"] and one["remedy"] for one in doctor.found)
        return [one["name"] for one in doctor.found]

    return look


def sft(source, **options):
    return SFTModule(source, **{"validation_prompts": 0, **options})


class MasksIds(DemonstrationDataModule):
    """Takes targets from ids, as collators elsewhere do."""

    @property
    def collate(self):
        make = super().collate

        def collate(rows):
            batch = make(rows)
            end = self.tokenizer.eos_token_id
            return batch._replace(targets=batch.targets & (batch.rows.tokens != end))

        return collate


def from_scratch(tokenizer):
    tiny = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64}
    return SFTModule(architecture=tiny, tokenizer=tokenizer, validation_prompts=0)


def test_a_healthy_run_says_nothing(
    found, demonstration_data, policy_artefact, prompt_data, recwarn
):
    assert found(sft(policy_artefact), demonstration_data()) == []
    assert found(make(policy_artefact), prompt_data()) == []
    assert not [one for one in recwarn if "doctor" in str(one.message)]


def test_responses_without_an_end_are_found(found, demonstration_data, policy_artefact):
    """What the summary of the data has said is noted, and not said again."""
    with pytest.warns(UserWarning, match="doctor: eos_trained: none of the first 19 rows"):
        names = found(sft(policy_artefact), demonstration_data(max_response_tokens=1))
    assert names == ["responses_cut", "eos_trained"]


@pytest.mark.parametrize(
    ("name", "finding"),
    [("eos_padded_tokenizer", "pad_eos"), ("tiny_tokenizer", "eos_trained")],
)
def test_an_end_that_is_no_target_is_found(found, files, tmp_path, request, name, finding):
    request.getfixturevalue(name).save_pretrained(tmp_path)
    options = {"tokenizer": f"{tmp_path}", "max_prompt_tokens": 24, "max_response_tokens": 24}
    data = MasksIds(train=files["demonstrations"], **options)
    assert found(from_scratch(f"{tmp_path}"), data) == [finding]


def test_an_end_that_may_not_be_drawn_is_found(found, prompt_data, policy_artefact):
    module = make(policy_artefact, sampling=Sampling(min_response_tokens=6))
    assert found(module, prompt_data(max_response_tokens=6)) == ["eos_reachable"]


@pytest.mark.parametrize(("asked", "names"), [("instruction", ["template"]), (None, [])])
def test_another_template_than_the_models_own_is_found(
    found, demonstration_data, tmp_path, asked, names
):
    source = make_chat_model(tmp_path / "chat")
    data = demonstration_data(tokenizer=source, template=asked, max_prompt_tokens=64)
    assert found(sft(source), data) == names


def test_a_tokenizer_that_does_not_know_the_text_is_found(found, files, tmp_path):
    words = {"<end>": 0, "<unk>": 1, "say": 2, "hello": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(tmp_path / "words")
    options = {"max_prompt_tokens": 24, "max_response_tokens": 24}
    data = DemonstrationDataModule(
        train=files["demonstrations"], tokenizer=f"{tmp_path}/words", **options
    )
    assert found(from_scratch(f"{tmp_path}/words"), data) == ["tokenizer"]


def test_a_plan_beyond_the_memory_is_found(found, demonstration_data, policy_artefact, monkeypatch):
    monkeypatch.setattr("instructgpt.callbacks.checks.capacity", lambda device: 2**20)
    with pytest.warns(UserWarning, match="doctor: memory: .* the device has 1: the run is going"):
        assert found(sft(policy_artefact), demonstration_data(), [PlanPrinter()]) == ["memory"]


def test_a_reward_model_without_an_offset_is_found(
    found, prompt_data, policy_artefact, tiny_tokenizer, tmp_path
):
    """It is found while the run is built, and said when that is over."""
    model = load_scalar(policy_artefact, None, Network(), tiny_tokenizer, head="new")
    own = {"stage": "reward", "parent": None, "config": {}, "metrics": {}}
    plain = get_template("plain")
    save_scalar(model, tiny_tokenizer, tmp_path / "reward", template=plain, **own)
    module = make(policy_artefact, LearnedReward(f"{tmp_path}/reward"))
    with pytest.warns(UserWarning, match="doctor: offset: reward model .* has no offset: 0 is not"):
        assert found(module, prompt_data()) == ["offset"]


def test_a_first_rollout_without_ends_or_differences_is_found(found, prompt_data, policy_artefact):
    module = make(
        policy_artefact,
        CountReward(text="§"),
        batches=Batches(32, 16),
        sampling=Sampling(top_k=1),
    )
    assert found(module, prompt_data())[:2] == ["no_end", "scores_vary"]


class Louder(Callback):
    """A network that says something else where it learns."""

    def on_fit_start(self, trainer, pl_module):
        scale = lambda *_: _[-1] * (1.5 if torch.is_grad_enabled() else 1.0)  # noqa: E731
        pl_module.policy.transformer.wte.register_forward_hook(scale)


def test_a_first_ratio_that_is_not_1_is_found(found, prompt_data, policy_artefact):
    names = found(make(policy_artefact), prompt_data(), [Louder()], max_epochs=1, max_steps=-1)
    assert names == ["first_ratio"]


def test_one_batch_is_overfitted_on_request(fit, demonstration_data, policy_artefact, capsys):
    """And the verdict is that of the steps, not of the request."""
    options = {"overfit_batches": 1, "max_steps": 12, "max_epochs": -1}
    fast = sft(policy_artefact, optimizer=lambda p: torch.optim.Adam(p, 1e-2))
    fit(fast, demonstration_data(), callbacks=[Doctor(12)], **options)
    assert "doctor.overfit: the loss fell from " in capsys.readouterr().out
    slow = sft(policy_artefact, optimizer=lambda p: torch.optim.Adam(p, 1e-9))
    with pytest.raises(UserError, match="overfit: one batch is not learned in 12 steps: the loss"):
        fit(slow, demonstration_data(), callbacks=[Doctor(12)], **options)
    with pytest.raises(UserError, match=r"overfit_batches must be 1 with doctor.overfit, got 0"):
        fit(slow, demonstration_data(), callbacks=[Doctor(12)], **ONE_STEP)
    with pytest.raises(UserError, match=r"doctor.overfit must be >= 8 or null, got 7"):
        Doctor(7)


def test_a_resumed_run_does_not_say_it_again(fit, demonstration_data, policy_artefact, tmp_path):
    before, after = Doctor(), Doctor()
    data = {"max_response_tokens": 1}
    options = {"limit_train_batches": 2, "callbacks": [before]}
    trainer = fit(sft(policy_artefact), demonstration_data(**data), max_epochs=1, **options)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    options |= {"callbacks": [after], "ckpt_path": tmp_path / "one.ckpt"}
    fit(sft(policy_artefact), demonstration_data(**data), max_epochs=2, **options)
    assert after.found == before.found
    assert [one["step"] for one in after.found] == [0, 0]
