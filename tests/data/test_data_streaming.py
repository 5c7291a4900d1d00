"""``--data.streaming``: what it trains and measures on, what it says, and what it refuses."""

import types
from itertools import islice

import pytest
from datasets import IterableDataset

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.models.tokenizer import BPE
from instructgpt.types import UserError

ROWS = [
    {"prompt": f"ask {i // 2}", "response": f"{i}", "id": f"{i}", "user": f"user {(i + 1) // 6}"}
    for i in range(480)
]  # a user in three shares a prompt with the next
PAIR = {"prompt": "say it", "responses": ["yes", "no"], "ranking": [1, 2]}
TIED = {"prompt": "tied", "responses": ["yes", "no"], "ranking": [1, 1]}


def trainer(**options):
    """What a data module asks its trainer."""
    about = {"max_steps": 60, "max_epochs": -1, "accumulate_grad_batches": 1}
    limits = {"limit_train_batches": 1.0, "val_check_interval": 1.0, "overfit_batches": 0}
    place = {"global_rank": 0, "world_size": 1, "lightning_module": None}
    return types.SimpleNamespace(**{**about, **limits, **place, **options})


@pytest.fixture
def streamed(tokenizer_folder):
    """A data module that is set up to stream."""

    def run(train, kind=DemonstrationDataModule, asked=None, stage="fit", **options):
        defaults = {"tokenizer": tokenizer_folder, "streaming": True, "batch_size": 8}
        data = kind(train=train, **{**defaults, **options})
        data.trainer = trainer(**(asked or {}))
        data.setup(stage)
        return data

    return run


@pytest.fixture
def rows(write):
    return str(write("rows.jsonl", ROWS))


def refused(run, *args, **options):
    with pytest.raises(UserError) as caught:
        run(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trained(data):
    """Numbers of the rows of all batches, in order."""
    loader = data.train_dataloader()
    loader.collate = list
    return [int(row.id) for batch in loader for row in batch]


def held_out(data):
    return [int(row.id) for row in data.validation_rows]


def line_of(data, start):
    (line,) = [line for line in data.summary if line.startswith(start)]
    return line


# -- validation


def test_no_user_and_no_prompt_of_a_fraction_is_trained_on(rows, streamed):
    data = streamed(rows, validation=0.2, shuffle_buffer=240, asked={"max_steps": 120})
    held, seen = held_out(data), set(trained(data))  # two passes
    assert line_of(data, "validation: ") == (
        f"validation: {len(held)} of the first 240 rows, by a hash of user, else prompt or text; "
        "later rows of the same fraction are left out of training"
    )
    assert set(held) <= set(range(240))
    for name in ("user", "prompt"):
        assert not {ROWS[i][name] for i in held} & {ROWS[i][name] for i in seen}
    # 81 users, a fifth of them held out, and the prompts that they share with others
    assert 20 < len(held) < 80
    assert 320 < len(seen) < 420
    assert {ROWS[i]["user"] for i in range(240, 480)} - {ROWS[i]["user"] for i in seen}
    assert len(data.prompt_rows) == len(held)


def test_the_fraction_is_that_of_the_seed_and_not_of_the_order(rows, streamed):
    def held(**options):
        return set(held_out(streamed(rows, validation=0.2, **options)))

    whole = held(shuffle_buffer=1000)
    assert set() < held(shuffle_buffer=100) < whole
    assert held(shuffle_buffer=1000, seed=1) != whole


def test_files_and_none_for_validation(rows, write, streamed):
    other = str(write("other.jsonl", [ROWS[3], {"prompt": "new", "response": "one"}]))
    data = streamed(rows, validation=other)
    assert len(data.validation_rows) == 2
    assert sorted(trained(data)) == list(range(480))
    # rows 2 and 3 have the prompt of a validation row; the first 256 rows were looked at
    assert "with the prompt or text of a validation row" in "\n".join(data._streamed.end())
    data = streamed(rows, validation=None)
    assert data.val_dataloader() == []
    assert sorted(trained(data)) == list(range(480))


def test_one_user_is_on_one_side(write, streamed):
    same = str(write("same.jsonl", [{**row, "user": "ann"} for row in ROWS[:50]]))
    assert streamed(same, validation=0.5, seed=4).validation_rows == []
    message = refused(streamed, same, validation=0.5, seed=0)
    assert message == "--data.validation must leave rows to train on, got 0.5 of 50 rows"


def test_a_fraction_whose_prompts_are_all_there_are_is_refused(write, streamed):
    rows = [{**row, "prompt": f"ask {i % 6}"} for i, row in enumerate(ROWS[1:])]
    message = refused(streamed, str(write("few.jsonl", rows)), validation=0.2)
    assert message.startswith("--data.train: no rows left: ")
    assert "held out for validation" in message


# -- refusals


LATER = "with --data.streaming, where nobody knows how many rows there are"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (DemonstrationDataModule, {"pretraining": "x.jsonl"}, "--data.pretraining must be left"),
        (DemonstrationDataModule, {"cache": "here"}, "--data.cache must be left out with"),
        (DemonstrationDataModule, {"num_proc": 2}, "--data.num_proc must be left out with"),
        (ComparisonDataModule, {"pairwise": True}, "--data.pairwise must be left out with"),
        (TextDataModule, {"bpe": BPE(vocab_size=290)}, "--data.bpe must be left out with"),
        (
            DemonstrationDataModule,
            {"stage": "predict"},
            "--data.streaming must be false to predict, got true",
        ),
        (
            DemonstrationDataModule,
            {"asked": {"max_steps": -1}},
            f"--trainer.max_steps must be given {LATER}, got none",
        ),
        *(
            (
                DemonstrationDataModule,
                {"asked": {name: 0.5}},
                f"--trainer.{name} must be a number of batches {LATER}, got 0.5",
            )
            for name in ("limit_train_batches", "val_check_interval")
        ),
        (
            DemonstrationDataModule,
            {"asked": {"overfit_batches": 2}},
            "--trainer.overfit_batches must be 0 with --data.streaming, got 2",
        ),
    ],
)
def test_what_needs_all_rows_is_refused(rows, streamed, kind, options, message):
    assert refused(streamed, rows, kind, **options).startswith(message)


