"""The four data modules, each with what only it does."""

import itertools
import json
from collections import Counter
from functools import partial

import pytest
import torch
from compared import sequence

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.sections import SECTION
from instructgpt.data.text import TextDataModule
from instructgpt.models.tokenizer import BPE
from instructgpt.types import ComparisonBatch, LanguageBatch, PromptBatch, UserError


def ready(cls, train, stage="fit", **kwargs):
    data = cls(train=train, **kwargs)
    data.setup(stage)
    return data


@pytest.fixture
def build(tokenizer_folder):
    return partial(ready, tokenizer=tokenizer_folder)


# -- text


def stream_of(data, rows):
    return torch.cat([row.tokens for row in rows]).tolist()


@pytest.mark.parametrize("folder", ["tokenizer_folder", "eos_padded_folder"])
def test_text_blocks(request, text_file, folder):
    tokenizer = request.getfixturevalue(folder)
    data = ready(TextDataModule, text_file, tokenizer=tokenizer, validation=None, block_size=16)
    with open(text_file) as file:
        documents = [json.loads(line)["text"] for line in file]
    expected = []
    for document in documents:
        expected += data.tokenizer(document)["input_ids"] + [data.tokenizer.eos_token_id]
    assert stream_of(data, data.train_rows) == expected
    lengths = [len(row.tokens) for row in data.train_rows]
    assert set(lengths[:-1]) == {16}
    assert lengths[-1] == len(expected) % 16
    assert any(f"the last one has {lengths[-1]}" in line for line in data.summary)
    batch = data.collate(data.train_rows[-2:])
    assert isinstance(batch, LanguageBatch)
    # as in GPT, documents of a block see each other: it is one segment
    assert batch.rows.layout.lengths.tolist() == lengths[-2:]
    assert batch.targets.tolist() == [position > 0 for n in lengths[-2:] for position in range(n)]
    assert data.row_tokens == 128  # 64 + 64 tokens of a sampled continuation


def test_text_is_held_out_without_loss_or_eos_between_neighbours(build, write):
    text = "".join(f"line {i} of a long book\n" for i in range(20_000))
    assert len(text) > 20 * SECTION
    one, two = (
        str(write(f"{name}.jsonl", [{"text": text} for text in texts]))
        for name, texts in (("a", [text, "short"]), ("b", ["other"]))
    )
    sets = {one: 1.0, two: 1.0}
    data = build(TextDataModule, sets, validation=0.3, block_size=4096, max_prompt_tokens=512)
    end = "<|endoftext|>"

    def documents(rows):
        tokens = [token for row in rows for token in row.tokens.tolist()]
        assert tokens[-1] == data.tokenizer.eos_token_id
        return data.tokenizer.decode(tokens).removesuffix(end).split(end)

    rest, held = documents(data.train_rows), documents(data.validation_rows)
    assert sum(map(len, rest + held)) == len(text) + len("shortother")
    assert 0.1 < sum(map(len, held)) / len(text) < 0.5
    book = sorted((text.index(d), d in held) for d in rest + held if d.startswith("line"))
    assert book[0][0] == 0
    assert all(text[start - 1] == "\n" for start, _ in book[1:])
    # neighbours on one side were joined: sides alternate along the book
    assert all(a[1] != b[1] for a, b in itertools.pairwise(book))
    starts = [prompt.prompt.text for prompt in data.prompt_rows]
    assert all(document.startswith(start) for document, start in zip(held, starts, strict=True))


def test_text_prompts_are_beginnings_of_validation_documents(build, text_file):
    data = build(TextDataModule, text_file, validation=text_file, max_prompt_tokens=4)
    (batch,) = data.prompt_dataloader()
    assert isinstance(batch, PromptBatch)
    assert batch.tokens.shape == (5, 4)
    assert batch.prompts[0].text == data.tokenizer.decode(batch.tokens[0])
    assert "document 0: the quick".startswith(batch.prompts[0].text)
    assert batch.sample_ids.tolist() == [0, 1, 2, 3, 4]


class Folder:
    """A trainer that only has a folder."""

    global_rank, world_size, overfit_batches, fast_dev_run = 0, 1, 0, False
    ckpt_path = lightning_module = None

    def __init__(self, path):
        self.default_root_dir = str(path)


def test_text_trains_a_tokenizer_once(text_file, tmp_path, monkeypatch):
    def prepared(vocab_size=280, train=text_file):
        data = TextDataModule(train=train, bpe=BPE(vocab_size), validation=None)
        data.trainer = Folder(tmp_path)
        data.prepare_data()
        return data

    data = prepared()
    data.setup("fit")
    assert len(data.tokenizer) == 280
    record = tmp_path / "tokenizer" / "made_from.json"
    made = record.stat().st_mtime_ns
    prepared()
    assert record.stat().st_mtime_ns == made  # the same text and settings: used again
    prepared(281)
    assert record.stat().st_mtime_ns != made
    assert not (tmp_path / "tokenizer.partial").exists()


