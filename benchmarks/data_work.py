"""What benchmarks/data.py times: one way to prepare one set, in a process of its own.

    python benchmarks/data_work.py WAY KIND FOLDER TOKENIZER PROCESSES

WAY is ours, datasets (``map`` with the bare tokenizer, which is all it does), trl (what SFTTrainer
prepares) or litdata (as litgpt's TextFiles calls it). The last line is JSON: tokens, seconds and
CPU seconds of this process and its children from the files to what training reads, imports not
counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

KINDS = ("text", "demonstrations")


def _ours(kind: str, files: list[str], tokenizer: str, processes: int, scratch: str) -> Any:
    from instructgpt.data.demonstrations import DemonstrationDataModule
    from instructgpt.data.text import TextDataModule

    common: dict[str, Any] = {"validation": None, "cache": scratch, "num_proc": processes}
    common |= {"train": files, "tokenizer": tokenizer, "batch_size": 8}
    data: Any
    if kind == "text":
        data = TextDataModule(**common)
    else:
        data = DemonstrationDataModule(**common, template="plain")
    yield
    data.setup("fit")
    yield int(data.train_rows.lengths.sum())


def _datasets(kind: str, files: list[str], tokenizer: str, processes: int, scratch: str) -> Any:
    import datasets
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(tokenizer)
    datasets.disable_progress_bars()

    def text(batch: dict[str, list[str]]) -> dict[str, Any]:
        return {"input_ids": bare(batch["text"])["input_ids"]}

    def pairs(batch: dict[str, list[str]]) -> dict[str, Any]:
        return {
            "prompt_ids": bare(batch["prompt"])["input_ids"],
            "response_ids": bare(batch["response"])["input_ids"],
        }

    yield
    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=scratch)
    done = rows.map(
        text if kind == "text" else pairs,
        batched=True,
        num_proc=processes if processes > 1 else None,
        remove_columns=rows.column_names,
    )
    yield sum(
        len(column.values) for name in done.column_names for column in done.data.column(name).chunks
    )


def _trl(kind: str, files: list[str], tokenizer: str, processes: int, scratch: str) -> Any:
    import datasets
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
    from trl import SFTConfig, SFTTrainer

    bare = AutoTokenizer.from_pretrained(tokenizer)
    size = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 1024}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(bare), **size))
    datasets.disable_progress_bars()
    arguments = SFTConfig(
        output_dir=scratch,
        dataset_num_proc=processes if processes > 1 else None,
        max_length=512 if kind == "text" else 1024,
        packing=kind == "text",
        packing_strategy="wrapped",
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    yield
    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=scratch)
    if kind == "demonstrations":
        rows = rows.rename_column("response", "completion")
    trainer = SFTTrainer(model, arguments, train_dataset=rows, processing_class=bare)
    yield sum(len(one.values) for one in trainer.train_dataset.data.column("input_ids").chunks)


def _tokens(file: str, tokenizer: Any) -> Iterator[Any]:
    import torch

    with open(file, encoding="utf-8") as lines:
        for line in lines:
            yield torch.tensor(tokenizer(json.loads(line)["text"])["input_ids"])


def _litdata(kind: str, files: list[str], tokenizer: str, processes: int, scratch: str) -> Any:
    from litdata import StreamingDataset, TokensLoader, optimize
    from transformers import AutoTokenizer

    if kind != "text":
        raise SystemExit("litdata: text only")
    fn = partial(_tokens, tokenizer=AutoTokenizer.from_pretrained(tokenizer))
    options = {"num_workers": processes, "chunk_bytes": "50MB"}
    yield
    optimize(fn, files, scratch, item_loader=TokensLoader(block_size=513), **options)
    yield 513 * len(StreamingDataset(scratch, item_loader=TokensLoader(block_size=513)))


WAYS: dict[str, Callable[[str, list[str], str, int, str], Any]] = {
    "ours": _ours,
    "datasets": _datasets,
    "trl": _trl,
    "litdata": _litdata,
}


def _cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def main() -> None:
    """Prepare one set and print what it took."""
    way, kind, folder, tokenizer, count = sys.argv[1:]
    files = sorted(str(file) for file in Path(folder).glob("*.jsonl"))
    # Several processes share the cores by themselves; one has the tokenizer's threads instead.
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if int(count) == 1 else "false"
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as scratch:
        run = WAYS[way](kind, files, tokenizer, int(count), scratch)
        next(run)
        start, cpu = time.perf_counter(), _cpu_seconds()
        tokens = next(run)
        seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    print(json.dumps({"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu}))


if __name__ == "__main__":
    main()