def test_prompts_are_not_streamed(rows, tokenizer_folder):
    message = refused(
        PromptDataModule, train=rows, tokenizer=tokenizer_folder, streaming=True, validation=None
    )
    assert message.startswith("--data.streaming must be false for PromptDataModule, got true: ")


# -- bad rows, and rows of no use


def with_bad(write, place):
    lines = [*ROWS]
    lines[place] = {"prompt": "no response"}
    return str(write("bad.jsonl", lines))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_row_stops_a_run_or_is_counted(write, streamed, workers):
    train = with_bad(write, 450)
    options = {"validation": None, "num_workers": workers, "shuffle_buffer": 40}
    data = streamed(train, **options)
    assert refused(trained, data).startswith(f'{train}:451: "response" is missing')
    data = streamed(train, on_error="skip", asked={"max_steps": 119}, **options)
    assert set(trained(data)) == set(range(480)) - {450}  # almost two passes
    lines = "\n".join(data._streamed.end())
    assert lines.startswith(
        "data as of what was seen, in 2 passes of which each counts its rows again:\n"
    )
    assert f"\n    {train}:451: " in lines


def test_a_bad_row_among_the_first_stops_before_training(write, streamed):
    train = with_bad(write, 5)
    assert refused(streamed, train, validation=None, shuffle_buffer=40).startswith(f"{train}:6: ")
    assert refused(streamed, train, validation=0.1).startswith(f"{train}:6: ")


def test_all_tied_comparisons_never_train_and_are_counted(write, streamed):
    pairs = [{**(TIED if i % 4 == 0 else PAIR), "id": f"{i}"} for i in range(80)]
    data = streamed(str(write("pairs.jsonl", pairs)), ComparisonDataModule, validation=None)
    assert line_of(data, "dropped ").startswith("dropped 33: all tied (first: ")
    assert line_of(data, "streaming: ").startswith(
        "streaming: these are counts of the first 128 rows, some of them again in another pass;"
    )
    batches = islice(data.train_dataloader(), 20)
    assert {int(name) % 4 for batch in batches for name in batch.ids} == {1, 2, 3}


# -- steps


def test_passes_are_not_asked_for(rows, streamed):
    note = (
        "an epoch is the whole run of --trainer.max_steps, 60: --trainer.max_epochs 3 ends nothing"
    )
    assert note in streamed(rows, validation=None, asked={"max_epochs": 3}).summary
    for options in ({}, {"max_epochs": 3, "limit_train_batches": 5}):
        assert note not in streamed(rows, validation=None, asked=options).summary


# -- the hub


class Hub:
    """Stands in for the library's way to the hub, whose network may end."""

    def __init__(self, fails_at=None):
        self.fails_at, self.asked = fails_at, []

    def load_dataset(self, name, split, **options):
        self.asked.append((name, split, options))
        return IterableDataset.from_generator(self.rows)

    def rows(self):
        for number, row in enumerate(ROWS):
            if number == self.fails_at:
                raise ConnectionError("the host is unreachable\nand more")
            yield row


@pytest.fixture
def hub(monkeypatch):
    def put(**options):
        one = Hub(**options)
        monkeypatch.setattr("datasets.load_dataset", one.load_dataset)
        return one

    return put


def test_a_data_set_of_the_hub(hub, rows, streamed):
    one = hub()
    data = streamed("owner/name:half", validation=0.2)
    assert one.asked == [("owner/name", "half", {"streaming": True})]
    file = streamed(rows, validation=0.2)
    assert trained(data) == trained(file)
    assert held_out(data) == held_out(file)


def test_a_network_that_ends_is_one_line(hub, streamed):
    hub(fails_at=400)
    data = streamed("owner/name", validation=None, shuffle_buffer=20)
    message = refused(trained, data)
    wrong = "ConnectionError: 'the host is unreachable'"
    assert message == f"owner/name:401: cannot be read: {wrong}"