def test_text_without_any_tokenizer(text_file):
    with pytest.raises(UserError, match=r"--data.bpe must be given where there is no tokenizer"):
        ready(TextDataModule, text_file)


def test_text_validation_must_leave_some(build, write):
    path = str(write("one.jsonl", [{"text": "one"}]))
    with pytest.raises(UserError, match=r"--data.validation must leave text to train on, got 0.99"):
        build(TextDataModule, path, validation=0.99)


# -- demonstrations


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_pretraining_mix_is_a_fraction_of_the_sequences(build, demonstrations, text_file, fraction):
    data = build(
        DemonstrationDataModule,
        demonstrations,
        validation=None,
        pretraining=text_file,
        pretraining_fraction=fraction,
        pretraining_block_size=8,
        batch_size=1,
    )
    demonstration_rows, mixed = data.train_sets.groups
    assert mixed.share / (mixed.share + demonstration_rows.share) == pytest.approx(
        fraction, abs=0.02
    )
    loader = data.train_dataloader()
    seen = Counter()
    for epoch in range(3):
        loader.set_epoch(epoch)
        seen.update(row for batch in loader.batches(epoch) for row in batch)
    blocks = list(range(mixed.start, mixed.start + mixed.size))
    assert all(seen[row] == 3 for row in range(20))
    counts = [seen[row] for row in blocks]
    assert sum(counts) == 3 * mixed.share
    assert max(counts) - min(counts) <= 1  # all of the text before any of it again
    assert all(row.trained == 1 for row in data.train_rows[mixed.start :])


def test_demonstration_validation_has_prompts(build, demonstrations):
    data = build(DemonstrationDataModule, demonstrations, validation=0.3)
    rows = sum(len(batch.rows.layout.lengths) for batch in data.val_dataloader())
    prompts = [prompt for batch in data.prompt_dataloader() for prompt in batch.prompts]
    assert rows == len(prompts) == len(data.validation_rows) > 1
    for row, prompt in zip(data.validation_rows, data.prompt_rows, strict=True):
        assert torch.equal(row.tokens[: row.trained], prompt.tokens)


# -- comparisons


@pytest.fixture
def comparisons(write):
    rows = [
        {
            "prompt": "a",
            "responses": ["x", "y", "z"],
            "ranking": [1, 2, 2],
            "labeler": "l1",
            "id": "a",
        },
        {"prompt": "b", "responses": ["x", "y"], "ratings": [1, 5], "source": "other", "id": "b"},
        {"prompt": "c", "responses": ["x", "y"], "ranking": [1, 1], "id": "c"},
    ]
    return str(write("comparisons.jsonl", rows))


def test_comparisons(build, comparisons):
    data = build(ComparisonDataModule, comparisons, validation=comparisons)
    (batch,) = data.val_dataloader()
    assert isinstance(batch, ComparisonBatch)
    assert batch.ranking.tolist() == [[1, 2, 2], [2, 1, 0], [1, 1, 0]]
    assert batch.ids == ["a", "b", "c"]
    assert batch.labelers == ["l1", "", ""]
    assert batch.sources == ["comparisons", "other", "comparisons"]
    # a, b and c are one token each, so are responses and EOS: [prompt, response, EOS]
    assert data.tokenizer.decode(sequence(batch, 1, 0)) == "bx<|endoftext|>"
    assert int(batch.rows.layout.lengths.sum()) == 3 + 7 * 2  # prompts once
    # twice (train and validation): a has 2 decided pairs and a tie, b one, c a tie
    assert "rankings: K=2 4, K=3 2; 6 decided pairs, 4 ties" in data.summary
    said = "2 rows, those of validation counted, are all tied: nothing is learned or measured"
    assert any(said in line for line in data.summary)
    assert len(data.prompt_rows) == 3


def test_validation_must_hold_a_decided_pair(build, comparisons, write):
    rows = [{"prompt": "d", "responses": ["x", "y"], "ranking": [1, 1]}] * 2
    tied = str(write("tied.jsonl", rows))
    with pytest.raises(UserError, match=r"^--data.validation must hold .*, got 2 tied rows$"):
        build(ComparisonDataModule, comparisons, validation=tied)
    build(ComparisonDataModule, tied, "predict")  # nothing is measured
    build(ComparisonDataModule, comparisons, validation=None)


