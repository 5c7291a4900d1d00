"""What all data modules share: sources, splits, errors, summary, loaders."""

import gzip
import json
import sys
import types

import pytest

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule
from instructgpt.types import UserError

GOOD = [{"prompt": f"prompt {i}", "response": f"response {i}"} for i in range(30)]


@pytest.fixture
def make(tokenizer_folder):
    """A demonstration module that is set up."""

    def build(train, stage="fit", **kwargs):
        data = DemonstrationDataModule(train=train, tokenizer=tokenizer_folder, **kwargs)
        data.setup(stage)
        return data

    return build


def texts(data, rows):
    return {data.tokenizer.decode(row.tokens).replace("<|endoftext|>", "") for row in rows}


def stop(make, train, **kwargs):
    with pytest.raises(UserError) as caught:
        make(train, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- sources


def test_file_folder_list_and_weights(write, make):
    one = write("set/one.jsonl", GOOD[:10])
    two = write("set/two.jsonl.gz", GOOD[10:30])
    write("set/notes.txt", "not data")
    folder = make(str(one.parent), validation=None)
    assert len(folder.train_rows) == 30
    assert "ignored in " in "\n".join(folder.summary)
    assert len(make([str(one), str(two)], validation=None).train_rows) == 30
    weighted = make({str(one): 2.0, str(two): 0.5}, validation=None, batch_size=1)
    assert [group.share for group in weighted.train_sets.groups] == [20, 10]
    assert len(weighted.train_dataloader()) == 30
    assert "train: 10 rows, 20 drawn a pass" in weighted.summary


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_must_be_positive(make, weight):
    message = stop(make, {"a.jsonl": weight})
    assert message == f"--data.train: the weight of a.jsonl must be > 0, got {weight}"


def test_nothing_to_read(make, tmp_path):
    assert "must name at least one file" in stop(make, [])
    assert "the folder must hold files (.jsonl, " in stop(make, str(tmp_path))
    missing = str(tmp_path / "missing.jsonl")
    assert stop(make, missing) == f"{missing}: no such file"
    missing = str(tmp_path / "folder")
    assert stop(make, missing) == f"{missing}: no such file or folder"
    assert stop(make, "notes.txt") == "notes.txt: no such file or folder"


def test_data_sets_by_name(make, monkeypatch):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": 3}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    data = make("owner/name:test", validation=None, on_error="skip")
    assert asked == [("owner/name", "test")]
    assert len(data.train_rows) == 1
    assert 'owner/name:2: "response" must be a string' in stop(make, "owner/name").replace(
        ":test", ""
    )


def test_data_sets_that_cannot_be_loaded(make, monkeypatch):
    def load_dataset(name, split):
        raise ConnectionError("no network\nat all")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    message = stop(make, "owner/name")
    assert message.startswith(
        "owner/name: must be a file, a folder, or a data set that can be loaded"
    )


# -- bad rows


def test_a_bad_row_stops_or_is_skipped_and_listed(write, make):
    path = write("a.jsonl", [*GOOD, {"prompt": "x", "response": False}, {"prompt": "y"}])
    message = f'{path}:31: "response" must be a string, got False'
    hint = "; --data.on_error skip counts bad rows instead"
    assert stop(make, str(path)) == f"{message}{hint}"
    data = make(str(path), on_error="skip", validation=None)
    assert len(data.train_rows) == 30
    assert f"read {path}: 30 demonstration (prompt, response), 2 bad" in data.summary
    assert "skipped 2 bad rows, the first:" in data.summary
    assert f"  {message}" in data.summary


def test_a_file_that_cannot_be_read_stops_even_when_skipping(tmp_path, make):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(GOOD[0]).encode() + b"\n")[:-3])
    assert "must be a whole gzip file" in stop(make, str(path), on_error="skip")


