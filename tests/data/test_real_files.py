"""The engineers' copies of public data, read as they are; skipped where they are absent."""

from pathlib import Path

import pytest

from instructgpt.data.comparisons import ComparisonDataModule
from instructgpt.data.demonstrations import DemonstrationDataModule
from instructgpt.data.prompts import PromptDataModule
from instructgpt.data.text import TextDataModule

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data")


@pytest.mark.parametrize(
    ("cls", "names", "rows", "kwargs"),
    [
        (TextDataModule, ["ci/text"], None, {}),
        (DemonstrationDataModule, ["ci/demonstrations"], 192, {}),
        (ComparisonDataModule, ["ci/comparisons"], 330, {"on_error": "skip"}),
        (PromptDataModule, ["ci/prompts", "ci/to-label"], 144, {}),
        (PromptDataModule, ["dev/prompts", "dev/to-label"], 453, {}),
        (DemonstrationDataModule, ["dev/demonstrations/oasst.jsonl.gz"], 151, {}),
        (ComparisonDataModule, ["dev/comparisons/oasst-kwise.jsonl.gz"], 130, {}),
        (DemonstrationDataModule, ["native/alpaca.json.gz"], 252, {}),
        (DemonstrationDataModule, ["native/messages.jsonl.gz"], 151, {"template": "hh"}),
        (ComparisonDataModule, ["native/hh-transcripts.jsonl.gz"], 300, {"template": "hh"}),
    ],
)
def test_read(cls, names, rows, kwargs, tokenizer_folder):
    files = [str(DATA / name) for name in names]
    data = cls(train=files, tokenizer=tokenizer_folder, **kwargs)
    data.setup("fit")
    if rows:
        assert len(data.train_rows) + len(data.validation_rows) == rows
    assert data.validation_rows
    assert next(iter(data.val_dataloader()))
    assert next(iter(data.prompt_dataloader())).prompts
