"""The miniature world's architecture is a language model like any other, and learns to copy."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DynamicCache,
)

from instructgpt.models.flat import predict
from instructgpt.models.forward import position_ids
from instructgpt.models.half_rotary import Rotation, rotated, rotation_of
from instructgpt.models.shift_gpt import VALUE_TO_OUTPUT, Before, ShiftGPTConfig, ShiftNorm
from instructgpt.modules.optimizer import total_norm
from instructgpt.types import flat_rows

VOCABULARY = 40


def model(**sizes):
    torch.manual_seed(0)
    config = ShiftGPTConfig(
        vocab_size=VOCABULARY, eos_token_id=1, pad_token_id=0, hidden_size=32, **sizes
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def small():
    return model()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(2, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(network, tokens, **kwargs):
    return network(tokens, use_cache=False, **kwargs).logits


def test_it_starts_as_match_and_copy(small):
    for layer in small.model.layers:
        attention = layer.attention
        assert torch.equal(attention.q_proj.weight, attention.k_proj.weight)
        assert torch.equal(attention.o_proj.weight, VALUE_TO_OUTPUT * attention.v_proj.weight.T)
        assert bool((attention.shift == 0.5).all())
        # 0.02 / sqrt(2 * 2 layers) = 0.01, from 32 * 128 draws
        assert float(layer.down_proj.weight.std()) == pytest.approx(0.01, rel=0.05)
    # embeddings of norm about one: std 1 / sqrt(32)
    embedding = small.get_input_embeddings().weight
    assert float(embedding.norm(dim=1).mean()) == pytest.approx(1.0, abs=0.05)
    assert small.lm_head.weight is embedding


def test_keys_see_the_token_before_as_the_formula_says():
    """By hand, for the first layer: k_t = W (u_t + shift * (u_{t-1} - u_t)), no u before t = 0."""
    network = model(num_hidden_layers=1)
    attention = network.model.layers[0].attention
    inputs = torch.randn(1, 3, 32)
    seen = {}
    attention.k_proj.register_forward_pre_hook(lambda _, given: seen.update(keys=given[0]))
    rotation = Rotation(torch.ones(1, 3, 4, 8), torch.zeros(1, 3, 4, 8))
    before = Before(torch.tensor([[[0.0], [1.0], [1.0]]]), None)
    attention(inputs, rotation, before, None, None)
    for t in range(3):
        before = inputs[0, t - 1] if t else torch.zeros(32)
        torch.testing.assert_close(seen["keys"][0, t], 0.5 * inputs[0, t] + 0.5 * before)


def test_rotation_by_hand():
    """Pairs (x0, x1) of the first half turn; the second half stays."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    quarter = Rotation(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([-1.0, 1.0, 0.0, 0.0]))
    assert rotated(x, quarter).flatten().tolist() == [-2.0, 1.0, 3.0, 4.0]


def test_the_gradient_of_a_rotation_is_that_of_its_formula():
    angles = torch.rand(1, 5, 1, 2, dtype=torch.float64)
    own = torch.cat([angles.cos(), angles.cos(), torch.ones(1, 5, 1, 4)], -1)
    other = torch.cat([-angles.sin(), angles.sin(), torch.zeros(1, 5, 1, 4)], -1)
    x = torch.randn(1, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotated(x, Rotation(own, other)), [x])


def test_positions_turn_by_hand():
    """Pair i of 2 turns by position * 1000 ** (-i / 2): by 1 and by 0.0316 a position."""
    positions = torch.tensor([[0, 1, 3]])
    own, other = rotation_of(positions, 4, 8, 1000.0, torch.float32)
    angles = torch.tensor([[0.0, 0.0], [1.0, 0.0316228], [3.0, 0.0948683]])
    still = torch.ones(3, 4)
    for head in range(4):
        turned = torch.cat([angles.cos(), angles.cos(), still], -1)
        torch.testing.assert_close(own[0, :, head], turned)
        turned = torch.cat([-angles.sin(), angles.sin(), 0 * still], -1)
        torch.testing.assert_close(other[0, :, head], turned)


def test_only_distances_count_but_they_do(small, tokens):
    """Positions 3 apart are not what positions 1 apart are; all moved by 5 they are the same."""
    steps = torch.arange(1, 13)[None].expand(3, -1)
    said = logits(small, tokens, position_ids=steps)
    torch.testing.assert_close(
        logits(small, tokens, position_ids=steps + 5), said, rtol=0, atol=1e-5
    )
    assert (logits(small, tokens, position_ids=3 * steps) - said).abs().max() > 0.01


def by_threads(compute):
    """What is computed with one thread, with two and with three."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(compute())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    return found


def test_sums_over_rows_do_not_depend_on_the_number_of_threads():
    """To the last bit: of a norm's gradient and of all; torch shares out 32,768 numbers."""
    norm, inputs = ShiftNorm(96), torch.randn(600, 96)

    def compute():
        norm.zero_grad()
        norm(inputs).square().sum(1).tanh().sum().backward()
        return norm.weight.grad, norm.bias.grad, total_norm([inputs])

    for others in zip(*by_threads(compute), strict=True):
        assert all(torch.equal(others[0], other) for other in others[1:])