def test_no_rows_left(write, make):
    path = write("a.jsonl", [{"prompt": "a long prompt", "response": "x"}] * 3)
    message = stop(make, str(path), validation=None, max_prompt_tokens=2, drop_long_prompts=True)
    assert message.startswith("--data.train: no rows left: 3 prompt longer than 2 tokens (")
    assert f"{path}:1" in message
    bad = write("b.jsonl", [{"prompt": "x"}])
    assert "no rows left: 1 bad (" in stop(make, str(bad), validation=None, on_error="skip")


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_nothing_to_measure_on_is_said(write, make, stage):
    message = stop(make, str(write("a.jsonl", GOOD)), stage=stage, validation=None)
    assert message == f"--data.validation must hold rows to {stage}, got None"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 0}, "--data.batch_size must be >= 1, got 0"),
        ({"max_prompt_tokens": 0}, "--data.max_prompt_tokens must be >= 1, got 0"),
        ({"max_response_tokens": -1}, "--data.max_response_tokens must be >= 1, got -1"),
        ({"num_workers": -1}, "--data.num_workers must be >= 0, got -1"),
        (
            {"validation": 1.5},
            "--data.validation must be a fraction between 0 and 1, files, or null",
        ),
        ({"validation": 0}, "--data.validation must be a fraction between 0 and 1, files, or null"),
        ({"pretraining_fraction": 1.0}, "--data.pretraining_fraction must be between 0 and 1, got"),
        ({"pretraining_block_size": 1}, "--data.pretraining_block_size must be >= 2, got 1"),
    ],
)
def test_wrong_arguments(make, demonstrations, kwargs, message):
    assert stop(make, demonstrations, **kwargs).startswith(message)


def test_tokenizer_is_needed(demonstrations):
    with pytest.raises(UserError, match=r"--data.tokenizer must be known, got none"):
        DemonstrationDataModule(train=demonstrations).setup("fit")


# -- splits


def test_no_user_and_no_prompt_is_in_two_splits(write, make):
    rows = [
        {"prompt": f"p{i % 60}", "response": f"r{i}", **({"user": f"u{i % 7}"} if i % 3 else {})}
        for i in range(90)
    ]
    data = make(str(write("a.jsonl", rows)), validation=0.4)
    train, held = texts(data, data.train_rows), texts(data, data.validation_rows)
    left_out = [row for row in rows if row["prompt"] + row["response"] not in train | held]
    assert train
    assert held
    trained_prompts = {row["prompt"] for row in rows if row["prompt"] + row["response"] in train}
    trained_users = {row.get("user") for row in rows if row["prompt"] + row["response"] in train}
    for row in rows:
        if row["prompt"] + row["response"] in held:
            assert row["prompt"] not in trained_prompts
            assert row.get("user", "none") not in trained_users
    assert left_out
    assert all(row["prompt"] in trained_prompts for row in left_out)
    line = f"dropped {len(left_out)}: validation row with a prompt that is trained on (first: "
    assert any(shown.startswith(line) for shown in data.summary)


def test_split_ignores_order_and_follows_the_seed(write, make):
    one, two = write("a.jsonl", GOOD), write("b.jsonl", GOOD[::-1])
    first, second = make(str(one), validation=0.3), make(str(two), validation=0.3)
    held = texts(first, first.validation_rows)
    assert held == texts(second, second.validation_rows)
    third = make(str(one), validation=0.3, seed=1)
    assert held != texts(third, third.validation_rows)


def test_validation_that_leaves_nothing(write, make):
    path = write("a.jsonl", GOOD[:1] * 5)
    message = stop(make, str(path), validation=0.999)
    assert message == "--data.validation must leave rows to train on, got 0.999 of 5 rows"
    data = make(str(path), validation=0.001)
    assert data.val_dataloader() == data.test_dataloader() == data.prompt_dataloader() == []
    assert any("all rows share one user or prompt" in line for line in data.summary)


