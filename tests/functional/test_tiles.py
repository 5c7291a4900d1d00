"""Log-probabilities from tiles against logits of all positions at once."""

import math

import pytest
import torch
from torch import Tensor

from instructgpt.functional.bits import pack_bits
from instructgpt.functional.logprobs import Readings, entropy, token_logprobs
from instructgpt.functional.tiles import tiled_logprobs
from tests.largest import Largest

TILE = (3, 4)  # neither divides what follows
PLACES, IDS, WIDTH = 7, 11, 5
SUPPORT = torch.rand(PLACES, IDS, generator=torch.Generator().manual_seed(3)) > 0.5
SUPPORT[:, 7:9] = True
FORMS = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 1.5},
    "scale": {"scale": 0.3},
    "negative scale": {"scale": -2.0, "softcap": 0.7},
    "impossible": {"impossible": torch.tensor([0, 5, 6])},
    "a whole tile is impossible": {"impossible": torch.tensor([0, 1, 2, 3])},
    "count": {"count": 9},
    "support": {"support": SUPPORT, "softcap": 1.5, "count": 10},
    "all": {
        "bias": True,
        "softcap": 2.0,
        "scale": 1.7,
        "impossible": torch.tensor([1, 4]),
        "count": 10,
    },
}


def inputs(dtype=torch.float64, places=PLACES, ids=IDS, width=WIDTH):
    generator = torch.Generator().manual_seed(1)

    def some(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    states, weight, bias = some(places, width), some(ids, width), some(ids)
    possible = torch.tensor([7, 8])  # under every form
    return states, weight, bias, possible[torch.randint(2, (places,), generator=generator)]


def whole(
    states,
    weight,
    targets,
    bias=None,
    softcap=None,
    scale=1.0,
    impossible=None,
    count=None,
    support=None,
):
    """The oracle: all logits, one after the other what the formula says."""
    logits = states @ weight.t()
    if bias is not None:
        logits = logits + bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = (scale * logits)[:, :count]
    if impossible is not None:
        logits = logits.index_fill(1, impossible, -math.inf)
    if support is not None:
        logits = logits.masked_fill(~support[:, :count], -math.inf)
    return Readings(token_logprobs(logits, targets), logits.argmax(1) == targets, entropy(logits))


def with_bias(form, bias):
    return {**form, "bias": bias if form.get("bias") else None}


@pytest.mark.parametrize("tile", [TILE, (100, 100), (1, 1), None])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_values_and_gradients_are_those_of_all_logits(form, tile):
    *leaves, targets = inputs()
    for leaf in leaves:
        leaf.requires_grad_()
    states, weight, bias = leaves
    form = with_bias(form, bias)
    expected = whole(states, weight, targets, **form)
    if "support" in form:
        form["support"] = pack_bits(form["support"])
    got = tiled_logprobs(states, weight, targets, **form, entropy=True, tile=tile)
    assert got.correct.tolist() == expected.correct.tolist()
    assert got.entropy is not None
    torch.testing.assert_close(got.logprobs, expected.logprobs)
    torch.testing.assert_close(got.entropy, expected.entropy)
    upstream = torch.linspace(-1, 2, PLACES, dtype=torch.float64)
    used = [leaf for leaf in leaves if leaf is not bias or form["bias"] is not None]
    for pick in ("logprobs", "entropy"):
        ours, theirs = (
            torch.autograd.grad((getattr(x, pick) * upstream).sum(), used, retain_graph=True)
            for x in (got, expected)
        )
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["plain", "all", "negative scale"])
def test_gradcheck(name):
    states, weight, bias, targets = inputs()
    form = with_bias(FORMS[name], bias)

    def values(states: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor | None]:
        more = {**form, "bias": bias if form["bias"] is not None else None}
        got = tiled_logprobs(states, weight, targets, **more, entropy=True, tile=TILE)
        return got.logprobs, got.entropy

    leaves = [leaf.requires_grad_() for leaf in (states, weight, bias)]
    assert torch.autograd.gradcheck(values, leaves)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 2), ()])
def test_a_gradient_is_made_only_where_it_is_needed(needed):
    *leaves, targets = inputs()
    for index in needed:
        leaves[index].requires_grad_()
    states, weight, bias = leaves
    got = tiled_logprobs(states, weight, targets, bias=bias, tile=TILE).logprobs
    assert got.requires_grad == bool(needed)
    if needed:
        got.sum().backward()
    assert [leaf.grad is not None for leaf in leaves] == [index in needed for index in range(3)]


def test_a_tied_weight_gets_both_gradients():
    _, weight, _, targets = inputs()
    weight.requires_grad_()
    tokens = torch.arange(PLACES)
    for function in (whole, tiled_logprobs):
        function(weight[tokens], weight, targets)[0].sum().backward()
        gradient, weight.grad = weight.grad, None
        if function is whole:
            expected = gradient
    torch.testing.assert_close(gradient, expected)


def test_worked_numbers():
    # Logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8.
    weight = torch.tensor([[1.0], [2.0], [5.0]]).log()
    got = tiled_logprobs(torch.ones(2, 1), weight, torch.tensor([1, 2]), entropy=True, tile=(1, 2))
    assert got.logprobs.tolist() == pytest.approx([math.log(2 / 8), math.log(5 / 8)])
    assert got.correct.tolist() == [False, True]
    entropies = [-sum(p / 8 * math.log(p / 8) for p in (1, 2, 5))] * 2
    assert got.entropy is not None
    assert got.entropy.tolist() == pytest.approx(entropies)


