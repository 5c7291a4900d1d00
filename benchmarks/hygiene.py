"""What the rules of `prepare` find and what they miss, on generated truth, and how fast.

    OMP_NUM_THREADS=1 python benchmarks/hygiene.py

Patterns and thresholds were chosen on seeds 1 to 3; the numbers are of other seeds. Texts, planted
data and what only looks like them are made by hygiene_truth.py and near_truth.py;
hygiene_unseen.py has forms that were written down after the patterns. Where datatrove
is installed, its rule for personal data reads the same texts. The numbers go into
results/hygiene.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hygiene_truth import Planted, personal_texts
from hygiene_unseen import unseen_texts
from near_truth import EDITS, Pair, jaccard, near_texts

from instructgpt.functional.intervals import share_interval
from instructgpt.hygiene.clean_row import CleanRow
from instructgpt.hygiene.contamination import Decontamination
from instructgpt.hygiene.language import LanguageFilter
from instructgpt.hygiene.minhash import HASHES, clusters, signatures
from instructgpt.hygiene.near import NearDuplicates
from instructgpt.hygiene.personal import PersonalData
from instructgpt.hygiene.unsafe import UnsafeResponses
from instructgpt.hygiene.words import ngrams, numbers, words

HERE = Path(__file__).parent
SEEDS = (101, 102, 103)
Find = Callable[[str], list[tuple[str, int, int]]]


def share(hits: int, count: int) -> dict[str, Any]:
    """A share with its 95 % interval."""
    if not count:
        return {"of": 0}
    low, high = share_interval(hits / count, count)
    rounded = [round(one, 4) for one in (hits / count, low, high)]
    return {"share": rounded[0], "interval": rounded[1:], "of": count}


def unseen(find: Find, each: int) -> dict[str, Any]:
    """How often something is found of forms that the patterns were not written for."""
    hits: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    for seed in SEEDS:
        for text in unseen_texts(seed, each):
            begin = text.text.index(text.value)
            end = begin + len(text.value)
            name = f"{text.kind}: {text.form}"
            planted[name] += 1
            hits[name] += any(
                kind == text.kind and begin <= first < last <= end
                for kind, first, last in find(text.text)
            )
    return {name: share(hits[name], planted[name]) for name in planted}


def personal(find: Find, each: int) -> dict[str, Any]:
    """Recall by kind and by form, precision by kind, and what was taken for something."""
    planted: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    fooled: Counter[str] = Counter()
    lookalikes = 0
    for seed in SEEDS:
        for text in personal_texts(seed, each):
            found = find(text.text)
            right = [one for one in found if is_right(text, one)]
            lookalikes += not text.kind
            for name in (text.kind, f"{text.kind}: {text.form}") if text.kind else ():
                planted[name] += 1
                hits[name] += bool(right)
            for kind, _, _ in set(found) - set(right):
                wrong[kind] += 1
                fooled[f"{text.form} taken for {kind}"] += 1
    kinds = [name for name in sorted(planted) if ":" not in name]
    return {
        "recall": {name: share(hits[name], planted[name]) for name in sorted(planted)},
        "precision": {kind: share(hits[kind], hits[kind] + wrong[kind]) for kind in kinds},
        "texts that only look like it": lookalikes,
        "taken for something": dict(fooled.most_common()),
    }


def is_right(text: Planted, found: tuple[str, int, int]) -> bool:
    """Whether what was planted was found: at least half of its characters, and nothing else."""
    kind, start, end = found
    begin = text.text.index(text.value)
    inside = begin <= start and end <= begin + len(text.value)
    least = 0.2 if text.kind == "credentials" else 0.5  # the rest is an address of the net
    return kind == text.kind and inside and end - start >= least * len(text.value)


def peer() -> Find | None:
    """The personal data that datatrove's formatter finds."""
    try:
        from datatrove.pipeline.formatters.pii import PIIFormatter
    except ImportError:
        return None
    formatter = PIIFormatter()

    def find(text: str) -> list[tuple[str, int, int]]:
        places = [("email", m) for m in formatter.emails_replacer.regex.finditer(text)]
        judged = formatter.ip_replacer.validator or (lambda _: True)
        places += [
            ("ip", m) for m in formatter.ip_replacer.regex.finditer(text) if judged(m.group(0))
        ]
        return [(kind, *match.span()) for kind, match in places]

    return find


def row_of(text: str, place: int) -> CleanRow:
    turns = [{"role": "user", "content": text}]
    return CleanRow(
        f"f:{place}", "prompts", str(place), text, turns, [], [], "", "", "", "f", "train", {}
    )


def near(rule: NearDuplicates, count: int) -> dict[str, Any]:
    """Recall by edit and by similarity, and precision: how many of the dropped are copies."""
    found: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    dropped, copies = 0, 0
    for seed in SEEDS:
        texts = near_texts(seed, count, copies=0.2)
        rows = [row_of(one.text, place) for place, one in enumerate(texts)]
        decision = rule.decide(rule.keys(rows), np.zeros(len(rows), np.uint8))
        dropped += int(decision.dropped.sum())
        for place, one in enumerate(texts):
            if one.copy_of >= 0:
                copies += int(decision.dropped[place])
                for name in (one.edit, f"similarity {tenth(texts, one)}"):
                    planted[name] += 1
                    found[name] += int(decision.dropped[place])
    similarities = sorted(name for name in planted if name.startswith("similarity"))
    return {
        "recall": {name: share(found[name], planted[name]) for name in [*EDITS, *similarities]},
        "precision": share(copies, dropped),
    }