def test_validation_files_and_their_overlap(write, make):
    train, held = write("a.jsonl", GOOD[:20]), write("b.jsonl", GOOD[18:])
    data = make(str(train), validation=str(held))
    assert (len(data.train_rows), len(data.validation_rows)) == (20, 12)
    assert any(line.startswith("warning: the prompts or texts of 2 ") for line in data.summary)


def test_predict_sees_every_row(write, make):
    train, held = write("a.jsonl", GOOD[:20]), write("b.jsonl", GOOD[20:])
    for validation in (0.3, None):
        data = make(str(train), stage="predict", validation=validation)
        assert (data.train_rows, len(data.validation_rows)) == ([], 20)
    data = make(str(train), stage="predict", validation=[str(held)])
    assert len(data.validation_rows) == 10
    data.setup("fit")  # fit, then predict, in one process
    assert len(data.train_rows) == 20


# -- summary


def test_summary_is_printed_once(demonstrations, tokenizer_folder, capsys):
    data = DemonstrationDataModule(train=demonstrations, tokenizer=tokenizer_folder)
    data.setup("fit")
    data.setup("validate")
    printed = capsys.readouterr().out
    assert printed.count("data: DemonstrationDataModule") == 1
    assert f"read {demonstrations}: 20 demonstration (prompt, response)" in printed
    assert "validation: 1 of 20 rows, by a hash of user, else prompt" in printed
    assert "prompt tokens: 5% " in printed
    assert "response tokens: 5% " in printed
    assert "example, the trained part in ⟦ ⟧:\n    | say " in printed


def test_only_primitives_are_saved(demonstrations, text_file, tokenizer_folder):
    from instructgpt.models.tokenizer import BPE

    text = TextDataModule(train=text_file, bpe=BPE(300))
    others = [cls(train=demonstrations) for cls in (ComparisonDataModule, PromptDataModule)]
    for data in (text, *others, DemonstrationDataModule(train={demonstrations: 1.0})):
        saved = dict(data.hparams)
        assert "bpe" not in saved
        assert saved["seed"] == 0
        json.dumps(saved)


# -- ranks and batches


class FakeTrainer:
    """The facts a data module asks of a trainer."""

    def __init__(self, rank, world, overfit=0):
        self.global_rank, self.world_size, self.overfit_batches = rank, world, overfit


def documents(batch, trained=False):
    """Tokens of each, or of those with a target: what fills up a batch has none."""
    lengths = batch.rows.layout.lengths.tolist()
    parts = zip(batch.rows.tokens.split(lengths), batch.targets.split(lengths), strict=True)
    return [row.tolist() for row, targets in parts if targets.any() or not trained]


def test_ranks_see_the_same_global_batches(make, demonstrations):
    def batches(rank, world, size, name):
        data = make(demonstrations, batch_size=size, validation=0.3)
        data.trainer = FakeTrainer(rank, world)
        loader = getattr(data, name)()
        assert data.world_size == world
        return list(loader)

    for name in ("train_dataloader", "val_dataloader"):
        one = batches(0, 1, 4, name)
        two = [batches(rank, 2, 2, name) for rank in range(2)]
        assert len(one) == len(two[0]) == len(two[1])
        for whole, left, right in zip(one, *two, strict=True):
            assert whole.targets.sum() == left.targets.sum() + right.targets.sum()
            rows = [row for batch in (left, right) for row in documents(batch, trained=True)]
            assert rows == documents(whole)


def test_epochs_differ_unless_overfitting(make, demonstrations):
    for overfit, same in ((0, False), (1, True)):
        data = make(demonstrations)
        data.trainer = FakeTrainer(0, 1, overfit)
        loader = data.train_dataloader()
        first = documents(next(iter(loader)))
        loader.set_epoch(1)
        assert (documents(next(iter(loader))) == first) == same


def test_template_is_plain_unless_the_artefact_says_otherwise(
    make, demonstrations, tokenizer_folder
):
    assert make(demonstrations).template.name == "plain"
    assert make(demonstrations, template="alpaca").template.name == "alpaca"