def test_pairwise(build, comparisons):
    data = build(ComparisonDataModule, comparisons, validation=None, pairwise=True)
    # a: x over y, x over z; b: y over x; c: none
    found = [
        (*(data.tokenizer.decode([*row.prompt, *one]) for one in row.responses), row.ranking)
        for row in data.train_rows
    ]
    end = "<|endoftext|>"
    assert found == [
        (f"ax{end}", f"ay{end}", (1, 2)),
        (f"ax{end}", f"az{end}", (1, 2)),
        (f"by{end}", f"bx{end}", (1, 2)),
    ]
    batch = next(iter(data.train_dataloader()))
    assert batch.ranking.tolist() == [[1, 2]] * 3


def test_demonstrations_for_the_offset(build, comparisons, demonstrations):
    assert (
        build(ComparisonDataModule, comparisons, validation=None).demonstration_dataloader() is None
    )
    data = build(ComparisonDataModule, comparisons, validation=None, demonstrations=demonstrations)
    batches = list(data.demonstration_dataloader())
    assert all(isinstance(batch, LanguageBatch) for batch in batches)
    assert sum(int(batch.targets[batch.rows.layout.last].sum()) for batch in batches) == 20
    assert "demonstrations for the offset: 20 rows" in data.summary


# -- prompts


@pytest.fixture
def prompts(build, write, text_file):
    path = str(write("prompts.jsonl", [{"prompt": f"p{i}" + "x" * (i % 3)} for i in range(10)]))
    return build(
        PromptDataModule, path, validation=None, pretraining=text_file, pretraining_block_size=16
    )


def test_rollouts_go_through_all_prompts_again_and_again(prompts):
    seen, ids = [], []
    for phase in range(5):
        batch = prompts.rollout_prompts(phase, 4, 0, 1)
        assert isinstance(batch, PromptBatch)
        seen += [prompt.text for prompt in batch.prompts]
        ids += batch.sample_ids.tolist()
    assert len(set(seen[:10])) == len(set(seen[10:])) == 10
    assert seen[:10] != seen[10:]
    assert ids == list(range(20))


def test_rollouts_are_left_padded(prompts):
    batch = prompts.rollout_prompts(0, 10, 0, 1)
    lengths = [len(prompts.tokenizer(prompt.text)["input_ids"]) for prompt in batch.prompts]
    width = max(lengths)
    assert min(lengths) < width
    assert batch.mask.tolist() == [[False] * (width - n) + [True] * n for n in lengths]


@pytest.mark.parametrize("world", [2, 4])
def test_rollouts_do_not_depend_on_the_number_of_ranks(prompts, world):
    for phase in (0, 3):
        whole = prompts.rollout_prompts(phase, 8, 0, 1)
        parts = [prompts.rollout_prompts(phase, 8, rank, world) for rank in range(world)]
        assert [p for part in parts for p in part.prompts] == whole.prompts
        assert torch.cat([part.sample_ids for part in parts]).equal(whole.sample_ids)


@pytest.mark.parametrize("world", [2, 4])
def test_pretraining_rows(prompts, world):
    assert prompts.row_tokens == 1024
    whole = prompts.pretraining_rows(2, 8, 0, 1)
    assert isinstance(whole, LanguageBatch)
    parts = [prompts.pretraining_rows(2, 8, rank, world) for rank in range(world)]
    assert torch.cat([part.rows.tokens for part in parts]).equal(whole.rows.tokens)
    lengths = torch.cat([part.rows.layout.lengths for part in parts])
    assert lengths.equal(whole.rows.layout.lengths)
    again = prompts.pretraining_rows(2, 8, 0, 1)
    assert again.rows.tokens.equal(whole.rows.tokens)
    count = len(prompts.blocks)
    epoch = [prompts.pretraining_rows(i, 1, 0, 1).rows.tokens.tolist() for i in range(count)]
    assert sorted(epoch) == sorted(block.tokens.tolist() for block in prompts.blocks)


def test_pretraining_must_be_given(build, write):
    path = str(write("p.jsonl", [{"prompt": "x"}, {"prompt": "y"}]))
    data = build(PromptDataModule, path)
    with pytest.raises(UserError, match=r"--data.pretraining must name text"):
        data.pretraining_rows(0, 2, 0, 1)
    with pytest.raises(UserError, match=r"--data.responses must be >= 1, got 0"):
        PromptDataModule(train=path, responses=0)


def test_prediction_keeps_file_order_and_ids_are_unique(build, write):
    path = str(write("p.jsonl", [{"prompt": f"prompt {i}"} for i in range(7)]))
    data = build(PromptDataModule, path, "predict", validation_batch_size=3)
    batches = list(data.predict_dataloader())
    assert [p.text for b in batches for p in b.prompts] == [f"prompt {i}" for i in range(7)]
    assert torch.cat([b.sample_ids for b in batches]).tolist() == list(range(7))


def test_train_loader_is_that_of_the_module(prompts):
    class Module:
        def update_loader(self):
            return "indices"

    prompts.trainer = Folder("")
    prompts.trainer.lightning_module = Module()
    assert prompts.train_dataloader() == "indices"
