"""A reward model scores tokens or text, whatever its tokenizer, template and batch."""

import copy
import warnings

import pytest
import torch
from tiny_models import flat
from transformers import AutoModelForSequenceClassification

from instructgpt.models.artefact import save_scalar
from instructgpt.models.load import Network, load_scalar
from instructgpt.models.template import get_template
from instructgpt.models.tokenizer import BPE, train_bpe
from instructgpt.models.trained import Prefix, attach
from instructgpt.rewards.learned import LearnedReward
from instructgpt.types import Prompt, Sample, UserError

CPU = torch.device("cpu")
PAIRS = [
    ("Say hello to the world", "hello world", True),
    ("Count", "one two three four five six", False),
    ("Say {x}", "", True),
]


def samples_of(tokenizer, template):
    samples = []
    for text, response, finished in PAIRS:
        prompt = Prompt(text, [{"role": "user", "content": text}], text, {})
        samples.append(
            Sample(
                prompt,
                response,
                template.encode_prompt(tokenizer, prompt),
                template.encode_response(tokenizer, response, end=finished),
                finished,
            )
        )
    return samples


@pytest.fixture
def reward_folder(make_architecture, tmp_path):
    def save(tokenizer, template="plain", offset=0.5, adapter=None, name="gpt2", **more):
        torch.manual_seed(3)
        architecture = make_architecture(name) | more
        model = load_scalar(None, architecture, Network(), tokenizer, head="new")
        model = model if adapter is None else attach(model, adapter)
        with torch.no_grad():
            model.offset.fill_(offset)
        own = {"parent": None, "config": {}, "metrics": {}}
        path = tmp_path / "rm"
        save_scalar(model, tokenizer, path, stage="reward", template=get_template(template), **own)
        return str(path), model.eval()

    return save


def one_by_one(model, rows):
    scores = []
    for row in rows:
        tokens = torch.tensor([row])
        scores.append(model.score(flat(tokens)))
    return torch.cat(scores).detach()


@pytest.mark.parametrize("name", ["gpt2", "lfm2"])
@pytest.mark.parametrize("max_tokens", [1, 24, None])
def test_tokens_are_scored_as_they_are(reward_folder, tiny_tokenizer, name, max_tokens):
    """Several samples of a prompt, of no token among them, share it or not: as each alone."""
    path, model = reward_folder(tiny_tokenizer, name=name)
    reward = LearnedReward(path, Network(max_tokens=max_tokens))
    reward.prepare(tiny_tokenizer, get_template("plain"), CPU)
    assert reward.same_tokens
    first, *others = samples_of(tiny_tokenizer, get_template("plain"))
    more = [[5], [], first.response_tokens, [7, 5, 9]]
    samples = [first, others[0], *(first._replace(response_tokens=one) for one in more), others[1]]
    expected = one_by_one(model, [s.prompt_tokens + s.response_tokens for s in samples])
    torch.testing.assert_close(reward.score(samples), expected, rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in reward.model.parameters())


def test_a_prompt_is_read_once_for_its_responses(reward_folder, tiny_tokenizer):
    """Layouts that reach the model: of two prompts, one has three responses."""
    path, model = reward_folder(tiny_tokenizer)
    prompts, responses = ([3, 4, 5, 6], [8, 9]), [[0], [4, 0], [5, 6, 0]]
    asked = Prompt("", [], "0", {})
    samples = [Sample(asked, "", prompts[0], one, True) for one in responses]
    samples.insert(1, Sample(asked, "", prompts[1], [7], True))

    def layouts(max_tokens):
        reward, seen = LearnedReward(path, Network(max_tokens=max_tokens)), []
        reward.prepare(tiny_tokenizer, get_template("plain"), CPU)
        each = reward.model.each

        def watched(rows):
            seen.append(rows.layout.lengths.tolist())
            return each(rows)

        reward.model.each = watched
        assert reward.score(samples).tolist() == pytest.approx(expected, abs=1e-5)
        return seen

    expected = one_by_one(model, [s.prompt_tokens + s.response_tokens for s in samples]).tolist()
    assert layouts(None) == [[4, 1, 2, 3, 2, 1]]
    assert layouts(10) == [[4, 1, 2, 3], [2, 1]]
    # 4 + 1 + 2 fit into 7, and with the third of 3 they would not: the prompt is read twice
    assert layouts(7) == [[4, 1, 2], [4, 3], [2, 1]]
    assert layouts(1) == [[4, 1], [4, 2], [4, 3], [2, 1]]