def test_training_on_more_threads_is_the_same_but_for_the_rounding_of_products():
    """On the processors that were tried it is the same to the last bit at the miniature's sizes."""
    network = model(num_hidden_layers=1)
    tokens = torch.randint(VOCABULARY, (2050,), generator=torch.Generator().manual_seed(1))
    rows = flat_rows(tokens.split([*range(1, 64), 34]))
    places = rows.layout.positions.nonzero().squeeze(1)

    def compute():
        network.zero_grad()
        predict(network, rows, places).logprobs.mean().backward()
        return [parameter.grad for parameter in network.parameters()]

    for gradients in zip(*by_threads(compute), strict=True):
        for other in gradients[1:]:
            torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_cache_changes_nothing_in_mixed_precision(small, tokens):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = DynamicCache(config=small.config)
        pieces = [small(one, past_key_values=cache).logits for one in tokens.split(4, 1)]
        whole = logits(small, tokens)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=0)


@torch.no_grad()
def test_a_padded_batch_generates_what_its_rows_do(small, tokens):
    mask = torch.ones(3, 12, dtype=torch.bool)
    mask[0, :5] = False
    mask[2, :1] = False
    found = small.generate(tokens, attention_mask=mask, max_new_tokens=5, do_sample=False)
    for row, real in zip(range(3), mask, strict=True):
        alone = small.generate(tokens[row][real][None], max_new_tokens=5, do_sample=False)
        assert found[row, 12:].tolist() == alone[0, int(real.sum()) :].tolist()


def test_what_it_does_not_return_is_refused(small, tokens):
    with pytest.raises(ValueError, match="does not return the hidden states"):
        small(tokens, output_hidden_states=True)


@pytest.mark.parametrize("pieces", [[1] * 12, [5, 7], [11, 1]])
@torch.no_grad()
def test_the_cache_changes_nothing(small, tokens, pieces):
    cache, said = DynamicCache(config=small.config), []
    for piece in tokens.split(pieces, 1):
        output = small(piece, past_key_values=cache, use_cache=True)
        said.append(output.logits)
    torch.testing.assert_close(torch.cat(said, 1), logits(small, tokens), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_reordered_cache_goes_on_with_the_right_rows(small, tokens):
    order = torch.tensor([2, 0, 0])
    cache = small(tokens[:, :6], use_cache=True).past_key_values
    cache.reorder_cache(order)
    output = small(tokens[order, 6:], past_key_values=cache, use_cache=True)
    expected = logits(small, tokens[order])[:, 6:]
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("given", [True, False])
def test_left_padding_changes_nothing(small, tokens, given):
    padded = torch.cat([torch.full((3, 4), 5), tokens], 1)
    mask = torch.ones(3, 16, dtype=torch.bool)
    mask[:, :4] = False
    positions = {"position_ids": position_ids(mask)} if given else {}
    found = logits(small, padded, attention_mask=mask, **positions)[:, 4:]
    torch.testing.assert_close(found, logits(small, tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_it_generates_like_without_a_cache(small, tokens, options):
    found = small.generate(tokens, max_new_tokens=6, do_sample=False, **options)
    plain = small.generate(tokens, max_new_tokens=6, do_sample=False, use_cache=False, **options)
    assert torch.equal(found, plain)


def test_eager_attention_agrees(small, tokens):
    eager = model(attn_implementation="eager")
    torch.testing.assert_close(logits(eager, tokens), logits(small, tokens), rtol=0, atol=1e-5)


def test_it_saves_and_loads_as_a_policy_and_as_a_scorer(small, tokens, tmp_path):
    small.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(loaded, tokens), logits(small, tokens))
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1).eval()
    found = scorer.model(tokens, use_cache=False).last_hidden_state
    assert torch.equal(found, small.model(tokens, use_cache=False).last_hidden_state)
    assert scorer(tokens).logits.shape == (3, 1)


def test_gradient_checkpointing_changes_no_gradient(tokens):
    gradients = []
    for checkpointing in (False, True):
        network = model().train()
        if checkpointing:
            network.gradient_checkpointing_enable()
        network(tokens, labels=tokens, use_cache=False).loss.backward()
        gradients.append(network.model.layers[0].attention.shift.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(Exception, match="multiple of 4 \\* num_attention_heads"):
        ShiftGPTConfig(hidden_size=40)


@pytest.mark.slow
def test_it_learns_to_copy():
    """Seven random words, twice: the second line can only be known from the first."""
    torch.manual_seed(0)
    config = ShiftGPTConfig(vocab_size=64, hidden_size=64)
    network = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)

    def lines(count):
        words = torch.randint(2, 64, (count, 7))
        return torch.cat([words, torch.ones(count, 1, dtype=torch.long), words], 1)

    for _ in range(400):
        network(batch := lines(32), labels=batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    test = lines(200)
    guesses = logits(network.eval(), test).argmax(-1)[:, 8:-1]
    # chance is 1 / 62; without the shift this stays there
    assert float((guesses == test[:, 9:]).float().mean()) > 0.9