def tenth(texts: Sequence[Pair], copy: Pair) -> str:
    """How similar a copy is to its original, by definition and in runs of three words."""
    true = jaccard(words(copy.text), words(texts[copy.copy_of].text), 3)
    low = min(9, int(true * 10)) / 10
    return f"{low:.1f} to {low + 0.1:.1f}"


def speed(count: int) -> dict[str, float]:
    """Rows a second on one core, of each rule, on rows of some 80 words."""
    texts = near_texts(7, count, copies=0.1)
    rows = [row_of(one.text, place) for place, one in enumerate(texts)]
    answered = [row._replace(kind="demonstrations", responses=[row.prompt]) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        against = Path(folder) / "eval.jsonl"
        against.write_text("".join(json.dumps({"prompt": one.text}) + "\n" for one in texts[:2000]))
        rules: dict[str, Callable[[], object]] = {
            "personal": lambda: PersonalData(action="mask").check_all(rows),
            "near_duplicates, keys": lambda: NearDuplicates().keys(rows),
            "decontaminate": lambda: Decontamination(against=str(against)).check_all(rows),
            "language": lambda: LanguageFilter(keep="en").check_all(rows),
            "responses": lambda: UnsafeResponses(refusals=True).check_all(answered),
        }
        return {name: round(count / seconds) for name, seconds in timed(rules)}


def signature_speed(count: int) -> dict[str, Any]:
    """Rows a second from text to MinHash signature: ours, and others where they are installed."""
    texts = [one.text for one in near_texts(7, count, copies=0.1)]
    ways: dict[str, Callable[[], object]] = {
        "ours, 128 hashes": lambda: signatures(ngrams(numbers([words(text) for text in texts]), 3)),
    }
    with suppress(ImportError):
        from rensa import RMinHash

        def by_rensa() -> None:
            for text in texts:
                said = words(text)
                runs = [" ".join(said[at : at + 3]) for at in range(max(1, len(said) - 2))]
                minhash = RMinHash(num_perm=128, seed=1)
                minhash.update(runs)
                minhash.digest()

        ways["rensa, 128 hashes, our words"] = by_rensa
    with suppress(ImportError):
        step = datatrove_step()
        sums = ["17 plus 25 minus 4 is how many", "93 plus 61 minus 8 is how many"]
        equal = (step.get_shingles(sums[0]) == step.get_shingles(sums[1])).all()
        ways["datatrove, 112 hashes, words by white space"] = lambda: [
            step.get_signature(shingles)
            for shingles in map(step.get_shingles, texts)
            if shingles.size
        ]
        found = {name: round(count / seconds) for name, seconds in timed(ways)}
        short = sum(step.get_shingles(text).size == 0 for text in texts)
        return {**found, "datatrove: sums with other numbers are equal": bool(equal),
                "datatrove: texts without a signature": short}  # fmt: skip
    return {name: round(count / seconds) for name, seconds in timed(ways)}


def datatrove_step() -> Any:
    """Its step with words by white space, not spacy; its default hash fails with xxhash 4."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig, create_hash_func

    class Words:
        word_tokenize = staticmethod(str.split)

    step = MinhashDedupSignature.__new__(MinhashDedupSignature)
    step.config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    step.num_hashes = step.config.num_buckets * step.config.hashes_per_bucket
    step._parameters, step.word_tokenizer = None, Words
    step._hash_func = create_hash_func(step.config.hash_config)
    return step


def timed(rules: dict[str, Callable[[], object]]) -> Iterator[tuple[str, float]]:
    for name, call in rules.items():
        call()
        start = time.process_time()
        call()
        yield name, time.process_time() - start


def large(count: int, path: str, result: Any) -> None:
    """Clusters among many rows, a tenth of them copies; signatures lie on disk."""
    signed = np.lib.format.open_memmap(path, "w+", np.uint32, (count, HASHES))
    rng = np.random.default_rng(0)
    for start in range(0, count, 10_000):
        block = rng.integers(0, 2**32, (min(10_000, count - start), HASHES), np.uint32)
        if start:
            block[:1000] = signed[rng.integers(0, start, 1000)]
            block[:1000, :16] += 1  # 16 of 128 differ: a similarity of 0.875
        signed[start : start + len(block)] = block
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_time = time.perf_counter()
    first = clusters(np.load(path, mmap_mode="r"), 0.7)
    result.put({
        "rows": count,
        "seconds": round(time.perf_counter() - start_time, 1),
        "dropped": int((first != np.arange(count)).sum()),
        "MiB before": before // 1024,
        "MiB at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    })  # fmt: skip


def in_a_process(count: int) -> Any:
    """``large`` alone, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=large, args=(count, f"{folder}/signed.npy", result))
        process.start()
        told = result.get()
        process.join()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=300, help="texts a generator and seed")
    parser.add_argument("--near", type=int, default=10_000, help="texts a seed")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the largest run")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "hygiene.json")
    options = parser.parse_args()
    other = peer()
    common = {"similarity": 0.7}
    results = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seeds": SEEDS,
        "personal": personal(PersonalData().find, options.each),
        "personal, forms that were not foreseen": unseen(PersonalData().find, options.each // 3),
        "personal, datatrove": None if other is None else personal(other, options.each),
        "near_duplicates": near(NearDuplicates(), options.near),
        "near_duplicates, runs of 5 words": near(NearDuplicates(words=5, **common), options.near),
        "rows a second on one core": speed(5_000),
        "signatures, rows a second on one core": signature_speed(5_000),
        "clusters": in_a_process(options.rows),
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