def test_a_prompt_that_is_cut_for_one_response_is_shared_by_the_others(
    reward_folder, tiny_tokenizer
):
    path, model = reward_folder(tiny_tokenizer, n_positions=16)
    reward = LearnedReward(path)
    reward.prepare(tiny_tokenizer, get_template("plain"), CPU)
    prompt = list(range(2, 14))  # 12 tokens; the longest responses leave room for 6, and for none
    responses = [[40, 0], [41, 42, 0], list(range(20, 30)), list(range(20, 50)), [43, 0]]
    samples = [Sample(Prompt("", [], "0", {}), "", prompt, one, True) for one in responses]
    expected = one_by_one(model, [(prompt + one)[-16:] for one in responses])
    with pytest.warns(UserWarning, match="without the beginning"):
        scores = reward.score(samples)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_text_path_equals_token_path(reward_folder, tiny_tokenizer):
    path, _ = reward_folder(tiny_tokenizer, template="instruction")
    reward, template = LearnedReward(path), get_template("instruction")
    reward.prepare(tiny_tokenizer, template, CPU)
    samples = samples_of(tiny_tokenizer, template)
    by_tokens = reward.score(samples)
    reward.same_tokens = False
    torch.testing.assert_close(reward.score(samples), by_tokens)


def test_other_padding_is_the_same_tokenizer(reward_folder, eos_padded_tokenizer):
    path, _ = reward_folder(eos_padded_tokenizer)
    reward = LearnedReward(path)
    reward.prepare(eos_padded_tokenizer, get_template("plain"), CPU)
    assert reward.same_tokens
    assert reward.tokenizer.pad_token_id != eos_padded_tokenizer.pad_token_id


@pytest.mark.parametrize("other", ["tokenizer", "template"])
def test_other_tokenizer_or_template_reads_the_text(reward_folder, tiny_tokenizer, other):
    theirs = train_bpe(["zebra quartz"] * 3, BPE(vocab_size=262, special_tokens=["</s>"]))
    rm_tokenizer = theirs if other == "tokenizer" else tiny_tokenizer
    rm_template = get_template("plain" if other == "tokenizer" else "hh")
    path, model = reward_folder(rm_tokenizer, template=rm_template.name)
    reward = LearnedReward(path)
    reward.prepare(tiny_tokenizer, get_template("plain"), CPU)
    assert not reward.same_tokens
    scores = reward.score(samples_of(tiny_tokenizer, get_template("plain")))
    theirs_rows = samples_of(rm_tokenizer, rm_template)  # EOS only where the response is finished
    expected = one_by_one(model, [s.prompt_tokens + s.response_tokens for s in theirs_rows])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("adapter", [None, Prefix(tokens=4)])
def test_rows_beyond_the_context_lose_their_beginning(reward_folder, tiny_tokenizer, adapter):
    path, model = reward_folder(tiny_tokenizer, adapter=adapter, n_positions=16)
    reward, template = LearnedReward(path), get_template("plain")
    reward.prepare(tiny_tokenizer, template, CPU)
    long = Sample(Prompt("", [], "0", {}), "", list(range(2, 30)), [40, 41, 0], True)
    room = 16 if adapter is None else 12
    expected = one_by_one(model, [(long.prompt_tokens + long.response_tokens)[-room:]])
    with pytest.warns(UserWarning, match=f"without the beginning .* context of {room} tokens"):
        scores = reward.score([long])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        reward.score([long])


def test_warns_without_an_offset(reward_folder, tiny_tokenizer):
    path, _ = reward_folder(tiny_tokenizer, offset=0.0)
    assert [one.name for one in LearnedReward(path).warnings()] == ["offset"]
    path, _ = reward_folder(tiny_tokenizer, offset=0.5)
    assert LearnedReward(path).warnings() == []


def test_preparing_again_keeps_the_model(reward_folder, tiny_tokenizer):
    path, _ = reward_folder(tiny_tokenizer)
    reward = LearnedReward(path)
    reward.prepare(tiny_tokenizer, get_template("plain"), CPU)
    model = reward.model
    reward.prepare(tiny_tokenizer, get_template("instruction"), CPU)
    assert reward.model is model
    assert not reward.same_tokens


def test_reward_model_of_others_uses_its_chat_template(make_architecture, tiny_tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    torch.manual_seed(0)
    trunk = load_scalar(None, make_architecture("llama"), Network(), tokenizer, head="new").trunk
    trunk.config.num_labels = 1
    other = AutoModelForSequenceClassification.from_config(trunk.config).eval()
    other.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = LearnedReward(str(tmp_path))
    reward.prepare(tiny_tokenizer, get_template("plain"), CPU)
    assert reward.template.name == "chat"
    sample = samples_of(tiny_tokenizer, get_template("plain"))[0]
    ids = (
        tokenizer("[Say hello to the world]>")["input_ids"] + tokenizer("hello world")["input_ids"]
    )
    expected = other(torch.tensor([[*ids, tokenizer.eos_token_id]])).logits[:, 0].detach()
    torch.testing.assert_close(reward.score([sample]), expected, rtol=0, atol=1e-5)


def test_wrong_reward_models(tmp_path, tiny_tokenizer):
    with pytest.raises(UserError, match="no such folder"):
        LearnedReward("/nowhere/rm").prepare(tiny_tokenizer, get_template("plain"), CPU)