@pytest.mark.parametrize("tile", [(2, 2), (9, 9)])
def test_of_equally_likely_ids_the_first_is_correct(tile):
    targets = torch.arange(5)
    got = tiled_logprobs(torch.zeros(5, 2), torch.ones(5, 2), targets, tile=tile)
    assert got.correct.tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("target", "form"), [(3, {"impossible": torch.tensor([3])}), (10, {"count": 10})]
)
def test_an_impossible_target_has_no_probability_and_no_gradient_that_is_not_finite(target, form):
    states, weight, *_ = inputs()
    states.requires_grad_()
    targets = torch.full((PLACES,), target)
    got = tiled_logprobs(states, weight, targets, **form, tile=TILE)
    assert got.logprobs.tolist() == [-math.inf] * PLACES
    assert not got.correct.any()
    got.logprobs.sum().backward()
    assert states.grad is not None
    assert states.grad.isfinite().all()


def test_large_logits_keep_their_digits():
    states, weight, _, targets = inputs(torch.float32)
    shifted = torch.cat([weight, torch.full((IDS, 1), 1000.0)], 1)  # all logits are 1000 higher
    states_and_one = torch.cat([states, torch.ones(PLACES, 1)], 1)
    got = tiled_logprobs(states_and_one, shifted, targets, entropy=True, tile=TILE)
    expected = whole(states, weight, targets)
    torch.testing.assert_close(got.logprobs, expected.logprobs, atol=2e-4, rtol=0)
    assert got.entropy is not None
    assert expected.entropy is not None
    torch.testing.assert_close(got.entropy, expected.entropy, atol=2e-4, rtol=0)


def test_what_is_far_below_the_best_has_no_gradient_at_all():
    # Not one of the smallest numbers there are, which processors are a hundred times slower at.
    depths = torch.linspace(0, -300, 40)
    weight = depths[:, None].clone().requires_grad_()
    states, targets = torch.ones(2, 1, requires_grad=True), torch.tensor([0, 20])
    found = tiled_logprobs(states, weight, targets, entropy=True, tile=(1, 16))
    logprobs = depths.log_softmax(0)
    torch.testing.assert_close(found.logprobs, logprobs[targets])
    torch.testing.assert_close(found.entropy, -(logprobs.exp() * logprobs).sum().expand(2))
    found.logprobs[0].backward()
    sizes = weight.grad.abs()
    assert float(sizes[sizes > 0].min()) > 1e-23
    torch.testing.assert_close(sizes[1:], depths.softmax(0)[1:, None], atol=1e-21, rtol=1e-5)


def test_no_position_and_one_id():
    states, weight, _, targets = inputs()
    got = tiled_logprobs(states[:0], weight, targets[:0], entropy=True)
    assert [len(column) for column in got if column is not None] == [0, 0, 0]
    alone = tiled_logprobs(states, weight[:1], torch.zeros(PLACES, dtype=torch.long), entropy=True)
    assert alone.logprobs.tolist() == [0.0] * PLACES
    assert alone.correct.all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_stays_near_and_gives_float32(dtype, autocast):
    """Within what rounding of inputs and logits explains: 2^-8 of the largest logit or gradient."""
    exact = inputs(torch.float64, places=64, ids=300, width=32)
    states, weight, bias, targets = exact
    states = states / 32**0.5
    held = torch.float32 if autocast else dtype
    leaves = [leaf.to(held).requires_grad_() for leaf in (states, weight, bias)]
    with torch.autocast("cpu", dtype, enabled=autocast):
        got = tiled_logprobs(
            *leaves[:2], targets, bias=leaves[2], scale=0.5, entropy=True, tile=(17, 40)
        )
    assert got.logprobs.dtype == torch.float32
    assert got.entropy is not None
    assert got.entropy.dtype == torch.float32
    double = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = whole(*double[:2], targets, bias=double[2], scale=0.5)
    bound = 2.0**-8 * (states @ weight.t() + bias).abs().max().item()
    torch.testing.assert_close(got.logprobs.double(), expected.logprobs, atol=bound, rtol=0)
    assert expected.entropy is not None
    torch.testing.assert_close(got.entropy.double(), expected.entropy, atol=bound, rtol=0)
    got.logprobs.sum().backward()
    expected.logprobs.sum().backward()
    for ours, theirs in zip(leaves, double, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == held
        bound = 2.0**-7 * theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=bound, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_has_all_positions_and_ids(dtype):
    states, weight, bias, targets = inputs(dtype, places=400, ids=900, width=8)
    leaves = [leaf.requires_grad_() for leaf in (states, weight, bias)]
    with Largest() as seen:
        got = tiled_logprobs(
            *leaves[:2], targets, bias=bias, softcap=2.0, entropy=True, tile=(50, 100)
        )
        assert got.entropy is not None
        (got.logprobs.sum() + got.entropy.sum()).backward()
    assert seen.size == max(50 * 100, 900 * 8)
