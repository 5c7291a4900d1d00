"""Files to read and a tokenizer to load, for the tests of data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pytest


@pytest.fixture(scope="session")
def eos_padded_folder(eos_padded_tokenizer, tmp_path_factory):
    """A tokenizer whose padding is EOS, as a folder."""
    folder = tmp_path_factory.mktemp("eos_padded")
    eos_padded_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def write(tmp_path):
    """Write rows (objects), text or bytes into a file, and return its path."""

    def write_file(name, content) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        data = content.encode() if isinstance(content, str) else content
        if name.lower().endswith(".gz"):
            data = gzip.compress(data)
        elif name.lower().endswith(".zst"):
            data = pyarrow.compress(data, codec="zstd", asbytes=True)
        path.write_bytes(data)
        return path

    return write_file


@pytest.fixture
def demonstrations(write):
    """Twenty demonstrations of different lengths."""
    rows = [
        {"prompt": f"say {i} " + "hello " * (i % 4), "response": "world " * (1 + i % 5)}
        for i in range(20)
    ]
    return str(write("demonstrations.jsonl", rows))


@pytest.fixture
def text_file(write):
    """Five short documents."""
    rows = [{"text": f"document {i}: " + "the quick brown fox " * (i + 2)} for i in range(5)]
    return str(write("text.jsonl", rows))
